"""What accelerators do for short runs, here on a CPU: nothing but the time that they take is another one."""

import threading

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from bert_emd_jax.devices.compile_ahead import CompileAhead
from bert_emd_jax.devices.device_needs import device_needs
from bert_emd_jax.distillation.distill_config import DistillConfig
from bert_emd_jax.distillation.task_trainers import task_trainer
from bert_emd_jax.models.params import flatten
from bert_emd_jax.training import run, trainer


@pytest.fixture
def cache_of_programs(tmp_path):
    """An empty cache that keeps programs however quickly they are compiled."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    compilation_cache.reset_cache()
    for name, value in zip(names, (str(tmp_path / "programs"), 0), strict=True):
        jax.config.update(name, value)
    jax.clear_caches()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def missed():
    """By thread ("main", "others"), how many programs were not in the cache; counts for this test alone."""
    counts, counting = {"main": 0, "others": 0}, [True]

    def count(event: str, **_: object) -> None:
        if counting and event == "/jax/compilation_cache/cache_misses":
            counts["main" if threading.current_thread() is threading.main_thread() else "others"] += 1

    jax.monitoring.register_event_listener(count)
    yield counts
    counting.clear()


def trained(model, task, output_dir, seen=None):
    """Results and weights of a short run; `seen` is called before each evaluation."""
    config = DistillConfig(
        teacher_model=str(model),
        student_init_layers=(1, 3),
        data_dir=task,
        task_name="custom",
        output_dir=output_dir,
        num_train_epochs=2,
        train_batch_size=8,
        max_seq_length=12,
        token_cache=False,
    )
    training = task_trainer(config)
    evaluate = training.evaluate

    def look_and_evaluate():
        if seen is not None:
            seen(training)
        return evaluate()

    training.evaluate = look_and_evaluate
    results = training.train()
    return results, flatten(jax.device_get(training.state.params))


def test_the_run_is_the_same_and_finds_what_it_needs_compiled(
    tmp_path, monkeypatch, cache_of_programs, missed, tiny_model_dir, task_dir
):
    model = tiny_model_dir("model")
    expected, weights = trained(model, task_dir, tmp_path / "plain")
    jax.clear_caches()
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "others"))
    needs = device_needs()._replace(
        compiles_ahead=True,
        copies_ahead=True,
        rows_for_tuning=10**6,
        step_options={"xla_cpu_enable_fast_math": False},
    )
    for module in (run, trainer):
        monkeypatch.setattr(module, "device_needs", lambda: needs)
    moments = []

    def seen(training):
        assert len(training._programs) >= 1
        moments.append(dict(missed))

    results, again = trained(model, task_dir, tmp_path / "ahead", seen)
    assert moments[0]["others"] >= 1
    # Of both models for the scores, and for sentences one by one and in batches.
    assert missed["others"] >= 6
    assert missed["main"] == moments[0]["main"]
    for facts in (expected, results):
        del facts["timed_on"]
        for name in ("student", "teacher"):
            del facts[name]["milliseconds_per_sentence"]
    assert results == expected
    for path, leaf in weights.items():
        np.testing.assert_allclose(again[path], leaf, rtol=1e-5, atol=1e-6, err_msg=path)


def test_nothing_is_begun_after_the_end():
    ahead, begun = CompileAhead(), []
    ahead.start([("evaluate", lambda: begun.append(1)), ("export", lambda: begun.append(2))])
    ahead.close()
    ahead.wait("evaluate")
    assert not begun


def test_a_task_that_fails_is_left_to_who_needs_it():
    def fails():
        raise RuntimeError

    ahead, begun = CompileAhead(), []
    ahead.start([("evaluate", fails), ("evaluate", lambda: begun.append(1))])
    ahead.first_step_is_done()
    ahead.wait("evaluate")
    assert begun == [1]
    ahead.close()
