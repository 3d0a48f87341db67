"""Where our own messages go."""

import logging
import sys


def log_to_screen() -> None:
    """Our own messages to the screen as plain lines; those of other libraries keep their own settings."""
    ours = logging.getLogger("bert_emd_jax")
    ours.setLevel(logging.INFO)
    ours.propagate = False
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    ours.handlers = [handler]
