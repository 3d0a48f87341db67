"""A batch as the models and the train steps take it."""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from jaxtyping import Float, Int, Num


class Batch(TypedDict):
    """Rows of tokens, padded to one length, and what is learned from them.

    `labels` are the truths of the task's kind: classes (int32), values, or 0 and 1 of every label (float32).
    `weights` is 1 for rows and 0 for the fillers that make batches of one size; `labelled` is 1 for rows that
    have labels, in batches where others have none. `masked_positions` and `masked_labels` are those of the
    masked tokens, -1 among the labels where a row has fewer. `teacher` holds outputs of a teacher that were
    computed before, by their names in `ModelOutput`, rows first; `kept_rows` are the numbers of the rows, -1
    for fillers, where the devices keep these outputs themselves.
    """

    input_ids: Int[Any, "batch seq"]
    attention_mask: Int[Any, "batch seq"]
    token_type_ids: Int[Any, "batch seq"]
    labels: NotRequired[Num[Any, "batch ..."]]
    weights: NotRequired[Float[Any, " batch"]]
    labelled: NotRequired[Float[Any, " batch"]]
    masked_positions: NotRequired[Int[Any, "batch masked"]]
    masked_labels: NotRequired[Int[Any, "batch masked"]]
    teacher: NotRequired[Mapping[str, Any]]
    kept_rows: NotRequired[Int[Any, " batch"]]
