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

from bert_emd_jax.configs import Config, Flag, all_flags, own_flags, parts
from bert_emd_jax.errors import UserError, did_you_mean

Parsed = TypeVar("Parsed", bound=Config)

_METAVARS = {int: "INT", float: "FLOAT", str: "STR", Path: "PATH"}


@dataclasses.dataclass(frozen=True)
class FlagText:
    """A flag and what it does."""

    flag: Flag
    text: str

    @property
    def is_required(self) -> bool:
        return self.flag.default is dataclasses.MISSING


@dataclasses.dataclass(frozen=True)
class FlagGroup:
    """The flags of one subject, its short name and what it is about."""

    name: str
    text: str
    flags: tuple[FlagText, ...]


def flag_groups(config_type: type[Config]) -> list[FlagGroup]:
    """A group of a config's own flags and one for each part; groups with required flags come first."""
    return sorted(_groups(config_type), key=lambda group: not any(flag.is_required for flag in group.flags))


def _groups(config_type: type[Config], default: Config | None = None) -> Iterator[FlagGroup]:
    flags = tuple(own_flags(config_type, default))
    if flags:
        texts = _field_texts(config_type)
        about = (inspect.getdoc(config_type) or "").split("\n")[0]
        yield FlagGroup(
            _subject(config_type), about, tuple(FlagText(flag, texts[flag.name]) for flag in flags)
        )
    for part, part_default in parts(config_type, default):
        yield from _groups(part, part_default)


def parse_flags(config_type: type[Parsed], args: list[str], prog: str, description: str) -> Parsed:
    """`config_type` from a command line.

    `--help` and a value that cannot be read end the process with tyro's own text.

    Raises:
      UserError: an unknown flag, or blanks in a list of values.
    """
    _check_names(config_type, args)
    form = tyro.cli(
        _form(config_type),
        args=args,
        prog=prog,
        description=description,
        use_underscores=True,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    boxes = (getattr(form, box.name) for box in dataclasses.fields(form))
    return config_type(**{name: value for box in boxes for name, value in vars(box).items()})


def _check_names(config_type: type[Config], args: list[str]) -> None:
    """Raises UserError for a flag that there is not, and for `--flag 1 3 5` where `--flag 1,3,5` is meant."""
    hints = {flag.name: flag.hint for flag in all_flags(config_type)}
    aliases = {
        alias.lstrip("-"): hint
        for hint in hints.values()
        for extra in _extras(hint)
        for alias in getattr(extra, "aliases", None) or ()
    }
    known = hints | aliases
    for index, arg in enumerate(args):
        name = arg.removeprefix("--").split("=")[0].replace("-", "_")
        if not arg.startswith("--") or name in ("", "help", "version"):
            continue
        if name not in known and name.removeprefix("no_") not in known:
            raise UserError(f"--{name}: no such flag{did_you_mean(name, known) or '; --help lists them'}")
        values = list(itertools.takewhile(lambda value: not value.startswith("--"), args[index + 1 :]))
        is_comma_list = any(getattr(extra, "nargs", None) == 1 for extra in _extras(known.get(name)))
        if is_comma_list and len(values) > 1:
            listed = ",".join(value.strip(",") for value in values)
            given = " ".join(values)
            raise UserError(f"--{name} {given}: commas are wanted between them, as --{name} {listed}")


def _form(config_type: type[Config]) -> Any:
    """A dataclass whose fields are dataclasses, one for each group of flags: tyro boxes them."""
    boxes = []
    for index, group in enumerate(flag_groups(config_type)):
        box = dataclasses.make_dataclass(f"Group{index}", map(_form_field, group.flags), kw_only=True)
        boxes.append((f"group_{index}", Annotated[box, tyro.conf.arg(name=group.name, help=group.text)]))
    return dataclasses.make_dataclass("Form", boxes, kw_only=True)


def _form_field(described: FlagText) -> Any:
    hint, default = described.flag.hint, described.flag.default
    extras: list[Any] = [tyro.conf.arg(help=described.text)]
    optional = type(None) in typing.get_args(plain_type(hint))
    if optional or default == () or default is False:
        extras.append(tyro.conf.arg(help_behavior_hint=""))  # the text says what stands in
    if optional:
        metavar = _metavar(_not_none(plain_type(hint)))
        hint = Annotated[plain_type(hint), tyro.conf.arg(metavar=metavar), *_extras(hint)]
    if default is False:
        extras.append(tyro.conf.FlagCreatePairsOff)
    return described.flag.name, Annotated[hint, *extras], dataclasses.field(default=default)


def _metavar(hint: Any) -> str | None:
    if typing.get_origin(hint) is typing.Literal:
        return "{" + ",".join(str(choice) for choice in typing.get_args(hint)) + "}"
    return _METAVARS.get(hint)


def plain_type(hint: Any) -> Any:
    """Returns a type without its annotations."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


def is_positional(hint: Any) -> bool:
    """Whether a command line has the value alone, without a flag's name."""
    return tyro.conf.Positional in _extras(hint)


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
def _field_texts(owner: type[Config]) -> dict[str, str]:
    """The text under each field, on one line, which Python itself does not keep; inherited fields too."""
    texts: dict[str, str] = {}
    for cls in reversed([cls for cls in owner.__mro__ if dataclasses.is_dataclass(cls)]):
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        texts |= dict(_texts(body.body))
    return texts


def _texts(statements: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for pair in itertools.pairwise(statements):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=text)):
                yield name, " ".join(str(text).split())
