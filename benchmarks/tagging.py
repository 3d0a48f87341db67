"""Does transport help a tagger? Students of three layers of a tagger of WNUT 17, by EMD and without.

`python benchmarks/tagging.py --wnut_dir WNUT17` fine-tunes all-MiniLM-L6-v2's encoder on the training
sentences and distils it. Half of the dev sentences choose the step; scores are those on the others.
"""

import dataclasses
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

from measuring import mean_and_spread

from bert_emd_jax.commands import demo_assets
from bert_emd_jax.commands.cli import run_program
from bert_emd_jax.configs import Config, Integers, Names
from bert_emd_jax.errors import UserError
from bert_emd_jax.files import write_text
from bert_emd_jax.report.tables import aligned

ROOT = Path(__file__).parents[1]
METHODS = {
    "logits": ["--beta", "0"],
    "uniform": ["--mapping", "uniform"],
    "emd": ["--mapping", "emd"],
}
SCORES = ("entity_f1", "entity_precision", "entity_recall")


@dataclasses.dataclass(frozen=True, init=False)
class TaggingBenchmarkConfig(Config):
    """What is compared."""

    wnut_dir: Path
    """A directory with train.conll and dev.conll."""
    output_dir: Path = Path("tagging_benchmark")
    """Where runs go; those that are there already are not made again."""
    methods: Names = tuple(METHODS)
    """Which methods, of those at the top of this program."""
    seeds: Integers = (42, 43, 44)
    """Which seeds of the students."""
    epochs: float = 5
    """Passes over the training sentences, of the teacher and of every student."""
    smoke: bool = False
    """A thousand sentences and one seed: shows that everything works, and measures nothing."""
    debug: bool = False
    """Show the traceback of an error."""


def run(config: TaggingBenchmarkConfig) -> None:
    """Makes the runs that are not there yet, method by method in turn, and prints the table."""
    if unknown := set(config.methods) - set(METHODS):
        raise UserError(f"--methods {', '.join(unknown)}: none of {', '.join(METHODS)}")
    if config.smoke:
        config = config.replace(seeds=(42,), epochs=1)
    root = config.output_dir.absolute()
    encoder, data, teacher = root / "encoder", root / "data", root / "teacher"
    demo_assets.unpack_minilm(encoder)
    write_data(config.wnut_dir, data, most=1000 if config.smoke else None)
    flags = ["--data_dir", str(data), "--task_name", "custom", "--kind", "token", "--train_batch_size", "32"]
    flags += ["--learning_rate", "1e-4", "--num_train_epochs", f"{config.epochs:g}", "--overwrite"]
    train("run_finetune.py", ["--bert_model", str(encoder), *flags], teacher)
    found: dict[str, list[dict[str, float]]] = {"teacher": [scores_of(teacher)]}
    student = ["--teacher_model", str(teacher), "--student_init_layers", "1,3,5", *flags]
    for seed in config.seeds:
        for method in config.methods:
            directory = root / f"{method}_{seed}"
            train("run_distill.py", [*student, *METHODS[method], "--seed", str(seed)], directory)
            found.setdefault(method, []).append(scores_of(directory))
            print(f"{method}, seed {seed}: {found[method][-1]}", flush=True)
    rows = [["", *SCORES, "by seed"]]
    for method, measured in found.items():
        columns = [mean_and_spread([one[name] for one in measured]) for name in SCORES]
        rows.append([method, *columns, " ".join(f"{one[SCORES[0]]:.4f}" for one in measured)])
    print(aligned(rows))


def train(program: str, flags: list[str], directory: Path) -> None:
    """Runs a program unless its results are there."""
    if not (directory / "eval_results.json").is_file():
        command = [sys.executable, program, *flags, "--output_dir", str(directory)]
        environment = os.environ | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
        subprocess.run(command, cwd=ROOT, env=environment, check=True)


def scores_of(directory: Path) -> dict[str, float]:
    results = json.loads((directory / "eval_results.json").read_text(encoding="utf-8"))
    metrics = results["test"]["student"]["metrics"]
    return {name: metrics[name] for name in SCORES}


def write_data(source: Path, directory: Path, most: int | None) -> None:
    """Copies the training sentences, and cuts those of dev into halves: `dev` chooses, `test` reports."""
    directory.mkdir(parents=True, exist_ok=True)
    train, others = (sentences_of(source / f"{split}.conll") for split in ("train", "dev"))
    random.Random(0).shuffle(others)
    half = len(others) // 2
    for split, part in (("train", train), ("dev", others[:half]), ("test", others[half:])):
        write_text(directory / f"{split}.conll", "".join(f"{text}\n\n" for text in part[:most]))


def sentences_of(path: Path) -> list[str]:
    """Returns the sentences of a file as they stand there: blank lines, some with a tab, end them."""
    return [part.strip() for part in re.split(r"\n\s*\n", path.read_text(encoding="utf-8")) if part.strip()]


def main() -> int:
    return run_program(
        TaggingBenchmarkConfig,
        run,
        prog="benchmarks/tagging.py",
        description="Compares ways to distil a tagger of named entities.",
    )


if __name__ == "__main__":
    sys.exit(main())
