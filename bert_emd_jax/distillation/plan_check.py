"""What a distillation run keeps of its layer mapping, and the exact check of its transport plans."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from bert_emd_jax.runs.layer_mapping import COST_KINDS, LayerMappingWriter
from bert_emd_jax.transport.simplex import network_simplex

logger = logging.getLogger(__name__)


class LayerObserver:
    """Looks at the costs and plans that a step returned, on the host."""

    def __init__(self, history: LayerMappingWriter, tolerance: float) -> None:
        """`tolerance`: relative excess over the exact cost from which `check` warns."""
        self._history = history
        self._tolerance = tolerance

    def observe(self, step: int, measurements: Mapping[str, Any]) -> dict[str, Any]:
        """Adds the step's plans (means over micro-batches) to the history.

        Returns their certified gaps, and the plans themselves, for pictures.
        """
        kinds = [kind for kind in COST_KINDS if f"{kind}_flow" in measurements]
        if not kinds or measurements["bad_steps"]:
            return {}
        flow, cost = (
            {kind: measurements[f"{kind}_{part}"].mean(axis=0) for kind in kinds} for part in ("flow", "cost")
        )
        self._history.add(step, flow, cost)
        gaps = {f"{kind}_gap": float(measurements[f"{kind}_gap"].max()) for kind in kinds}
        return gaps | {f"{kind}_flow": plan for kind, plan in flow.items()}

    def check(self, step: int, measurements: Mapping[str, Any]) -> dict[str, Any]:
        """Solves every plan of the step again with the network simplex, on the step's own cost matrices.

        Returns, per kind, the exact and the plan's cost (means over micro-batches) and the largest relative
        gap; warns where that exceeds the tolerance.
        """
        row: dict[str, Any] = {}
        for kind in COST_KINDS:
            if f"{kind}_flow" not in measurements or not np.isfinite(measurements[f"{kind}_cost"]).all():
                continue
            student = getattr(measurements["layer_weights"], f"{kind}_student")
            teacher = getattr(measurements["layer_weights"], f"{kind}_teacher")
            costs = measurements[f"{kind}_cost"].astype(np.float64)
            plan_costs = (measurements[f"{kind}_flow"] * costs).sum(axis=(1, 2))
            exact_costs = np.array([network_simplex(cost, student, teacher).cost for cost in costs])
            # Relative to the exact cost, but not to one that is next to nothing beside the costs' scale.
            scale = np.maximum(exact_costs, 1e-4 * costs.max(axis=(1, 2)))
            gap = float(np.max((plan_costs - exact_costs) / np.where(scale > 0, scale, 1)))
            row |= {
                f"{kind}_exact": float(exact_costs.mean()),
                f"{kind}_plan": float(plan_costs.mean()),
                f"{kind}_gap": gap,
            }
            if gap > self._tolerance:
                logger.warning(
                    "step %d: the %s plan costs %.2g more than the exact one (--check_tolerance %g)",
                    *(step, kind, gap, self._tolerance),
                )
        return row
