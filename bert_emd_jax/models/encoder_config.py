"""The architecture of a model, read from Hugging Face's `config.json` or Google's `bert_config.json`."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert_emd_jax.errors import UserError
from bert_emd_jax.layout import CONFIG
from bert_emd_jax.models.embedding_config import EmbeddingConfig
from bert_emd_jax.models.families import FAMILIES, Family, Head
from bert_emd_jax.models.supported_configs import model_type_of, refuse_other_models

ACTIVATIONS = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "silu", "swish", "tanh", "mish")

PROBLEM_TYPES = ("single_label_classification", "regression", "multi_label_classification")
_HEADS_BY_PROBLEM_TYPE: dict[str | None, Head] = {
    "token_classification": "token",
    "question_answering": "answer",
}
"""Meanings of logits that transformers names by the class of the model alone."""

# Google's bert_config.json names no label count and no layer_norm_eps: the defaults are its own.
_REQUIRED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")

# Fields that few models have: they are written if they are set.
_OPTIONAL = ("embedding", "thresholds", "embedding_size", "answer_dropout")

# Far beyond every model: what is larger is a damaged file, and would end in endless loops or no memory.
_MOST_LAYERS = 1000
_LARGEST_SIZE = (1 << 31) - 1


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Sizes and constants of a BERT-shaped encoder and its heads, under the names of Hugging Face's BERT.

    `model_type` is its entry in `FAMILIES`. `id2label` holds the label names in the order of the classifier's
    rows; None means unnamed. `classifier_activation` is applied to the pooled output before the classifier:
    "none" in BERT, "relu" in the code TinyBERT was released with. `problem_type` says what a classifier's
    logits mean if it is not the usual: a softmax over several labels, a value if there is one. The usual is
    kept as None. `embedding` is that of a sentence embedder, None of other models. `thresholds` are the
    probabilities above which a text is given a label: of several labels one each, of two classes that of the
    second; None stands for one half. `embedding_size` is the width of the embeddings if it is another than
    that of the layers. `answer_dropout` is that before a head for answers.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None
    answer_dropout: float | None = None
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    num_labels: int = 2
    id2label: tuple[str, ...] | None = None
    classifier_activation: str = "none"
    problem_type: str | None = None
    model_type: str = "bert"
    embedding: EmbeddingConfig | None = None
    thresholds: tuple[float, ...] | None = None
    embedding_size: int | None = None

    def __post_init__(self) -> None:
        if self.model_type not in FAMILIES:
            raise UserError(f"model_type {self.model_type!r} is not one of {', '.join(FAMILIES)}")
        if self.embedding_size == self.hidden_size:
            object.__setattr__(self, "embedding_size", None)
        if self.classifier_dropout is None:  # which transformers takes for another rate in some families
            object.__setattr__(self, "classifier_dropout", self.family.defaults.get("classifier_dropout"))
        sizes = () if self.embedding_size is None else ("embedding_size",)
        for name in (*_REQUIRED, "max_position_embeddings", "type_vocab_size", "num_labels", *sizes):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(f"{name} must be a positive integer, not {value!r}")
            if value > (_MOST_LAYERS if name == "num_hidden_layers" else _LARGEST_SIZE):
                raise UserError(f"{name} is larger than any BERT's")
        for name in (
            *("hidden_dropout_prob", "attention_probs_dropout_prob"),
            *("classifier_dropout", "answer_dropout"),
        ):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and 0 <= value < 1):
                raise UserError(f"{name} must lie in [0, 1), not {value!r}")
        for name in ("layer_norm_eps", "initializer_range"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1:
                raise UserError(f"{name} must lie between 0 and 1, not {value!r}")
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"hidden_size {self.hidden_size} is not a multiple of"
                f" num_attention_heads {self.num_attention_heads}"
            )
        if self.hidden_act not in ACTIVATIONS:
            raise UserError(f"hidden_act {self.hidden_act!r} is not one of {', '.join(ACTIVATIONS)}")
        if self.classifier_activation not in ("none", "relu"):
            raise UserError(f"classifier_activation {self.classifier_activation!r} is neither none nor relu")
        self._check_family()
        if self.problem_type not in (None, *PROBLEM_TYPES, *_HEADS_BY_PROBLEM_TYPE):
            raise UserError(f"problem_type {self.problem_type!r} is not one of {', '.join(PROBLEM_TYPES)}")
        if self.problem_type == _usual_problem_type(self.num_labels):
            object.__setattr__(self, "problem_type", None)  # so that equal configs compare as equal
        if self.id2label is not None and len(self.id2label) != self.num_labels:
            raise UserError(f"id2label names {len(self.id2label)} labels, num_labels is {self.num_labels}")
        self._check_thresholds()

    def _check_family(self) -> None:
        """Raises UserError for a value that no model of the family has."""
        family = self.family
        for name, value in family.fixed.items():
            if getattr(self, name) != value:
                raise UserError(f"{name} is {value} in {family.title}, not {getattr(self, name)!r}")
        if self.embedding_size is not None and not family.has_embedding_size:
            raise UserError(
                f"embeddings of width {self.embedding_size}: those of {family.title} have hidden_size"
            )
        if family.classifier_dense is not None and self.classifier_activation != "none":
            raise UserError(f"classifier_activation is for BERT alone, not {family.title}")
        if self.longest_input < 1:
            raise UserError(
                f"max_position_embeddings {self.max_position_embeddings}: none is left, {family.title}'s"
                f" positions begin at {self.first_position}"
            )

    def _check_thresholds(self) -> None:
        given = self.thresholds
        if given is None:
            return
        wanted = 1 if self.num_labels == 2 else 0
        if self.resolved_problem_type != "single_label_classification":
            wanted = self.num_labels if self.problem_type == "multi_label_classification" else 0
        if len(given) != wanted:
            raise UserError(f"thresholds: {len(given)} are named, this model has room for {wanted}")
        if not all(isinstance(one, float) and 0 < one < 1 for one in given):
            raise UserError(f"thresholds must lie between 0 and 1, not {given!r}")

    @property
    def family(self) -> Family:
        return FAMILIES[self.model_type]

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def embedding_width(self) -> int:
        """Width of the embeddings, before a projection to that of the layers."""
        return self.embedding_size or self.hidden_size

    @property
    def first_position(self) -> int:
        """The row of the position table that the first token gets."""
        return self.pad_token_id + 1 if self.family.positions_after_padding else 0

    @property
    def longest_input(self) -> int:
        """The most tokens of an input."""
        return self.max_position_embeddings - self.first_position

    @property
    def output_size(self) -> int:
        """Width of a sentence embedder's vectors, or of a classifier's logits."""
        if self.embedding is not None:
            return self.embedding.vector_size(self.hidden_size)
        return self.num_labels

    @property
    def head(self) -> Head | None:
        """The head that the config names; None if only the parameters tell."""
        if self.embedding is not None:
            return "embedding"
        return _HEADS_BY_PROBLEM_TYPE.get(self.problem_type)

    def with_head(self, head: Head) -> "EncoderConfig":
        """Returns the same for another head: what it said of one that is not there is gone."""
        problem_type = {head: name for name, head in _HEADS_BY_PROBLEM_TYPE.items()}.get(head)
        if head == "answer":
            return dataclasses.replace(
                self,
                problem_type=problem_type,
                num_labels=2,
                id2label=None,
                embedding=None,
                thresholds=None,
            )
        if head == self.head or (self.head is None and problem_type is None):
            return self
        embedding = self.embedding if head == "embedding" else None
        return dataclasses.replace(self, problem_type=problem_type, embedding=embedding, thresholds=None)

    def with_dropout(self, rate: float) -> "EncoderConfig":
        """Returns the same with one rate for hidden states, attention and the head."""
        return dataclasses.replace(
            self,
            hidden_dropout_prob=rate,
            attention_probs_dropout_prob=rate,
            classifier_dropout=None if self.classifier_dropout is None else rate,
            answer_dropout=None if self.answer_dropout is None else rate,
        )

    @property
    def resolved_problem_type(self) -> str:
        """What a classifier's logits mean."""
        return self.problem_type or _usual_problem_type(self.num_labels)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "config") -> "EncoderConfig":
        """Returns the config of Hugging Face or Google keys.

        Args:
          source: the file, for messages.

        Raises:
          UserError: the file describes another architecture, or a value is missing or out of range.
        """
        model_type = model_type_of(values, source)
        refuse_other_models(values, FAMILIES[model_type], source)
        family = FAMILIES[model_type]
        ours = {key: name for name, key in family.keys.items()}
        values = {ours.get(key, key): value for key, value in values.items()}
        given = {name: value for name, value in values.items() if value is not None}
        values = {**family.defaults, **given, **family.fixed, "model_type": model_type}
        missing = [name for name in _REQUIRED if values.get(name) is None]
        if missing:
            raise UserError(
                f"{source}: no {', '.join(missing)}; take the config.json that belongs to the weights"
            )
        classes = values.get("architectures")
        for problem_type, head in _HEADS_BY_PROBLEM_TYPE.items():
            if isinstance(classes, list) and family.classes.get(head) in classes:
                values["problem_type"] = problem_type
        known = {field.name for field in dataclasses.fields(cls)} - {"id2label", "num_labels"}
        chosen = {name: value for name, value in values.items() if name in known and value is not None}
        labels = _label_names(values, source)
        if labels is not None:
            # transformers' automatic names LABEL_n say no more than the index.
            unnamed = all(label in (None, f"LABEL_{index}") for index, label in enumerate(labels))
            names = None if unnamed else tuple(map(str, labels))
            chosen |= {"num_labels": len(labels), "id2label": names}
        elif values.get("num_labels") is not None:
            chosen["num_labels"] = values["num_labels"]
        try:
            if "embedding" in chosen:
                chosen["embedding"] = EmbeddingConfig.from_dict(chosen["embedding"])
            if "thresholds" in chosen:
                chosen["thresholds"] = _thresholds(chosen["thresholds"])
            return cls(**chosen)
        except UserError as error:
            raise UserError(f"{source}: {error}") from None

    def values(self) -> dict[str, Any]:
        """Returns field → value, without those that few models have, as in hashes of earlier versions."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if value is not None or name not in _OPTIONAL}

    def to_dict(self) -> dict[str, Any]:
        """Returns the config under Hugging Face's keys, ready for `config.json`."""
        values = self.values()
        num_labels, names = values.pop("num_labels"), values.pop("id2label")
        values["problem_type"] = self.resolved_problem_type
        head = self.head
        if head is not None and self.problem_type in _HEADS_BY_PROBLEM_TYPE:
            del values["problem_type"]  # transformers refuses values that it does not know
            values["architectures"] = [self.family.classes[head]]
        # transformers derives the number of labels from id2label, so unnamed ones are written as LABEL_n.
        labels = names or tuple(f"LABEL_{index}" for index in range(num_labels))
        keys, fixed = self.family.keys, self.family.fixed
        values = {name: value for name, value in values.items() if name not in fixed}
        if self.family.has_embedding_size:
            values["embedding_size"] = self.embedding_width
        return {
            "model_type": values.pop("model_type"),
            **{keys.get(name, name): value for name, value in values.items()},
            "id2label": {str(index): label for index, label in enumerate(labels)},
            "label2id": {label: index for index, label in enumerate(labels)},
        }


def load_config(path: Path) -> EncoderConfig:
    """Reads the config in a file, or in `config.json` or `bert_config.json` of a directory.

    Raises:
      UserError: there is no such file, it is not a JSON object, or it describes no BERT.
    """
    values, source = read_config_values(path)
    return EncoderConfig.from_dict(values, source)


def read_config_values(path: Path) -> tuple[dict[str, Any], str]:
    """Reads the keys of a config file, or of the one in a directory; returns also its name for messages.

    Raises:
      UserError: there is no such file, or it is not a JSON object.
    """
    if path.is_dir():
        candidates = [path / name for name in (CONFIG, "bert_config.json") if (path / name).is_file()]
        if not candidates:
            raise UserError(
                f"{path}: no config.json or bert_config.json in this directory;"
                " copy the one of the model there"
            )
        path = candidates[0]
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a model is described by its config.json") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); fetch it again") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: a JSON object was expected; take the config.json of a model")
    return values, str(path)


def _usual_problem_type(num_labels: int) -> str:
    """Returns what a classifier with so many labels is if its config does not say."""
    return "regression" if num_labels == 1 else "single_label_classification"


def _thresholds(value: Any) -> tuple[float, ...]:
    try:
        return tuple(map(float, value))
    except (TypeError, ValueError):
        raise UserError(f"thresholds must be a list of numbers, not {value!r}") from None


def _label_names(values: Mapping[str, Any], source: str) -> tuple[str | None, ...] | None:
    id2label = values.get("id2label")
    if not id2label:
        return None
    try:
        by_index = {int(index): None if label is None else str(label) for index, label in id2label.items()}
    except (AttributeError, TypeError, ValueError):
        raise UserError(f"{source}: id2label must map 0, 1, … to label names") from None
    if sorted(by_index) != list(range(len(by_index))):
        raise UserError(f"{source}: id2label must number its labels 0, 1, …, not {sorted(by_index)}")
    return tuple(by_index[index] for index in range(len(by_index)))
