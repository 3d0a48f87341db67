"""bert-emd: every program as a subcommand."""

import importlib
import sys
from collections.abc import Sequence

from bert_emd_jax.commands.programs import COMMAND, PROGRAMS, as_subcommand
from bert_emd_jax.errors import did_you_mean


def main(argv: Sequence[str] | None = None) -> int:
    """Calls the program that the first argument names with the other arguments; returns its exit code."""
    args = sys.argv[1:] if argv is None else list(argv)
    if not args:
        print(_help(), file=sys.stderr)
        return 2
    if args[0] in ("-h", "--help"):
        print(_help())
        return 0
    if args[0] == "--version":
        from bert_emd_jax import __version__

        print(f"{COMMAND} {__version__}")
        return 0
    # The flags have underscores; nobody should have to remember that this name has a hyphen.
    name = args[0].replace("_", "-")
    program = next((program for program in PROGRAMS if program.name == name), None)
    if program is None:
        names = ", ".join(program.name for program in PROGRAMS)
        hint = did_you_mean(name, (program.name for program in PROGRAMS)) or f"; {COMMAND} --help"
        print(f"{COMMAND}: error: {args[0]!r} is none of {names}{hint}", file=sys.stderr)
        return 2
    with as_subcommand():
        return importlib.import_module(f"bert_emd_jax.commands.{program.module}").main(args[1:])


def _help() -> str:
    width = max(len(program.name) for program in PROGRAMS) + 2
    lines = [f"  {program.name:{width}}{program.summary}" for program in PROGRAMS]
    return "\n".join(
        [
            f"usage: {COMMAND} PROGRAM [flags]",
            "",
            "BERT compression with an optimal-transport layer mapping.",
            "",
            *lines,
            "",
            f"{COMMAND} PROGRAM --help lists the flags; {COMMAND} --version.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
