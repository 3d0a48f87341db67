"""Mean squared differences between every student and every teacher layer (paper section 3.2).

Each cost has a `…_sums` form: sums of squared differences and how many they are. Sums and counts
of several devices can be added before dividing, so that all devices see one cost matrix.
"""

import itertools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Num

from bert_emd_jax.transport.short_costs import above_zero_unless_equal, short_squared_differences

PADDINGS = ("mask", "include")

_SAMPLE = 1024


def hidden_cost(
    student_hidden: Num[ArrayLike, "S B L D"],
    teacher_hidden: Num[ArrayLike, "T B L D"],
    attention_mask: Num[ArrayLike, "B L"] | Bool[ArrayLike, "B L"],
    padding: str = "mask",
    example_weights: Num[ArrayLike, " B"] | Bool[ArrayLike, " B"] | None = None,
) -> Float[Array, "S T"]:
    """Mean squared difference of hidden states over real tokens (over all tokens with padding="include")."""
    sums, count = hidden_cost_sums(student_hidden, teacher_hidden, attention_mask, padding, example_weights)
    return sums / jnp.maximum(count, 1)


def hidden_cost_sums(
    student_hidden: Num[ArrayLike, "S B L D"],
    teacher_hidden: Num[ArrayLike, "T B L D"],
    attention_mask: Num[ArrayLike, "B L"] | Bool[ArrayLike, "B L"],
    padding: str = "mask",
    example_weights: Num[ArrayLike, " B"] | Bool[ArrayLike, " B"] | None = None,
) -> tuple[Float[Array, "S T"], Float[Array, ""]]:
    """Sums of squared differences of hidden states, and the number of differences in each sum.

    Rows whose `example_weights` are 0 do not count; in padding="mask" an all-zero mask row does the same.
    """
    student, teacher = _comparable(student_hidden, teacher_hidden)
    _same("hidden", student.shape[1:], teacher.shape[1:])
    tokens = _kept_tokens(attention_mask, example_weights, padding)
    count = _count(tokens) * student.shape[-1]
    return _squared_differences(student, teacher, tokens[:, :, None]), count


def attention_cost(
    student_scores: Num[ArrayLike, "S B Hs L L"],
    teacher_scores: Num[ArrayLike, "T B Ht L L"],
    attention_mask: Num[ArrayLike, "B L"] | Bool[ArrayLike, "B L"],
    padding: str = "mask",
    example_weights: Num[ArrayLike, " B"] | Bool[ArrayLike, " B"] | None = None,
) -> Float[Array, "S T"]:
    """Mean squared difference of raw attention scores over heads and real query-key pairs.

    With padding="include" (the authors' code) masked key columns count as 0, padded query rows count
    as they are, and the mean runs over all pairs. Differing head counts: see `match_heads`.
    """
    sums, count = attention_cost_sums(
        student_scores, teacher_scores, attention_mask, padding, example_weights
    )
    return sums / jnp.maximum(count, 1)


def attention_cost_sums(
    student_scores: Num[ArrayLike, "S B Hs L L"],
    teacher_scores: Num[ArrayLike, "T B Ht L L"],
    attention_mask: Num[ArrayLike, "B L"] | Bool[ArrayLike, "B L"],
    padding: str = "mask",
    example_weights: Num[ArrayLike, " B"] | Bool[ArrayLike, " B"] | None = None,
) -> tuple[Float[Array, "S T"], Float[Array, ""]]:
    """Sums of squared differences of attention scores, and the number of differences in each sum."""
    student, teacher = match_heads(*_comparable(student_scores, teacher_scores))
    _same("attention", student.shape[1:], teacher.shape[1:])
    (queries, keys), count = kept_pairs(attention_mask, padding, example_weights)
    pairs = queries[:, :, None] & keys[:, None, :]
    return _squared_differences(student, teacher, pairs[:, None, :, :]), count * student.shape[2]


def embedding_cost(
    student_embeddings: Num[ArrayLike, "B L D"],
    teacher_embeddings: Num[ArrayLike, "B L D"],
    attention_mask: Num[ArrayLike, "B L"] | Bool[ArrayLike, "B L"],
    padding: str = "mask",
    example_weights: Num[ArrayLike, " B"] | Bool[ArrayLike, " B"] | None = None,
) -> Float[Array, ""]:
    """Mean squared difference of the embedding outputs over real tokens (all with padding="include")."""
    total, count = embedding_cost_sums(
        student_embeddings, teacher_embeddings, attention_mask, padding, example_weights
    )
    return total / jnp.maximum(count, 1)


def embedding_cost_sums(
    student_embeddings: Num[ArrayLike, "B L D"],
    teacher_embeddings: Num[ArrayLike, "B L D"],
    attention_mask: Num[ArrayLike, "B L"] | Bool[ArrayLike, "B L"],
    padding: str = "mask",
    example_weights: Num[ArrayLike, " B"] | Bool[ArrayLike, " B"] | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum of squared differences of the embedding outputs, and how many they are."""
    student, teacher = _wide(jnp.asarray(student_embeddings)), _wide(jnp.asarray(teacher_embeddings))
    _same("embedding", student.shape, teacher.shape)
    tokens = _kept_tokens(attention_mask, example_weights, padding)
    differences = jnp.where(tokens[:, :, None], student - teacher, 0)
    return jnp.sum(jnp.square(differences)), _count(tokens) * student.shape[-1]


def match_heads(
    student_scores: Float[Array, "S B Hs L L"], teacher_scores: Float[Array, "T B Ht L L"]
) -> tuple[Float[Array, "S B H L L"], Float[Array, "T B H L L"]]:
    """Both unchanged where the head counts agree, else both averaged over their heads (one head left)."""
    if student_scores.shape[2] == teacher_scores.shape[2]:
        return student_scores, teacher_scores
    return student_scores.mean(axis=2, keepdims=True), teacher_scores.mean(axis=2, keepdims=True)


def _squared_differences(student: Array, teacher: Array, keep: Array) -> Float[Array, "S T"]:
    """Σ (student_i - teacher_j)² over the kept elements, as |s|² + |t|² - 2 s·t.

    That form reads each side once and keeps nothing S x T-sized for the backward pass. It cancels
    badly where |s|² is much larger than the difference (BERT has features of 100 times the usual
    size), so the teacher's mean over its layers is first subtracted from both sides.

    The sum is 0 for equal operands and for these alone, whatever rounding leaves: cost attention never gives
    weight again to a layer that costs nothing.
    """
    if student.dtype.itemsize < 4:
        return short_squared_differences(student, teacher, keep)
    equal = _equal_rows(student, teacher, keep)
    # A product, for XLA keeps its result: it would compute a sum over layers anew in every consumer on a CPU
    # (and a reduction over the leading axis 25 times more slowly).
    mean = jnp.full((1, len(teacher)), 1 / len(teacher), teacher.dtype)
    flat = jnp.matmul(mean, teacher.reshape(len(teacher), -1), precision=jax.lax.Precision.HIGHEST)
    center = jax.lax.stop_gradient(flat.reshape(teacher.shape[1:]))
    student = jnp.where(keep, student - center, 0).reshape(len(student), -1)
    teacher = jnp.where(keep, teacher - center, 0).reshape(len(teacher), -1)
    sums = _squared_distances(student, teacher)
    return above_zero_unless_equal(sums, equal)


def _equal_rows(student: Array, teacher: Array, keep: Array) -> Bool[Array, "S T"]:
    """Which layers agree in all kept elements; a sample of these decides whether all have to be compared."""
    student, teacher = jax.lax.stop_gradient((student, teacher))

    def compared(stride: int) -> Bool[Array, "S T"]:
        kept = jnp.broadcast_to(keep, student.shape[1:]).ravel()[::stride]
        ours, theirs = (values.reshape(len(values), -1)[:, ::stride] for values in (student, teacher))
        return jnp.all((ours[:, None] == theirs[None]) | ~kept, axis=2)

    sample = compared(max(1, student[0].size // _SAMPLE))
    return jax.lax.cond(sample.any(), lambda: compared(1), lambda: sample)


@jax.custom_vjp
def _squared_distances(student: Float[Array, "S N"], teacher: Float[Array, "T N"]) -> Float[Array, "S T"]:
    """Squared distances of all pairs of rows, added up from pieces: one sum of a million terms loses bits."""
    # Else every piece would compute its rows anew.
    student, teacher = jax.lax.optimization_barrier((student, teacher))
    size = student.shape[1]
    pieces = min(16, -(-size // 2**15))
    bounds = [size * piece // pieces for piece in range(pieces + 1)]
    total = jnp.zeros((len(student), len(teacher)), student.dtype)
    for start, stop in itertools.pairwise(bounds):
        s, t = student[:, start:stop], teacher[:, start:stop]
        products = jnp.matmul(s, t.T, precision=jax.lax.Precision.HIGHEST)
        total += jnp.square(s).sum(axis=1)[:, None] + jnp.square(t).sum(axis=1) - 2 * products
    return total


def _squared_distances_forward(student: Array, teacher: Array) -> tuple[Array, tuple[Array, Array]]:
    return _squared_distances(student, teacher), (student, teacher)


def _squared_distances_backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    # In one product each; the derivative of slices would be as many padded copies.
    student, teacher = saved
    towards_teacher = jnp.matmul(gradient, teacher, precision=jax.lax.Precision.HIGHEST)
    towards_student = jnp.matmul(gradient.T, student, precision=jax.lax.Precision.HIGHEST)
    return (
        2 * (gradient.sum(axis=1)[:, None] * student - towards_teacher),
        2 * (gradient.sum(axis=0)[:, None] * teacher - towards_student),
    )


_squared_distances.defvjp(_squared_distances_forward, _squared_distances_backward)


def _comparable(student: ArrayLike, teacher: ArrayLike) -> tuple[Array, Array]:
    """Both in float32 at least, or both as they are if they are of one type of 16 bits."""
    ours, theirs = jnp.asarray(student), jnp.asarray(teacher)
    if ours.dtype == theirs.dtype and ours.dtype in (jnp.bfloat16, jnp.float16):
        return ours, theirs
    return _wide(ours), _wide(theirs)


def _wide(values: Array) -> Array:
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def _masks(
    attention_mask: ArrayLike, example_weights: ArrayLike | None, padding: str
) -> tuple[Bool[Array, "B L"], Bool[Array, " B"]]:
    if padding not in PADDINGS:
        raise ValueError(f"padding must be one of {', '.join(PADDINGS)}, not {padding!r}")
    mask = jnp.asarray(attention_mask) != 0
    examples = jnp.ones(mask.shape[0], bool) if example_weights is None else jnp.asarray(example_weights) != 0
    return mask, examples


def _kept_tokens(
    attention_mask: ArrayLike, example_weights: ArrayLike | None, padding: str
) -> Bool[Array, "B L"]:
    mask, examples = _masks(attention_mask, example_weights, padding)
    return mask & examples[:, None] if padding == "mask" else jnp.broadcast_to(examples[:, None], mask.shape)


def kept_pairs(
    attention_mask: ArrayLike, padding: str, example_weights: ArrayLike | None
) -> tuple[tuple[Bool[Array, "B L"], Bool[Array, "B L"]], Float[Array, ""]]:
    """Which queries and keys make up the pairs that attention costs compare, and how many pairs count."""
    mask, examples = _masks(attention_mask, example_weights, padding)
    keys = mask & examples[:, None]
    if padding == "mask":
        return (keys, keys), jnp.sum(jnp.square(jnp.sum(keys, axis=1, dtype=jnp.float32)))
    # A masked key is 0 on both sides: its difference is 0 but it is counted.
    queries = jnp.broadcast_to(examples[:, None], mask.shape)
    return (queries, keys), _count(examples) * mask.shape[1] ** 2


def _count(keep: Bool[Array, "..."]) -> Float[Array, ""]:
    return jnp.sum(keep, dtype=jnp.float32)


def _same(what: str, student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
    if student != teacher:
        raise ValueError(f"{what} cost: student {student} and teacher {teacher} differ after the layer axis")
