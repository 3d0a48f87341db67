"""AdamW as BERT is fine-tuned with: warmup, linear decay, no weight decay on biases and normalisations."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from bert_emd_jax.training.training_config import OptimizerConfig

_LARGE = 2**21


Numbers = Mapping[str, Any]
"""What a compiled step takes as arguments, by name: runs that differ in nothing else share their program."""


def schedule_numbers(config: OptimizerConfig, total_steps: int) -> dict[str, float]:
    """Returns the numbers of a schedule of the learning rate, with its peak as "learning_rate"."""
    return {
        "learning_rate": config.learning_rate,
        "warmup_steps": round(config.warmup_proportion * total_steps),
        "total_steps": total_steps,
    }


def learning_rate_schedule(shape: str, numbers: Numbers) -> optax.Schedule:
    """Learning rate by optimizer step, from 0: a linear warmup, then linear to 0 or constant.

    The first step already moves: a rate of 0 would waste its batch.

    Args:
      shape: `--lr_schedule`.
      numbers: those of `schedule_numbers`.
    """

    def rate(step: Any) -> Float[Array, ""]:
        peak, warmup, total = (numbers[name] for name in ("learning_rate", "warmup_steps", "total_steps"))
        rising = (step + 1) / jnp.maximum(warmup, 1)
        falling = 1 - (step - warmup) / jnp.maximum(total - warmup, 1) if shape == "linear" else 1.0
        return peak * jnp.where(step < warmup, rising, jnp.maximum(falling, 0.0))

    return rate


def make_optimizer(
    config: OptimizerConfig, schedule: optax.Schedule, relative_rates: Numbers | None = None
) -> optax.GradientTransformation:
    """Clipping by global norm, then AdamW with bias correction (eps 1e-6, as BERT's own optimizer).

    Args:
      relative_rates: of top-level parameters that take a multiple of the schedule's learning rate.
    """
    of_their_own = [
        optax.masked(optax.scale(factor), functools.partial(_below, name))
        for name, factor in (relative_rates or {}).items()
    ]
    return optax.chain(
        _clip_by_global_norm(config.max_grad_norm),
        optax.adamw(schedule, b1=0.9, b2=0.999, eps=1e-6, weight_decay=config.weight_decay, mask=decays),
        *of_their_own,
    )


def global_norm(tree: Any) -> Float[Array, ""]:
    """The norm of all leaves together, of those that are not large in one sum.

    On an accelerator a sum for each would take longer to launch than to run.
    """
    leaves = [leaf.ravel() for leaf in jax.tree.leaves(tree)]
    large = [leaf for leaf in leaves if leaf.size > _LARGE]
    small = [leaf for leaf in leaves if leaf.size <= _LARGE]
    parts = large + ([jnp.concatenate(small)] if small else [])
    return jnp.sqrt(sum(jnp.sum(jnp.square(part)) for part in parts))


def _clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """optax's, with `global_norm`, which the train step reports: it is computed once."""

    def clip(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        norm = global_norm(updates)
        scale = jnp.where(norm < max_norm, 1.0, max_norm / norm)
        return jax.tree.map(lambda leaf: leaf * scale.astype(leaf.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), clip)


def _below(name: str, params: Any) -> Any:
    """True for the leaves of one top-level parameter."""
    return {key: jax.tree.map(lambda _, own=key == name: own, values) for key, values in params.items()}


def decays(params: Any) -> Any:
    """True for the leaves that weight decay shrinks: kernels and embedding tables."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: getattr(path[-1], "key", None) in ("kernel", "embedding"), params
    )
