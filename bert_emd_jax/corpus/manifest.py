"""The manifest of pretraining data, a file that says from what and how they were made."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from bert_emd_jax import __version__
from bert_emd_jax.corpus.pretraining_examples import ExampleSettings
from bert_emd_jax.errors import UserError
from bert_emd_jax.files import read_json
from bert_emd_jax.tokenization.tokenizer import Tokenizer

MANIFEST_FILE = "pretraining_data.json"


def create_manifest(
    corpus: Path, tokenizer: Tokenizer, settings: ExampleSettings, format_name: str, shard: tuple[int, int]
) -> dict[str, Any]:
    """Returns everything that the bytes of the data depend on, by the names of the flags."""
    with corpus.open("rb") as file:
        corpus_hash = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "program_version": __version__,
        "train_corpus": corpus_hash,
        "bert_model": tokenizer.fingerprint,
        "vocabulary": vocabulary_fingerprint(tokenizer),
        "format": format_name,
        "shard": f"{shard[0]}/{shard[1]}",
        **dataclasses.asdict(settings),
    }


def vocabulary_fingerprint(tokenizer: Tokenizer) -> str:
    """Returns a sha256 of the token of every id: equal if equal ids mean the same."""
    return hashlib.sha256(json.dumps(tokenizer.tokens()).encode()).hexdigest()


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """Reads the manifest of the data in a directory; None if there is none, as in the original's output."""
    path = directory / MANIFEST_FILE
    if not path.is_file():
        return None
    try:
        manifest = read_json(path)
    except (ValueError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict) or not {"vocabulary", "format", "shard"} <= manifest.keys():
        raise UserError(f"{path}: not a description of pretraining data; make the data again")
    return manifest


def differing_entries(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Returns the names of the entries in which two manifests differ."""
    return [name for name in one | other if one.get(name) != other.get(name)]
