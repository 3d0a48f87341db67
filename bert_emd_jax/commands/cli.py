"""How every program starts: flags into a dataclass; a user's mistake is one line and exit code 2."""

import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import TypeVar

from bert_emd_jax.commands.flags import parse_flags
from bert_emd_jax.commands.programs import typed_command, typed_name
from bert_emd_jax.errors import Interrupted, UserError, one_line
from bert_emd_jax.local_paths import require_local_paths
from bert_emd_jax.screen_log import log_to_screen

Config = TypeVar("Config")

_LESS_MEMORY = (
    "try a larger --gradient_accumulation_steps, a smaller --train_batch_size, --eval_batch_size or"
    " --max_seq_length, --remat or --dtype bfloat16"
)


def run_program(
    config_type: type[Config],
    run: Callable[[Config], None],
    *,
    prog: str,
    description: str,
    examples: Sequence[str] = (),
    argv: Sequence[str] | None = None,
    expand: Callable[[Sequence[str]], list[str]] = list,
) -> int:
    """Parses `argv`, rewritten by `expand`, into `config_type`, calls `run` with it; returns the exit code.

    `examples` are command lines without the program's name, for `--help`.

    `run` imports JAX itself, so that `--help` and a mistyped flag answer at once. A `UserError`, an error of
    the file system, or a device without room is one line (exit code 2), unless `--debug` asks for the
    traceback. A wrong or unknown flag ends the process with tyro's own message and exit code 2.
    """
    args = sys.argv[1:] if argv is None else list(argv)
    prog = typed_name(prog)
    try:
        config = parse_flags(config_type, expand(args), prog, _introduction(prog, description, examples))
        require_local_paths(config)
        log_to_screen()
        run(config)
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return 130
    except Interrupted as interrupted:
        print(f"{prog}: {interrupted}", file=sys.stderr)
        return interrupted.exit_code
    except BrokenPipeError:  # the reader of the output, as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains as it ends
        return 1
    except (UserError, OSError) as error:
        if "--debug" in args:
            raise
        return _failed(prog, " ".join(str(error).split()))
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) or "--debug" in args:
            raise
        return _failed(prog, f"out of the device's memory: {_LESS_MEMORY} ({one_line(error)})")
    return 0


def _failed(prog: str, message: str) -> int:
    print(f"{prog}: error: {message}", file=sys.stderr)
    return 2


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
    return "\n".join([*lines, *(["", "Examples:", *shown] if shown else [])])


def _wrapped_command(line: str, width: int) -> str:
    """A command line on as many lines as it needs, each beginning with a flag."""
    lines = [""]
    for part in line.split(" --"):
        part = f" --{part}" if lines[-1] else part
        if len(lines[-1]) + len(part) + len(" \\") > width:
            lines.append("     ")
        lines[-1] += part
    return " \\\n".join(lines)
