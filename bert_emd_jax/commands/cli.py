"""How every program starts and ends: flags into a config; a user's mistake is one line and exit code 2."""

import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar

from bert_emd_jax.commands.config_file import with_file_flags
from bert_emd_jax.commands.flags import parse_flags
from bert_emd_jax.commands.programs import typed_command, typed_name
from bert_emd_jax.configs import Config
from bert_emd_jax.errors import Interrupted, UserError, one_line
from bert_emd_jax.screen_log import log_to_screen

Parsed = TypeVar("Parsed", bound=Config)

_LESS_MEMORY = (
    "try a larger --gradient_accumulation_steps, a smaller --train_batch_size, --eval_batch_size or"
    " --max_seq_length, --remat or --dtype bfloat16"
)


_REPEATING = (
    "--config FILE reads flags from a YAML or JSON file, or those of an earlier run from its run_config.json;"
    " flags on the line win."
)


class Program:
    """A program under way: while it is entered, a mistake of the user's ends it with one line.

    A `UserError`, an error of the file system, or a device without room is that line, and exit code 2, unless
    `--debug` asks for the traceback. `exit_code` is known when it is left.
    """

    def __init__(
        self, prog: str, description: str, examples: Sequence[str] = (), argv: Sequence[str] | None = None
    ) -> None:
        """`examples` are command lines without the program's name, for `--help`."""
        self._args = sys.argv[1:] if argv is None else list(argv)
        self._name = typed_name(prog)
        self._introduction = _introduction(self._name, description, examples)
        self.exit_code = 0

    def parse(self, config_type: type[Parsed], expand: Callable[[Sequence[str]], list[str]] = list) -> Parsed:
        """The config of the command line and its `--config` file, rewritten by `expand`.

        From here on our log goes to the screen.

        A wrong or unknown flag ends the process with tyro's own message and exit code 2.
        """
        args = expand(with_file_flags(config_type, self._args))
        config = parse_flags(config_type, args, self._name, self._introduction)
        log_to_screen()
        return config

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> bool:
        """Turns an error into an exit code, and a line on standard error; others go on."""
        match error:
            case None:
                return True
            case KeyboardInterrupt():
                self._end(130, "interrupted")
            case Interrupted():
                self._end(error.exit_code, str(error))
            case BrokenPipeError():  # the reader of the output, as `head`, has seen enough
                # Or Python complains as it ends.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                self.exit_code = 1
            case _ if "--debug" in self._args:
                return False
            case UserError() | OSError():
                self._end(2, f"error: {' '.join(str(error).split())}")
            case RuntimeError() if "RESOURCE_EXHAUSTED" in str(error):
                self._end(2, f"error: out of the device's memory: {_LESS_MEMORY} ({one_line(error)})")
            case _:
                return False
        return True

    def _end(self, exit_code: int, message: str) -> None:
        print(f"{self._name}: {message}", file=sys.stderr)
        self.exit_code = exit_code


def run_program(
    config_type: type[Parsed],
    run: Callable[[Parsed], None],
    *,
    prog: str,
    description: str,
    examples: Sequence[str] = (),
    argv: Sequence[str] | None = None,
) -> int:
    """Parses `argv` into `config_type`, calls `run` with it as a `Program`, and returns the exit code.

    `run` imports JAX itself, so that `--help` and a mistyped flag answer at once.
    """
    with Program(prog, description, examples, argv) as program:
        run(program.parse(config_type))
    return program.exit_code


def _introduction(prog: str, description: str, examples: Sequence[str]) -> str:
    """What stands above the flags in `--help`."""
    # Indented, because tyro joins lines that begin with a letter and then does not wrap them.
    width = min(shutil.get_terminal_size().columns, 110)
    lines = [
        line
        for paragraph in description.splitlines()
        for line in textwrap.wrap(paragraph, width, initial_indent="  ", subsequent_indent="  ")
    ]
    shown = [_wrapped_command(f"  $ {typed_command(prog)} {example}", width) for example in examples]
    repeating = textwrap.wrap(_REPEATING, width, initial_indent="  ", subsequent_indent="  ")
    return "\n".join([*lines, *(["", "Examples:", *shown] if shown else []), "", *repeating])


def _wrapped_command(line: str, width: int) -> str:
    """A command line on as many lines as it needs, each beginning with a flag."""
    lines = [""]
    for part in line.split(" --"):
        part = f" --{part}" if lines[-1] else part
        if len(lines[-1]) + len(part) + len(" \\") > width:
            lines.append("     ")
        lines[-1] += part
    return " \\\n".join(lines)
