"""The programs by name: the subcommands of `bert-emd`, and how the one under way is called by its user."""

import contextlib
import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # its imports would slow the list of programs down
    from bert_emd_jax.configs import Config

COMMAND = "bert-emd"


@dataclasses.dataclass(frozen=True)
class Program:
    """A subcommand, the module of `commands` whose `main` it calls, and the script that does the same.

    configs: its flags as `module:class` in this package, by the flag that chooses them ("": without any).
    """

    name: str
    module: str
    script: str
    summary: str
    configs: Mapping[str, str]


PROGRAMS = (
    Program(
        "finetune",
        "finetune",
        "run_finetune.py",
        "fine-tune a model on a task, for example as a teacher",
        {"": "training.training_config:FinetuneConfig"},
    ),
    Program(
        "distill",
        "distill",
        "run_distill.py",
        "distil a teacher into a small student",
        {
            "": "distillation.distill_config:DistillConfig",
            "--pregenerated_data": "distillation.distill_config:GeneralDistillConfig",
        },
    ),
    Program(
        "eval",
        "evaluate",
        "run_eval.py",
        "evaluate a model, or compare finished runs",
        {"": "evaluation.evaluation_config:EvaluationConfig", "--compare": "commands.compare:CompareConfig"},
    ),
    Program(
        "convert",
        "convert",
        "convert_pytorch_checkpoints.py",
        "convert, inspect or verify a checkpoint",
        {"": "commands.convert:ConvertConfig"},
    ),
    Program(
        "push",
        "push",
        "python -m bert_emd_jax.commands.push",
        "upload a student to the Hugging Face hub, with its model card",
        {"": "commands.push:PushConfig"},
    ),
    Program(
        "pretrain-data",
        "pretrain_data",
        "run_pretrain_data.py",
        "make data for general distillation from a text corpus",
        {"": "commands.pretrain_data:PretrainDataConfig"},
    ),
    Program(
        "augment",
        "augment",
        "run_augment.py",
        "make more training rows by word replacement",
        {"": "commands.augment:AugmentConfig"},
    ),
    Program(
        "demo",
        "demo",
        "python -m bert_emd_jax.commands.demo",
        "run everything on real weights and sentences, in minutes",
        {"": "commands.demo:DemoConfig"},
    ),
    Program(
        "demo-embeddings",
        "demo_embeddings",
        "python -m bert_emd_jax.commands.demo_embeddings",
        "distil a smaller sentence embedder, without preparation, in minutes",
        {"": "commands.demo_embeddings:EmbeddingDemoConfig"},
    ),
    Program(
        "data",
        "fetch_data",
        "python -m bert_emd_jax.commands.fetch_data",
        "fetch the files of a GLUE task from the Hugging Face hub",
        {"": "commands.fetch_data:FetchDataConfig"},
    ),
    Program(
        "list",
        "list_choices",
        "python -m bert_emd_jax.commands.list_choices",
        "list what flags accept: tasks, kinds, mappings, costs, rules, presets, families",
        {"": "commands.list_choices:ListConfig"},
    ),
    Program(
        "completion",
        "completion",
        "python -m bert_emd_jax.commands.completion",
        "print a shell script that completes programs, flags and their choices",
        {"": "commands.completion:CompletionConfig"},
    ),
)


def config_class(path: str) -> "type[Config]":
    """Imports what `Program.configs` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(f"bert_emd_jax.{module}"), name)


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
