"""The names of mappings, layer-weight rules and padding modes, and their checks. Imports no jax."""

from bert_emd_jax.errors import UserError

MAPPINGS = ("emd", "emd_exact", "uniform", "top", "bottom", "nearest", "random", "none")
FIXED_MAPPINGS = ("uniform", "top", "bottom", "random")
TRANSPORT_MAPPINGS = ("emd", "emd_exact")
LAYER_WEIGHT_RULES = ("normalize", "softmax", "double_softmax", "fixed", "learned")
PADDINGS = ("mask", "include")
GRADIENTS = ("envelope", "implicit", "unrolled")


def uses_layer_weights(mapping: str) -> bool:
    """Whether the mapping transports between layer weights; the others keep 1/S and skip cost attention."""
    return mapping in TRANSPORT_MAPPINGS


def validate_mapping(mapping: str, student_layers: int, teacher_layers: int) -> None:
    """Raises UserError when the mapping is unknown or cannot map so many student layers."""
    if mapping not in MAPPINGS:
        raise UserError(f"--mapping {mapping}: unknown; choose one of {', '.join(MAPPINGS)}.")
    if student_layers < 1 or teacher_layers < 1:
        raise UserError(
            f"--mapping {mapping}: needs at least one layer on each side, "
            f"got {student_layers} student and {teacher_layers} teacher layers."
        )
    if mapping in FIXED_MAPPINGS and student_layers > teacher_layers:
        raise UserError(
            f"--mapping {mapping}: the student has {student_layers} layers and the teacher only "
            f"{teacher_layers}; use emd, emd_exact, nearest or none."
        )
