import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from bert_emd_jax.models.dropout import dropout, random_uint16


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.003])
@pytest.mark.parametrize("generator", ["threefry2x32", "rbg"])
def test_drops_the_share_and_keeps_the_mean(rate, generator):
    x = jnp.full((1000, 1000), 2.0)
    key = jax.random.key(0, impl=generator)
    dropped = np.asarray(dropout(x, rate, random_uint16(key, x.shape)))
    share = np.mean(dropped == 0)
    assert abs(share - rate) < 5 * np.sqrt(rate * (1 - rate) / x.size) + 2**-17
    assert dropped.mean() == pytest.approx(2.0, rel=5e-3)
    assert np.unique(dropped).size == 2
    again = np.asarray(dropout(x, rate, random_uint16(key, x.shape)))
    np.testing.assert_array_equal(dropped, again)


def test_nothing_happens_without_a_key_or_at_rate_0():
    x = jnp.arange(4.0)[None]
    assert dropout(x, 0.5, None) is x
    assert dropout(x, 0.0, random_uint16(jax.random.key(0), x.shape)) is x


@pytest.mark.parametrize("count", [1, 7, 100_000])
@pytest.mark.parametrize("generator", ["threefry2x32", "rbg"])
def test_every_bit_is_a_fair_coin_of_its_own(count, generator):
    drawn = np.asarray(random_uint16(jax.random.key(3, impl=generator), (count,)))
    assert (drawn.shape, drawn.dtype) == ((count,), np.uint16)
    bits = np.unpackbits(drawn.view(np.uint8).reshape(count, 2), axis=1).astype(float)
    if count < 1000:
        return
    limit = 5 / np.sqrt(count)
    signs = 2 * bits - 1
    assert np.abs(signs.mean(axis=0)).max() < limit
    # Of one element; of neighbours; of the two that come from one draw.
    half = count // 2
    beside, drawn_with = signs[1:].T @ signs[:-1], signs[:half].T @ signs[half:]
    assert np.abs(signs.T @ signs / count - np.eye(16)).max() < limit
    assert np.abs(beside).max() / count < limit
    assert np.abs(drawn_with).max() / half < limit * np.sqrt(2)


def test_accelerators_draw_from_their_own_generator():
    key = jax.random.key_data(jax.random.key(0, impl="rbg"))

    def draw(data):
        return random_uint16(jax.random.wrap_key_data(data, impl="rbg"), (2, 4))

    for platform, own in (("tpu", True), ("cuda", True), ("cpu", False)):
        lowered = jax.export.export(jax.jit(draw), platforms=[platform])(key).mlir_module()
        assert ("rng_bit_generator" in lowered) == own
