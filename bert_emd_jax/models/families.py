"""Families of BERT-shaped encoders: what differs between them, as data.

A family is one entry of `FAMILIES`, and one of `checkpoints.names.NAME_MAPS`. What computes something else
than these say is refused, see `models.other_architectures`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

Head = Literal["classifier", "token", "answer", "masked_lm", "embedding", "none"]
"""What stands on the encoder: "classifier" is one of texts, a regressor if it has one label; "token" one of
tokens; "answer" finds where an answer begins and ends in a text."""


@dataclasses.dataclass(frozen=True)
class ClassifierDense:
    """A dense layer on the first token's last state, in front of a classifier of texts that has no pooler.

    Attributes:
      activation: what follows it.
      drops_before: whether something is dropped before it, too, not only behind it.
    """

    activation: str
    drops_before: bool


@dataclasses.dataclass(frozen=True)
class Family:
    """An encoder as others call it, and what it computes otherwise than BERT.

    Attributes:
      title: its name in messages.
      classes: transformers' class of a model with each head.
      pretraining_class: its class of a model with masked-LM head and pooler, if it has one.
      keys: our name of a config value → its key in `config.json`, where they differ.
      defaults: values of a `config.json` that does not name them, under our names, where they are not BERT's.
      fixed: values that all models of the family have, under our names; `config.json` does not name them.
      refused_keys: keys of `config.json` which, if set, make another model of it.
      has_pooler: whether the encoder may have a pooler.
      has_segments: whether the second text of a pair has an embedding of its own.
      has_segment_table: whether there is a table of segments, be it of one row that is added to all tokens.
      positions_after_padding: whether positions are counted from the one behind the padding's id.
      has_embedding_size: whether embeddings may have a width of their own, `embedding_size`.
      classifier_dense: what a classifier of texts has in place of the pooler.
      drops_texts_alone: whether `classifier_dropout` is that of texts, not of tokens.
      lm_activation: that of the masked-LM head; None: the layers'.
    """

    title: str
    classes: Mapping[Head, str]
    pretraining_class: str | None = None
    keys: Mapping[str, str] = dataclasses.field(default_factory=dict)
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    refused_keys: tuple[str, ...] = ()
    has_pooler: bool = True
    has_segments: bool = True
    has_segment_table: bool = True
    positions_after_padding: bool = False
    has_embedding_size: bool = False
    classifier_dense: ClassifierDense | None = None
    drops_texts_alone: bool = False
    lm_activation: str | None = None

    def is_other_than(self, other: "Family") -> bool:
        """Whether it computes something else, and does not only go by another name."""
        return dataclasses.replace(self, title="", classes={}) != dataclasses.replace(
            other, title="", classes={}
        )


def _classes(start: str) -> dict[Head, str]:
    """Returns the usual names of transformers' classes."""
    return {
        "classifier": f"{start}ForSequenceClassification",
        "token": f"{start}ForTokenClassification",
        "answer": f"{start}ForQuestionAnswering",
        "masked_lm": f"{start}ForMaskedLM",
        "embedding": f"{start}Model",
        "none": f"{start}Model",
    }


def _roberta(title: str, start: str) -> Family:
    return Family(
        title=title,
        classes=_classes(start),
        defaults={"pad_token_id": 1},
        has_segments=False,
        positions_after_padding=True,
        classifier_dense=ClassifierDense("tanh", drops_before=True),
        lm_activation="gelu",
    )


FAMILIES: dict[str, Family] = {
    "bert": Family(title="BERT", classes=_classes("Bert"), pretraining_class="BertForPreTraining"),
    "roberta": _roberta("RoBERTa", "Roberta"),
    "xlm-roberta": _roberta("XLM-RoBERTa", "XLMRoberta"),
    "camembert": _roberta("CamemBERT", "Camembert"),
    "distilbert": Family(
        title="DistilBERT",
        classes=_classes("DistilBert"),
        keys={
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "intermediate_size": "hidden_dim",
            "hidden_act": "activation",
            "hidden_dropout_prob": "dropout",
            "attention_probs_dropout_prob": "attention_dropout",
            "classifier_dropout": "seq_classif_dropout",
            "answer_dropout": "qa_dropout",
        },
        defaults={"classifier_dropout": 0.2, "answer_dropout": 0.1},
        fixed={"layer_norm_eps": 1e-12, "type_vocab_size": 1},
        has_pooler=False,
        has_segments=False,
        has_segment_table=False,
        classifier_dense=ClassifierDense("relu", drops_before=False),
        drops_texts_alone=True,
    ),
    "electra": Family(
        title="ELECTRA",
        classes=_classes("Electra"),
        defaults={"embedding_size": 128},
        has_pooler=False,
        has_embedding_size=True,
        classifier_dense=ClassifierDense("gelu", drops_before=True),
        lm_activation="gelu",
    ),
}
"""`model_type` in `config.json` → its family."""
