"""Runs live on a local disk: a path into a bucket is refused before it becomes a directory called `gs:`.

What is written is appended to, renamed and checked for room, which object stores do not do.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from bert_emd_jax.errors import UserError

# pathlib makes gs:/bucket of gs://bucket.
_URL = re.compile(r"(?P<scheme>gs|gcs|s3|r2|az|abfss?|hdfs|hf|https?|ftp|file):/+(?P<rest>.*)", re.IGNORECASE)
_FETCH = {"gs": "gcloud storage cp -r {} .", "s3": "aws s3 sync {} DIR"}
_KEEP = {"gs": "gcloud storage rsync -r DIR {}", "s3": "aws s3 sync DIR {}"}


def require_local_paths(flags: Mapping[str, object], *, has_mirror: bool = False) -> None:
    """Raises UserError if a path among the values of flags is a URL.

    Args:
      has_mirror: the program has the flag `--mirror_dir`.
    """
    for name, value in flags.items():
        for path in value if isinstance(value, tuple) else (value,):
            if isinstance(path, Path):
                is_output = name == "output_dir"
                require_local(path, f"--{name} ", is_output=is_output, has_mirror=is_output and has_mirror)


def require_local(
    path: Path | str, flag: str = "", *, is_output: bool = False, has_mirror: bool = False
) -> None:
    """Raises UserError, which begins with `flag`, if a path is a URL; it says how to copy.

    Args:
      has_mirror: the program itself keeps a copy (`--mirror_dir`).
    """
    match = _URL.fullmatch(str(path))
    if match is None:
        return
    url = f"{match['scheme']}://{match['rest']}"
    command = (_KEEP if is_output else _FETCH).get(match["scheme"].lower())
    if has_mirror:
        advice = f"name a local directory, and add --mirror_dir {url} to keep a copy there"
    elif command is None:
        advice = "copy it to a local directory and name that"
    elif is_output:
        advice = f"name a local directory DIR, and keep a copy with `{command.format(url)}`"
    else:
        advice = f"fetch it with `{command.format(url)}` and name what that leaves here"
    raise UserError(f"{flag}{url}: not on a disk of this machine; {advice}")
