"""A tiny WordPiece vocabulary for the tests of this folder."""

from pathlib import Path

import pytest

from bert_emd_jax.data.tokenization import Tokenizer

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = "the a cat dog sat on mat un ##aff ##able runn ##ing cafe café naive naïve Berlin berlin 中 文 字 日"
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'$-[]éÉüßé🙂"


def tiny_vocabulary() -> list[str]:
    """Special tokens, some words, and every letter both as a word and as a continuation."""
    letters = [letter for character in LETTERS for letter in (character, "##" + character)]
    return list(dict.fromkeys([*SPECIALS, *WORDS.split(), *letters]))


@pytest.fixture(scope="session")
def vocabulary_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("vocabulary")
    text = "".join(f"{piece}\n" for piece in tiny_vocabulary())
    (directory / "vocab.txt").write_text(text, encoding="utf-8", newline="\n")
    return directory


@pytest.fixture(scope="session")
def tokenizer(vocabulary_directory: Path) -> Tokenizer:
    return Tokenizer.from_directory(vocabulary_directory)
