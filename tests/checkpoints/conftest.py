"""Fixtures of several tests of checkpoints."""

import json
import shutil
from pathlib import Path

import pytest


@pytest.fixture
def encoder_dir(tmp_path: Path, vocabulary_dir: Path, vocabulary: list[str]) -> Path:
    """A tiny BERT of transformers with a tokenizer."""
    from torch_reference import tiny_torch_model

    directory = tmp_path / "encoder"
    tiny_torch_model(directory, kind="encoder", vocab_size=len(vocabulary), max_position_embeddings=64)
    shutil.copy(vocabulary_dir / "vocab.txt", directory)
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 40})
    )
    return directory
