"""The one exception for what a user can put right."""


class UserError(Exception):
    """A wrong path, flag, file or row.

    The message is one line: what is wrong, where (flag, file and line), and what to do.
    Programs print it without a traceback and exit with code 2.
    """
