"""The exceptions that end a program with one line instead of a traceback."""

import signal


class UserError(Exception):
    """A wrong path, flag, file or row: what a user can put right.

    The message is one line: what is wrong, where (flag, file and line), and what to do.
    Programs print it without a traceback and exit with code 2.
    """


class Interrupted(Exception):  # noqa: N818  (nothing went wrong)
    """A run that a signal ended and that can go on; programs exit with the shell's code for the signal."""

    def __init__(self, message: str, signal_number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
