"""Inference over several devices, and compiler options that another jaxlib may not know."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
import pytest

from bert_emd_jax.devices import parallel
from bert_emd_jax.devices.device_needs import QUICK_COMPILATION

ON_FOUR_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from bert_emd_jax.devices.parallel import ShardedForward, replicate, split_for_prediction

def forward(params, batch):
    return {"rows": batch["x"] @ params, "sum": jnp.sum(batch["x"]), "index": jax.lax.axis_index("devices")}

params, x = np.arange(6.0, dtype="float32").reshape(3, 2), np.arange(24.0, dtype="float32").reshape(8, 3)
results = ShardedForward(forward)(replicate(params), split_for_prediction({"x": x}))
np.testing.assert_allclose(np.asarray(results["rows"]).reshape(8, 2), x @ params)
np.testing.assert_allclose(results["sum"], x.reshape(4, -1).sum(axis=1))
assert results["index"].tolist() == [0, 1, 2, 3]
assert len(results["rows"].sharding.device_set) == 4
"""


AHEAD = """
import jax
import numpy as np

from bert_emd_jax.devices.parallel import DEVICES, on_devices, pmap_step, replicate, split_for_training

step = pmap_step(lambda state, _, batch: (state + jax.lax.psum((batch["x"] * batch["x"]).sum(), DEVICES), ()))
batch = split_for_training({"x": np.arange(8.0, dtype=np.float32)})
put = on_devices(batch)
assert len(put["x"].sharding.device_set) == 4
assert [shard.data.shape for shard in put["x"].addressable_shards] == [(1, 1, 2)] * 4
ours, theirs = (float(step(replicate(np.float32(1)), None, arrays)[0]) for arrays in (put, batch))
assert ours == theirs == 141
"""


def test_a_batch_is_split_over_the_devices(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    subprocess.run([sys.executable, "-c", ON_FOUR_DEVICES], check=True)


@pytest.mark.parametrize("options", [{"xla_no_such_option": ""}, {}])
def test_options_that_a_jaxlib_does_not_know_are_left_out(monkeypatch, options):
    monkeypatch.setitem(parallel._INFERENCE_OPTIONS, jax.default_backend(), options)
    parallel._inference_options.cache_clear()
    try:
        doubled = parallel.jit_inference(lambda x: 2 * x)(jnp.arange(3))
        assert not parallel._inference_options(jax.default_backend())
    finally:
        parallel._inference_options.cache_clear()
    np.testing.assert_array_equal(doubled, [0, 2, 4])


@pytest.mark.skipif(not jaxlib.version.__version__.startswith("0.10."), reason="options of jaxlib 0.10")
def test_the_jaxlib_that_needs_the_options_knows_them():
    assert parallel._inference_options("cpu") == parallel._INFERENCE_OPTIONS["cpu"] != {}


def test_other_backends_have_options_of_their_own():
    assert parallel._inference_options("tpu") is None
    assert parallel._inference_options("gpu") == QUICK_COMPILATION


def test_a_batch_is_put_where_the_step_asks_for_it(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    subprocess.run([sys.executable, "-c", AHEAD], check=True)
