"""A cache of tokenised splits on disk, keyed by their texts, tokenizer and length."""

import hashlib
import logging
import shutil
import tempfile
from pathlib import Path

import numpy as np

from bert_emd_jax.data.examples import Examples
from bert_emd_jax.encoding.dataset import EncodedDataset, encode_examples
from bert_emd_jax.tables.mapped_arrays import map_integers
from bert_emd_jax.tokenization.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

_FEWEST_ROWS = 20_000  # fewer are tokenised as fast as they would be read
_VERSION = 1  # of the stored arrays and of the assembly of rows
_FILES = {"token_ids": "token_ids.npy", "offsets": "offsets.npy", "segment_a_lengths": "first_lengths.npy"}


def cached_encoding(
    tokenizer: Tokenizer, examples: Examples, max_length: int, directory: Path | None
) -> EncodedDataset:
    """Returns the result of `encode_examples`, from the cache if it is there, its arrays then mapped.

    Args:
      directory: of the cache; None does without one. One that cannot be written is only logged.
    """
    if directory is None or len(examples) < _FEWEST_ROWS:
        return encode_examples(tokenizer, examples, max_length)
    entry = directory / f"tokens-{_content_hash(tokenizer, examples, max_length)}"
    stored = _load(entry, tokenizer, examples, max_length)
    if stored is not None:
        return stored
    dataset = encode_examples(tokenizer, examples, max_length)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=directory) as temporary:
            written = Path(temporary) / "tokens"
            written.mkdir()
            for name, file in _FILES.items():
                np.save(written / file, getattr(dataset, name))
            shutil.rmtree(entry, ignore_errors=True)  # a damaged one
            written.rename(entry)
    except OSError as error:
        logger.info("%s: tokens are not kept there (%s)", directory, error.strerror or error)
    return dataset


def _content_hash(tokenizer: Tokenizer, examples: Examples, max_length: int) -> str:
    digest = hashlib.sha256(f"{_VERSION} {tokenizer.fingerprint} {max_length}".encode())
    for texts in (examples.texts_a, examples.texts_b):
        # Texts that are equal only when concatenated differ in their lengths.
        digest.update(np.array([len(text) for text in texts or ()], np.int64).tobytes())
        digest.update(b"|")
        digest.update("".join(texts or ()).encode())
    return digest.hexdigest()


def _load(entry: Path, tokenizer: Tokenizer, examples: Examples, max_length: int) -> EncodedDataset | None:
    """Returns the stored rows; None if there are none or they are damaged."""
    try:
        token_ids, offsets, segment_a_lengths = (map_integers(entry / file) for file in _FILES.values())
    except (OSError, ValueError):
        return None
    if not len(offsets) == len(examples) + 1 == len(segment_a_lengths) + 1:
        return None
    lengths = np.diff(offsets)
    fits = (
        (offsets[0], offsets[-1]) == (0, len(token_ids))
        and _all_within(lengths, 1, max_length)
        and _all_within(segment_a_lengths, 1, lengths)
        and _all_within(token_ids, 0, tokenizer.vocab_size - 1)
    )
    if not fits:
        return None
    return EncodedDataset(token_ids, offsets, segment_a_lengths, examples.labels, tokenizer.pad_id)


def _all_within(values: np.ndarray, smallest: int, largest: int | np.ndarray) -> bool:
    return bool(np.all((values >= smallest) & (values <= largest)))
