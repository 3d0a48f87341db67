"""What of the teacher's layers a student can learn, one entry each.

Imports no JAX: programs read the names of the costs before they pay for it.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from jax import Array


class LayerFeatures(NamedTuple):
    """What costs compare of one side. A student's hidden states are in the teacher's width.

    attention_scores: [layers, batch, heads, seq, seq], or their factors. hidden_states: [batch, seq, dim] of
    the embeddings and [layers, batch, seq, dim] of the layers. projections: functions that give queries, keys
    and values [layers, batch, seq, dim], and into how many heads relations split them. What no cost reads may
    be None.
    """

    attention_scores: Any
    hidden_states: tuple[Any, Any]
    projections: Any = None
    relation_heads: int = 1


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """A cost between layers of student and teacher.

    Learned from if the flag `--use_NAME` says so; its loss is `NAME_loss` in the metrics.

    title: what the report calls it.
    reads: the field of a model's output that it compares.
    sums: (student, teacher, attention mask, padding, example weights) to sums of squared differences and
      their number, as `transport.costs` has them: [S, T] if the mapping has a plan for it, else one number.
    is_mapped: the mapping has a plan for it, and its loss counts --theta times.
    """

    name: str
    title: str
    reads: str
    sums: "Callable[[LayerFeatures, LayerFeatures, Any, str, Any], tuple[Array, Array]]"
    is_mapped: bool = True

    @property
    def loss_name(self) -> str:
        """What its loss is called in measurements and in `metrics.jsonl`."""
        return f"{self.name}_loss"

    @property
    def penalty_name(self) -> str:
        """What the price of its unequal layer weights is called there."""
        return f"{self.name}_weight_penalty"


def _attention(student: LayerFeatures, teacher: LayerFeatures, *masks: Any) -> "tuple[Array, Array]":
    from bert_emd_jax.models.fused_attention import ScoreFactors
    from bert_emd_jax.transport.costs import attention_cost_sums
    from bert_emd_jax.transport.factored_costs import factored_attention_cost_sums

    if isinstance(student.attention_scores, ScoreFactors):
        return factored_attention_cost_sums(student.attention_scores, teacher.attention_scores, *masks)
    return attention_cost_sums(student.attention_scores, teacher.attention_scores, *masks)


def _hidden(student: LayerFeatures, teacher: LayerFeatures, *masks: Any) -> "tuple[Array, Array]":
    from bert_emd_jax.transport.costs import hidden_cost_sums

    return hidden_cost_sums(student.hidden_states[1], teacher.hidden_states[1], *masks)


def _embedding(student: LayerFeatures, teacher: LayerFeatures, *masks: Any) -> "tuple[Array, Array]":
    from bert_emd_jax.transport.costs import embedding_cost_sums

    return embedding_cost_sums(student.hidden_states[0], teacher.hidden_states[0], *masks)


def _relation(
    student: LayerFeatures, teacher: LayerFeatures, mask: Any, padding: str, weights: Any
) -> "tuple[Array, Array]":
    from bert_emd_jax.transport.relations import relation_cost_sums

    return relation_cost_sums(student.projections, teacher.projections, teacher.relation_heads, mask, weights)


LAYER_COSTS = (
    LayerCost("attention", "attention", "attention_scores", _attention),
    LayerCost("hidden", "hidden states", "hidden_states", _hidden),
    LayerCost("relation", "relations", "projections", _relation),
    LayerCost("embedding", "embeddings", "hidden_states", _embedding, is_mapped=False),
)
