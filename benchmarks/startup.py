"""How long one waits: for --help, for an import, for the first step of a distillation and its compilation.

    python benchmarks/startup.py [--rounds 5] [--smoke]

Fails where importing the package, or asking a program for help, imports a library that it has no use for. The
distillation is `run_distill.py` from a cold start on a few rows, its models of bert-base's and TinyBERT-4's
size with random weights.
"""

import argparse
import csv
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = sorted(path.name for path in ROOT.glob("*.py") if path.name != "setup.py")
UNWANTED = ("tensorflow", "torch", "matplotlib", "pandas")
MODULES = ("bert_emd_jax", "bert_emd_jax.distillation.trainer", "bert_emd_jax.evaluation.evaluate")
ROWS = 128


def start_python(*args: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.Popen(
        [sys.executable, *args], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )


def output_of(*args: str) -> str:
    """What a fresh Python prints."""
    process = start_python(*args)
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"python {' '.join(args)} failed")
    return output


def median_seconds(rounds: int, *args: str) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        output_of(*args)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def imported_by(code: str, names: tuple[str, ...]) -> list[str]:
    """Those of `names` that a fresh Python has imported after `code`."""
    report = f"import sys\nprint('\\n' + ' '.join(name for name in {names!r} if name in sys.modules))"
    return output_of("-c", f"{code}\n{report}").splitlines()[-1].split()


def unwanted_imports() -> list[str]:
    """What is imported in vain, in words."""
    found = [(f"import {module}", imported_by(f"import {module}", UNWANTED)) for module in MODULES]
    for program in PROGRAMS:
        (line,) = re.findall(r"^from \S+ import main$", (ROOT / program).read_text(), re.MULTILINE)
        code = f"{line}\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
        found.append((f"{program} --help", imported_by(code, (*UNWANTED, "jax", "flax"))))
    return [f"{what}: {', '.join(names)}" for what, names in found if names]


def write_models_and_rows(directory: Path, small: bool) -> None:
    """Model directories `teacher` and `student`, and a custom task with sentences of one length."""
    # Not above: this file times what a Python without these imports does.
    from measuring import SMALL_STUDENT, SMALL_TEACHER, STUDENT, TEACHER, uncased_tokenizer

    from bert_emd_jax.checkpoints.model_directory import LoadedModel, save_model
    from bert_emd_jax.models.initialization import initial_params

    tokenizer = uncased_tokenizer(None)
    configs = (SMALL_TEACHER, SMALL_STUDENT) if small else (TEACHER, STUDENT)
    for name, config in zip(("teacher", "student"), configs, strict=True):
        model = LoadedModel(config, initial_params(config, "classifier", 0), tokenizer)
        save_model(directory / name, model, with_pytorch=False)
    for split in ("train", "dev"):
        with (directory / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("text", "label"))
            writer.writerows(("a film of its own kind " * 4, row % 2) for row in range(ROWS))


def time_distillation(small: bool) -> None:
    """Prints what passes until the first step of `run_distill.py` is done, and the part of compilation."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_models_and_rows(directory, small)
        metrics = directory / "out" / "metrics.jsonl"
        models = [f"--{model}_model={directory / model}" for model in ("teacher", "student")]
        data = [f"--data_dir={directory}", "--task_name=custom", f"--output_dir={directory / 'out'}"]
        steps = ["--num_train_epochs=1", "--log_steps=1"]  # four of 32 rows
        start = time.perf_counter()
        process = start_python("run_distill.py", *models, *data, *steps)
        while process.poll() is None and not (metrics.is_file() and metrics.stat().st_size):
            time.sleep(0.02)
        first_step = time.perf_counter() - start
        process.communicate()
        if process.returncode:
            raise SystemExit("run_distill.py failed")
        whole = time.perf_counter() - start
        rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    per_step = [32 / row["examples_per_second"] for row in rows if row["kind"] == "train"]
    later = statistics.median(per_step[1:])
    print("run_distill.py, one shape of 32 rows:")
    print(f"  {'command to the end of the first step':<42}{first_step:>7.2f} s")
    print(f"  {'of these, compilation of the step':<42}{per_step[0] - later:>7.2f} s")
    print(f"  {'a later step':<42}{later:>7.2f} s")
    print(f"  {'the whole run of 4 steps, with evaluation':<42}{whole:>7.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="one round, tiny models")
    args = parser.parse_args()
    rounds = 1 if args.smoke else args.rounds
    lines = [("python, nothing imported", ("-c", ""))]
    lines += [(f"{program} --help", (program, "--help")) for program in PROGRAMS]
    lines += [(f"import {module}", ("-c", f"import {module}")) for module in MODULES]
    for name, command in lines:
        print(f"{name:<44}{median_seconds(rounds, *command):>7.2f} s", flush=True)
    if found := unwanted_imports():
        raise SystemExit("imported without need:\n  " + "\n  ".join(found))
    print(f"none of them imports {', '.join(UNWANTED)}; --help imports no jax or flax either", flush=True)
    time_distillation(args.smoke)


if __name__ == "__main__":
    main()
