"""How every program starts: flags into a dataclass; a user's mistake is one line and exit code 2."""

import logging
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro

from bert_emd_jax.errors import Interrupted, UserError

Config = TypeVar("Config")


def run_program(
    config_type: type[Config],
    run: Callable[[Config], None],
    *,
    prog: str,
    description: str,
    argv: Sequence[str] | None = None,
    expand: Callable[[Sequence[str]], list[str]] = list,
) -> int:
    """Parses `argv`, rewritten by `expand`, into `config_type`, calls `run` with it; returns the exit code.

    `run` imports JAX itself, so that `--help` and a mistyped flag answer at once. A `UserError` or
    an error of the file system is printed as one line (exit code 2), unless `--debug` asks for the
    traceback. A wrong or unknown flag ends the process with tyro's own message and exit code 2.
    """
    args = sys.argv[1:] if argv is None else list(argv)
    try:
        config = tyro.cli(
            config_type,
            args=expand(args),
            prog=prog,
            description=description,
            use_underscores=True,
            config=(tyro.conf.OmitArgPrefixes,),
        )
        _log_to_screen()
        run(config)
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return 130
    except Interrupted as interrupted:
        print(f"{prog}: {interrupted}", file=sys.stderr)
        return interrupted.exit_code
    except (UserError, OSError) as error:
        if "--debug" in args:
            raise
        print(f"{prog}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _log_to_screen() -> None:
    """Our own messages to the screen as plain lines; those of other libraries keep their own settings."""
    ours = logging.getLogger("bert_emd_jax")
    ours.setLevel(logging.INFO)
    ours.propagate = False
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    ours.handlers = [handler]
