"""The authors' best flags by task (`--preset`). Imports no JAX."""

from collections.abc import Sequence

from bert_emd_jax.data.task import plain_name
from bert_emd_jax.errors import UserError

_FLAGS = ("beta", "emd_temperature", "temperature", "learning_rate")
# τ_emd (emd_temperature) acts only under a softmax rule; the authors' latest code, like ours, normalises.
_VALUES = {
    "bert_emd_4": {
        "CoLA": (0.001, 5, 1, 2e-5),
        "MNLI": (0.005, 1, 3, 5e-5),
        "MRPC": (0.001, 10, 1, 2e-5),
        "QQP": (0.005, 1, 3, 2e-5),
        "QNLI": (0.005, 1, 3, 2e-5),
        "RTE": (0.005, 1, 1, 2e-5),
        "SST-2": (0.001, 1, 1, 2e-5),
        "STS-B": (0.005, 1, 1, 3e-5),
    },
    "bert_emd_6": {
        "CoLA": (0.001, 1, 7, 2e-5),
        "MNLI": (0.005, 1, 1, 5e-5),
        "MRPC": (0.005, 1, 1, 2e-5),
        "QQP": (0.005, 1, 1, 2e-5),
        "QNLI": (0.001, 1, 1, 5e-5),
        "RTE": (0.005, 1, 1, 2e-5),
        "SST-2": (0.001, 1, 1, 2e-5),
        "STS-B": (0.005, 1, 1, 3e-5),
    },
}


PRESETS = {name: tuple(of_tasks) for name, of_tasks in _VALUES.items()}
"""Preset → the tasks that it has values for."""


def preset_values(preset: str, task_name: str) -> dict[str, float]:
    """Flag → value of a preset: the authors' best for students of 4 or 6 layers on a GLUE task.

    For Python: `DistillConfig(preset=…, task_name=…, **preset_values(…), …)`.

    Raises:
      UserError: there is no such preset, or it has no values for the task.
    """
    if preset not in _VALUES:
        raise UserError(f"--preset {preset}: unknown; choose one of {', '.join(_VALUES)}")
    for task, values in _VALUES[preset].items():
        if plain_name(task) == plain_name(task_name):
            return {"alpha": 1.0, **{flag: float(value) for flag, value in zip(_FLAGS, values, strict=True)}}
    raise UserError(
        f"--preset {preset}: has no values for {task_name}, only for {', '.join(_VALUES[preset])};"
        " leave it out"
    )


def with_preset_flags(args: Sequence[str]) -> list[str]:
    """A command line whose `--preset` is spelled out in front, so that every flag given by hand wins."""
    preset, task_name = _last_value(args, "preset"), _last_value(args, "task_name")
    if preset not in _VALUES or task_name is None:
        return list(args)  # what is missing or wrong is the parser's to say
    flags = [f"--{flag}={value!r}" for flag, value in preset_values(preset, task_name).items()]
    return [*flags, *args]


def _last_value(args: Sequence[str], flag: str) -> str | None:
    """The value of the last `--flag value` or `--flag=value`, with underscores or hyphens."""
    value = None
    for index, arg in enumerate(args):
        name, equals, attached = arg.partition("=")
        if name.replace("-", "_") == f"__{flag}":
            value = attached if equals else (args[index + 1] if index + 1 < len(args) else None)
    return value
