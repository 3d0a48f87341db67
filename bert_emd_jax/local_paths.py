"""Which flags may name a bucket: what is read is fetched, a run has a copy there; others are refused.

What is written is appended to, renamed and checked for room, which object stores do not do: a path into one
must not become a directory called `gs:`.
"""

from pathlib import Path

from bert_emd_jax.buckets import is_bucket, url_of
from bert_emd_jax.errors import UserError

_FETCH = {"gs": "gcloud storage cp -r {} .", "s3": "aws s3 sync {} DIR"}
_KEEP = {"gs": "gcloud storage rsync -r DIR {}", "s3": "aws s3 sync DIR {}"}


def require_local(
    path: Path | str, flag: str = "", *, is_output: bool = False, takes_buckets: bool = False
) -> None:
    """Raises UserError, which begins with `flag`, if a path is a URL; it says how to copy.

    Args:
      takes_buckets: URLs of buckets are meant to be given there.
    """
    url = url_of(path)
    if url is None or (takes_buckets and is_bucket(url)):
        return
    command = (_KEEP if is_output else _FETCH).get(url.partition(":")[0].lower())
    if command is None:
        advice = "copy it to a local directory and name that"
    elif is_output:
        advice = f"name a local directory DIR, and keep a copy with `{command.format(url)}`"
    else:
        advice = f"fetch it with `{command.format(url)}` and name what that leaves here"
    raise UserError(f"{flag}{url}: not on a disk of this machine; {advice}")
