"""bert-emd completion: a script for a shell, with every program, its flags and what they choose among."""

import dataclasses
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal

import tyro

from bert_emd_jax.commands.cli import run_program
from bert_emd_jax.commands.config_file import CONFIG_FLAG
from bert_emd_jax.commands.flags import is_positional, plain_type
from bert_emd_jax.commands.programs import COMMAND, PROGRAMS, Program, config_class
from bert_emd_jax.configs import Config, all_flags


@dataclasses.dataclass(frozen=True, init=False)
class CompletionConfig(Config):
    """The shell to complete in."""

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional]
    """Shell that reads the script."""
    debug: bool = False
    """Show the traceback of an error."""


def script(shell: str) -> str:
    """Returns what `shell` reads to complete command lines."""
    return _fish() if shell == "fish" else (_ZSH if shell == "zsh" else "") + _bash()


_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"
_BASH = """_bert_emd() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} words=""
  if [ "$COMP_CWORD" = 1 ]; then
    COMPREPLY=($(compgen -W "{programs}" -- "$word"))
    return
  fi
  case "${{COMP_WORDS[1]}} $before" in
{choices}
  esac
  if [ -z "$words" ] && [ "${{word#-}}" != "$word" ]; then
    case "${{COMP_WORDS[1]}}" in
{flags}
    esac
  fi
  # Without words the shell completes names of files.
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _bert_emd {command}
"""


def _bash() -> str:
    choices, flags = [], []
    for program in PROGRAMS:
        by_flag = _flags_of(program)
        flags.append(f'      {program.name}) words="{" ".join(f"--{flag}" for flag in by_flag)}" ;;')
        choices += [
            f'    "{program.name} --{flag}") words="{" ".join(values)}" ;;'
            for flag, values in by_flag.items()
            if values
        ]
        if positional := _positional_choices(program):
            choices.append(f'    "{program.name} {program.name}") words="{" ".join(positional)}" ;;')
    return _BASH.format(
        programs=" ".join(program.name for program in PROGRAMS),
        choices="\n".join(choices),
        flags="\n".join(flags),
        command=COMMAND,
    )


def _fish() -> str:
    lines = []
    for program in PROGRAMS:
        lines.append(
            f"complete -c {COMMAND} -n __fish_use_subcommand -f -a {program.name} -d '{program.summary}'"
        )
        seen = f"complete -c {COMMAND} -n '__fish_seen_subcommand_from {program.name}'"
        for flag, values in _flags_of(program).items():
            lines.append(f"{seen} -l {flag}" + (f" -x -a '{' '.join(values)}'" if values else ""))
        if positional := _positional_choices(program):
            lines.append(f"{seen} -f -a '{' '.join(positional)}'")
    return "\n".join([*lines, ""])


def _flags_of(program: Program) -> Mapping[str, tuple[str, ...]]:
    """Returns the flags of a program, with those that turn a switch off, and what each chooses among."""
    found: dict[str, tuple[str, ...]] = {CONFIG_FLAG: ()}
    for path in program.configs.values():
        for flag in all_flags(config_class(path)):
            if not is_positional(flag.hint):
                found[flag.name] = tuple(_choices(flag.hint))
                if flag.default is True:
                    found[f"no_{flag.name}"] = ()
    return found


def _positional_choices(program: Program) -> list[str]:
    hints = [flag.hint for path in program.configs.values() for flag in all_flags(config_class(path))]
    return [choice for hint in hints if is_positional(hint) for choice in _choices(hint)]


def _choices(hint: object) -> Iterator[str]:
    """Yields the words that a flag takes, if it takes only some."""
    for part in (plain_type(hint), *typing.get_args(plain_type(hint))):
        if typing.get_origin(part) is Literal:
            yield from map(str, typing.get_args(part))


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the script; returns the exit code."""
    return run_program(
        CompletionConfig,
        lambda config: print(script(config.shell), end=""),
        prog="python -m bert_emd_jax.commands.completion",
        description=f"Prints a shell script that completes {COMMAND}: programs, flags, choices.",
        argv=argv,
    )


if __name__ == "__main__":
    sys.exit(main())
