"""The modules of models that classify texts or tokens or find answers, alone or several as one teacher."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp

from bert_emd_jax.checkpoints.model_directory import LoadedModel
from bert_emd_jax.data.kind import LearnedKind
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.ensemble import Ensemble, ensemble_params
from bert_emd_jax.models.heads import MODULES, AnswerFinder, SequenceClassifier, TokenClassifier

Classifier = SequenceClassifier | TokenClassifier | AnswerFinder


@dataclasses.dataclass(frozen=True)
class SeveralModels(LoadedModel):
    """Models of the same labels as one: the config, the layers and the tokenizer are those of the first.

    `params` are those of `Ensemble`; `kind` says what the mean of predictions is.
    """

    members: tuple[LoadedModel, ...] = ()
    kind: LearnedKind | None = None

    @classmethod
    def of(cls, members: Sequence[LoadedModel], kind: LearnedKind) -> "SeveralModels":
        first = members[0]
        return cls(
            config=dataclasses.replace(first.config, thresholds=None),  # of other probabilities than the mean
            params=ensemble_params(tuple(member.params for member in members)),
            tokenizer=first.tokenizer,
            members=tuple(members),
            kind=kind,
        )


def members_of(model: LoadedModel) -> tuple[LoadedModel, ...]:
    """Returns the models that one consists of: itself, or several."""
    return model.members if isinstance(model, SeveralModels) else (model,)


def classifier(config: EncoderConfig, dtype: str, remat: bool = False) -> Classifier:
    """The module of a model of texts, tokens or answers, computing in `dtype`; see `Encoder` for `remat`."""
    module = MODULES[config.head or "classifier"](config, jnp.dtype(dtype), remat)
    assert isinstance(module, Classifier)
    return module


def module_of(model: LoadedModel, dtype: str, temperature: float = 1.0) -> Classifier | Ensemble:
    """The module of one model, or of several, whose mean is one of predictions at a temperature."""
    if not isinstance(model, SeveralModels):
        return classifier(model.config, dtype)
    assert model.kind is not None
    modules = tuple(classifier(member.config, dtype) for member in model.members)
    return Ensemble(modules, model.kind.mean_logits, temperature)
