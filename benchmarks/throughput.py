"""Training speed of distillation, ours beside the published loop in PyTorch, on the same texts and machine.

    python benchmarks/throughput.py [--data_dir glue/SST-2 --task_name sst-2] [--epochs 10] [--smoke]

Models: a teacher of bert-base's size and a student of TinyBERT-4's, random weights (they do not change the
speed). Without --data_dir the texts are Rotten Tomatoes sentences. The two programs take turns, a few steps
at a time, so that a noisy moment of the machine hits both. The projection over whole epochs:

    baseline = epochs · ceil(rows / batch) · t           t: median seconds of a step; all cost the same
    ours     = C + rows · r + Σ_L (c_L + epochs · n_L · t_L)
                                                         n_L: batches of an epoch, padded to L tokens;
                                                         t_L: median seconds of such a step; c_L: compilation;
                                                         r: seconds to compute and write the teacher's outputs
                                                         of a row once, C: to compile that (--teacher_cache)

On an accelerator: --no-baseline --teacher_cache off --dtype bfloat16 --batch_size 256 --one_length prints the
share of the peak in FLOPs of the models' matrix products (measuring.step_flops).

Both sides go from tokenised rows to updated weights: no evaluation, no checkpoints. Kept outputs are read
back from files that the system has in memory. What consecutive steps of the real schedule take is printed as
a check of the projection.
"""

import argparse
import collections
import contextlib
import dataclasses
import functools
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from measuring import (
    CLOCKS,
    SMALL_STUDENT,
    SMALL_TEACHER,
    STUDENT,
    TEACHER,
    Clock,
    machine,
    matmul_call,
    median_ratio,
    medians,
    rotten_tomatoes,
    seconds,
    seconds_in_turn,
    step_flops,
    uncased_tokenizer,
)
from our_step import KeptOutputs, Ours, parts_of_a_step

from bert_emd_jax.checkpoints.model_directory import LoadedModel
from bert_emd_jax.devices.device_needs import device_needs
from bert_emd_jax.distillation import teacher_outputs
from bert_emd_jax.distillation.distill_config import DistillConfig
from bert_emd_jax.distillation.teacher_outputs import TeacherOutputs
from bert_emd_jax.encoding.batching import BatchRows, BatchSchedule
from bert_emd_jax.encoding.task_data import TaskData, load_task_data, task_of
from bert_emd_jax.models.initialization import initial_params, initial_projection
from bert_emd_jax.tokenization.tokenizer import Tokenizer
from bert_emd_jax.training.task_evaluation import task_rows


class OnceForAll(NamedTuple):
    """What the teacher's outputs take when each row's are computed and written once, in seconds."""

    compilation: float
    per_row: float


def batches_by_length(schedule: BatchSchedule) -> dict[int, list[BatchRows]]:
    """The batches of the first epoch by padded length."""
    by_length: dict[int, list[BatchRows]] = collections.defaultdict(list)
    for step in range(schedule.steps_per_epoch):
        batch = schedule.batch(step)
        by_length[batch.length].append(batch)
    return dict(sorted(by_length.items()))


def random_models(tokenizer: Tokenizer, labels: int, smoke: bool) -> tuple[LoadedModel, LoadedModel]:
    """Student, with a projection, and teacher."""
    student, teacher = (
        dataclasses.replace(sizes, num_labels=labels)
        for sizes in ((SMALL_STUDENT, SMALL_TEACHER) if smoke else (STUDENT, TEACHER))
    )
    projection = initial_projection(student.hidden_size, teacher.hidden_size, 0)
    return (
        LoadedModel(student, initial_params(student, "classifier", 1), tokenizer, projection),
        LoadedModel(teacher, initial_params(teacher, "classifier", 0), tokenizer),
    )


def compare(args: argparse.Namespace, config: DistillConfig, data: TaskData, tokenizer: Tokenizer) -> None:
    """Measures one task and prints it."""
    clock, max_seq_length = CLOCKS[args.clock], config.task.max_seq_length
    student, teacher = random_models(tokenizer, data.task.num_labels, args.smoke)
    if args.one_length:
        data = dataclasses.replace(data, bucket_lengths=(max_seq_length,))
    schedule = task_rows(data, config.optimizer).schedule
    by_length = batches_by_length(schedule)
    mean, steps = np.mean(data.train.lengths), sum(map(len, by_length.values()))
    print(
        f"\n{data.task.name}: {len(data.train)} rows of {mean:.1f} tokens on average, {steps} steps an epoch"
    )
    groups = {length: (batches * args.group)[: args.group] for length, batches in by_length.items()}
    check = [schedule.batch(step) for step in range(min(args.check_steps, steps))]
    with tempfile.TemporaryDirectory(dir=args.cache_dir) as directory:
        once, kept = None, None
        if args.teacher_cache == "disk":
            needed = itertools.chain(check, *groups.values())
            used = np.unique(np.concatenate([batch.rows for batch in needed]))
            once, kept = keep_outputs(data, used, teacher, Path(directory), clock, args.sample_rows)
        ours = Ours(config, data, student, teacher, kept)
        first_calls: dict[Any, float] = {}
        calls: dict[Any, Callable[[], object]] = {}
        for length, batches in groups.items():
            calls[length] = functools.partial(ours.train, batches)
            first_calls[length] = seconds(calls[length], clock)
            print(f"  {length} tokens: compiled", flush=True)
        heaviest = max(by_length, key=lambda length: length * len(by_length[length]))
        if args.baseline:
            from torch_baseline import Baseline

            baseline = Baseline(student.config, teacher.config, regression=data.task.labels is None)
            padded = data.train.collate(by_length[heaviest][0].rows, max_seq_length)
            baseline.step(padded)  # allocates
            calls["baseline"] = lambda: baseline.step(padded)
        calls["matmul"], matmul_flops = matmul_call(config.program.dtype)
        times = seconds_in_turn(calls, args.rounds, clock)
        typical = medians(times)
        compilation = {length: max(0.0, first - typical[length]) for length, first in first_calls.items()}
        per_step = {length: typical[length] / args.group for length in first_calls}

        peak = matmul_flops / min(times["matmul"])
        print_rates(ours, once, by_length, per_step, compilation, typical.get("baseline"), peak)
        taken = seconds(lambda: ours.train(check), clock)
        expected = sum(per_step[batch.length] for batch in check)
        print(f"  {len(check)} consecutive steps: {taken:.2f} s; {expected:.2f} s expected from the medians")
        uniform = Ours(config.replace(mapping="uniform"), data, student, teacher, kept)
        print_mapping_ratio(ours, uniform, groups[heaviest][0], args.rounds, clock)
        if args.breakdown:
            print_breakdown(ours, groups[heaviest][0], args.rounds, clock)


def keep_outputs(
    data: TaskData, rows: np.ndarray, teacher: LoadedModel, directory: Path, clock: Clock, sample_rows: int
) -> tuple[OnceForAll, KeptOutputs]:
    """What it takes to keep outputs, from a sample and from one of twice the rows; and those of `rows`."""
    # As many padded lengths for the samples as all the rows have.
    teacher_outputs._BATCHES_PER_COMPILATION = 1
    taken = []
    for count in (sample_rows, 2 * sample_rows):
        sample = np.random.default_rng(0).permutation(len(data.train))[:count]
        into = directory / str(count)
        taken.append(
            seconds(lambda sample=sample, into=into: KeptOutputs(data.train, sample, teacher, into), clock)
        )
    kept = KeptOutputs(data.train, rows, teacher, directory / "used")
    size = TeacherOutputs(teacher.config, data.train).bytes / 1e9
    once = OnceForAll(2 * taken[0] - taken[1], (taken[1] - taken[0]) / sample_rows)
    print(
        f"  the teacher's outputs: {1e3 * once.per_row:.1f} ms a row, compiled in {once.compilation:.1f} s;"
        f" {size:.1f} GB for all rows"
    )
    return once, kept


def print_rates(
    ours: Ours,
    once: OnceForAll | None,
    by_length: dict[int, list[BatchRows]],
    per_step: dict[int, float],
    compilation: dict[int, float],
    baseline_step: float | None,
    peak: float,
) -> None:
    """Prints seconds of every kind of step and the projection; `peak` is in FLOP/s, the times in seconds."""
    trainer = ours.trainer
    config, rows = trainer.config, len(trainer.data.train)
    optimizer = config.optimizer
    steps = sum(map(len, by_length.values()))
    print(f"  peak: {peak / 1e9:.0f} GFLOP/s, one large {config.program.dtype} matrix product")
    sizes = trainer.model.config, trainer.teacher.config, optimizer.train_batch_size
    for length, batches in by_length.items():
        step = per_step[length]
        flops = step_flops(*sizes, length, with_teacher=once is None)
        print(
            f"  {length:>3} tokens: {step:.3f} s a step, {len(batches)} steps, compiled in"
            f" {compilation[length]:.1f} s, {100 * flops / step / peak:.0f} % of the peak"
        )
    epoch = sum(len(batches) * per_step[length] for length, batches in by_length.items())
    before = 0.0 if once is None else once.compilation + rows * once.per_row
    total = before + sum(compilation.values()) + optimizer.num_train_epochs * epoch
    rate = optimizer.num_train_epochs * rows / total
    print(f"  steps alone: {rows / epoch:.2f} examples/s")
    print(f"  {optimizer.num_train_epochs} epochs, all included: {rate:.2f} examples/s")
    if baseline_step is not None:
        baseline_rate = rows / (steps * baseline_step)
        print(
            f"  baseline: {baseline_step:.3f} s a step, all of {config.task.max_seq_length} tokens;"
            f" {baseline_rate:.2f} examples/s; RATIO {rate / baseline_rate:.1f}"
        )


def print_mapping_ratio(emd: Ours, uniform: Ours, batch: BatchRows, rounds: int, clock: Clock) -> None:
    """Prints what the optimal transport adds to a step."""
    calls = {"emd": lambda: emd.train([batch]), "uniform": lambda: uniform.train([batch])}
    uniform.train([batch])  # compiles
    times = seconds_in_turn(calls, 4 * rounds, clock)
    ratio = median_ratio(times["emd"], times["uniform"])
    print(f"  --mapping emd / --mapping uniform, {batch.length} tokens: {ratio:.3f}", flush=True)


def print_breakdown(ours: Ours, batch: BatchRows, rounds: int, clock: Clock) -> None:
    """Prints what the parts of a step take, each compiled on its own, beside the whole."""
    parts = parts_of_a_step(ours, batch)
    for call in parts.values():
        call()  # compiles
    typical = medians(seconds_in_turn(parts | {"whole": lambda: ours.train([batch])}, rounds, clock))
    whole = typical.pop("whole")
    print(f"  a step of {batch.length} tokens: {1e3 * whole:.0f} ms; its parts as programs of their own:")
    for name, taken in (typical | {"sum": sum(typical.values())}).items():
        print(f"    {name:<28}{1e3 * taken:>9.1f} ms {100 * taken / whole:>6.1f} %")


def _torch_version() -> str:
    try:
        import torch
    except ImportError:
        return "not installed"
    return f"{torch.__version__} ({torch.get_num_threads()} threads)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data_dir", type=Path, help="a GLUE task's directory; default: Rotten Tomatoes")
    parser.add_argument("--task_name", default="sst-2", help="the task in --data_dir")
    parser.add_argument("--vocab", type=Path, help="a vocab.txt; default: BERT's uncased one")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--max_seq_length", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=10, help="the projection's")
    parser.add_argument("--rounds", type=int, default=5, help="how often both take turns")
    parser.add_argument("--group", type=int, default=3, help="our steps in a turn")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: where others use the machine")
    parser.add_argument("--teacher_cache", choices=("disk", "off"), default="disk")
    parser.add_argument("--cache_dir", type=Path, help="for the files of --teacher_cache disk")
    parser.add_argument("--sample_rows", type=int, default=512, help="to measure how long these take")
    parser.add_argument("--check_steps", type=int, default=20)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="ours")
    parser.add_argument("--baseline", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--one_length", action="store_true", help="pad all rows to --max_seq_length")
    parser.add_argument("--breakdown", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--smoke", action="store_true", help="tiny models, one padded length, two rounds")
    args = parser.parse_args()
    if args.smoke:
        args.rounds, args.check_steps, args.sample_rows = 2, 4, 32
    print(f"jax {jax.__version__}, torch {_torch_version()}; {machine()}")
    with contextlib.ExitStack() as stack:
        data_dir, task_name = args.data_dir, args.task_name
        if data_dir is None:
            task_name = "custom"
            data_dir = rotten_tomatoes(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        config = DistillConfig(
            data_dir=data_dir,
            task_name=task_name,
            output_dir=Path(),  # this and the paths of the models are not used
            teacher_model=Path(),
            student_config=Path("tinybert-4"),
            train_batch_size=args.batch_size,
            max_seq_length=args.max_seq_length,
            num_train_epochs=args.epochs,
            max_steps=40 if args.smoke else 0,  # so few make one bucket: one compilation
            token_cache=False,
            dtype=args.dtype,
        )
        tokenizer = uncased_tokenizer(args.vocab)
        task = task_of(config.task)
        for_another_length = device_needs().steps_for_another_length
        data = load_task_data(config.task, task, tokenizer, config.optimizer.steps_on, for_another_length)
        compare(args, config, data, tokenizer)


if __name__ == "__main__":
    main()
