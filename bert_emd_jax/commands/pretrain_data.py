"""A text corpus to pretraining examples, for general distillation."""

import re
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from bert_emd_jax.commands.cli import run_program
from bert_emd_jax.errors import UserError

_SCRATCH = ".corpus_"  # the tokenised corpus while the program runs


@dataclass(frozen=True)
class PretrainDataConfig:
    """Flags of run_pretrain_data.py."""

    train_corpus: Path
    """Text file, UTF-8: a sentence a line, an empty line after each document."""
    bert_model: Path
    """Model directory whose tokenizer makes the pieces."""
    output_dir: Path
    """Gets epoch_N.json and epoch_N_metrics.json."""
    do_lower_case: Annotated[bool | None, tyro.conf.arg(constructor=bool)] = None
    """Lower-case the text; if absent, what the tokenizer's own configuration says."""
    do_whole_word_mask: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Mask all the pieces of a word, or none."""
    reduce_memory: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Keep the tokenised corpus on disk, in the output directory, while the program runs."""
    num_workers: int = 1
    """Processes that tokenise and make examples. The files do not depend on it."""
    epochs_to_generate: int = 3
    """Number of differently drawn passes over the corpus."""
    max_seq_len: int = 128
    """Longest example in tokens, special tokens included."""
    short_seq_prob: float = 0.1
    """Share of documents whose examples are shorter than need be."""
    masked_lm_prob: float = 0.0
    """Share of tokens to mask; 0 masks nothing."""
    max_predictions_per_seq: int = 20
    """Most tokens masked in an example."""
    one_seq: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Examples of one text in place of two."""
    seed: int = 0
    """Seed of everything that is drawn."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace the epoch files that the output directory holds."""
    debug: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show the traceback of an error."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit code."""
    return run_program(
        PretrainDataConfig, pretrain_data, prog="run_pretrain_data.py", description=__doc__ or "", argv=argv
    )


def pretrain_data(config: PretrainDataConfig) -> None:
    """Tokenises the corpus and writes the files of every epoch."""
    from tqdm import tqdm

    from bert_emd_jax.data.corpus import tokenize_corpus
    from bert_emd_jax.data.pretraining import ExampleSettings, Vocabulary
    from bert_emd_jax.data.pretraining_files import write_epochs
    from bert_emd_jax.data.tokenization import Tokenizer

    _check(config)
    tokenizer = Tokenizer.from_directory(config.bert_model, config.do_lower_case)
    if not config.train_corpus.is_file():
        raise UserError(f"--train_corpus {config.train_corpus}: no such file")
    _check_output(config)
    config.output_dir.mkdir(parents=True, exist_ok=True)
    settings = ExampleSettings(
        max_seq_len=config.max_seq_len,
        short_seq_prob=config.short_seq_prob,
        masked_lm_prob=config.masked_lm_prob,
        max_predictions_per_seq=config.max_predictions_per_seq,
        do_whole_word_mask=config.do_whole_word_mask,
        one_seq=config.one_seq,
        seed=config.seed,
    )
    with ExitStack() as stack:
        directory = None
        if config.reduce_memory or config.num_workers > 1:  # workers share the corpus through the file system
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=config.output_dir))
            directory = Path(name)
        with tqdm(desc="tokenising", unit=" lines", disable=None) as bar:
            corpus = tokenize_corpus(
                config.train_corpus, tokenizer, directory, config.num_workers, bar.update
            )
        if corpus.document_count < 2 and not config.one_seq:
            raise UserError(
                f"{config.train_corpus}: no empty line between documents; pairs need a second document "
                f"for their random next sentence (--one_seq does without)"
            )
        print(
            f"{config.train_corpus}: {corpus.document_count} documents, {corpus.sentence_count} sentences, "
            f"{len(corpus.tokens)} pieces"
        )
        _remove_epochs(config.output_dir)
        epochs = range(config.epochs_to_generate)
        total = config.epochs_to_generate * corpus.document_count
        with tqdm(desc="examples", unit=" documents", total=total, disable=None) as bar:
            source = corpus if directory is None else directory
            counts = write_epochs(
                source,
                Vocabulary.of(tokenizer),
                settings,
                epochs,
                config.output_dir,
                workers=config.num_workers,
                progress=bar.update,
            )
    for epoch, count in zip(epochs, counts, strict=True):
        print(f"{config.output_dir / f'epoch_{epoch}.json'}: {count} examples")


def _check(config: PretrainDataConfig) -> None:
    for flag, smallest in (
        ("num_workers", 1),
        ("epochs_to_generate", 1),
        ("max_predictions_per_seq", 0),
        ("seed", 0),
    ):
        if getattr(config, flag) < smallest:
            raise UserError(f"--{flag} {getattr(config, flag)}: must be at least {smallest}")
    for flag in ("short_seq_prob", "masked_lm_prob"):
        if not 0 <= getattr(config, flag) <= 1:
            raise UserError(f"--{flag} {getattr(config, flag)}: a probability lies between 0 and 1")
    if not 5 <= config.max_seq_len <= 65536:
        raise UserError(f"--max_seq_len {config.max_seq_len}: must be between 5 and 65536")


def _check_output(config: PretrainDataConfig) -> None:
    directory = config.output_dir
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--output_dir {directory}: not a directory")
    if directory.is_dir() and any(directory.iterdir()) and not config.overwrite:
        raise UserError(
            f"--output_dir {directory}: not empty; --overwrite replaces the epoch files in it, "
            f"or name another directory"
        )
    for scratch in directory.glob(f"{_SCRATCH}*"):  # of a run that was killed
        shutil.rmtree(scratch, ignore_errors=True)


def _remove_epochs(directory: Path) -> None:
    """Removes what an earlier run of this program wrote, so that its epochs do not mix with the new ones."""
    for path in directory.iterdir():
        if re.fullmatch(r"epoch_\d+(_metrics)?\.json(\.partial)?", path.name):
            path.unlink()


if __name__ == "__main__":
    raise SystemExit(main())
