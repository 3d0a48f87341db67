"""Programs of the study that train nothing: they leave what the real ones leave, with scores of their own."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from comparison.commands import Study
from comparison.execution import RunFailedError

LABELS = ("bad", "good")
TRUE = [row % 2 for row in range(40)]


class FakePrograms:
    """Called as `execution.Programs` is.

    score: of a command's flags. fails: commands with this text. limit: programs until somebody interrupts.
    """

    def __init__(self, score: Callable[[dict[str, str]], float], fails: str = "\n", limit: int = 1000):
        self.score, self.fails, self.limit = score, fails, limit
        self.commands: list[str] = []

    def __call__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        line = shlex.join(command)
        self.commands.append(line)
        if len(self.commands) > self.limit:
            raise KeyboardInterrupt
        if self.fails in line:
            raise RunFailedError("exit code 2")
        flags = dict(zip(command[1::2], command[2::2], strict=False))
        if command[0] == "run_augment.py":
            header, *rows = (Path(flags["--data_dir"]) / "train.csv").read_text().splitlines()
            text = "\n".join([header, *rows, *rows])
            (Path(flags["--data_dir"]) / "train_aug.csv").write_text(text)
            return
        directory = Path(flags["--output_dir"])
        directory.mkdir(parents=True)
        for name in ("checkpoints", "params", "pytorch", "tensorboard"):
            (directory / name).mkdir()
        if command[0] != "run_pretrain_data.py":
            write_run(directory, self.score(flags), command)


def write_train_rows(study: Study) -> None:
    """Three training rows of the task of these studies."""
    study.data("rotten_tomatoes").mkdir(parents=True)
    (study.data("rotten_tomatoes") / "train.csv").write_text("text,label\na,1\nb,0\nc,1\n")


def write_run(directory: Path, score: float, command: Sequence[str]) -> None:
    general = "--pregenerated_data" in command
    metric = "held_out_loss" if general else "accuracy"
    right = round(score * len(TRUE))
    predicted = [label if row < right else 1 - label for row, label in enumerate(TRUE)]
    student = {"metrics": {metric: score}, "parameters": 1000, "layers": 3, "hidden_size": 8}
    results = {"primary_metric": metric, "labels": LABELS, "student": student}
    (directory / "eval_results.json").write_text(json.dumps(results))
    rows: list[dict] = [{"step": 0, "kind": "eval", "held_out_loss": 7.0}] if general else []
    rows += [
        {"step": step, "kind": "train", "examples_per_second": 10.0 * step, "soft_loss": 1 / step}
        for step in (1, 2, 3)
    ]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"versions": {"python": "3", "jax": "1"}, "devices": ["a device"], "git_revision": "abc"}
    (directory / "run_config.json").write_text(json.dumps(config))
    predictions = [
        {"text": "a\x85 film\u2028", "label": LABELS[true], "student": np.eye(2)[found].tolist()}
        for true, found in zip(TRUE, predicted, strict=True)
    ]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in predictions]
    (directory / "dev_predictions.jsonl").write_text("".join(lines), encoding="utf-8")
    if "emd" in command and not general:
        weights = np.linspace([1 / 6] * 6, [0.3, 0.2, 0.2, 0.1, 0.1, 0.1], 40)
        costs = np.arange(18).reshape(3, 6) / 10
        plan = {"flow": np.full((40, 3, 6), 1 / 18), "cost": np.tile(costs, (40, 1, 1))}
        plan |= {"student_weights": np.full((40, 3), 1 / 3), "teacher_weights": weights}
        arrays = {
            f"{kind}_{name}": values for kind in ("attention", "hidden") for name, values in plan.items()
        }
        np.savez(directory / "layer_mapping.npz", steps=np.arange(40), **arrays)
