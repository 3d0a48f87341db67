"""A trained model for texts: `load(path)`, then `classify`, `tag`, `embed` … Imports JAX when needed."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from bert_emd_jax.configs import Dtype
from bert_emd_jax.data.kind import LabellingKind, Prediction
from bert_emd_jax.data.kinds import EMBEDDING, KINDS, kind_of
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.embedding_config import EmbeddingConfig

if TYPE_CHECKING:
    from bert_emd_jax.checkpoints.model_directory import LoadedModel
    from bert_emd_jax.encoding.dataset import EncodedDataset
    from bert_emd_jax.evaluation.prediction import Predictor
    from bert_emd_jax.evaluation.tagging import Entity

Pooling = Literal["mean", "cls", "max", "tokens"]

_SHORTEST_BUCKET = 16  # tokens
_LONGEST_TEXT = 128  # tokens, unless a model or its user says otherwise
_LONGEST_WITH_QUESTION = 384  # a window of a text that is searched


def load(
    path: str | Path, *, max_seq_length: int | None = None, batch_size: int = 64, dtype: Dtype = "float32"
) -> "Model":
    """A trained model of any kind, ready for texts; an encoder without a head gives vectors of texts.

    Args:
      path: a model directory, a directory of Hugging Face or sentence-transformers, a weights file beside its
        config, or a hub id.
      max_seq_length: longer texts are cut to so many tokens; None: as a sentence embedder says, else 128.
      batch_size: texts per batch, over all devices.

    Raises:
      UserError: nothing loadable there.
    """
    from bert_emd_jax.checkpoints.model_directory import load_for_texts

    model = load_for_texts(Path(path).expanduser())
    return Model(model, max_seq_length, batch_size, dtype, source=path)


class Model:
    """A model with its tokenizer, of one kind of task. Methods of other kinds raise a UserError.

    Attributes:
      loaded: its config, parameters and tokenizer.
      kind: "classification", "regression", "multi_label", "token", "answer" or "embedding".
      labels: their names in the order of the logits, numbers if the model has no names; None without labels.
    """

    def __init__(
        self,
        loaded: "LoadedModel",
        max_seq_length: int | None = None,
        batch_size: int = 64,
        dtype: str = "float32",
        *,
        source: object = "the model",
    ):
        if dtype not in get_args(Dtype):
            raise UserError(f"dtype {dtype}: is none of {', '.join(get_args(Dtype))}")
        from bert_emd_jax.devices.parallel import replicate
        from bert_emd_jax.devices.precision import resolved_dtype

        self.loaded = loaded
        self._kind = kind_of(loaded.config, source).deciding_by(loaded.config.thresholds)
        own = self._embedding.max_seq_length or loaded.config.longest_input
        if max_seq_length is None:
            longest = {"embedding": own, "answer": _LONGEST_WITH_QUESTION}
            max_seq_length = longest.get(loaded.config.head or "", _LONGEST_TEXT)
        self._max_length = min(max_seq_length, loaded.config.longest_input)
        self._batch_size = batch_size
        self._params = replicate(loaded.params)
        self._dtype = resolved_dtype(dtype)

    def __repr__(self) -> str:
        from bert_emd_jax.evaluation.model_cost import size_of

        size = size_of(self.loaded.config, self.loaded.params)
        what = f"{size['layers']} layers of width {size['hidden_size']}, {size['parameters']:,} parameters"
        labels = "" if self.labels is None else f"; labels: {', '.join(self.labels)}"
        return f"<Model {self.kind}: {what}{labels}>"

    @property
    def kind(self) -> str:
        return self._kind.name

    @property
    def labels(self) -> tuple[str, ...] | None:
        config = self.loaded.config
        if self._kind.fewest_labels is None:
            return None
        return config.id2label or tuple(str(index) for index in range(config.num_labels))

    def logits(
        self, texts: Iterable[str], pairs: Iterable[str] | None = None
    ) -> Float[np.ndarray, "rows labels"]:
        """The logits of every text, or of every pair (`texts[k]`, `pairs[k]`), float32."""
        self._require("logits")
        dataset = self._encoded(texts, pairs)
        if dataset is None:
            return np.zeros((0, self.loaded.config.num_labels), np.float32)
        return self._predictor(None).logits(self._params, dataset, *self._batches(dataset))

    def predict(
        self, texts: Iterable[str], pairs: Iterable[str] | None = None
    ) -> Float[np.ndarray, "rows ..."]:
        """Probabilities [rows, labels], each by itself in a multi-label model; values [rows]."""
        self._require("predict")
        return self._kind.predictions(self.logits(texts, pairs)).astype(np.float32)

    def classify(
        self, texts: Iterable[str], pairs: Iterable[str] | None = None, *, top_k: int | None = None
    ) -> list[Prediction] | list[list[Prediction]]:
        """The most probable label of every text; of a multi-label model a list of those above one half.

        A model whose config has `thresholds` gives a label above these.

        Args:
          top_k: instead of every text a list of so many labels, the most probable first.

        Raises:
          UserError: the model is of a kind without classes.
        """
        self._require("classify")
        kind, labels = self._kind, self.labels
        assert isinstance(kind, LabellingKind)
        assert labels is not None
        predictions = self.predict(texts, pairs)
        if _checked(top_k) is None:
            return [kind.decided(row, labels) for row in predictions]
        best = np.argsort(-predictions, axis=1, kind="stable")[:, :top_k]
        return [
            [Prediction(labels[index], float(row[index])) for index in order]
            for row, order in zip(predictions, best, strict=True)
        ]

    def save(self, directory: str | Path) -> None:
        """Writes a model directory, with its `pytorch/` for transformers or sentence-transformers."""
        from bert_emd_jax.checkpoints.model_directory import save_model

        save_model(Path(directory).expanduser(), self.loaded)

    def tag(self, texts: Iterable[str] | Iterable[Sequence[str]]) -> list[list["Entity"]]:
        """The entities of every text, with their places in it; texts may be lists of words, too.

        Long texts are read in windows, none is cut.

        Raises:
          UserError: the model is not a classifier of tokens, or a row is not text.
        """
        self._require("tag")
        from bert_emd_jax.data.examples import Examples
        from bert_emd_jax.data.sentences import Sentences
        from bert_emd_jax.encoding.dataset import check_rows
        from bert_emd_jax.evaluation.tagging import found_entities, words_of_lists, words_of_texts

        tokenizer, length = self.loaded.tokenizer, self._max_length
        given: Any = texts if isinstance(texts, list | tuple) else Examples.from_texts(texts).texts_a  # pyright: ignore[reportArgumentType]
        if given and all(isinstance(text, list | tuple) for text in given):
            words = words_of_lists(tokenizer, Sentences.from_words(given).words, length)
        else:
            words = words_of_texts(tokenizer, Examples.from_texts(given).texts_a, length)
        if not words.rows.predicted:
            return [[] for _ in given]
        check_rows(words.rows, self.loaded.config, "the model")
        logits = self._predictor(None).logits(self._params, words.rows, *self._batches(words.rows))
        assert self.labels is not None
        return found_entities(words, self._kind.predictions(logits), self.labels, given)

    def answer(
        self,
        question: str | Sequence[str],
        context: str | Sequence[str],
        *,
        top_k: int | None = None,
        may_be_none: bool = False,
    ) -> Any:
        """The answer to a question out of a text; to lists of both a list of answers.

        Args:
          top_k: instead of every answer a list of so many, the best first.
          may_be_none: the answer may be "", that there is none.

        Raises:
          UserError: the model is not a finder of answers, or a question or a text is none.
        """
        self._require("answer")
        _checked(top_k)
        from bert_emd_jax.data.answer_config import AnswerConfig
        from bert_emd_jax.data.examples import Examples
        from bert_emd_jax.data.questions import Questions
        from bert_emd_jax.encoding.dataset import check_rows
        from bert_emd_jax.encoding.question_rows import encode_questions
        from bert_emd_jax.evaluation.answers import found_answers

        is_one = isinstance(question, str) and isinstance(context, str)
        asked = [question] if isinstance(question, str) else list(question)
        texts = [context] * len(asked) if isinstance(context, str) else list(context)
        examples = Examples.from_texts(asked, texts)
        if not asked:
            return []
        config = AnswerConfig(null_threshold=0.0 if may_be_none else None)
        config = config.replace(max_query_length=min(config.max_query_length, self._max_length // 3))
        questions = Questions(asked, texts, None, examples.identifiers, examples.path)
        rows = encode_questions(self.loaded.tokenizer, questions, self._max_length, config)
        check_rows(rows, self.loaded.config, "the model")
        logits = self._predictor(None).logits(self._params, rows, *self._batches(rows))
        found = found_answers(rows, logits)
        answers = [best[0] if top_k is None else best[:top_k] for best in found]
        return answers[0] if is_one else answers

    def embed(
        self,
        texts: Iterable[str],
        pooling: Pooling | None = None,
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
    ) -> Any:
        """A vector of every text, float32 [rows, dim], as sentence-transformers' `encode` gives it.

        A model of any kind has vectors: those of its encoder.

        Args:
          pooling: None: as the model's own modules say, if it is a sentence embedder, else the mean over
            tokens. Else of the last layer's states alone: "mean" or "max" over tokens, "cls" for the first
            token, or "tokens" for the states of all: a list of arrays [tokens, dim].
          prompt_name: of the model's prompts, put before every text; None: its default prompt, if it has one.
          prompt: the text of another prompt.

        Raises:
          UserError: an unknown pooling or prompt.
        """
        if pooling not in (None, *get_args(Pooling)):
            raise UserError(f"pooling {pooling!r}: is none of {', '.join(get_args(Pooling))}")
        if prompt is None:
            prompt = self._embedding.prompt(prompt_name)
        from bert_emd_jax.data.examples import Examples

        given = Examples.from_texts(texts).texts_a
        dataset = self._encoded([self._embedding.prepared(text, prompt) for text in given])
        predictor = self._predictor(pooling or ("own" if self.kind == EMBEDDING.name else "mean"))
        if pooling == "tokens":
            if dataset is None:
                return []
            return predictor.token_states(self._params, dataset, *self._batches(dataset))
        if dataset is None:
            return np.zeros((0, predictor.outputs), np.float32)
        return predictor.logits(self._params, dataset, *self._batches(dataset))

    def similarity(self, texts: Any, others: Any) -> Float[np.ndarray, "rows others"]:
        """How similar each text is to each of `others`: cosines, unless the model's files say otherwise.

        Args:
          texts: texts, or their vectors.
          others: the same.
        """
        from bert_emd_jax.evaluation.vector_scores import similarity

        sides = [side if isinstance(side, np.ndarray) else self.embed(side) for side in (texts, others)]
        return similarity(self._embedding, *sides)

    @property
    def _embedding(self) -> EmbeddingConfig:
        return self.loaded.config.embedding or EmbeddingConfig()

    def _encoded(self, texts: Iterable[str], pairs: Iterable[str] | None = None) -> "EncodedDataset | None":
        """The tokens of texts; None if there are none."""
        from bert_emd_jax.data.examples import Examples
        from bert_emd_jax.encoding.dataset import check_rows, encode_examples

        examples = Examples.from_texts(texts, pairs)
        if not len(examples):
            return None
        dataset = encode_examples(self.loaded.tokenizer, examples, self._max_length)
        check_rows(dataset, self.loaded.config, "the model")
        return dataset

    def _batches(self, dataset: "EncodedDataset") -> tuple[tuple[int, ...], int]:
        """Padded lengths and rows of a batch: few shapes, so that other texts seldom compile anew."""
        lengths = _doublings(_SHORTEST_BUCKET, int(dataset.lengths.max()), self._max_length)
        return lengths, _doublings(1, len(dataset), self._batch_size)[-1]

    @functools.lru_cache  # noqa: B019  (a model has a handful, and lives as long as they are of use)
    def _predictor(self, pooling: str | None) -> "Predictor":
        """Of logits for None; of vectors by a pooling, "own" for the model's; of states for "tokens"."""
        import jax.numpy as jnp

        from bert_emd_jax.evaluation.prediction import Predictor
        from bert_emd_jax.models.heads import (
            MODULES,
            AnswerFinder,
            SentenceEmbedder,
            SequenceClassifier,
            TokenClassifier,
        )

        config, dtype = self.loaded.config, jnp.dtype(self._dtype)
        if pooling is None:
            module = MODULES[config.head or "classifier"](config, dtype)
            assert isinstance(module, SequenceClassifier | TokenClassifier | AnswerFinder)
            return Predictor(module)
        if pooling not in ("own", "tokens"):
            config = dataclasses.replace(config, embedding=EmbeddingConfig(pooling=(pooling,)))
        return Predictor(SentenceEmbedder(config, dtype), of="tokens" if pooling == "tokens" else "logits")

    def _require(self, method: str) -> None:
        if method not in self._kind.methods:
            having = " or ".join(kind.name for kind in KINDS.values() if method in kind.methods)
            raise UserError(
                f"{method}: is for models of kind {having}; this one is of kind {self.kind}, and has"
                f" {', '.join(self._kind.methods)}"
            )


def _checked(top_k: int | None) -> int | None:
    if top_k is not None and top_k < 1:
        raise UserError(f"top_k {top_k}: must be at least 1")
    return top_k


def _doublings(first: int, enough: int, most: int) -> tuple[int, ...]:
    """first, 2 first, 4 first … up to the first that is `enough`, none above `most`."""
    sizes = [min(first, most)]
    while sizes[-1] < min(enough, most):
        sizes.append(min(2 * sizes[-1], most))
    return tuple(sizes)
