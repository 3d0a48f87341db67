"""The loop around a step that needs no compilation: interruptions, bad steps, rows of metrics."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bert_emd_jax.encoding.batching import BatchSchedule
from bert_emd_jax.encoding.dataset import EncodedDataset
from bert_emd_jax.errors import Interrupted, UserError
from bert_emd_jax.training.checkpoints import Checkpoints, Progress
from bert_emd_jax.training.row_source import TaskRows
from bert_emd_jax.training.run import Run
from bert_emd_jax.training.state import create_state, unless_nonfinite
from bert_emd_jax.training.trainer import Trainer
from bert_emd_jax.training.training_config import FinetuneConfig

ROWS = 40
DATASET = EncodedDataset(
    token_ids=np.ones(3 * ROWS, np.int32),
    offsets=np.arange(0, 3 * ROWS + 1, 3),
    segment_a_lengths=np.full(ROWS, 3),
    labels=np.zeros(ROWS, np.int32),
    pad_id=0,
)
STATE = create_state({"dense": {"bias": np.zeros(1, np.float32)}}, optax.sgd(0.1), seed=0)


class ToyTrainer(Trainer):
    """Adds 1 / number of the step to one parameter, and says when SIGTERM comes."""

    program = "toy"
    primary_metric = "accuracy"

    def __init__(self, config: FinetuneConfig, events, bad) -> None:
        nothing: Any = None
        super().__init__(config, nothing, TaskRows(DATASET, BatchSchedule(DATASET.lengths, (8,), 8, seed=0)))
        self.events, self.bad, self.evaluations = events, bad, []

    def inputs(self) -> dict[str, str]:
        return {}  # it has no model

    def initial_state(self):
        return STATE

    def step(self, batch, epoch=0):
        before = self.state
        number = int(before.step) + 1
        if ("step", number) in self.events:
            os.kill(os.getpid(), signal.SIGTERM)
        loss = jnp.asarray(np.inf if number in self.bad else 1 / number, jnp.float32)
        bias = before.params["dense"]["bias"] + loss
        after = before.replace(step=before.step + 1, params={"dense": {"bias": bias}})
        self.state = unless_nonfinite(before, after, loss, jnp.ones(()))
        rate = self._schedule(self.numbers)(self.state.step)
        bad = self.state.bad_steps
        return {"loss": loss, "gradient_norm": jnp.ones(()), "learning_rate": rate, "bad_steps": bad}

    def evaluate(self) -> dict[str, float]:
        self.evaluations.append(float(self.state.params["dense"]["bias"][0]))
        if ("evaluation", len(self.evaluations)) in self.events:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"accuracy": -abs(self.evaluations[-1] - 2.9)}

    def loss(self, params, batch, step):
        raise AssertionError("a toy's step knows its losses")

    def results(self, model):
        raise AssertionError("no toy is exported")


def run(directory: Path, *, events=(), bad=(), **flags) -> Progress:
    """Twenty steps, an evaluation after every fifth.

    events: ("step" or "evaluation", number) at which SIGTERM comes. bad: steps whose loss is not finite.
    """
    flags = {"num_train_epochs": 4, "train_batch_size": 8, "log_steps": 2} | flags
    paths = {"bert_model": Path("m"), "data_dir": Path("d"), "output_dir": directory}
    trainer = ToyTrainer(FinetuneConfig(task_name="sst-2", **paths, **flags), events, bad)
    under_way = Run(trainer)
    assert under_way.finished_results() is None
    with under_way:
        for epoch, batch in under_way.steps():
            under_way.after_step(trainer.step(batch, epoch))
    return under_way.progress


def metrics(directory: Path) -> list[dict]:
    rows = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in row.items() if name != "examples_per_second"} for row in rows]


def final_bias(directory: Path) -> float:
    checkpoints = Checkpoints(directory / "checkpoints")
    state, _ = checkpoints.restore_newest(STATE)
    checkpoints.close()
    return float(state.params["dense"]["bias"][0])


@pytest.mark.parametrize(
    "event", [("step", 1), ("step", 7), ("step", 10), ("step", 20), ("evaluation", 2), ("evaluation", 4)]
)
def test_sigterm_leaves_a_checkpoint_and_the_resumed_run_ends_the_same(tmp_path, event):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    progress = run(whole)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match=r"SIGTERM at step \d+ of 20; .* --resume") as interrupted:
        run(broken, events=[event])
    assert interrupted.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is handler
    assert run(broken, resume=True) == progress
    assert progress.best_step == 10
    # The same rows, numbers and order, although the interruption fell between two rows.
    assert metrics(broken) == metrics(whole)
    assert final_bias(broken) == final_bias(whole)


def test_a_second_signal_ends_at_once(tmp_path):
    class SendsTwo(list):
        def __contains__(self, event) -> bool:
            if event == ("step", 3):
                os.kill(os.getpid(), signal.SIGINT)
                return True
            return False

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", events=SendsTwo())


def test_bad_steps_are_skipped_counted_and_left_out_of_the_means(tmp_path):
    run(tmp_path / "run", bad=(3, 7, 8))
    rows = {row["step"]: row for row in metrics(tmp_path / "run") if row["kind"] == "train"}
    assert [rows[step]["bad_steps"] for step in (2, 4, 8, 10)] == [0, 1, 2, 0]
    assert rows[4]["loss"] == pytest.approx(1 / 4)
    assert rows[8]["loss"] is None
    good = [1 / step for step in range(1, 21) if step not in (3, 7, 8)]
    assert final_bias(tmp_path / "run") == pytest.approx(sum(good), rel=1e-6)


def test_too_many_bad_steps_end_the_run_with_what_is_known(tmp_path):
    directory = tmp_path / "run"
    with pytest.raises(
        UserError, match=r"4 steps in a row \(--max_bad_steps\), the last at step 12 \(loss\)"
    ):
        run(directory, bad=range(9, 21), max_bad_steps=3, save_steps=2)
    known = json.loads((directory / "bad_steps.json").read_text())
    assert [row["step"] for row in known] == [11, 12]
    assert all(len(row["training_rows"]) == 8 and row["not_finite"] == ["loss"] for row in known)
    # The last checkpoint holds what the last good step made.
    assert final_bias(directory) == pytest.approx(sum(1 / step for step in range(1, 9)), rel=1e-6)


def test_two_bad_steps_in_a_row_do_not_end_a_run_that_allows_three(tmp_path):
    assert run(tmp_path / "run", bad=(3, 4, 6, 7), max_bad_steps=3).best_step
