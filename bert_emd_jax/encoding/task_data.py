"""The encoded splits of a task and the lengths that their batches are padded to."""

import bisect
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from bert_emd_jax.buckets import local_copy
from bert_emd_jax.data.custom_task import UNLABELLED, without_labels
from bert_emd_jax.data.examples import Examples
from bert_emd_jax.data.kind import Kind, Labels
from bert_emd_jax.data.kinds import ANSWER, TOKEN
from bert_emd_jax.data.questions import Questions, read_questions
from bert_emd_jax.data.readers import read_split, scored_splits
from bert_emd_jax.data.sentences import Sentences, read_sentences
from bert_emd_jax.data.task import TFDS, Task
from bert_emd_jax.data.task_config import TaskConfig
from bert_emd_jax.data.tasks import get_task
from bert_emd_jax.encoding.batching import choose_bucket_lengths
from bert_emd_jax.encoding.dataset import EncodedDataset, check_rows
from bert_emd_jax.encoding.question_rows import encode_questions
from bert_emd_jax.encoding.token_cache import cached_encoding
from bert_emd_jax.encoding.token_rows import continued, encode_sentences
from bert_emd_jax.encoding.unlabelled_rows import PartlyLabelled
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.tokenization.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

AnyExamples = Examples | Sentences | Questions


@dataclasses.dataclass(frozen=True)
class TaskData:
    """Training and dev rows, and the padded lengths of their batches.

    `dev_examples` are the texts of `dev`; `more_dev` are further dev sets by the suffix of their metrics'
    names: `_mismatched`. `test` are test rows, if they have labels, and `test_examples` their texts: they
    choose nothing. Without `train_has_labels` only a teacher says what there is to learn.
    """

    task: Task
    train: EncodedDataset
    dev: EncodedDataset
    bucket_lengths: tuple[int, ...]
    dev_examples: AnyExamples
    more_dev: Mapping[str, EncodedDataset] = dataclasses.field(default_factory=dict)
    test: EncodedDataset | None = None
    test_examples: AnyExamples | None = None
    train_has_labels: bool = True

    @property
    def labelled_train(self) -> EncodedDataset | None:
        """The training rows that have labels: all, some, or none."""
        if not self.train_has_labels:
            return None
        return self.train.labelled if isinstance(self.train, PartlyLabelled) else self.train

    def check(self, models: Mapping[object, EncoderConfig]) -> None:
        """Raises UserError if a model (source: config) lacks an embedding that a row needs."""
        for source, config in models.items():
            for rows in (self.train, self.dev, *self.more_dev.values(), *([self.test] if self.test else [])):
                check_rows(rows, config, source)


def task_of(
    config: TaskConfig,
    *,
    model_kind: Kind | None = None,
    model_labels: Labels = None,
    teacher_labels: Labels = None,
) -> Task:
    """Returns the task that the flags name.

    Args:
      model_kind: that of a trained model; a custom task is of this kind, and other flags are refused.
      model_labels: labels of a trained model; a custom task has these if the flags name none.
      teacher_labels: the same, but only if the training file has no labels.
    """
    columns = config.columns
    has_names = model_kind is None or model_kind.fewest_labels is not None
    if model_labels and has_names and not (columns.labels or columns.label_columns):
        columns = columns.replace(labels=model_labels)
    return get_task(
        config.task_name,
        data_dir=config.directory,
        metric=config.metric,
        model_kind=model_kind,
        teacher_labels=teacher_labels,
        **columns.flags(),
    )


def read_examples(
    config: TaskConfig, task: Task, split: str, *, aug_train: bool = False, labels_optional: bool = False
) -> AnyExamples:
    """Reads the texts or sentences of a split. Raises UserError for a missing file or a bad row."""
    directory, optional = config.directory, labels_optional
    if task.kind is TOKEN:
        return read_sentences(task, directory, split, aug_train=aug_train, labels_optional=optional)
    if task.kind is ANSWER:
        if aug_train:
            raise UserError("--aug_train: there are no augmented rows of questions; leave it out")
        return read_questions(task, directory, split, labels_optional=optional)
    return read_split(
        task, directory, split, aug_train, config.tfds_data_dir, labels_optional=labels_optional
    )


def read_unlabelled(config: TaskConfig, task: Task, path: Path) -> AnyExamples:
    """Reads a file of further rows, whatever it says of labels. Raises UserError for a bad one."""
    path = local_copy(path)
    if not path.is_file():
        raise UserError(f"--unlabelled {path}: no such file")
    task = without_labels(task, path, config.columns)
    located = config.replace(data_dir=path.parent)
    examples = read_examples(located, task, UNLABELLED, labels_optional=True)
    if isinstance(examples, Questions):
        return dataclasses.replace(examples, answers=None)
    return examples


def encoded(config: TaskConfig, task: Task, tokenizer: Tokenizer, examples: AnyExamples) -> EncodedDataset:
    """Encodes examples, truncated to `max_seq_length`, or reads their token ids from the cache.

    Sentences and texts with questions are not truncated: long ones become several rows.
    """
    if isinstance(examples, Sentences):
        further = continued(task.labels or ()) if config.columns.label_all_tokens else None
        return encode_sentences(tokenizer, examples, config.max_seq_length, further)
    if isinstance(examples, Questions):
        return encode_questions(tokenizer, examples, config.max_seq_length, config.answers)
    return encoded_texts(config, tokenizer, examples)


def encoded_texts(config: TaskConfig, tokenizer: Tokenizer, examples: Examples) -> EncodedDataset:
    """Encodes texts, truncated to `max_seq_length`, or reads their token ids from the cache."""
    return cached_encoding(tokenizer, examples, config.max_seq_length, config.kept_in)


def bucket_count(batches: int, for_another: Sequence[int]) -> int:
    """Returns how many padded lengths pay for their compilation in so many batches.

    Args:
      for_another: batches that a second length needs, a third and so on (`DeviceNeeds`).
    """
    return 1 + bisect.bisect_right(for_another, batches)


def load_task_data(
    config: TaskConfig,
    task: Task,
    tokenizer: Tokenizer,
    steps_on: Callable[[int], int],
    steps_for_another_length: Sequence[int],
    *,
    aug_train: bool = False,
    labels_optional: bool = False,
    unlabelled: Path | None = None,
) -> TaskData:
    """Reads the training rows and dev sets of a training run.

    Args:
      steps_on: from the number of training rows to that of the run's steps.
      steps_for_another_length: see `bucket_count`.
      labels_optional: training rows may have no labels.
      unlabelled: a file of further training rows without labels.

    Raises:
      UserError: a file is missing or a row is bad.
    """

    def rows_of(examples: AnyExamples) -> EncodedDataset:
        return encoded(config, task, tokenizer, examples)

    train_examples = read_examples(
        config, task, "train", aug_train=aug_train, labels_optional=labels_optional
    )
    train = rows_of(train_examples)
    more = None
    if unlabelled is not None:
        more = read_unlabelled(config, task, unlabelled)
        train = PartlyLabelled.of(train, rows_of(more))
    dev_examples = read_examples(config, task, "dev")
    dev = rows_of(dev_examples)
    more_dev = {
        split.removeprefix("dev"): rows_of(read_examples(config, task, split))
        for split in scored_splits(task, config.directory, "dev", config.tfds_data_dir)[1:]
    }
    buckets = choose_bucket_lengths(
        np.concatenate([rows.lengths for rows in (train, dev, *more_dev.values())]),
        config.max_seq_length,
        count=bucket_count(steps_on(len(train)), steps_for_another_length),
    )
    logger.info(
        "%s: %d training %s%s, %d dev %s; batches padded to %s tokens",
        task.name,
        len(train_examples),
        task.kind.unit,
        "" if more is None else f" and {len(more)} without labels",
        len(dev_examples),
        task.kind.unit,
        ", ".join(map(str, buckets)),
    )
    test_examples = _labelled_test_rows(config, task)
    test = None if test_examples is None else rows_of(test_examples)
    has_labels = train_examples.labels is not None
    return TaskData(task, train, dev, buckets, dev_examples, more_dev, test, test_examples, has_labels)


def _labelled_test_rows(config: TaskConfig, task: Task) -> AnyExamples | None:
    """The test split, if it is there and has labels, as those of own data mostly have and GLUE's have not."""
    file = task.splits.get("test")
    if str(config.directory) == TFDS or file is None or file.label is None:
        return None
    examples = read_examples(config, task, "test")
    return None if examples.labels is None else examples
