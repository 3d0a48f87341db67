"""A task's splits, encoded for a model, and the padded lengths in use."""

import dataclasses
import logging

import numpy as np

from bert_emd_jax.bert.config import BertConfig
from bert_emd_jax.data.batching import choose_bucket_lengths
from bert_emd_jax.data.encoding import EncodedDataset, encode_examples
from bert_emd_jax.data.readers import read_split
from bert_emd_jax.data.tasks import Task, get_task
from bert_emd_jax.data.tokenization import Tokenizer
from bert_emd_jax.errors import UserError
from bert_emd_jax.training.config import TaskConfig, TrainingConfig

logger = logging.getLogger(__name__)

MOST_BUCKETS = 4
# A compilation takes as long as some tens of steps on shorter rows save.
BATCHES_PER_COMPILATION = 50


@dataclasses.dataclass(frozen=True)
class TaskData:
    """Training and dev rows, and the few lengths that batches of either are padded to."""

    task: Task
    train: EncodedDataset
    dev: EncodedDataset
    bucket_lengths: tuple[int, ...]


def task_of(config: TaskConfig, known_labels: tuple[str, ...] | None = None) -> Task:
    """The task that the flags name.

    Args:
      known_labels: what a trained model calls its labels; a custom task has these where the flags name none.
    """
    return get_task(
        config.task_name,
        data_dir=config.data_dir,
        text_column=config.text_column,
        text_pair_column=config.text_pair_column,
        label_column=config.label_column,
        labels=config.labels or known_labels,
        regression=config.regression,
    )


def encoded_split(
    config: TaskConfig, task: Task, tokenizer: Tokenizer, split: str, *, aug_train: bool = False
) -> EncodedDataset:
    """The rows of a split as token ids, cut to `max_seq_length`."""
    examples = read_split(task, config.data_dir, split, aug_train=aug_train)
    return encode_examples(tokenizer, examples, config.max_seq_length)


def bucket_count(batches: int) -> int:
    """How many padded lengths so many batches deserve: each costs a compilation."""
    return min(MOST_BUCKETS, 1 + batches // BATCHES_PER_COMPILATION)


def load_task_data(
    config: TrainingConfig, task: Task, tokenizer: Tokenizer, *, aug_train: bool = False
) -> TaskData:
    """Both splits of a training run.

    Raises:
      UserError: a file is missing or a row is bad.
    """
    train = encoded_split(config, task, tokenizer, "train", aug_train=aug_train)
    dev = encoded_split(config, task, tokenizer, "dev")
    steps = config.num_train_epochs * -(-len(train) // config.train_batch_size)
    buckets = choose_bucket_lengths(
        np.concatenate([train.lengths, dev.lengths]),
        config.max_seq_length,
        count=bucket_count(min(steps, config.max_steps or steps)),
    )
    logger.info(
        "%s: %d training rows, %d dev rows; batches padded to %s tokens",
        task.name,
        len(train),
        len(dev),
        ", ".join(map(str, buckets)),
    )
    return TaskData(task, train, dev, buckets)


def check_length(max_seq_length: int, max_positions: int, source: object) -> None:
    """Raises UserError where the model has fewer position embeddings than the longest input needs."""
    if max_seq_length > max_positions:
        raise UserError(
            f"--max_seq_length {max_seq_length}: {source} has position embeddings"
            f" for {max_positions} tokens only"
        )


def check_labels(model: BertConfig, task: Task, source: str) -> None:
    """Raises UserError where a trained classifier knows another set or order of labels than the task."""
    if model.num_labels != task.num_labels:
        raise UserError(f"{source}: it has {model.num_labels} labels, task {task.name} has {task.num_labels}")
    theirs, ours = model.id2label, task.labels
    if theirs and ours and theirs != ours and set(theirs) == set(ours):
        raise UserError(
            f"{source}: its labels are in the order {', '.join(theirs)},"
            f" those of {task.name} in the order {', '.join(ours)}"
        )
