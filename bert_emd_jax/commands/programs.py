"""The programs by name: the subcommands of `bert-emd`, and how the one under way is called by its user."""

import contextlib
import dataclasses
from collections.abc import Iterator
from contextvars import ContextVar

COMMAND = "bert-emd"


@dataclasses.dataclass(frozen=True)
class Program:
    """A subcommand, the module of `commands` whose `main` it calls, and the script that does the same."""

    name: str
    module: str
    script: str
    summary: str


PROGRAMS = (
    Program("finetune", "finetune", "run_finetune.py", "fine-tune a model on a task; this makes a teacher"),
    Program("distill", "distill", "run_distill.py", "distil a teacher into a small student"),
    Program("eval", "evaluate", "run_eval.py", "evaluate a model, or put finished runs side by side"),
    Program(
        "convert",
        "convert",
        "convert_pytorch_checkpoints.py",
        "convert, inspect or verify a checkpoint",
    ),
    Program(
        "pretrain-data",
        "pretrain_data",
        "run_pretrain_data.py",
        "make data for general distillation from a text corpus",
    ),
    Program("augment", "augment", "run_augment.py", "make more training rows by word replacement"),
    Program(
        "demo",
        "demo",
        "python -m bert_emd_jax.commands.demo",
        "all of it on real weights and sentences, in minutes",
    ),
    Program(
        "demo-embeddings",
        "demo_embeddings",
        "python -m bert_emd_jax.commands.demo_embeddings",
        "a smaller sentence embedder, from nothing, in minutes",
    ),
    Program(
        "data",
        "fetch_data",
        "python -m bert_emd_jax.commands.fetch_data",
        "fetch the files of a GLUE task from the Hugging Face hub",
    ),
    Program(
        "list",
        "list_choices",
        "python -m bert_emd_jax.commands.list_choices",
        "what flags take: tasks, kinds, mappings, costs, rules, presets, families",
    ),
)

_as_subcommand: ContextVar[bool] = ContextVar("_as_subcommand", default=False)


@contextlib.contextmanager
def as_subcommand() -> Iterator[None]:
    """What starts in this context calls itself, and others, by the names of `bert-emd`."""
    token = _as_subcommand.set(True)
    try:
        yield
    finally:
        _as_subcommand.reset(token)


def typed_name(script: str) -> str:
    """The name under which the user of this process knows `script`."""
    if not _as_subcommand.get():
        return script
    names = {program.script: program.name for program in PROGRAMS}
    return f"{COMMAND} {names[script]}"


def typed_command(name: str) -> str:
    """How a command line begins that starts the program of that name (`typed_name`)."""
    return f"python {name}" if name.endswith(".py") else name
