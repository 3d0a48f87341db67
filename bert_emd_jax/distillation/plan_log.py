"""What a distillation keeps of its transport plans, and their check by the exact solver, on the host."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from bert_emd_jax.distillation.distill_config import MappingConfig
from bert_emd_jax.distillation.layer_costs import LayerCost
from bert_emd_jax.distillation.layer_losses import LayerPlans
from bert_emd_jax.runs.layer_mapping import LayerMappingWriter
from bert_emd_jax.transport.layer_weights import LayerWeights

logger = logging.getLogger(__name__)


def log_plans(
    history: LayerMappingWriter, step: int, costs: Sequence[LayerCost], plans: LayerPlans
) -> dict[str, Any]:
    """Adds a step's plans (means over its micro-batches) to the history.

    Args:
      costs: those that have a plan, in the order of the plans.

    Returns:
      For `metrics.jsonl` each plan's certified gap, and by its cost's name the plan itself, for pictures.
    """
    names = [cost.name for cost in costs]
    flow, matrices = (dict(zip(names, each.mean(axis=0), strict=True)) for each in (plans.flow, plans.cost))
    history.add(step, flow, matrices)
    gaps = {f"{name}_gap": float(gap) for name, gap in zip(names, plans.gap.max(axis=0), strict=True)}
    return gaps | flow


def check_plans(
    step: int,
    costs: Sequence[LayerCost],
    plans: LayerPlans,
    weights: Sequence[LayerWeights],
    config: MappingConfig,
) -> dict[str, Any]:
    """Solves every plan of a step again with the network simplex, on the step's own cost matrices.

    Returns, for each cost, the exact and the plan's cost (means over micro-batches) and the largest relative
    gap; warns if that exceeds the tolerance.
    """
    exact, tolerance, options = config.how.exact, config.check_tolerance, config.options
    assert exact is not None  # others are not checked
    row: dict[str, Any] = {}
    for index, cost in enumerate(costs):
        matrices = plans.cost[:, index].astype(np.float64)
        if not np.isfinite(matrices).all():
            continue
        plan_costs = (plans.flow[:, index] * matrices).sum(axis=(1, 2))
        exact_costs = np.array([exact(matrix, *weights[index], options=options) for matrix in matrices])
        # Relative to the exact cost, but not to one that is next to nothing beside the costs' scale.
        scale = np.maximum(exact_costs, 1e-4 * matrices.max(axis=(1, 2)))
        gap = float(np.max((plan_costs - exact_costs) / np.where(scale > 0, scale, 1)))
        row |= {
            f"{cost.name}_exact": float(exact_costs.mean()),
            f"{cost.name}_plan": float(plan_costs.mean()),
            f"{cost.name}_gap": gap,
        }
        if gap > tolerance:
            logger.warning(
                "step %d: the %s plan costs %.2g more than the exact one (--check_tolerance %g)",
                *(step, cost.name, gap, tolerance),
            )
    return row
