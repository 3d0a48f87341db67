"""Corpora that the tests of pretraining data share."""

from pathlib import Path

import numpy as np

from bert_emd_jax.corpus.corpus import Corpus
from bert_emd_jax.corpus.pretraining_examples import Vocabulary

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
FIRST_WORD = len(SPECIALS)


def numbered_corpus(document_sizes, sentence_lengths) -> tuple[Corpus, Vocabulary]:
    """Token k of the corpus has the id `k + FIRST_WORD`: an id is a position."""
    lengths = np.resize(sentence_lengths, sum(document_sizes))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    documents = np.concatenate([[0], np.cumsum(document_sizes)])
    tokens = [*SPECIALS, *(f"w{index}" for index in range(offsets[-1]))]
    token_ids = np.arange(offsets[-1], dtype=np.int32) + FIRST_WORD
    return Corpus(token_ids, offsets, documents), Vocabulary(tokens, 2, 3, 4)


def write_corpus(directory: Path, text: str | bytes, name="corpus.txt") -> Path:
    path = directory / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path
