"""How the configs of the programs are composed. No JAX here: flags are parsed before it is imported.

A config is a frozen dataclass. Its fields are flags, and parts: configs of one subject each, whose flags it
takes too. Below the programs a function gets the part that it needs.
"""

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args, get_origin

import tyro

from bert_emd_jax.errors import UserError, did_you_mean
from bert_emd_jax.local_paths import require_local


def _comma_list(
    convert: Callable[[str], Any], metavar: str
) -> tyro.constructors.PrimitiveConstructorSpec[tuple]:
    """One argument `a,b,c` as a tuple."""
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda args: tuple(convert(item) for item in args[0].split(",") if item),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(map(str, value))],
    )


def _integer_or_name(text: str) -> int | str:
    return int(text) if text.strip().lstrip("-").isdecimal() else text


T = TypeVar("T")
_SAME_RESULT = "same result"
SameResult = Annotated[T, _SAME_RESULT]
"""Type of a flag that does not change a run's result: `--resume` lets it differ, `--compare` ignores it."""
_READ_ANYWHERE = "may be in a bucket"
ReadAnywhere = Annotated[T, _READ_ANYWHERE]
"""Type of a path that is read, and may be one into a bucket: `buckets.local_copy` fetches it."""
# A bare --flag means yes and --no_flag no, although the default is neither.
OptionalBool = Annotated[bool | None, tyro.conf.arg(constructor=bool)]
Integers = Annotated[tuple[int, ...], _comma_list(int, "INT,INT,…")]
Names = Annotated[tuple[str, ...], _comma_list(str, "NAME,NAME,…")]
IntegersOrNames = Annotated[tuple[int | str, ...], _comma_list(_integer_or_name, "INT,INT,…|NAME")]
Paths = Annotated[tuple[Path, ...], _comma_list(Path, "PATH,PATH,…")]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclasses.dataclass(frozen=True, init=False)
class Config:
    """A part of a config, or a whole one.

    A field whose type is a config is a part; its default, if there is one, may change defaults of the part.
    """

    def __init__(self, **values: Any) -> None:
        """Takes flags by name, paths also as text and tuples as lists, and whole parts by their field's name.

        Raises:
          UserError: a flag is unknown, missing, or has a value that it cannot have.
        """
        hints = {flag.name: flag.hint for flag in all_flags(type(self))}
        values = {
            name: _converted(name, value, hints[name]) if name in hints else value
            for name, value in values.items()
        }
        _check_paths(values, hints)
        self._take(values)

    def _take(self, values: Mapping[str, Any]) -> None:
        for name, given in self._by_field(values).items():
            object.__setattr__(self, name, given)
        self.check()

    @classmethod
    def _as_part(cls, values: Mapping[str, Any]) -> Self:
        """The part of a config that has converted its values, and knows which paths it takes."""
        part = object.__new__(cls)
        part._take(values)
        return part

    def check(self) -> None:
        """Raises UserError if a value is impossible; the configs override this."""

    def require(self, flag: str, fulfilled: bool, what: str) -> None:
        """Raises UserError, which says what a flag's value must be, unless that is fulfilled."""
        if not fulfilled:
            raise UserError(f"--{flag} {getattr(self, flag)}: must be {what}")

    def flags(self) -> dict[str, Any]:
        """Flag → value, those of the parts included."""
        values: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            values |= value.flags() if isinstance(value, Config) else {field.name: value}
        return values

    def replace(self, **flags: Any) -> Self:
        """The config with other values of some flags."""
        return type(self)(**(self.flags() | flags))

    def sources(self) -> dict[str, str]:
        """Flag → where its value came from: "default" or "given"."""
        defaults = {flag.name: flag.default for flag in all_flags(type(self))}
        return {
            name: "default" if value == defaults[name] else "given" for name, value in self.flags().items()
        }

    def _by_field(self, values: Mapping[str, Any]) -> dict[str, Any]:
        cls = type(self)
        fields = {field.name: field for field in dataclasses.fields(cls)}
        owners = _flag_owners(cls)
        if unknown := [name for name in values if name not in owners and name not in fields]:
            hint = did_you_mean(unknown[0], owners) or "; its fields are the program's flags"
            raise UserError(f"{', '.join(unknown)}: no such setting of {cls.__name__}{hint}")
        missing = [
            flag.name
            for flag in all_flags(cls)
            if flag.default is dataclasses.MISSING
            and flag.name not in values
            and owners[flag.name] not in values
        ]
        if missing:
            raise UserError(f"{cls.__name__} needs {', '.join(missing)}")
        hints = _hints(cls)
        found: dict[str, Any] = {}
        for name, field in fields.items():
            part = _part(hints[name])
            if name in values:
                found[name] = values[name]
            elif part is None:
                found[name] = field.default
            else:
                flags = {flag: values[flag] for flag in values if owners.get(flag) == name}
                default = field.default
                found[name] = part._as_part((default.flags() if isinstance(default, Config) else {}) | flags)
        return found


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag: `hint` is its type with all annotations, `default` may be `dataclasses.MISSING`."""

    name: str
    hint: Any
    default: Any

    @property
    def changes_result(self) -> bool:
        return _SAME_RESULT not in getattr(self.hint, "__metadata__", ())


def own_flags(cls: type[Config], default: Config | None = None) -> Iterator[Flag]:
    """The flags that are fields of a config itself, in their order.

    Args:
      default: where the defaults are taken from, instead of the class.
    """
    for field in _fields(cls):
        if _part(_hints(cls)[field.name]) is None:
            given = field.default if default is None else getattr(default, field.name)
            yield Flag(field.name, _hints(cls)[field.name], given)


def parts(cls: type[Config], default: Config | None = None) -> Iterator[tuple[type[Config], Config | None]]:
    """The parts of a config, in their order, each with the default that it has there."""
    for field in _fields(cls):
        part = _part(_hints(cls)[field.name])
        if part is not None:
            given = field.default if default is None else getattr(default, field.name)
            yield part, given if isinstance(given, Config) else None


def all_flags(cls: type[Config], default: Config | None = None) -> Iterator[Flag]:
    """All flags of a config, those of its parts included."""
    yield from own_flags(cls, default)
    for part, part_default in parts(cls, default):
        yield from all_flags(part, part_default)


Function = TypeVar("Function", bound=Callable[..., Any])


def takes_flags_of(cls: type[Config]) -> Callable[[Function], Function]:
    """A decorator of functions whose `**flags` are those of a config: their signature has all, for `help`."""

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
        flags = [
            inspect.Parameter(
                flag.name,
                inspect.Parameter.KEYWORD_ONLY,
                # One that a program must have may come from a config, or from rows that are given.
                default=None if flag.default is dataclasses.MISSING else flag.default,
                annotation=get_args(flag.hint)[0] if get_origin(flag.hint) is Annotated else flag.hint,
            )
            for flag in all_flags(cls)
        ]
        function.__signature__ = signature.replace(parameters=[*own, *flags])  # pyright: ignore[reportFunctionMemberAccess]
        return function

    return decorate


def plain_values(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Flags as values that JSON can hold, for `run_config.json`."""

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        return value if value is None or isinstance(value, bool | int | float) else str(value)

    return {name: plain(value) for name, value in flags.items()}


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _fields(cls: type) -> list[dataclasses.Field[Any]]:
    """The fields that a class names itself, then those of the classes above it."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    named = (name for owner in cls.__mro__ for name in vars(owner).get("__annotations__", ()))
    return [fields[name] for name in dict.fromkeys(named) if name in fields]


def _part(hint: Any) -> type[Config] | None:
    """The class of a part, None for a flag."""
    return hint if isinstance(hint, type) and issubclass(hint, Config) else None


@functools.cache
def _flag_owners(cls: type[Config]) -> dict[str, str]:
    """Flag → the field of the config that it is, or that it is a part of."""
    owners = {}
    for field in dataclasses.fields(cls):
        part = _part(_hints(cls)[field.name])
        owners |= dict.fromkeys(_flag_owners(part) if part else [field.name], field.name)
    return owners


def _converted(name: str, value: Any, hint: Any) -> Any:
    """A flag's value in the flag's type: text is read as on a command line, `~` is the home directory.

    Raises:
      UserError: it is of another type, or none of the choices.
    """
    plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    union = get_args(plain) if get_origin(plain) in (typing.Union, types.UnionType) else (plain,)
    if value is None and type(None) in union:
        return None
    kind = next(kind for kind in union if kind is not type(None))
    origin = get_origin(kind)
    if origin is Literal:
        if value not in get_args(kind):
            choices, hint = ", ".join(get_args(kind)), did_you_mean(str(value), get_args(kind))
            raise UserError(f"--{name} {value}: is none of {choices}{hint}")
        return value
    if origin is tuple:
        items = [item for item in value.split(",") if item] if isinstance(value, str) else value
        items = [items] if isinstance(items, PathLike) else items
        if not isinstance(items, Iterable):
            raise UserError(f"--{name} {value!r}: a list is wanted")
        return tuple(_item(name, item, get_args(kind)[0]) for item in items)
    return _item(name, value, kind)


def takes_paths(hint: Any) -> bool:
    """Whether a flag of this type takes a path, or several."""
    return Path in {hint, *(part for one in (hint, *get_args(hint)) for part in (one, *get_args(one)))}


def spelled_flag(name: str, value: Any) -> list[str]:
    """Returns a flag with its value as the words of a command line."""
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no_{name}"]
    return [f"--{name}", ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)]


def path_in_full(value: Any, directory: str | Path) -> Any:
    """Returns a path (or a list) that exists below a directory with it in front; other values as they are."""
    if isinstance(value, list):
        return [path_in_full(item, directory) for item in value]
    is_there = isinstance(value, str) and value != "" and (Path(directory) / value).exists()
    return str(Path(directory) / value) if is_there else value


def _check_paths(values: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
    """Raises UserError if a path is a URL where a flag takes none."""
    for name, value in values.items():
        for path in value if isinstance(value, tuple) else (value,):
            if isinstance(path, Path):
                is_output = name == "output_dir"  # a run is kept in a bucket by its copy there
                reads = _READ_ANYWHERE in getattr(hints.get(name), "__metadata__", ())
                takes_buckets = reads or (is_output and "mirror_dir" in hints)
                require_local(path, f"--{name} ", is_output=is_output, takes_buckets=takes_buckets)


def _item(name: str, value: Any, kind: Any) -> Any:
    """A single value as a path, a text, a yes or no, or a number."""
    wanted = f"--{name} {str(value)[:80]}: {{}} is wanted, not {type(value).__name__}"
    if kind is Path:
        if not isinstance(value, str | PathLike):
            raise UserError(wanted.format("a path"))
        return _expanded(Path(value))
    if isinstance(kind, types.UnionType):  # of whole numbers and names
        return _integer_or_name(value) if isinstance(value, str) else _item(name, value, int)
    if kind is str:  # a number, too, as it would be written: a threshold, the index of a column
        if isinstance(value, bool) or not isinstance(value, str | Real):
            raise UserError(wanted.format("text"))
        return str(value)
    if kind is bool:
        if not isinstance(value, bool):
            raise UserError(wanted.format("True or False"))
        return value
    of_kind = Integral if kind is int else Real  # NumPy's numbers are among them
    try:
        if isinstance(value, bool) or not isinstance(value, str | of_kind):
            raise ValueError
        return kind(value)  # pyright: ignore[reportArgumentType]  (text, or a number)
    except ValueError:
        raise UserError(wanted.format("a whole number" if kind is int else "a number")) from None


def _expanded(path: Path) -> Path:
    """A path with the home directory for a leading `~`, which a shell leaves in `--output_dir=~/runs`."""
    try:
        return path.expanduser()
    except RuntimeError:  # no such user
        return path


@dataclasses.dataclass(frozen=True, init=False)
class ProgramConfig(Config):
    """Common to all programs."""

    output_dir: SameResult[Path]
    """Directory for the results."""
    dtype: Dtype = "auto"
    """Compute type; parameters are always float32. auto: bfloat16 on TPUs and GPUs, float16 on NVIDIA GPUs
    older than Ampere, float32 on CPUs."""
    debug: SameResult[bool] = False
    """Show the traceback of an error."""
