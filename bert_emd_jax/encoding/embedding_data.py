"""Texts to embed: those that are learned from, and those whose vectors are measured."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from bert_emd_jax.data.examples import Examples
from bert_emd_jax.data.readers import read_split
from bert_emd_jax.data.retrieval import has_retrieval, read_retrieval
from bert_emd_jax.data.task import Task
from bert_emd_jax.data.task_config import TaskConfig
from bert_emd_jax.encoding.batching import choose_bucket_lengths
from bert_emd_jax.encoding.dataset import EncodedDataset, check_rows
from bert_emd_jax.encoding.task_data import bucket_count, encoded_texts
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.embedding_config import EmbeddingConfig
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.tokenization.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

# Of the training texts, if there is no dev set: at most so many, and at most this share.
_HELD_OUT_TEXTS = 1000
_HELD_OUT_SHARE = 0.1
# sentence-transformers' names of the prompts of queries and documents.
_QUERY_PROMPTS = ("query",)
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")


class ScoredPairs(NamedTuple):
    """Pairs of texts and how similar they are; `rows` are those of their texts."""

    rows: Int[np.ndarray, "pairs 2"]
    scores: Float[np.ndarray, " pairs"]
    examples: Examples


class Retrieval(NamedTuple):
    """Rows of queries and documents, and for every query {index of a document: grade above 0}."""

    queries: Int[np.ndarray, " queries"]
    documents: Int[np.ndarray, " documents"]
    grades: list[dict[int, float]]


@dataclasses.dataclass(frozen=True)
class EmbeddingSplit:
    """Texts, each once, and what is known of them; with neither pairs nor retrieval they are just texts.

    Attributes:
      texts: as they are read, with a prompt if they have one.
      rows: their tokens.
    """

    texts: tuple[str, ...]
    rows: EncodedDataset
    pairs: ScoredPairs | None = None
    retrieval: Retrieval | None = None

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All that follows from the files, for hashes."""
        arrays = {"token_ids": self.rows.token_ids, "offsets": self.rows.offsets}
        if self.pairs is not None:
            arrays |= {"pairs": self.pairs.rows, "scores": self.pairs.scores}
        if self.retrieval is not None:
            arrays |= {"queries": self.retrieval.queries, "documents": self.retrieval.documents}
        return arrays

    def __len__(self) -> int:
        """The number of what is measured: pairs, else queries, else texts."""
        if self.pairs is not None:
            return len(self.pairs.scores)
        return len(self.texts) if self.retrieval is None else len(self.retrieval.queries)

    @property
    def unit(self) -> str:
        """What `len` counts."""
        if self.pairs is not None:
            return "pairs"
        return "texts" if self.retrieval is None else "queries"


@dataclasses.dataclass(frozen=True)
class EmbeddingData:
    """Texts to learn from, and the splits whose vectors are measured; `test` chooses nothing."""

    task: Task
    train: EncodedDataset
    dev: EmbeddingSplit
    bucket_lengths: tuple[int, ...]
    test: EmbeddingSplit | None = None

    def check(self, models: Mapping[object, EncoderConfig]) -> None:
        """Raises UserError if a model (source: config) lacks an embedding that a row needs."""
        for source, config in models.items():
            for rows in (self.train, self.dev.rows, *([self.test.rows] if self.test else [])):
                check_rows(rows, config, source)


def load_embedding_data(
    config: TaskConfig,
    task: Task,
    tokenizer: Tokenizer,
    embedding: EmbeddingConfig,
    steps_on: Callable[[int], int],
    steps_for_another_length: Sequence[int],
    *,
    aug_train: bool = False,
) -> EmbeddingData:
    """Reads the texts of a training run. Equal ones are learned from once.

    Args:
      embedding: of the teacher; its default prompt stands before all texts.
      steps_on, steps_for_another_length: see `task_data.load_task_data`.

    Raises:
      UserError: a file is missing or a row is bad.
    """
    examples = read_split(task, config.directory, "train", aug_train)
    prompt = embedding.prompt(None)
    read = [text for pair in _texts_of(examples) for text in pair]
    texts = list(dict.fromkeys(embedding.prepared(text, prompt) for text in read))
    dev = load_embedding_split(config, task, tokenizer, embedding, "dev")
    if dev is None:
        count = min(_HELD_OUT_TEXTS, int(_HELD_OUT_SHARE * len(texts)))
        if not count:
            raise UserError(f"{examples.path}: too few texts to hold some out; add a dev file")
        texts, held_out = texts[:-count], texts[-count:]
        logger.info("no dev file: the last %d training texts are held out to measure on", count)
        dev = _Texts(held_out).split(config, tokenizer)
    train = encoded_texts(config, tokenizer, Examples.from_texts(texts))
    buckets = choose_bucket_lengths(
        np.concatenate([train.lengths, dev.rows.lengths]),
        config.max_seq_length,
        count=bucket_count(steps_on(len(train)), steps_for_another_length),
    )
    logger.info(
        "%s: %d different training texts of %d, %d dev %s; batches padded to %s tokens",
        task.name,
        len(train),
        len(read),
        len(dev),
        dev.unit,
        ", ".join(map(str, buckets)),
    )
    test = load_embedding_split(config, task, tokenizer, embedding, "test")
    return EmbeddingData(task, train, dev, buckets, test)


def load_embedding_split(
    config: TaskConfig, task: Task, tokenizer: Tokenizer, embedding: EmbeddingConfig, split: str
) -> EmbeddingSplit | None:
    """Reads what is measured on a split; None if nothing is there.

    Queries and documents of retrieval get their own prompts, if the model has them.
    """
    texts, pairs, retrieval = _Texts(), None, None
    default = embedding.prompt(None)
    if split in task.splits:
        examples = read_split(task, config.directory, split)
        rows = [
            [texts.row(embedding.prepared(text, default)) for text in pair] for pair in _texts_of(examples)
        ]
        if examples.labels is not None:
            pairs = ScoredPairs(np.array(rows), examples.labels, examples)
    if has_retrieval(config.directory, split):
        read = read_retrieval(config.directory, split)

        def rows_of(side: list[str], prompt_names: tuple[str, ...]) -> np.ndarray:
            known = dict(embedding.prompts)
            prompt = embedding.prompt(next((name for name in prompt_names if name in known), None))
            return np.array([texts.row(embedding.prepared(text, prompt)) for text in side])

        queries = rows_of(read.queries, _QUERY_PROMPTS)
        retrieval = Retrieval(queries, rows_of(read.documents, _DOCUMENT_PROMPTS), read.grades)
    if not texts.order:
        return None
    return texts.split(config, tokenizer, pairs, retrieval)


class _Texts:
    """Different texts, in the order in which they come."""

    def __init__(self, texts: Sequence[str] = ()) -> None:
        self.order: dict[str, int] = {text: row for row, text in enumerate(texts)}

    def row(self, text: str) -> int:
        """The row of a text, which is added if it is new."""
        return self.order.setdefault(text, len(self.order))

    def split(
        self,
        config: TaskConfig,
        tokenizer: Tokenizer,
        pairs: ScoredPairs | None = None,
        retrieval: Retrieval | None = None,
    ) -> EmbeddingSplit:
        rows = encoded_texts(config, tokenizer, Examples.from_texts(list(self.order)))
        return EmbeddingSplit(tuple(self.order), rows, pairs, retrieval)


def _texts_of(examples: Examples) -> list[tuple[str, ...]]:
    """The one or two texts of every row."""
    columns = [examples.texts_a] if examples.texts_b is None else [examples.texts_a, examples.texts_b]
    return list(zip(*columns, strict=True))
