"""SIGKILL at random moments: a resumed run ends bit for bit as one that was never killed."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from conftest import xla_flags

from bert_emd_jax.checkpoints.model_directory import load_model

# KILLS=50 for a longer trial.
KILLS = int(os.environ.get("KILLS", "1"))
LONGEST_RUN = 300.0


def start(flags: list[str], log: Path) -> subprocess.Popen:
    code = "import sys; from bert_emd_jax.commands.distill import main; sys.exit(main(sys.argv[1:]))"
    # Two devices are enough here: the trial starts many processes.
    # A killed process may leave half a file in the cache of compiled programs: it is not shared.
    settings = {"XLA_FLAGS": xla_flags(2), "JAX_COMPILATION_CACHE_DIR": str(log.parent / "compiled")}
    with log.open("a") as output:
        return subprocess.Popen(
            [sys.executable, "-c", code, *flags], env=os.environ | settings, stdout=output, stderr=output
        )


def finish(flags: list[str], log: Path) -> None:
    assert start(flags, log).wait(LONGEST_RUN) == 0, log.read_text()


def comparable(run: Path) -> dict[str, object]:
    """All that a run leaves but the times in it."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    results = json.loads((run / "eval_results.json").read_text())
    del results["timed_on"]
    for side in ("student", "teacher"):
        del results[side]["milliseconds_per_sentence"]
    with np.load(run / "layer_mapping.npz") as mapping:
        arrays = {name: mapping[name].tobytes() for name in mapping.files}
    exported = (run / "pytorch" / "model.safetensors").read_bytes()
    model = load_model(run)
    assert model.projection is not None
    return {
        "metrics": [{k: v for k, v in row.items() if k != "examples_per_second"} for row in lines],
        "results": results,
        "mapping": arrays,
        "weights": exported,
        "projection": model.projection["kernel"].tobytes(),
    }


def progress_of(run: Path) -> tuple[int, bool]:
    """The newest checkpoint, and whether the export has begun."""
    steps = [int(path.name) for path in (run / "checkpoints").glob("*") if path.name.isdigit()]
    return max(steps, default=0), any(run.glob(".writing-*")) or (run / "params").exists()


def test_killed_anywhere_a_run_ends_the_same(tmp_path, task_dir, tiny_model_dir):
    teacher, log = tiny_model_dir("teacher"), tmp_path / "log.txt"

    def flags(output: Path) -> list[str]:
        return [
            *("--teacher_model", str(teacher), "--student_init_layers", "1,3"),
            *("--data_dir", str(task_dir), "--task_name", "custom", "--output_dir", str(output)),
            *("--max_seq_length", "24", "--train_batch_size", "8", "--num_train_epochs", "6"),
            *("--log_steps", "2", "--save_steps", "1", "--learning_rate", "1e-3", "--check_every", "7"),
        ]

    whole = tmp_path / "whole"
    finish(flags(whole), log)
    expected = comparable(whole)
    assert len(expected["metrics"]) > 20

    rng = random.Random(0)
    kills = runs = 0
    while kills < KILLS:
        run = tmp_path / f"run{runs}"
        runs += 1
        while kills < KILLS:
            process = start([*flags(run), "--resume"], log)
            # Mostly while it trains, checkpoints or exports; now and then while it starts.
            before = progress_of(run)
            began = time.monotonic()
            patience = rng.uniform(0, 4) if rng.random() < 0.2 else LONGEST_RUN
            while process.poll() is None and progress_of(run) == before:
                if time.monotonic() - began > patience:
                    break
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 1.5))
            process.kill()
            if process.wait() == 0:
                break
            assert process.returncode == -9, log.read_text()
            kills += 1
        finish([*flags(run), "--resume"], log)
        assert comparable(run) == expected, run
    assert "resuming at step" in log.read_text()
