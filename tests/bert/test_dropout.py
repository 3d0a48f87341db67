import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_emd_jax.bert.dropout import Dropout


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.003])
@pytest.mark.parametrize("generator", ["threefry2x32", "rbg"])
def test_drops_the_share_and_keeps_the_mean(rate, generator):
    x = jnp.full((1000, 1000), 2.0)
    key = jax.random.key(0, impl=generator)
    dropped = np.asarray(Dropout(rate).apply({}, x, False, rngs={"dropout": key}))
    share = np.mean(dropped == 0)
    assert abs(share - rate) < 5 * np.sqrt(rate * (1 - rate) / x.size) + 2**-17
    assert dropped.mean() == pytest.approx(2.0, rel=5e-3)
    assert np.unique(dropped).size == 2
    again = np.asarray(Dropout(rate).apply({}, x, False, rngs={"dropout": key}))
    np.testing.assert_array_equal(dropped, again)


def test_nothing_happens_when_deterministic_or_at_rate_0():
    x = jnp.arange(4.0)
    np.testing.assert_array_equal(Dropout(0.5).apply({}, x, True), x)
    np.testing.assert_array_equal(Dropout(0.0).apply({}, x, False), x)
