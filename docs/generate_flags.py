"""A hook of the site's build: `<!-- flags: PROGRAM -->` becomes the tables of that program's flags.

They come from the config dataclasses that the programs themselves parse, with the text under each field.
"""

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterator
from typing import Any

PROGRAMS = {
    "run_finetune.py": "bert_emd_jax.training.config:FinetuneConfig",
    "run_distill.py": "bert_emd_jax.training.config:DistillConfig",
    "run_distill.py --pregenerated_data": "bert_emd_jax.training.config:GeneralDistillConfig",
    "run_eval.py": "bert_emd_jax.training.config:EvaluationConfig",
    "run_eval.py --compare": "bert_emd_jax.commands.compare:CompareConfig",
    "run_pretrain_data.py": "bert_emd_jax.commands.pretrain_data:PretrainDataConfig",
    "run_augment.py": "bert_emd_jax.commands.augment:AugmentConfig",
    "convert_pytorch_checkpoints.py": "bert_emd_jax.commands.convert:ConvertConfig",
    "python -m bert_emd_jax.commands.demo": "bert_emd_jax.commands.demo:DemoConfig",
}
_MARKER = re.compile(r"<!-- flags: (.+?) -->")


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag as the page shows it; `group` is the first line of what the defining class says of itself."""

    name: str
    values: str
    default: str
    text: str
    group: str


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for every page."""
    return _MARKER.sub(lambda marker: flag_tables(marker[1]), markdown)


def flag_tables(program: str) -> str:
    """The flags of a program as Markdown, one table per group."""
    module, _, name = PROGRAMS[program].partition(":")
    groups: dict[str, list[Flag]] = {}
    for flag in flags_of(getattr(importlib.import_module(module), name)):
        groups.setdefault(flag.group, []).append(flag)
    return "\n\n".join(
        "\n".join(
            [
                f"**{group.rstrip('.')}**",
                "",
                "| flag | values | default | meaning |",
                "| --- | --- | --- | --- |",
                *(f"| {_code(flag.name)} | {flag.values} | {flag.default} | {flag.text} |" for flag in flags),
            ]
        )
        for group, flags in groups.items()
    )


def flags_of(config: type) -> Iterator[Flag]:
    """The flags of a config dataclass, its own before those that it inherits."""
    hints = typing.get_type_hints(config, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(config)}
    for owner in config.__mro__:
        if not dataclasses.is_dataclass(owner):
            continue
        group = (inspect.getdoc(owner) or "").split("\n")[0]
        for name, text in _texts(owner).items():
            if name in fields:
                field = fields.pop(name)
                yield Flag(name, _values(hints[name], name), _default(field), _cell(text), group)


def _texts(owner: type) -> dict[str, str]:
    """The text under each field of a class, which Python itself does not keep."""
    body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
    assert isinstance(body, ast.ClassDef)
    texts: dict[str, str] = {}
    for statement, following in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            texts[statement.target.id] = str(following.value.value) if is_text else ""
    return texts


def _values(hint: Any, name: str) -> str:
    """What a flag takes: a kind of value, or the choices."""
    extras: tuple[Any, ...] = ()
    while True:
        if typing.get_origin(hint) is typing.Annotated:
            extras += hint.__metadata__
            hint = typing.get_args(hint)[0]
        elif typing.get_origin(hint) in (typing.Union, types.UnionType):
            hint = next(part for part in typing.get_args(hint) if part is not type(None))
        else:
            break
    metavars = [metavar for extra in extras if (metavar := getattr(extra, "metavar", None))]
    aliases = [alias for extra in extras for alias in getattr(extra, "aliases", None) or ()]
    if metavars:
        kind = f"`{metavars[0]}`"
    elif typing.get_origin(hint) is typing.Literal:
        kind = " ".join(f"`{choice}`" for choice in typing.get_args(hint))
    elif hint is bool:
        kind = (
            ""
            if any("FlagCreatePairsOff" in repr(extra) for extra in extras)
            else f"or {_code('no_' + name)}"
        )
    elif typing.get_origin(hint) is tuple:
        kind = f"{typing.get_args(hint)[0].__name__.lower()} …"
    else:
        kind = {"str": "text", "Path": "path", "int": "integer", "float": "number"}[hint.__name__]
    return ", ".join(
        [*filter(None, [kind]), *(f"also {_code(alias.removeprefix('--'))}" for alias in aliases)]
    ).replace("|", r"\|")


def _code(flag: str) -> str:
    # A browser would break the line after the hyphens.
    return f'<code style="white-space: nowrap">--{flag}</code>'


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        return "required"
    value = field.default
    if value is None or value == () or value is dataclasses.MISSING:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _cell(text: str) -> str:
    # What looks like a flag is code, or Markdown would turn two hyphens into a dash.
    escaped = " ".join(text.split()).replace("|", r"\|")
    return re.sub(r"(?<!`)(--[a-zA-Z_]+)", r"`\1`", escaped)
