"""float16: the scale's rule against Flax's own, steps against float32, overflows that pass."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from distillation.test_distill_step import config, split, trainer_of, uneven_batch
from flax.training.dynamic_scale import DynamicScale

from bert_emd_jax.devices.parallel import replicate
from bert_emd_jax.distillation.trainer import DistillTrainer
from bert_emd_jax.training.checkpoints import Checkpoints, Progress
from bert_emd_jax.training.loss_scale import initial_loss_scale, next_loss_scale
from bert_emd_jax.training.nonfinite import means


def test_the_rule_is_that_of_flax():
    ours = initial_loss_scale("float16").replace(growth_interval=3)
    theirs = DynamicScale(growth_interval=3, minimum_scale=1.0)
    rng = np.random.default_rng(0)
    finite = np.concatenate([rng.random(60) < 0.9, np.zeros(20, bool), np.ones(20, bool)])
    for is_finite in finite:
        gradient = jnp.float32(1.0 if is_finite else jnp.inf)
        theirs, was_finite, _, _ = theirs.value_and_grad(lambda x, g=gradient: x * g)(jnp.float32(1))
        assert bool(was_finite) == is_finite
        ours = next_loss_scale(ours, jnp.asarray(is_finite))
        assert float(ours.scale) == float(theirs.scale)
        assert int(ours.fin_steps) == int(theirs.fin_steps)
    assert float(ours.scale) > 1
    assert initial_loss_scale("bfloat16") is None


def steps_of(trainer: DistillTrainer, count: int, micro_batches: int = 1) -> list[dict[str, float]]:
    """Scalars of steps on all devices, on rows of their own."""
    measured = []
    for number in range(count):
        batch = split(uneven_batch(seed=number, rows=24 * micro_batches), jax.device_count(), micro_batches)
        measurements = trainer.step(batch)  # pyright: ignore[reportArgumentType]
        measured.append(
            {name: float(value) for name, value in measurements.items() if getattr(value, "ndim", None) == 0}
        )
    return measured


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_steps_are_those_of_float32(micro_batches):
    flags = {"beta": 0.5, "gradient_accumulation_steps": micro_batches}
    runs = {dtype: trainer_of(config(dtype=dtype, **flags)) for dtype in ("float32", "float16")}
    for trainer in runs.values():
        # Adam would make whole steps of the last digits of a gradient
        trainer.optimizer = lambda numbers: optax.sgd(0.1)
    (wide, narrow) = (steps_of(trainer, 4, micro_batches) for trainer in runs.values())
    for ours, theirs in zip(narrow, wide, strict=True):
        assert ours["loss_scale"] == 2**16
        assert ours["skipped_steps"] == ours["bad_steps"] == 0
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, rel=5e-3, abs=1e-6), name
    start = trainer_of(config()).initial_state().params
    ends = [jax.device_get(trainer.state.params) for trainer in runs.values()]
    for before, wide_end, narrow_end in zip(*map(jax.tree.leaves, (start, *ends)), strict=True):
        moved = np.abs(wide_end - before).max()
        np.testing.assert_allclose(narrow_end, wide_end, rtol=0, atol=0.02 * moved + 1e-7)


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_an_overflow_is_skipped_whole_and_passes(micro_batches):
    trainer = trainer_of(config(dtype="float16", gradient_accumulation_steps=micro_batches))
    state = trainer.initial_state()
    trainer.state = replicate(state.replace(loss_scale=state.loss_scale.replace(scale=np.float32(2.0**30))))
    measured = steps_of(trainer, 25, micro_batches)
    skipped = [row["skipped_steps"] for row in measured]
    count = int(sum(skipped))
    assert skipped[:3] == [1, 1, 1]
    assert skipped[-1] == 0
    assert count < 15
    for row, following in itertools.pairwise(measured):
        assert following["loss_scale"] == row["loss_scale"] / (2 if row["skipped_steps"] else 1)
    assert {row["bad_steps"] for row in measured} == {0}
    after = jax.device_get(trainer.state)
    assert int(after.step) == 25
    assert int(after.loss_scale.fin_steps) == skipped[::-1].index(1)
    # The optimizer knows of the good steps alone.
    counts = {
        int(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(after.optimizer_state)
        if "count" in str(path)
    }
    assert counts == {25 - count}
    row = means(measured)
    assert (row["skipped_steps"], row["bad_steps"]) == (count, 0)
    assert np.isfinite(row["gradient_norm"])


def test_what_no_scale_helps_is_bad():
    trainer = trainer_of(config(dtype="float16"))
    state = trainer.initial_state()
    state.params["classifier"]["bias"][0] = np.nan
    trainer.state = replicate(state)
    measured = steps_of(trainer, 2)
    assert [(row["bad_steps"], row["skipped_steps"]) for row in measured] == [(1, 0), (2, 0)]


def test_the_scale_is_in_checkpoints(tmp_path):
    """And a checkpoint without one is read with that of a new run."""
    narrow, wide = trainer_of(config(dtype="float16")).initial_state(), trainer_of(config()).initial_state()
    grown = narrow.replace(loss_scale=narrow.loss_scale.replace(scale=np.float32(8), fin_steps=np.int32(5)))
    for name, state, expected in (("with", grown, (8, 5)), ("without", wide, (2**16, 0))):
        checkpoints = Checkpoints(tmp_path / name)
        checkpoints.save(state, Progress())
        checkpoints.wait()
        restored = checkpoints.restore_newest(narrow)
        checkpoints.close()
        assert restored is not None
        scale = restored.state.loss_scale
        assert (float(scale.scale), int(scale.fin_steps)) == expected
        np.testing.assert_array_equal(
            restored.state.params["classifier"]["kernel"], state.params["classifier"]["kernel"]
        )
