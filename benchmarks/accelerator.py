"""What a user of a GPU or TPU waits for: the step, its parts and kernels, compilation, and a whole MRPC job.

    python benchmarks/accelerator.py --data_dir glue/MRPC --vocab vocab.txt [--output results.json] [--smoke]

Models of bert-base's and TinyBERT-4's size with random weights, bfloat16, every row padded to 128 tokens: 256
and 32 rows a step (`--rows 64 --length 512`: long ones); also with fused attention, and with the teacher's
outputs in the device's memory. Beside them, in turn, the published loop in torch with bfloat16 autocast and a
compiled form of it, where torch is installed. The whole job is `run_distill.py` with its default flags for
three epochs, twice: without and with what the first run has compiled. Needs no network. At most 8 minutes on
an H100 with --no-torch, longer where torch compiles; --output has what is known so far if it is stopped
before. --smoke: tiny models and few rows, for a CPU.
"""

import argparse
import collections
import dataclasses
import gzip
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from measuring import machine, matmul_call, medians, seconds, seconds_in_turn, step_flops, uncased_tokenizer
from our_step import Ours, parts_of_a_step
from startup import ROOT, start_python
from throughput import random_models

from bert_emd_jax.checkpoints.model_directory import save_model
from bert_emd_jax.distillation.distill_config import DistillConfig
from bert_emd_jax.encoding.batching import BatchRows
from bert_emd_jax.encoding.task_data import TaskData, load_task_data, task_of
from bert_emd_jax.tokenization.tokenizer import Tokenizer

KERNELS = 30
STEPS_IN_TRACE = 3
SECTIONS = ("steps", "parts", "kernels", "job")


class Report:
    """Lines on the screen, and the numbers behind them in a file after each."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._values: dict[str, Any] = {}

    def add(self, name: str, value: Any, line: str) -> None:
        self._values[name] = value
        print(line, flush=True)
        if self._path is not None:
            self._path.write_text(json.dumps(self._values, indent=1), encoding="utf-8")


class Steps:
    """Our step, that of `--mapping uniform`, other forms of it, and torch's, for one number of rows."""

    def __init__(self, args: argparse.Namespace, rows: int, tokenizer: Tokenizer) -> None:
        config = _config(args, rows)
        data = load_task_data(config.task, task_of(config.task), tokenizer, lambda rows: 1, ())
        data = dataclasses.replace(data, bucket_lengths=(args.length,))
        student, teacher = random_models(tokenizer, data.task.num_labels, args.smoke)
        self.rows, self.config, self.data = rows, config, data
        self.sizes = student.config, teacher.config
        self.length, self.batches = args.length, _batches(data, rows, args.length)
        self.ours = Ours(config, data, student, teacher)
        self._others = {
            "uniform": Ours(config.replace(mapping="uniform"), data, student, teacher),
            "fused": Ours(config.replace(attention="fused"), data, student, teacher),
            "kept": Ours(config, data, student, teacher),
        }
        self._others["kept"].keep_on_devices()
        self.group = 2 if args.smoke else max(3, 1024 // rows)  # several, so that the host can be ahead

    def first_call(self) -> float:
        """Seconds of the first step: what compiling it takes."""
        return seconds(lambda: self.ours.train(self.batches[:1]))

    def milliseconds(self, rounds: int, with_torch: bool) -> dict[str, float]:
        """Medians of a step, all kinds in turn."""
        batches = (self.batches * self.group)[: self.group]
        calls: dict[str, Callable[[], object]] = {
            "ours": lambda: self.ours.train(batches),
            **{name: lambda step=step: step.train(batches) for name, step in self._others.items()},
        }
        if with_torch:
            from torch_baseline import Baseline, CompiledBaseline

            padded = [self.data.train.collate(batch.rows, self.length) for batch in batches]
            loops = {
                "torch": Baseline(*self.sizes, autocast=True),
                "compiled_torch": CompiledBaseline(*self.sizes),
            }
            for name, loop in loops.items():
                calls[name] = lambda loop=loop: [loop.step(arrays) for arrays in padded]
        for call in calls.values():
            call()
        return {
            name: 1e3 * taken / self.group for name, taken in medians(seconds_in_turn(calls, rounds)).items()
        }


def _config(args: argparse.Namespace, rows: int) -> DistillConfig:
    return DistillConfig(
        data_dir=args.data_dir,
        task_name="mrpc",
        output_dir=Path(),  # this and the paths of the models are not used
        teacher_model=Path(),
        student_config=Path("tinybert-4"),
        train_batch_size=rows,
        max_seq_length=args.length,
        token_cache=False,
        dtype="bfloat16",
    )


def _batches(data: TaskData, rows: int, length: int) -> list[BatchRows]:
    order = np.random.default_rng(0).permutation(len(data.train))
    return [BatchRows(part, length) for part in order[: len(order) // rows * rows].reshape(-1, rows)[:8]]


def measure_steps(args: argparse.Namespace, report: Report, steps: Steps, with_torch: bool) -> None:
    rows, length = steps.rows, steps.length
    compiled = steps.first_call()
    report.add(f"{rows}_compilation_s", compiled, f"{rows} x {length}: first step after {compiled:.1f} s")
    taken = steps.milliseconds(2 if args.smoke else 7, with_torch)
    multiply, flops = matmul_call("bfloat16")
    peak = flops / min(seconds(multiply) for _ in range(5))
    share = step_flops(*steps.sizes, rows, length) / (1e-3 * taken["ours"]) / peak
    torch = "".join(
        f"{name.replace('_', ' ')} {taken[name]:.2f} ms ({taken[name] / taken['ours']:.2f} times), "
        for name in ("torch", "compiled_torch")
        if name in taken
    )
    report.add(
        f"{rows}_step_ms",
        taken,
        f"  a step {taken['ours']:.2f} ms, {torch}emd / uniform {taken['ours'] / taken['uniform']:.3f};"
        f" {100 * share:.0f} % of the peak of {peak / 1e12:.0f} TFLOP/s\n  with fused attention"
        f" {taken['fused']:.2f} ms, with the teacher's outputs kept by the device {taken['kept']:.2f} ms",
    )


def measure_parts(args: argparse.Namespace, report: Report, steps: Steps) -> None:
    parts = parts_of_a_step(steps.ours, steps.batches[0])
    for call in parts.values():
        call()
    taken = {name: 1e3 * value for name, value in medians(seconds_in_turn(parts, 5)).items()}
    lines = [f"    {name:<30}{value:>8.2f} ms" for name, value in taken.items()]
    report.add(f"{steps.rows}_parts_ms", taken, "\n".join(["  parts as programs of their own", *lines]))


def measure_kernels(report: Report, steps: Steps) -> None:
    """The kernels of some steps by the time that they take, from a profiler's trace."""
    batches = (steps.batches * STEPS_IN_TRACE)[:STEPS_IN_TRACE]
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            steps.ours.train(batches)
        kernels = _kernels(Path(directory))
    total = sum(taken for _, taken in kernels.values()) / STEPS_IN_TRACE
    count = sum(count for count, _ in kernels.values()) / STEPS_IN_TRACE
    largest = sorted(kernels.items(), key=lambda item: -item[1][1])[:KERNELS]
    table = {name: [count / STEPS_IN_TRACE, taken / STEPS_IN_TRACE] for name, (count, taken) in largest}
    lines = [f"    {taken:>8.3f} ms {count:>7.1f} x  {name[:90]}" for name, (count, taken) in table.items()]
    summary = f"  a step of {steps.rows} rows runs {count:.0f} kernels, {total:.2f} ms"
    values = {"kernels": count, "ms": total, "largest": table}
    report.add(f"{steps.rows}_kernels", values, "\n".join([summary, *lines]))


def _kernels(directory: Path) -> dict[str, tuple[int, float]]:
    """(calls, milliseconds) by name of what ran on the devices; on a CPU of what XLA's threads did."""
    (path,) = directory.rglob("*.trace.json.gz")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    names = {event["pid"]: event["args"]["name"] for event in events if event.get("name") == "process_name"}
    threads = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in events
        if event.get("name") == "thread_name"
    }
    on_device = {pid for pid, name in names.items() if "/device:" in name}
    found: dict[str, list[float]] = collections.defaultdict(lambda: [0, 0.0])
    for event in events:
        thread = threads.get((event.get("pid"), event.get("tid")), "")
        if event.get("ph") != "X" or "XLA" in thread or "Steps" in thread or "Modules" in thread:
            continue
        if event["pid"] in on_device or not (on_device or event["name"].startswith("$")):
            found[event["name"]][0] += 1
            found[event["name"]][1] += event["dur"] / 1e3
    return {name: (int(count), taken) for name, (count, taken) in found.items()}


def measure_job(
    args: argparse.Namespace, report: Report, tokenizer: Tokenizer, step_of_torch: float | None
) -> None:
    """`run_distill.py` from the command to its end, without and with compiled programs of an earlier run."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        student, teacher = random_models(tokenizer, 2, args.smoke)
        save_model(directory / "teacher", teacher, with_pytorch=False)
        save_model(directory / "student", student, with_pytorch=False)
        for state in ("cold", "cached"):
            output = directory / state
            flags = [f"--{model}_model={directory / model}" for model in ("teacher", "student")]
            flags += [f"--data_dir={args.data_dir}", "--task_name=mrpc", f"--output_dir={output}"]
            flags += ["--dtype=bfloat16", "--num_train_epochs=3", *args.job_flags.split()]
            flags += ["--max_steps=6"] if args.smoke else []
            os.environ.setdefault("XDG_CACHE_HOME", str(directory / "cache"))
            start = time.perf_counter()
            process = start_python(str(ROOT / "run_distill.py"), *flags)
            assert process.stdout is not None
            log = [(line, time.perf_counter() - start) for line in process.stdout]
            if process.wait():
                raise SystemExit("run_distill.py failed:\n" + "".join(line for line, _ in log))
            whole = time.perf_counter() - start
            first = next(after for line, after in log if "first step after" in line)
            metrics = (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            rows = [row for row in map(json.loads, metrics) if row["kind"] == "train"]
            count = rows[-1]["step"]
            step = statistics.median(32e3 / row["examples_per_second"] for row in rows)
            report.add(
                f"job_{state}_s",
                {"first_step": first, "whole": whole, "steps": count, "step_ms": step},
                f"MRPC, {state}: first step after {first:.1f} s, the whole run after {whole:.1f} s;"
                f" {count} steps, {step:.1f} ms each",
            )
        if step_of_torch is not None:
            start_of_torch = _import_of_torch()
            total = start_of_torch + count * step_of_torch / 1e3
            report.add(
                "job_torch_s", total, f"  torch: its import, as many steps of 128 tokens: {total:.1f} s"
            )


def _import_of_torch() -> float:
    code = "import torch, transformers; torch.zeros(1, device='cuda' if torch.cuda.is_available() else 'cpu')"
    return seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="GLUE's MRPC, as train.tsv and dev.tsv")
    parser.add_argument("--vocab", type=Path, help="a vocab.txt; default: BERT's uncased one, downloaded")
    parser.add_argument("--output", type=Path, help="a JSON file")
    parser.add_argument("--rows", type=int, nargs="+", default=[256, 32])
    parser.add_argument("--length", type=int, default=128, help="tokens that every row is padded to")
    parser.add_argument("--sections", nargs="+", default=SECTIONS, choices=SECTIONS)
    parser.add_argument("--torch", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--job_flags", default="", help="more flags for run_distill.py, in quotation marks")
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    if args.smoke:
        args.rows = [8]
    report = Report(args.output)
    report.add("machine", machine(), f"jax {jax.__version__}; {machine()}")
    tokenizer = uncased_tokenizer(args.vocab)
    with_torch = args.torch and all(
        importlib.util.find_spec(name) for name in ("torch", "transformers", "ot")
    )
    step_of_torch = None
    for rows in args.rows:
        steps = Steps(args, rows, tokenizer)
        if "steps" in args.sections:
            measure_steps(args, report, steps, with_torch)
        elif {"parts", "kernels"} & set(args.sections):
            steps.first_call()
        if "kernels" in args.sections:
            measure_kernels(report, steps)
        if "parts" in args.sections:
            measure_parts(args, report, steps)
    if with_torch and "steps" in args.sections:
        step_of_torch = report._values[f"{args.rows[-1]}_step_ms"]["torch"]
    if "job" in args.sections:
        measure_job(args, report, tokenizer, step_of_torch)


if __name__ == "__main__":
    main()
