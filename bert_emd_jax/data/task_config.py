"""The flags that say which task is learned or scored. No JAX here."""

import dataclasses
from pathlib import Path

from bert_emd_jax.configs import Config, Names, OptionalBool, SameResult


@dataclasses.dataclass(frozen=True, init=False)
class CustomTaskConfig(Config):
    """What files of your own look like, with --task_name custom."""

    text_column: str | None = None
    """Column of the (first) text; not given: text or sentence."""
    text_pair_column: str | None = None
    """Column of the second text, for pairs."""
    label_column: str = "label"
    """Column of the label."""
    labels: Names = ()
    """The labels in order; not given: those of the training file, sorted."""
    regression: bool = False
    """Labels are numbers to predict, not classes."""


@dataclasses.dataclass(frozen=True, init=False)
class TaskConfig(Config):
    """Which texts, and how they become tokens."""

    data_dir: Path
    """Directory of the task's files: train.tsv, dev.tsv, … in GLUE's form, or a custom task's files; tfds:
    TensorFlow Datasets."""
    tfds_data_dir: Path | None = None
    """Where TensorFlow Datasets are kept, for --data_dir tfds; not given: the library's usual place."""
    task_name: str
    """GLUE task in any spelling (sst-2, MRPC, cola …), or custom for files of your own."""
    max_seq_length: int = 128
    """Longest input in tokens, with [CLS] and [SEP]; longer ones are cut."""
    cache_dir: SameResult[Path | None] = None
    """Where tokenised splits of many rows are kept for the next run; not given: ~/.cache/bert_emd_jax."""
    token_cache: SameResult[bool] = True
    """Keep tokenised splits."""
    do_lower_case: OptionalBool = None
    """Lower-case the text. Not given: what the model's tokenizer_config.json says, else yes."""
    columns: CustomTaskConfig = CustomTaskConfig()

    def check(self) -> None:
        self.require("max_seq_length", self.max_seq_length >= 8, "at least 8")
