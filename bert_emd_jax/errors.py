"""The exceptions that end a program with one line instead of a traceback."""

import difflib
import signal
from collections.abc import Iterable

_LONGEST = 10_000  # characters; a list of all tensors of a large model is as long


class UserError(Exception):
    """A wrong path, flag, file or row: what a user can put right.

    The message is one line: what is wrong, where (flag, file and line), and what to do.
    Programs print it without a traceback and exit with code 2.
    """

    def __init__(self, message: str) -> None:
        # Names and values from files may hold line ends, or what a terminal would obey, or be endless.
        if len(message) > _LONGEST:
            message = f"{message[: _LONGEST - 200]} … {message[-200:]}"
        super().__init__(_printable(message))


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """ "; did you mean …?" with the nearest known name, or nothing."""
    near = difflib.get_close_matches(given, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def one_line(error: object) -> str:
    """What another library says of an error, fit for a part of our own line."""
    return _printable(" ".join(str(error).split())[:200])


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


class Interrupted(Exception):  # noqa: N818  (nothing went wrong)
    """A run that a signal ended and that can go on; programs exit with the shell's code for the signal."""

    def __init__(self, message: str, signal_number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
