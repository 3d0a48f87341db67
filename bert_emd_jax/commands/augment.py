"""run_augment.py: TinyBERT's data augmentation, which replaces words of training rows by likely others."""

import dataclasses
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from tqdm import tqdm

from bert_emd_jax.augmentation.augmented_file import Cells, header_of, whole_rows, write_rows
from bert_emd_jax.augmentation.word_vectors import WordVectors
from bert_emd_jax.augmentation.words import DEFAULT_SAMPLES, SAMPLES_PER_TEXT, sample_variants
from bert_emd_jax.commands.cli import run_program
from bert_emd_jax.configs import Config, Dtype, OptionalBool, ReadAnywhere
from bert_emd_jax.data.kinds import ANSWER, TOKEN
from bert_emd_jax.data.readers import read_split
from bert_emd_jax.data.task import TFDS, Task, augmented
from bert_emd_jax.data.task_config import CustomTaskConfig
from bert_emd_jax.data.tasks import get_task
from bert_emd_jax.errors import UserError
from bert_emd_jax.tables.rows import Column

if TYPE_CHECKING:
    from bert_emd_jax.augmentation.word_replacements import WordReplacements


@dataclasses.dataclass(frozen=True, init=False)
class ReplacementConfig(Config):
    """Replacement of words."""

    samples: Annotated[int | None, tyro.conf.arg(aliases=("--N",))] = None
    """Number of variants drawn per text; default: that of TinyBERT's authors for the task, else 30."""
    candidates: Annotated[int, tyro.conf.arg(aliases=("--M",))] = 15
    """Maximum number of candidates to replace a word."""
    probability: Annotated[float, tyro.conf.arg(aliases=("--p",))] = 0.4
    """Probability of replacing a word in a variant."""
    max_vectors: int = 100_000
    """Number of lines to read from --glove_embs, which begins with the most frequent words; 0: all."""
    do_lower_case: OptionalBool = None
    """Lower-case the text for the model; default: as in its tokenizer_config.json, else yes."""
    seed: int = 42
    """Random seed."""

    def check(self) -> None:
        for name in ("samples", "candidates"):
            value = getattr(self, name)
            self.require(name, value is None or value >= 1, "at least 1")
        for name in ("max_vectors", "seed"):
            self.require(name, getattr(self, name) >= 0, "at least 0")
        self.require("probability", 0 < self.probability <= 1, "above 0 and at most 1")


@dataclasses.dataclass(frozen=True, init=False)
class AugmentConfig(Config):
    """Models that propose words, and files; the flags of TinyBERT's program are also accepted."""

    bert_model: ReadAnywhere[Annotated[Path, tyro.conf.arg(aliases=("--pretrained_bert_model",))]]
    """Masked-language model, with its masked-LM head, that proposes words of one piece: a model directory, a
    Hugging Face directory or a hub id."""
    glove_embs: Path | None = None
    """Word vectors as text (GloVe, word2vec, fastText), for words of several pieces; default: such words are
    kept."""
    data_dir: Path | None = None
    """Directory of the task's files; reads train.tsv and writes train_aug.tsv beside it."""
    glue_dir: Path | None = None
    """Alternative: directory with one subdirectory per GLUE task, such as CoLA."""
    task_name: str
    """GLUE task in any spelling (sst-2, MRPC, cola …), or custom for your own files."""
    output_dir: Path | None = None
    """Directory for train_aug.tsv; default: that of train.tsv."""
    batch_size: int = 64
    """Masked words per batch, over all devices; does not affect the result."""
    dtype: Dtype = "auto"
    """Compute type of the model."""
    dry_run: bool = False
    """Print how many rows would be written, and write nothing."""
    overwrite: bool = False
    """Replace an existing train_aug.tsv."""
    debug: bool = False
    """Show the traceback of an error."""

    replacement: ReplacementConfig = ReplacementConfig()
    columns: CustomTaskConfig = CustomTaskConfig()

    def check(self) -> None:
        self.require("batch_size", self.batch_size >= 1, "at least 1")
        if (self.data_dir is None) == (self.glue_dir is None):
            raise UserError("one of --data_dir and --glue_dir names the directory of the task's files")


def run(config: AugmentConfig) -> None:
    """Reads the train file, finds candidates for its words, and writes rows with replaced words."""
    replacement = config.replacement
    task, data_dir = _task_of(config)
    examples = read_split(task, data_dir, "train")
    file = task.splits["train"]
    target = (config.output_dir or data_dir) / augmented(file).name
    _check_target(target, config)
    vectors = None
    if config.glove_embs is not None:
        vectors = WordVectors.from_file(config.glove_embs, replacement.max_vectors)
        print(f"{config.glove_embs}: vectors of {len(vectors)} words")

    # Loads JAX: not before the flags and rows are known to be right.
    from bert_emd_jax.augmentation.masked_lm import load_masked_lm
    from bert_emd_jax.augmentation.word_replacements import WordReplacements

    model = load_masked_lm(config.bert_model, replacement.do_lower_case)
    texts: list[str] = list(dict.fromkeys(chain(examples.texts_a, examples.texts_b or ())))
    samples = replacement.samples or SAMPLES_PER_TEXT.get(task.name, DEFAULT_SAMPLES)
    columns = [column for column in (file.text_a, file.text_b) if column is not None]
    if config.dry_run:
        most = len(examples) * (1 + samples * len(columns))
        print(f"{examples.path}: {len(examples):,} rows, {len(texts):,} different texts")
        print(f"{target}: would get {most:,} rows at most, {samples} variants of each text")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tqdm(desc="predicting", unit=" words", disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done)

        replacements = WordReplacements(
            texts, model, vectors, replacement.candidates, config.batch_size, config.dtype, show
        )
    by_model, by_vectors, without = replacements.counts
    print(
        f"words to replace, in {len(texts)} different texts: {by_model} by the masked-language model,"
        f" {by_vectors} by word vectors; {without} others have no candidates"
    )
    rows = whole_rows(examples.path, file, task.skips_malformed_rows)
    rows = tqdm(rows, desc="writing", unit=" rows", total=len(examples), disable=None)
    try:
        written = write_rows(
            target,
            header_of(examples.path, file),
            _augmented_rows(rows, columns, replacements, samples, replacement.probability, replacement.seed),
        )
    except KeyError:
        raise UserError(f"{examples.path}: was changed while this program ran; start it again") from None
    print(f"{target}: {len(examples)} rows became {written}")


def _task_of(config: AugmentConfig) -> tuple[Task, Path]:
    if str(config.data_dir) == TFDS:
        raise UserError("--data_dir tfds: augmented rows are a file; name a directory of the task's files")
    data_dir = config.data_dir
    if config.glue_dir is not None:
        data_dir = config.glue_dir / get_task(config.task_name).name
    assert data_dir is not None  # one of the two is given
    task = get_task(config.task_name, data_dir=data_dir, **config.columns.flags())
    if task.kind in (TOKEN, ANSWER):
        raise UserError(
            f"--kind {task.kind.name}: words are replaced in whole texts alone; their places have labels here"
        )
    return task, data_dir


def _check_target(target: Path, config: AugmentConfig) -> None:
    """Raises UserError, before the long computation, if the file cannot be written."""
    if target.parent.exists() and not target.parent.is_dir():
        raise UserError(f"--output_dir {target.parent}: is a file; name a directory")
    if target.exists() and not config.overwrite:
        raise UserError(f"{target}: is there already; --overwrite replaces it")
    existing = next(parent for parent in target.absolute().parents if parent.exists())
    if not os.access(existing, os.W_OK):
        raise UserError(f"{target.parent}: cannot be written to; name another directory with --output_dir")


def _augmented_rows(
    rows: Iterable[Cells],
    columns: Sequence[Column],
    replacements: "WordReplacements",
    samples: int,
    probability: float,
    seed: int,
) -> Iterator[Cells]:
    """Yields every row, then copies with variants of its first text, then with variants of its second."""

    for number, row in enumerate(rows):
        yield row
        for side, column in enumerate(columns):
            # With its own generator a row does not depend on the rows before it.
            generator = np.random.default_rng((seed, number, side))
            words = replacements.of(row[column])
            for variant in sample_variants(row[column], words, samples, probability, generator):
                yield row | {column: variant}


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    return run_program(
        AugmentConfig,
        run,
        prog="run_augment.py",
        description="Writes train_aug.tsv for bert-emd distill --aug_train: rows with replaced words.",
        examples=(
            "--bert_model bert --glove_embs glove.6B.300d.txt --data_dir glue/MRPC --task_name mrpc",
            "--bert_model bert --data_dir reviews --task_name custom --samples 5",
        ),
        argv=argv,
    )


if __name__ == "__main__":
    sys.exit(main())
