"""`--config FILE`: flags of a program from a YAML or JSON file, or from the `run_config.json` of a run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from bert_emd_jax.configs import Config, all_flags, path_in_full, spelled_flag, takes_paths
from bert_emd_jax.errors import UserError, did_you_mean, one_line

CONFIG_FLAG = "config"
Part = TypeVar("Part", bound=Config)


def with_file_flags(config_type: type[Config], args: Sequence[str]) -> list[str]:
    """Returns a command line whose `--config FILE` is spelled out in front, so that flags beside it win.

    Raises:
      UserError: the file is missing, is not a mapping, or has a flag that the program has not.
    """
    path, others = _split(args)
    if path is None:
        return list(args)
    known = {flag.name: flag for flag in all_flags(config_type)}
    values, directory = _read(path)
    spelled = []
    for name, value in values.items():
        if name not in known:
            raise UserError(f"{path}: {name}: no such flag{did_you_mean(name, known) or ''}")
        if directory is not None and takes_paths(known[name].hint):
            value = path_in_full(value, directory)
        if known[name].default is False:
            # Such a switch has no flag that turns it off, but the line beside a file may have one.
            off = [word for word in others if word.replace("-", "_") == f"__no_{name}"]
            others = [word for word in others if word not in off]
            value = None if off or not value else value
        if value not in (None, []):  # which leave a flag open
            spelled.append("=".join(spelled_flag(name, value)))
    return [*spelled, *others]


def part_of_file(part: type[Part], path: Path) -> Part:
    """Returns a part of a program's config from a file's flags; flags of other parts are left out.

    Raises:
      UserError: the file cannot be read, or lacks a flag that the part needs.
    """
    values, directory = _read(path)
    wanted = {flag.name: flag for flag in all_flags(part)}
    given = {
        name: path_in_full(value, directory)
        if directory is not None and takes_paths(wanted[name].hint)
        else value
        for name, value in values.items()
        if name in wanted and value is not None
    }
    try:
        return part(**given)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def names_flag(args: Sequence[str], flag: str) -> bool:
    """Whether a command line or its `--config` file names a flag; a file that cannot be read names none."""
    if any(arg.partition("=")[0].replace("-", "_") == f"__{flag}" for arg in args):
        return True
    try:
        path, _ = _split(args)
        return path is not None and _read(path)[0].get(flag) is not None
    except UserError:
        return False  # with_file_flags says what is wrong


def _read(path: Path) -> tuple[dict[str, Any], str | None]:
    """Reads flag → value; of a `run_config.json` its flags, and the directory that their paths start from.

    Raises:
      UserError: the file cannot be read, or is not a mapping of flags.
    """
    try:
        text = path.expanduser().read_text(encoding="utf-8")
        # JSON first: YAML 1.1 takes 1e-05 for text, and is slower.
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"--{CONFIG_FLAG} {path}: cannot be read ({one_line(error)})") from None
    directory = None
    if isinstance(values, Mapping) and isinstance(values.get("flags"), Mapping):
        directory, values = values.get("working_directory"), values["flags"]
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise UserError(f"--{CONFIG_FLAG} {path}: one flag a line is wanted, as `learning_rate: 1e-4`")
    by_name = {name.removeprefix("--").replace("-", "_"): value for name, value in values.items()}
    return by_name, directory if isinstance(directory, str) else None


def _split(args: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Returns the file of the last `--config`, and the other arguments."""
    path, others, rest = None, [], list(args)
    while rest:
        name, equals, attached = rest.pop(0).partition("=")
        if name != f"--{CONFIG_FLAG}":
            others.append(name + equals + attached)
            continue
        if not equals and (not rest or rest[0].startswith("--")):
            raise UserError(f"--{CONFIG_FLAG}: needs a file")
        path = Path(attached if equals else rest.pop(0))
    return path, others
