"""What pretraining data were made of and how: a small file beside them."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from bert_emd_jax import __version__
from bert_emd_jax.corpus.examples import ExampleSettings
from bert_emd_jax.errors import UserError
from bert_emd_jax.tokenization.tokenizer import Tokenizer

DESCRIPTION_FILE = "pretraining_data.json"


def describe(
    corpus: Path, tokenizer: Tokenizer, settings: ExampleSettings, form: str, shard: tuple[int, int]
) -> dict[str, Any]:
    """Everything that the bytes of the data depend on, by the names of the flags where there are such."""
    with corpus.open("rb") as file:
        corpus_hash = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "program_version": __version__,
        "train_corpus": corpus_hash,
        "bert_model": tokenizer.fingerprint,
        "vocabulary": vocabulary_fingerprint(tokenizer),
        "format": form,
        "shard": f"{shard[0]}/{shard[1]}",
        **dataclasses.asdict(settings),
    }


def vocabulary_fingerprint(tokenizer: Tokenizer) -> str:
    """A sha256 of the piece of every id: equal where ids mean the same."""
    return hashlib.sha256(json.dumps(tokenizer.tokens()).encode()).hexdigest()


def write_description(directory: Path, description: dict[str, Any]) -> None:
    """Writes the file, whole or not at all."""
    aside = directory / f".{DESCRIPTION_FILE}.writing"
    aside.write_text(json.dumps(description, indent=2) + "\n")
    aside.replace(directory / DESCRIPTION_FILE)


def read_description(directory: Path) -> dict[str, Any] | None:
    """The description of the data in a directory; None where there is none, as in the original's output."""
    path = directory / DESCRIPTION_FILE
    if not path.is_file():
        return None
    try:
        description = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        description = None
    if not isinstance(description, dict) or not {"vocabulary", "format", "shard"} <= description.keys():
        raise UserError(f"{path}: not a description of pretraining data; make the data again")
    return description


def differing_names(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The entries in which two descriptions differ."""
    return [name for name in one | other if one.get(name) != other.get(name)]
