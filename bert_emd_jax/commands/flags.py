"""A config dataclass as groups of flags, one for each subject, for `--help` and the page of all flags."""

import ast
import dataclasses
import functools
import inspect
import itertools
import re
import textwrap
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

Config = TypeVar("Config")

_METAVARS = {int: "INT", float: "FLOAT", str: "STR", Path: "PATH"}


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag: `hint` is its type with all annotations, `text` what it does."""

    name: str
    hint: Any
    text: str
    field: dataclasses.Field[Any]

    @property
    def is_required(self) -> bool:
        field = self.field
        return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


@dataclasses.dataclass(frozen=True)
class FlagGroup:
    """The flags of one subject, its short name and what it is about."""

    name: str
    text: str
    flags: tuple[Flag, ...]


def flag_groups(config_type: type) -> list[FlagGroup]:
    """The flags of a config, grouped by the class that brings them in; groups with required flags come first.

    A class that only changes a default leaves the flag in its group.
    """
    hints = typing.get_type_hints(config_type, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(config_type)}
    texts: dict[str, str] = {}
    groups: list[FlagGroup] = []
    owners = [owner for owner in config_type.__mro__ if dataclasses.is_dataclass(owner)]
    for index, owner in enumerate(owners):
        inherited = {name for later in owners[index + 1 :] for name in later.__annotations__}
        for name, text in _field_texts(owner).items():
            texts.setdefault(name, text)
        flags = tuple(
            Flag(name, hints[name], texts[name], fields[name])
            for name in owner.__annotations__
            if name in fields and name not in inherited
        )
        if flags:
            groups.append(FlagGroup(_subject(owner), (inspect.getdoc(owner) or "").split("\n")[0], flags))
    return sorted(groups, key=lambda group: not any(flag.is_required for flag in group.flags))


def parse_flags(config_type: type[Config], args: list[str], prog: str, description: str) -> Config:
    """`config_type` from a command line.

    A wrong or unknown flag, and `--help`, end the process with tyro's own text.
    """
    # tyro boxes the flags of nested classes, so they are parsed into a nested form of the config.
    form = tyro.cli(
        _form(config_type),
        args=args,
        prog=prog,
        description=description,
        use_underscores=True,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    values = {
        field.name: getattr(part, field.name)
        for part in (getattr(form, box.name) for box in dataclasses.fields(form))
        for field in dataclasses.fields(part)
    }
    return config_type(**values)


def _form(config_type: type) -> Any:
    """A dataclass whose fields are dataclasses, one for each group of flags."""
    boxes = []
    for index, group in enumerate(flag_groups(config_type)):
        box = dataclasses.make_dataclass(
            f"Group{index}", [_form_field(flag) for flag in group.flags], kw_only=True
        )
        boxes.append((f"group_{index}", Annotated[box, tyro.conf.arg(name=group.name, help=group.text)]))
    return dataclasses.make_dataclass("Form", boxes, kw_only=True)


def _form_field(flag: Flag) -> Any:
    extras: list[Any] = [tyro.conf.arg(help=flag.text)]
    hint, default = flag.hint, flag.field.default
    optional = type(None) in typing.get_args(_plain(hint))
    if optional or default == () or default is False:
        extras.append(tyro.conf.arg(help_behavior_hint=""))  # the text says what stands in
    if optional:
        metavar = _metavar(_not_none(_plain(hint)))
        hint = Annotated[_plain(hint), tyro.conf.arg(metavar=metavar), *_extras(hint)]
    if default is False:
        extras.append(tyro.conf.FlagCreatePairsOff)
    field = dataclasses.field(default=default, default_factory=flag.field.default_factory)  # pyright: ignore
    return flag.name, Annotated[hint, *extras], field


def _metavar(hint: Any) -> str | None:
    if typing.get_origin(hint) is typing.Literal:
        return "{" + ",".join(str(choice) for choice in typing.get_args(hint)) + "}"
    return _METAVARS.get(hint)


def _plain(hint: Any) -> Any:
    """The type without its annotations."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


def _extras(hint: Any) -> tuple[Any, ...]:
    return hint.__metadata__ if typing.get_origin(hint) is Annotated else ()


def _not_none(hint: Any) -> Any:
    """The first member of a union that is not None, or the type itself."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def _subject(owner: type) -> str:
    """The words of a class's name: `CustomTaskConfig` is about custom tasks."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", owner.__name__.removesuffix("Config")).lower()


@functools.cache
def _field_texts(owner: type) -> dict[str, str]:
    """The text under each field of a class, on one line, which Python itself does not keep."""
    body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
    assert isinstance(body, ast.ClassDef)
    return dict(_texts(body.body))


def _texts(statements: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for pair in itertools.pairwise(statements):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=text)):
                yield name, " ".join(str(text).split())
