"""A hook of the site's build: `<!-- flags: PROGRAM -->` becomes the tables of that program's flags.

They are those of `--help`, in the same groups.
"""

import dataclasses
import re
import types
import typing
from typing import Any

from bert_emd_jax.commands.flags import FlagText, flag_groups, is_positional
from bert_emd_jax.commands.programs import PROGRAMS, config_class
from bert_emd_jax.configs import Flag

CONFIGS = {
    f"{program.script} {flag}".rstrip(): path
    for program in PROGRAMS
    for flag, path in program.configs.items()
}
"""Where the flags of each program are, by its script and the flag that chooses them."""
_MARKER = re.compile(r"<!-- flags: (.+?) -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for every page."""
    return _MARKER.sub(lambda marker: flag_tables(marker[1]), markdown)


def flag_tables(program: str) -> str:
    """The flags of a program as Markdown, one table per group."""
    groups = flag_groups(config_class(CONFIGS[program]))
    return "\n\n".join(
        "\n".join(
            [
                f"**{group.text.rstrip('.')}**",
                "",
                "| flag | values | default | meaning |",
                "| --- | --- | --- | --- |",
                *map(_row, group.flags),
            ]
        )
        for group in groups
    )


def _row(described: FlagText) -> str:
    flag = described.flag
    name = f"<code>{flag.name.upper()}</code>" if is_positional(flag.hint) else _code(flag.name)
    cells = name, _values(flag), _default(flag), _cell(described.text)
    return f"| {' | '.join(cells)} |"


def _values(flag: Flag) -> str:
    """What a flag takes: a kind of value, or the choices."""
    hint, extras = flag.hint, ()
    if typing.get_origin(hint) is typing.Annotated:
        hint, extras = typing.get_args(hint)[0], hint.__metadata__
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    metavars = [metavar for extra in extras if (metavar := getattr(extra, "metavar", None))]
    aliases = [alias for extra in extras for alias in getattr(extra, "aliases", None) or ()]
    if metavars:
        kind = f"`{metavars[0]}`"
    elif typing.get_origin(hint) is typing.Literal:
        kind = " ".join(f"`{choice}`" for choice in typing.get_args(hint))
    elif hint is bool:
        kind = "" if flag.default is False else f"or {_code('no_' + flag.name)}"
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


def _default(flag: Flag) -> str:
    value = flag.default
    if value is dataclasses.MISSING:
        return "required"
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _cell(text: str) -> str:
    # What looks like a flag is code, or Markdown would turn two hyphens into a dash.
    escaped = " ".join(text.split()).replace("|", r"\|")
    return re.sub(r"(?<!`)(--[a-zA-Z_]+)", r"`\1`", escaped)
