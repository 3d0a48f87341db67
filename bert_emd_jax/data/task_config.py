"""The flags that say which task is learned or scored. No JAX here."""

import dataclasses
from pathlib import Path
from typing import Literal

from bert_emd_jax.buckets import local_copy
from bert_emd_jax.configs import Config, Names, OptionalBool, ReadAnywhere, SameResult
from bert_emd_jax.data.answer_config import AnswerConfig
from bert_emd_jax.data.kinds import KINDS, REGRESSION
from bert_emd_jax.errors import UserError
from bert_emd_jax.files import cache_directory


@dataclasses.dataclass(frozen=True, init=False)
class CustomTaskConfig(Config):
    """Format of your own files, with --task_name custom."""

    text_column: str | None = None
    """Column of the (first) text; default: text or sentence."""
    text_pair_column: str | None = None
    """Column of the second text, for text pairs."""
    label_column: str = "label"
    """Column of the label, or of a list of labels."""
    label_columns: Names = ()
    """Alternative with --kind multi_label: one column of 0 and 1 per label, in this order."""
    label_separator: str = ","
    """Separator between labels in one cell, with --kind multi_label; JSON lists are read too."""
    label_all_tokens: bool = False
    """With --kind token: learn from all tokens of a word, not only the first."""
    labels: Names = ()
    """Labels in order; default: those of the training file, sorted."""
    kind: Literal[tuple(KINDS)] | None = None  # pyright: ignore[reportInvalidTypeForm]
    """Type of labels: one class per text, a number, any number of labels, one class per token, or answers to
    questions; with embedding, texts have vectors and no labels. Default: that of the evaluated model or the
    teacher, else classification."""
    regression: bool = False
    """Same as --kind regression."""

    def check(self) -> None:
        if self.regression and self.kind not in (None, REGRESSION.name):
            raise UserError(f"--regression and --kind {self.kind}: choose one")
        self.require("label_separator", bool(self.label_separator), "one or more characters")

    @property
    def given_kind(self) -> str | None:
        """The kind that the flags name."""
        return REGRESSION.name if self.regression else self.kind


@dataclasses.dataclass(frozen=True, init=False)
class TaskConfig(Config):
    """Input texts and their tokenisation."""

    data_dir: ReadAnywhere[Path]
    """Directory of the task's files: train.tsv, dev.tsv, … in GLUE's format, or a custom task's files; tfds:
    TensorFlow Datasets."""
    tfds_data_dir: Path | None = None
    """Directory of TensorFlow Datasets, for --data_dir tfds; default: the library's usual place."""
    task_name: str
    """GLUE task in any spelling (sst-2, MRPC, cola …), or custom for your own files."""
    metric: str | None = None
    """Main score, which selects the best step, such as f1_macro or f1_LABEL; default: the task's own."""
    max_seq_length: int = 128
    """Maximum input length in tokens, including [CLS] and [SEP]; longer inputs are cut."""
    cache_dir: SameResult[Path | None] = None
    """Directory that keeps tokenised splits of many rows, and a teacher's predictions, for the next run;
    default: ~/.cache/bert_emd_jax."""
    token_cache: SameResult[bool] = True
    """Cache tokenised splits, and the teacher's predictions for dev and test rows."""
    do_lower_case: OptionalBool = None
    """Lower-case the text; default: as in the model's tokenizer_config.json, else yes."""
    columns: CustomTaskConfig = CustomTaskConfig()
    answers: AnswerConfig = AnswerConfig()

    @property
    def kept_in(self) -> Path | None:
        """Where what can be made again is kept for other runs; None: nowhere."""
        return (self.cache_dir or cache_directory()) if self.token_cache else None

    @property
    def directory(self) -> Path:
        """`data_dir` on this machine. Raises UserError if it is in a bucket and cannot be fetched."""
        return local_copy(self.data_dir)

    def check(self) -> None:
        self.require("max_seq_length", self.max_seq_length >= 8, "at least 8")
