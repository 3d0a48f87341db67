"""Families of BERT-shaped encoders: what differs between them, as data.

A family is one entry of `FAMILIES`, and one of `checkpoints.names.NAME_MAPS`. What computes something else
than these say is refused, see `models.other_architectures`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

Head = Literal["classifier", "token", "answer", "masked_lm", "embedding", "none"]
"""What stands on the encoder: "classifier" is one of texts, a regressor if it has one label; "token" one of
tokens; "answer" finds where an answer begins and ends in a text."""


@dataclasses.dataclass(frozen=True)
class Family:
    """An encoder as others call it.

    Attributes:
      title: its name in messages.
      classes: transformers' class of a model with each head.
      pretraining_class: its class of a model with masked-LM head and pooler, if it has one.
      keys: our name of a config value → its key in `config.json`, where they differ.
      refused_keys: keys of `config.json` which, if set, make another model of it.
    """

    title: str
    classes: Mapping[Head, str]
    pretraining_class: str | None = None
    keys: Mapping[str, str] = dataclasses.field(default_factory=dict)
    refused_keys: tuple[str, ...] = ()


FAMILIES: dict[str, Family] = {
    "bert": Family(
        title="BERT",
        classes={
            "classifier": "BertForSequenceClassification",
            "token": "BertForTokenClassification",
            "answer": "BertForQuestionAnswering",
            "masked_lm": "BertForMaskedLM",
            "embedding": "BertModel",
            "none": "BertModel",
        },
        pretraining_class="BertForPreTraining",
    ),
}
"""`model_type` in `config.json` → its family."""
