"""Which of the teacher's layers a student begins with, by name: one entry each."""

from collections.abc import Callable, Sequence

from bert_emd_jax.errors import UserError, did_you_mean
from bert_emd_jax.transport.mappings import fixed_layers

INITIAL_LAYERS: dict[str, Callable[[int, int], Sequence[int]]] = {
    "uniform": lambda count, depth: fixed_layers("uniform", count, depth).tolist(),
    "lower": lambda count, depth: range(count),
    "upper": lambda count, depth: range(depth - count, depth),
    "alternate": lambda count, depth: [i * depth // count for i in range(count)],
}
"""(layers of the student, of the teacher) to layers of the teacher, 0-based: those that the mapping `uniform`
pairs with the student's, the first ones, the last ones, and every other one from the first on."""


def initial_layers(given: Sequence[int | str], count: int | None, depth: int) -> tuple[int, ...]:
    """Returns the layers that `--student_init_layers` names.

    Args:
      given: numbers, 0-based, or one name.
      count: of the student's layers, for a name; None: half of the teacher's.
      depth: of the teacher.

    Raises:
      UserError: a layer that the teacher does not have, an unknown name, or names and numbers together.
    """
    shown = ",".join(map(str, given))
    numbers = tuple(one for one in given if isinstance(one, int))
    if len(numbers) == len(given):
        if count not in (None, len(given)):
            raise UserError(f"--student_layers {count}: --student_init_layers {shown} are {len(given)}")
        if not numbers or any(not 0 <= layer < depth for layer in numbers):
            raise UserError(
                f"--student_init_layers {shown}: the teacher has layers 0 to {depth - 1}; choose among them"
            )
        return numbers
    if len(given) != 1 or given[0] not in INITIAL_LAYERS:
        known = ", ".join(INITIAL_LAYERS)
        hint = did_you_mean(str(given[0]), tuple(INITIAL_LAYERS))
        raise UserError(f"--student_init_layers {shown}: give numbers, or one of {known}{hint}")
    count = max(depth // 2, 1) if count is None else count
    if count > depth:
        raise UserError(f"--student_layers {count}: the teacher has {depth}")
    return tuple(INITIAL_LAYERS[given[0]](count, depth))
