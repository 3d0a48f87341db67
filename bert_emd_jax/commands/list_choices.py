"""bert-emd list: what there is to choose from, read from the registries."""

import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

import tyro

from bert_emd_jax.commands.cli import run_program
from bert_emd_jax.configs import Config, spelled_flag
from bert_emd_jax.data.kinds import KINDS
from bert_emd_jax.data.tasks import TASK_NAMES, get_task
from bert_emd_jax.distillation.layer_costs import LAYER_COSTS
from bert_emd_jax.distillation.presets import PRESETS
from bert_emd_jax.distillation.recipes import RECIPES
from bert_emd_jax.models.families import FAMILIES
from bert_emd_jax.transport.mappings import MAPPINGS
from bert_emd_jax.transport.weight_rules import WEIGHT_RULES


def _tasks() -> dict[str, str]:
    glue = (get_task(name) for name in TASK_NAMES if name != "custom")
    listed = {task.name: f"GLUE, {task.kind.name}, {task.primary_metric}" for task in glue}
    return listed | {"custom": "your own files (--kind, --text_column, --label_column …)"}


def _kinds() -> dict[str, str]:
    """The first sentence of each docstring."""
    texts = {name: (inspect.getdoc(type(kind)) or "") for name, kind in KINDS.items()}
    return {
        name: " ".join(text.split("\n\n")[0].split()).partition("; ")[0].rstrip(".")
        for name, text in texts.items()
    }


def _recipes() -> dict[str, str]:
    """The flags of each as on a command line."""
    return {
        recipe.title: " ".join(word for flag in recipe.flags.items() for word in spelled_flag(*flag))
        for recipe in RECIPES
    }


CHOICES: dict[str, tuple[str, Callable[[], Mapping[str, str]]]] = {
    "tasks": ("--task_name", _tasks),
    "kinds": ("--kind", _kinds),
    "mappings": ("--mapping", lambda: {name: mapping.text for name, mapping in MAPPINGS.items()}),
    "costs": (
        "--use_NAME, --no_use_NAME",
        lambda: {cost.name: f"{cost.title} of student and teacher" for cost in LAYER_COSTS},
    ),
    "rules": ("--layer_weight_rule", lambda: {name: rule.text for name, rule in WEIGHT_RULES.items()}),
    "presets": ("--preset", lambda: {name: f"for {', '.join(tasks)}" for name, tasks in PRESETS.items()}),
    "recipes": ("what was measured to be a good first try, docs/recipes.md", _recipes),
    "families": (
        '"model_type" in config.json',
        lambda: {name: f"{family.title}: {family.classes['none']}" for name, family in FAMILIES.items()},
    ),
}
"""What can be listed: the flag that takes it, and name → what it is."""


@dataclasses.dataclass(frozen=True, init=False)
class ListConfig(Config):
    """What to list."""

    what: Annotated[Literal[("all", *CHOICES)], tyro.conf.Positional] = "all"  # pyright: ignore[reportInvalidTypeForm]
    """What to list; all: everything."""
    debug: bool = False
    """Show the traceback of an error."""


def run(config: ListConfig) -> None:
    """Prints the choices."""
    for what in CHOICES if config.what == "all" else (config.what,):
        flag, choices = CHOICES[what]
        entries = choices()
        width = max(map(len, entries))
        print(f"{what} ({flag})")
        for name, text in entries.items():
            print(f"  {name:{width}}  {text}".rstrip())
        print()


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the choices; returns the exit code."""
    return run_program(
        ListConfig,
        run,
        prog="python -m bert_emd_jax.commands.list_choices",
        description=f"Lists what there is to choose from: {', '.join(CHOICES)}.",
        argv=argv,
    )


if __name__ == "__main__":
    sys.exit(main())
