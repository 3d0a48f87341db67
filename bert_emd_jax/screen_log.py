"""Where our own messages go."""

import io
import logging
import sys


def make_screen_tolerant() -> None:
    """What the terminal's encoding lacks is shown as an escape: a label must not end a program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not a notebook's or a test's own
            stream.reconfigure(errors="backslashreplace")


def log_to_screen() -> None:
    """Our own messages to the screen as plain lines; those of other libraries keep their own settings."""
    make_screen_tolerant()
    ours = logging.getLogger("bert_emd_jax")
    ours.setLevel(logging.INFO)
    ours.propagate = False
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    ours.handlers = [handler]
