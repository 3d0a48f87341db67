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


def learning_rate_schedule(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """Learning rate by optimizer step: a linear warmup, then linear to 0 or constant."""
    warmup_steps = round(config.warmup_proportion * total_steps)
    if config.lr_schedule == "constant":
        after = optax.constant_schedule(config.learning_rate)
    else:
        after = optax.linear_schedule(config.learning_rate, 0.0, max(1, total_steps - warmup_steps))
    if warmup_steps == 0:
        return after
    # The first step already moves: a rate of 0 would waste its batch.
    warmup = optax.linear_schedule(
        config.learning_rate / warmup_steps, config.learning_rate, max(1, warmup_steps - 1)
    )
    return optax.join_schedules([warmup, after], [warmup_steps])


def make_optimizer(
    config: OptimizerConfig, schedule: optax.Schedule, learning_rates: Mapping[str, float] | None = None
) -> optax.GradientTransformation:
    """Clipping by global norm, then AdamW with bias correction (eps 1e-6, as BERT's own optimizer).

    Args:
      learning_rates: peak learning rates of top-level parameters that do not take --learning_rate.
    """
    of_their_own = [
        optax.masked(optax.scale(rate / config.learning_rate), functools.partial(_below, name))
        for name, rate in (learning_rates or {}).items()
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
