"""Several models with the same labels as one: their predictions are averaged."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from bert_emd_jax.devices.device_needs import device_needs
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.heads import (
    AnswerFinder,
    Model,
    ModelOutput,
    SequenceClassifier,
    TokenClassifier,
)
from bert_emd_jax.models.params import Params, stack_layers


class Ensemble(nn.Module):
    """The layers of the first member, and the mean of what all predict.

    Attributes:
      members: read the same tokens, and have the same labels in the same order.
      mean: `LearnedKind.mean_logits`, from the logits of all [members, batch, …] to those of the mean.
      temperature: at which predictions are averaged.
    """

    members: tuple[SequenceClassifier | TokenClassifier | AnswerFinder, ...]
    mean: Callable[[Float[Array, "members batch ..."], float], Float[Array, "batch ..."]]
    temperature: float = 1.0

    @property
    def config(self) -> EncoderConfig:
        """That of the first member."""
        return self.members[0].config

    @property
    def dtype(self) -> DTypeLike:
        return self.members[0].dtype

    def __call__(self, *inputs: Any, logits_only: bool = False, **options: Any) -> ModelOutput:
        """Takes what its members take."""
        first, *others = self.members
        output = first(*inputs, logits_only=logits_only, **options)
        more = [member(*inputs, logits_only=True, **options).logits for member in others]
        return output._replace(logits=self.mean(jnp.stack([output.logits, *more]), self.temperature))


def ensemble_params(members: tuple[Params, ...]) -> Params:
    """Returns the parameters of an `Ensemble`: those of its members."""
    return {f"members_{number}": params for number, params in enumerate(members)}


def encoder_params(module: nn.Module, params: Params) -> Params:
    """Returns the parameters of a model's encoder; of an ensemble those of the first member's."""
    return params["members_0"]["bert"] if isinstance(module, Ensemble) else params["bert"]


def inference_params(module: nn.Module, params: Params) -> Params:
    """Returns parameters on the host as the forward pass of a module takes them without a copy."""
    if isinstance(module, Ensemble):
        of_members = zip(module.members, params.items(), strict=True)
        return {name: inference_params(member, values) for member, (name, values) in of_members}
    assert isinstance(module, Model)
    scan = device_needs().loops_over_layers if module.scan is None else module.scan
    return stack_layers(params, module.dtype) if scan else params
