"""run_pretrain_data.py: makes pretraining examples from a text corpus, for general distillation."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tqdm import tqdm

from bert_emd_jax.buckets import local_copy
from bert_emd_jax.commands.cli import run_program
from bert_emd_jax.configs import Config, OptionalBool, ReadAnywhere
from bert_emd_jax.corpus.corpus import Corpus, tokenize_corpus
from bert_emd_jax.corpus.manifest import MANIFEST_FILE, create_manifest, differing_entries, read_manifest
from bert_emd_jax.corpus.pretraining_examples import ExampleSettings, Vocabulary
from bert_emd_jax.corpus.writing import example_count, write_epochs
from bert_emd_jax.errors import UserError
from bert_emd_jax.files import write_json
from bert_emd_jax.tokenization.tokenizer import Tokenizer

_TEMPORARY = ".corpus"  # the tokenised corpus until the program is done


@dataclass(frozen=True, init=False)
class ExampleConfig(Config):
    """Properties of the examples."""

    max_seq_len: int = 128
    """Maximum length of an example in tokens, including special tokens."""
    short_seq_prob: float = 0.1
    """Share of documents whose examples are shorter than necessary."""
    masked_lm_prob: float = 0.0
    """Share of tokens to mask; 0: none."""
    max_predictions_per_seq: int = 20
    """Maximum number of masked tokens per example."""
    do_whole_word_mask: bool = False
    """Mask either all pieces of a word or none."""
    one_seq: bool = False
    """Take both texts of an example from one document; otherwise half of the second texts are from
    another."""
    seed: int = 0
    """Random seed."""

    def check(self) -> None:
        for flag in ("max_predictions_per_seq", "seed"):
            self.require(flag, getattr(self, flag) >= 0, "at least 0")
        for flag in ("short_seq_prob", "masked_lm_prob"):
            if not 0 <= getattr(self, flag) <= 1:
                raise UserError(f"--{flag} {getattr(self, flag)}: a probability lies between 0 and 1")
        self.require("max_seq_len", 5 <= self.max_seq_len <= 65536, "between 5 and 65536")


@dataclass(frozen=True, init=False)
class ExecutionConfig(Config):
    """Workers, shards and resuming."""

    num_workers: int = 1
    """Number of processes that tokenise and make examples; does not affect the files."""
    reduce_memory: bool = False
    """Keep the tokenised corpus on disk, in the output directory, while the program runs."""
    shard: Annotated[str, tyro.conf.arg(metavar="I/N")] = "0/1"
    """Make part I of N, counted from 0, in output_dir/shard_I_of_N; together the parts are the whole."""
    resume: bool = False
    """Continue an earlier run with the same flags; a higher --epochs_to_generate adds epochs."""
    overwrite: bool = False
    """Replace the epochs in the output directory."""
    debug: bool = False
    """Show the traceback of an error."""

    def check(self) -> None:
        self.require("num_workers", self.num_workers >= 1, "at least 1")


@dataclass(frozen=True, init=False)
class PretrainDataConfig(Config):
    """Input and output."""

    train_corpus: ReadAnywhere[Path]
    """Text file in UTF-8: one sentence per line, an empty line after each document."""
    bert_model: ReadAnywhere[Path]
    """Model directory whose tokenizer is used."""
    output_dir: Path
    """Directory for epoch_N.json and epoch_N_metrics.json; with --shard they go into a subdirectory."""
    do_lower_case: OptionalBool = None
    """Lower-case the text; default: as in the tokenizer's own configuration."""
    epochs_to_generate: int = 3
    """Number of passes over the corpus, each drawn differently."""
    format: Literal["jsonl", "arrays"] = "jsonl"
    """Format of the examples: JSON lines, or arrays in epoch_N/*.npy, which training maps without parsing."""
    examples: ExampleConfig = ExampleConfig()
    execution: ExecutionConfig = ExecutionConfig()

    def check(self) -> None:
        self.require("epochs_to_generate", self.epochs_to_generate >= 1, "at least 1")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit code."""
    return run_program(
        PretrainDataConfig,
        pretrain_data,
        prog="run_pretrain_data.py",
        description="Makes pretraining examples from a text corpus, for general distillation:"
        " bert-emd distill --pregenerated_data.",
        examples=(
            "--train_corpus corpus.txt --bert_model bert --output_dir corpus",
            "--train_corpus corpus.txt --bert_model bert --output_dir corpus --format arrays --num_workers 8",
        ),
        argv=argv,
    )


def pretrain_data(config: PretrainDataConfig) -> None:
    """Tokenises the corpus and writes the files of every epoch."""
    shard = _parse_shard(config.execution.shard)
    config = config.replace(train_corpus=local_copy(config.train_corpus))
    tokenizer = Tokenizer.from_directory(local_copy(config.bert_model), config.do_lower_case)
    if not config.train_corpus.is_file():
        problem = "a directory; give one text file" if config.train_corpus.is_dir() else "no such file"
        raise UserError(f"--train_corpus {config.train_corpus}: {problem}")
    settings = ExampleSettings(**config.examples.flags())
    directory = config.output_dir
    if shard[1] > 1:
        directory = directory / f"shard_{shard[0]}_of_{shard[1]}"
    manifest = create_manifest(config.train_corpus, tokenizer, settings, config.format, shard)
    epochs = range(config.epochs_to_generate)
    try:
        _prepare_output(config, directory, manifest)
        if any(example_count(directory, epoch) is None for epoch in epochs):
            _write_missing(config, directory, shard, tokenizer, settings)
    except OSError as error:
        if error.filename is not None:
            raise
        # A failed write has no file name, as when the disk is full.
        raise UserError(
            f"--output_dir {directory}: {error.strerror or error}; put that right and go on with --resume"
        ) from error
    for epoch in epochs:
        name = f"epoch_{epoch}" if config.format == "arrays" else f"epoch_{epoch}.json"
        print(f"{directory / name}: {example_count(directory, epoch)} examples")


def _write_missing(
    config: PretrainDataConfig,
    directory: Path,
    shard: tuple[int, int],
    tokenizer: Tokenizer,
    settings: ExampleSettings,
) -> None:
    temporary = None
    if (
        config.execution.reduce_memory or config.execution.num_workers > 1
    ):  # workers share the corpus through the file system
        temporary = directory / _TEMPORARY
        temporary.mkdir(exist_ok=True)
    try:
        corpus = _tokenized(config, tokenizer, temporary)
        if corpus.document_count < 2 and not config.examples.one_seq:
            raise UserError(
                f"{config.train_corpus}: no empty line between documents; pairs need a second document "
                f"for their random next sentence (--one_seq does without)"
            )
    except UserError:
        if not config.execution.resume:
            _remove_output(directory)
        raise
    print(
        f"{config.train_corpus}: {corpus.document_count} documents, {corpus.sentence_count} sentences, "
        f"{len(corpus.tokens)} pieces"
    )
    total = config.epochs_to_generate * corpus.document_count // shard[1]
    with tqdm(desc="examples", unit=" documents", total=total, disable=None) as bar:
        write_epochs(
            corpus if temporary is None else temporary,
            Vocabulary.of(tokenizer),
            settings,
            range(config.epochs_to_generate),
            directory,
            format_name=config.format,
            shard=shard,
            workers=config.execution.num_workers,
            progress=bar.update,
        )
    shutil.rmtree(directory / _TEMPORARY, ignore_errors=True)


def _tokenized(config: PretrainDataConfig, tokenizer: Tokenizer, temporary: Path | None) -> Corpus:
    """Returns the corpus as token ids, those of an interrupted run if it had finished them."""

    if temporary is not None and Corpus.is_complete(temporary):
        return Corpus.open(temporary)
    with tqdm(desc="tokenising", unit=" lines", disable=None) as bar:
        return tokenize_corpus(
            config.train_corpus, tokenizer, temporary, config.execution.num_workers, bar.update
        )


def _parse_shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise UserError(f"--shard {text}: must be I/N with I from 0 to N - 1, as in 0/4, 1/4, 2/4, 3/4")
    return int(match[1]), int(match[2])


def _prepare_output(config: PretrainDataConfig, directory: Path, manifest: dict[str, object]) -> None:
    """Creates the directory, or checks that its contents may be continued or replaced."""

    if config.execution.resume and config.execution.overwrite:
        raise UserError("--resume continues what --overwrite removes; give one of them")
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--output_dir {directory}: not a directory")
    if directory.is_dir() and any(directory.iterdir()) and not config.execution.overwrite:
        if not config.execution.resume:
            raise UserError(
                f"--output_dir {directory}: not empty; --resume continues the run that left it, "
                f"--overwrite replaces the epochs in it, or name another directory"
            )
        earlier = read_manifest(directory)
        if earlier is None:
            raise UserError(
                f"--resume: {directory} holds no {MANIFEST_FILE} of a run to go on with; "
                f"--overwrite replaces the epochs in it"
            )
        if different := differing_entries(earlier, manifest):
            raise UserError(
                f"--resume: the data in {directory} were made with another {', '.join(different)}; "
                f"give the same, or --overwrite"
            )
        return
    if config.execution.resume:
        print(f"--resume: {directory} holds nothing yet, starting from the beginning")
    directory.mkdir(parents=True, exist_ok=True)
    _remove_output(directory)
    write_json(directory / MANIFEST_FILE, manifest)


def _remove_output(directory: Path) -> None:
    """Removes what an earlier run of this program wrote."""

    (directory / MANIFEST_FILE).unlink(missing_ok=True)
    shutil.rmtree(directory / _TEMPORARY, ignore_errors=True)
    for path in directory.iterdir():
        if re.fullmatch(r"epoch_\d+(_metrics)?\.json", path.name):
            path.unlink()
        elif re.fullmatch(r"epoch_\d+(\.partial)?", path.name) and path.is_dir():
            shutil.rmtree(path)


if __name__ == "__main__":
    raise SystemExit(main())
