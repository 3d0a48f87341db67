"""Paths into buckets: what is read from one is fetched once per machine, and read from its disk."""

import contextlib
import functools
import hashlib
import logging
import re
from pathlib import Path
from typing import Any

from bert_emd_jax.errors import UserError, one_line
from bert_emd_jax.files import alone_in, cache_directory, read_json, write_json

logger = logging.getLogger(__name__)

# pathlib makes gs:/bucket of gs://bucket.
_URL = re.compile(r"(?P<scheme>gs|gcs|s3|r2|az|abfss?|hdfs|hf|https?|ftp|file):/+(?P<rest>.*)", re.IGNORECASE)
_BUCKETS = ("gs", "gcs", "s3", "az", "abfs", "abfss")
_MANIFEST = ".fetched.json"
_PART = ".part"
_BLOCK = 1 << 22


def url_of(path: Path | str) -> str | None:
    """Returns the URL that a path is, as it was before pathlib read it; None for a path on a disk."""
    match = _URL.fullmatch(str(path))
    return None if match is None else f"{match['scheme']}://{match['rest']}"


def is_bucket(url: str) -> bool:
    """Whether a URL is one that can be fetched from and written to."""
    return url.partition(":")[0].lower() in _BUCKETS


def place_on_disk(url: str, kind: str) -> Path:
    """Returns where on this machine something stands whose home is in a bucket."""
    name = re.sub(r"[^\w.-]+", "_", url.rstrip("/").rpartition("/")[2]) or "bucket"
    return cache_directory() / kind / f"{hashlib.sha256(url.rstrip('/').encode()).hexdigest()[:16]}-{name}"


def what_to_install(error: Exception) -> str:
    """Returns a hint if fsspec misses the package of a kind of storage; else ""."""
    extras = {"gcsfs": "'bert_emd_jax[gcs]'", "s3fs": "'bert_emd_jax[s3]'", "adlfs": "adlfs"}
    missing = next((name for name in extras if name in str(error)), None)
    return "" if missing is None else f"; pip install {extras[missing]} brings what that needs"


def local_copy(path: Path | str, without: tuple[str, ...] = ()) -> Path:
    """Returns a path on this machine: itself, or where a file or directory of a bucket has been fetched to.

    What is here already, and has not changed there, is not fetched again; what broke off is continued.

    Args:
      without: directories below a directory that are left there.

    Raises:
      UserError: there is nothing, or it cannot be reached.
    """
    url = url_of(path)
    return Path(path) if url is None or not is_bucket(url) else _fetched(url, without)


@functools.cache
def _fetched(url: str, without: tuple[str, ...] = ()) -> Path:
    """Fetches once per process; processes of one machine wait for each other."""
    directory = place_on_disk(url, "fetched")
    try:
        import fsspec

        system, root = fsspec.core.url_to_fs(url)
        found = {
            name: info for name, info in _files(system, root).items() if name.split("/")[0] not in without
        }
    except Exception as error:  # every kind of storage raises its own
        raise UserError(f"{url}: cannot be read ({one_line(error)}){what_to_install(error)}") from error
    if not found:
        raise UserError(f"{url}: no such file or directory in the bucket")
    directory.mkdir(parents=True, exist_ok=True)
    with alone_in(directory):
        try:
            _fetch(url, system, found, directory)
        except Exception as error:
            raise UserError(
                f"{url}: cannot be fetched ({one_line(error)}); start again to continue"
            ) from error
    (name, *others) = found
    return directory / name if not others and root.rstrip("/").endswith(f"/{name}") else directory


def _files(system: Any, root: str) -> dict[str, dict[str, Any]]:
    """Returns path below `root` → what the storage says of the file; of a file alone its name."""
    if system.isfile(root):
        return {root.rstrip("/").rpartition("/")[2]: system.info(root)}
    base = root.rstrip("/") + "/"
    listed = system.find(root, detail=True) if system.exists(root) else {}
    # Some stores have empty objects that stand for directories.
    named = {name.removeprefix(base): info for name, info in sorted(listed.items()) if not name.endswith("/")}
    for name in named:
        if ".." in name.split("/"):
            raise ValueError(f"an object there is called {name!r}, which would be written elsewhere")
    return {name: info for name, info in named.items() if info.get("type") != "directory"}


def _version(info: dict[str, Any]) -> list[str]:
    """What changes if a file in a bucket does."""
    of_stores = ("generation", "ETag", "etag", "md5Hash", "LastModified", "last_modified", "created")
    return [f"{key} {info[key]}" for key in ("size", *of_stores) if info.get(key) is not None]


def _fetch(url: str, system: Any, found: dict[str, dict[str, Any]], directory: Path) -> None:
    from tqdm import tqdm

    manifest = directory / _MANIFEST
    known: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        known = read_json(manifest)
    missing = {}
    for name, info in found.items():
        target = directory / name
        has_changed = known.get(name) != _version(info)
        if has_changed or not target.is_file() or target.stat().st_size != info["size"]:
            missing[name] = info
            if has_changed:
                target.with_name(target.name + _PART).unlink(missing_ok=True)
    for name in known.keys() - found.keys():
        (directory / name).unlink(missing_ok=True)
    if not missing:
        return
    total = sum(info["size"] for info in missing.values())
    logger.info("%s: fetching %d files, %.1f MB, to %s", url, len(missing), total / 1e6, directory)
    known = {name: _version(info) for name, info in found.items()}
    write_json(manifest, known)
    with tqdm(
        total=total, desc=f"fetching {url}", unit="B", unit_scale=True, leave=False, disable=None
    ) as bar:
        for name, info in missing.items():
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(target.name + _PART)
            with system.open(info["name"], "rb") as source, part.open("ab") as file:
                source.seek(file.tell())
                bar.update(file.tell())
                while block := source.read(_BLOCK):
                    file.write(block)
                    bar.update(len(block))
            if part.stat().st_size != info["size"]:
                part.unlink()
                raise OSError(f"{name} is not as large as the bucket says")
            part.replace(target)
