"""What a run says of its costs: compilations counted, memory, a trace, compiled programs kept."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from bert_emd_jax.devices.device_config import SpeedConfig
from bert_emd_jax.runs.run_costs import RunCosts, keep_compiled_programs
from bert_emd_jax.runs.step_trace import StepTrace


def test_compilations_and_memory_are_counted_until_the_end():
    costs = RunCosts()
    before = costs.so_far()
    assert before["seconds_compiling"] == 0
    assert before["seconds_to_first_step"] is None
    jax.jit(lambda x: jnp.sin(x) + 17.25)(jnp.ones(3)).block_until_ready()
    costs.first_step_is_done()
    after = costs.so_far()
    assert 0 < after["seconds_compiling"] < after["seconds_to_first_step"] <= after["seconds"]
    assert after["peak_host_bytes"] > 50e6  # an interpreter with JAX
    costs.close()
    jax.jit(lambda x: jnp.cos(x) + 17.25)(jnp.ones(3)).block_until_ready()
    assert costs.so_far()["seconds_compiling"] == after["seconds_compiling"]


@pytest.mark.parametrize(("steps", "run", "traced"), [(2, 14, True), (2, 11, True), (0, 14, False)])
def test_a_trace_of_some_steps(tmp_path, steps, run, traced):
    trace = StepTrace(tmp_path / "trace", steps)
    for done in range(run):
        trace.before_step(done, jnp.zeros(()))
    trace.close()  # also where the run ends in the middle
    assert bool(list(tmp_path.rglob("*.xplane.pb"))) == traced
    with jax.profiler.trace(str(tmp_path / "other")):  # none is left open
        pass


@pytest.fixture
def cache_settings():
    names = ("dir", "max_size")
    names = (*(f"jax_compilation_cache_{name}" for name in names), "jax_enable_compilation_cache")
    names += ("jax_persistent_cache_min_compile_time_secs",)
    before = {name: getattr(jax.config, name) for name in names}
    yield before
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_compiled_programs_are_kept(tmp_path, monkeypatch, cache_settings):
    keep_compiled_programs(SpeedConfig())  # JAX's own setting stands
    assert jax.config.jax_compilation_cache_dir == cache_settings["jax_compilation_cache_dir"]
    keep_compiled_programs(SpeedConfig(compilation_cache=False))
    assert not jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    monkeypatch.setenv("BERT_EMD_JAX_CACHE", str(tmp_path / "cache"))
    for config, directory in (
        (SpeedConfig(compilation_cache_dir=tmp_path / "named"), tmp_path / "named"),
        (SpeedConfig(), tmp_path / "cache" / "compiled"),
    ):
        jax.config.update("jax_compilation_cache_dir", None)
        keep_compiled_programs(config)
        compilation_cache.reset_cache()
        jax.clear_caches()
        jax.jit(lambda x: jnp.tan(x) + 3.125)(jnp.ones(5)).block_until_ready()
        assert list(directory.iterdir())
    assert jax.config.jax_compilation_cache_max_size > 0
