"""A run directory as a distillation would leave it, made from formulas."""

import json
from pathlib import Path
from typing import Any

import numpy as np

STUDENT_LAYERS, TEACHER_LAYERS, STEPS = 3, 6, 400


def config() -> dict[str, Any]:
    return {
        "program": "run_distill",
        "command_line": "run_distill.py --teacher_model demo_output/teacher --student_init_layers 1,3,5 "
        "--task_name rotten_tomatoes --data_dir data --output_dir demo_output/student",
        "flags": {
            "teacher_model": "demo_output/teacher",
            "student_init_layers": [1, 3, 5],
            "task_name": "rotten_tomatoes",
            "learning_rate": 3e-5,
            "train_batch_size": 32,
            "num_train_epochs": 2.0,
            "alpha": 1.0,
            "beta": 0.01,
            "theta": 1.0,
            "temperature": 1.0,
            "mapping": "emd",
            "layer_weight_rule": "normalize",
            "separate_layer_weights": False,
            "check_every": 50,
            "max_steps": None,
            "seed": 42,
        },
        "flag_sources": {
            "teacher_model": "given",
            "student_init_layers": "given",
            "task_name": "given",
            "beta": "preset bert_emd_4",
        },
        "versions": {"python": "3.11.7", "jax": "0.10.2", "flax": "0.12.1", "numpy": "2.4.0"},
        "git_revision": "0f3c2a9d41",
        "devices": ["cpu", "cpu"],
        "started": "2026-01-15T09:30:00+00:00",
    }


def model(role: str) -> dict[str, Any]:
    teacher = role == "teacher"
    return {
        "metrics": {"accuracy": 0.8235 if teacher else 0.8049, "f1": 0.8261 if teacher else 0.8012},
        "parameters": 22713986 if teacher else 17389826,
        "layers": TEACHER_LAYERS if teacher else STUDENT_LAYERS,
        "hidden_size": 384,
        "heads": 12,
        "intermediate_size": 1536,
        "file_bytes": 90864192 if teacher else 69567544,
        "flops_per_sentence": 600136120.32 if teacher else 300216284.16,
        "milliseconds_per_sentence": {"1": 8.41, "32": 2.37} if teacher else {"1": 4.52, "32": 1.19},
    }


def results() -> dict[str, Any]:
    return {
        "task": "rotten_tomatoes",
        "split": "dev",
        "primary_metric": "accuracy",
        "labels": ["negative", "positive"],
        "best_step": 350,
        "student": model("student"),
        "teacher": model("teacher"),
    }


def metric_rows(steps: int = STEPS, finetune: bool = False) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    rows, best = [], 0.0
    for step in range(1, steps + 1):
        fall = np.exp(-3 * step / steps)
        noise = lambda spread: float(np.exp(rng.normal(0, spread)))
        row = {
            "step": step,
            "kind": "train",
            "epoch": 2 * step / steps,
            "loss": (0.12 + 0.4 * fall) * noise(0.12),
            "learning_rate": 3e-5 * min(step / (0.1 * steps), (steps - step) / (0.9 * steps)),
            "gradient_norm": (0.8 + 2 * fall) * noise(0.3),
            "examples_per_second": 61.0 * noise(0.08),
        }
        if not finetune:
            row |= {
                "attention_loss": (0.9 + 3.5 * fall) * noise(0.06),
                "hidden_loss": (0.05 + 0.3 * fall) * noise(0.05),
                "embedding_loss": (0.002 + 0.02 * fall) * noise(0.05),
                "prediction_loss": (0.11 + 0.3 * fall) * noise(0.12),
                "soft_loss": (0.11 + 0.3 * fall) * noise(0.12),
                "hard_loss": (0.3 + 0.4 * fall) * noise(0.2),
                "attention_gap": 0.0 if rng.random() < 0.3 else 3e-5 * noise(1.0),
                "hidden_gap": 1.2e-4 * noise(0.9),
            }
        rows.append(row)
        if step % max(steps // 8, 1) == 0:
            score = float(0.81 - 0.12 * np.exp(-4 * step / steps) - (0.01 if step == steps else 0.0))
            rows.append(
                {
                    "step": step,
                    "kind": "eval",
                    "epoch": 2 * step / steps,
                    "accuracy": score,
                    "f1": score - 0.006,
                    "primary": "accuracy",
                    "best": score > best,
                }
            )
            best = max(best, score)
            if not finetune:
                rows.append(
                    {
                        "step": step,
                        "kind": "check",
                        "attention_gap": 1e-5 * noise(1.0),
                        "hidden_gap": 6e-5 * noise(0.8),
                        "attention_exact": 1.2,
                        "hidden_exact": 0.08,
                    }
                )
    return rows


def mapping(
    students: int = STUDENT_LAYERS, teachers: int = TEACHER_LAYERS, steps: int = STEPS, logged_steps: int = 41
) -> dict[str, np.ndarray]:
    """Plans that start near the product of the weights and sharpen towards the diagonal."""
    rng = np.random.default_rng(1)
    recorded = np.linspace(0, steps, logged_steps).round().astype(int)
    student, teacher = np.arange(1, students + 1) / students, np.arange(1, teachers + 1) / teachers
    arrays: dict[str, list[np.ndarray]] = {}
    for step in recorded:
        progress = step / steps
        weights_s = np.exp(progress * np.linspace(0.35, -0.4, students))
        weights_t = np.exp(progress * np.linspace(-0.6, 0.7, teachers) ** 2)
        weights_s, weights_t = weights_s / weights_s.sum(), weights_t / weights_t.sum()
        for kind, scale in (("attention", 4.0), ("hidden", 0.3)):
            apart = np.abs(student[:, None] - teacher[None] + 0.5 / teachers)
            distance = apart ** (2 if kind == "attention" else 1.2)
            cost = (
                scale * (0.2 + 3 * distance) * (1.2 - progress) * np.exp(rng.normal(0, 0.04, distance.shape))
            )
            flow = np.exp(-(2 + 90 * progress) * distance)
            for _ in range(200):
                flow *= (weights_s / flow.sum(1))[:, None]
                flow *= weights_t / flow.sum(0)
            flow = np.where(flow < 1e-3, 0, flow) if progress > 0.3 else flow
            entries = {
                "flow": flow / flow.sum(),
                "cost": cost,
                "student_weights": weights_s,
                "teacher_weights": weights_t,
            }
            for part, value in entries.items():
                arrays.setdefault(f"{kind}_{part}", []).append(value.astype(np.float32))
    return {"steps": recorded} | {name: np.stack(values) for name, values in arrays.items()}


# The true label, and whether teacher and student are right.
RIGHT = [("negative", t, s) for t, s in [(1, 1)] * 9 + [(1, 0)] * 2 + [(0, 1)]] + [
    ("positive", t, s) for t, s in [(1, 1)] * 7 + [(0, 0)] * 3
]


def predictions(regression: bool = False) -> list[dict[str, Any]]:
    """One row for each entry of RIGHT; the later, the surer both models are."""
    rows = []
    for index, (label, *right) in enumerate(RIGHT):
        row: dict[str, Any] = {"id": f"r{index}", "text": f"sentence {index}", "text_pair": "a second text"}
        row["label"] = index / 4 if regression else label
        for model, is_right in zip(("teacher", "student"), right, strict=True):
            sure = 0.6 + index / 100
            if regression:
                row[model] = index / 4 + (0.1 if is_right else -2.0 - index / 100)
            elif (label == "negative") == bool(is_right):
                row[model] = [sure, 1 - sure]
            else:
                row[model] = [1 - sure, sure]
        rows.append(row)
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_run(run_dir: Path) -> Path:
    """A whole distillation run of 400 steps: 3 student layers, 6 teacher layers."""
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "run_config.json").write_text(json.dumps(config()), encoding="utf-8")
    (run_dir / "eval_results.json").write_text(json.dumps(results()), encoding="utf-8")
    write_rows(run_dir / "metrics.jsonl", metric_rows())
    write_rows(run_dir / "dev_predictions.jsonl", predictions())
    np.savez(run_dir / "layer_mapping.npz", **mapping())
    return run_dir


def write_finetune_run(run_dir: Path) -> Path:
    """A whole fine-tuning run: no plans, no teacher."""
    run_dir.mkdir(parents=True, exist_ok=True)
    settings = config() | {"program": "run_finetune", "command_line": "run_finetune.py --task_name sst-2"}
    (run_dir / "run_config.json").write_text(json.dumps(settings), encoding="utf-8")
    outcome = {name: value for name, value in results().items() if name != "teacher"}
    (run_dir / "eval_results.json").write_text(json.dumps(outcome), encoding="utf-8")
    write_rows(run_dir / "metrics.jsonl", metric_rows(finetune=True))
    rows = [{name: value for name, value in row.items() if name != "teacher"} for row in predictions()]
    write_rows(run_dir / "dev_predictions.jsonl", rows)
    return run_dir
