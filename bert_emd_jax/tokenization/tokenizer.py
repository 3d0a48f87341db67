"""Texts to token ids, by the tokenizer of a directory: WordPiece, byte-level BPE, SentencePiece."""

import hashlib
import json
import logging
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from jaxtyping import Int
from tokenizers import decoders, models, pre_tokenizers, processors

from bert_emd_jax.errors import UserError
from bert_emd_jax.files import write_json, write_text
from bert_emd_jax.tokenization.pair_form import (
    BERT_PAIRS,
    PairForm,
    assembling,
    is_byte_level,
)
from bert_emd_jax.tokenization.tokenizer_files import (
    CONFIG_FILE,
    FAST_FILE,
    MERGES_FILE,
    SPECIAL_TOKENS,
    TOKEN_IDS_FILE,
    VOCABULARY_FILE,
    describe_token,
    token_content,
)
from bert_emd_jax.tokenization.word_cache import WordCache

logger = logging.getLogger(__name__)

# Settings of the directory that the tokenizer was read from, not of the tokenizer.
_LOCAL_SETTINGS = ("name_or_path", "tokenizer_file", "special_tokens_map_file", "vocab_file", "auto_map")
# A tokenizer without a longest input says so by an enormous number.
_NO_LIMIT = 10**6


class Tokenizer:
    """The tokenizer of a BERT: token ids of texts without special tokens, and the ids of these.

    `pairs` says how two texts are put together.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        settings: dict[str, Any],
        source: Path,
        pairs: PairForm = BERT_PAIRS,
        vocabulary_lines: list[str] | None = None,
    ):
        """Raises UserError if the vocabulary lacks a special token.

        Args:
          settings: the entries of `tokenizer_config.json`.
          source: the tokenizer's file, for error messages.
          vocabulary_lines: of `vocab.txt`, if the tokenizer is one of words and pieces from such a file.
        """
        self.pairs = pairs
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._settings = settings
        self._source = source
        self._vocabulary_lines = vocabulary_lines
        self._words = WordCache(backend) if WordCache.suits(backend) else None
        self.special_tokens = {
            role: token_content(settings.get(role) or usual[0], source)
            for role, usual in SPECIAL_TOKENS.items()
        }
        ids = {role: backend.token_to_id(token) for role, token in self.special_tokens.items()}
        found = {role: index for role, index in ids.items() if index is not None}
        missing = [token for role, token in self.special_tokens.items() if role not in found]
        if missing:
            raise UserError(
                f"{source}: the vocabulary lacks {', '.join(missing)}; add it, or name what stands for it "
                f"in {source.parent / CONFIG_FILE}"
            )
        self.unk_id = found["unk_token"]
        self.sep_id = found["sep_token"]
        self.pad_id = found["pad_token"]
        self.cls_id = found["cls_token"]
        self.mask_id = found["mask_token"]
        # A saved tokenizer assembles inputs as this package does, whatever its own file said.
        backend.post_processor = self._assembling(backend)

    def _assembling(self, backend: tokenizers.Tokenizer) -> processors.PostProcessor:
        cls, sep = self.special_tokens["cls_token"], self.special_tokens["sep_token"]
        return assembling(backend, self.pairs, (cls, self.cls_id), (sep, self.sep_id))

    @property
    def longest_input(self) -> int | None:
        """Tokens of the longest input that its files name, with special tokens; None if they name none."""
        longest = self._settings.get("model_max_length")
        return int(longest) if isinstance(longest, int | float) and 0 < longest < _NO_LIMIT else None

    @classmethod
    def from_directory(cls, directory: str | Path, do_lower_case: bool | None = None) -> "Tokenizer":
        """Reads the tokenizer of a model directory: `vocab.txt` or `tokenizer.json`, else `vocab.json` with
        `merges.txt`, else a `*.model`.

        If the first two say different things, `tokenizer.json` counts, as for transformers.

        Args:
          do_lower_case: None takes the value of `tokenizer_config.json`; if that has none, true for
            BERT's own tokenizer and the file's own setting for others.

        Raises:
          UserError: no tokenizer there, a damaged one, or one that cannot change its lower-casing.
        """
        from bert_emd_jax.tokenization.reading import read_tokenizer

        return read_tokenizer(Path(directory), do_lower_case)

    @property
    def vocab_size(self) -> int:
        """Rows that an embedding table needs: one more than the largest id."""
        largest = max(self._backend.get_vocab(with_added_tokens=True).values())
        return max(largest + 1, len(self._vocabulary_lines or ()))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the token ids of every text, without special tokens and truncation."""
        if self._words is not None:
            return self._words.encode(texts)
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def in_sentence(self, texts: Sequence[str]) -> Sequence[str]:
        """Returns texts as they stand behind others: where tokens spell bytes, each begins with a space."""
        if not is_byte_level(self._backend):
            return texts
        return [text if text.startswith(" ") or not text else f" {text}" for text in texts]

    def word_of(self, token: str) -> str:
        """Returns the word that a token is; "" if it does not begin one."""
        mark = self.word_start
        if mark is None:
            return token
        if is_byte_level(self._backend):
            text = decoders.ByteLevel().decode([token])
            return text[1:] if text.startswith(" ") else ""
        return token.removeprefix(mark) * token.startswith(mark)

    def encode_flat(
        self, texts: Sequence[str]
    ) -> tuple[Int[np.ndarray, " tokens"], Int[np.ndarray, " texts"]]:
        """Returns the token ids of all texts, concatenated, int32, and their number in each text, int64."""
        if self._words is not None:
            return self._words.encode_flat(texts)
        token_ids = self.encode(texts)
        counts = np.fromiter(map(len, token_ids), np.int64, len(token_ids))
        return np.fromiter(chain.from_iterable(token_ids), np.int32, int(counts.sum())), counts

    def encode_with_offsets(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        """Returns the library's encodings, which have each token's span in its text; no special tokens."""
        return self._backend.encode_batch(list(texts), add_special_tokens=False)

    def tokens(self) -> list[str]:
        """Returns the token of every id, `[vocab_size]`; the unknown token for ids that have none."""
        tokens = [self.special_tokens["unk_token"]] * self.vocab_size
        for token, index in self._backend.get_vocab(with_added_tokens=True).items():
            tokens[index] = token
        return tokens

    @property
    def description(self) -> dict[str, Any]:
        """What `tokenizer.json` holds, as a copy."""
        return json.loads(self._backend.to_str())

    def with_backend(self, backend: tokenizers.Tokenizer, kept_ids: Sequence[int]) -> "Tokenizer":
        """Returns this tokenizer with other tokens: `kept_ids` has the old id of every new one."""
        lines = self._vocabulary_lines
        kept = None if lines is None else [lines[index] for index in kept_ids]
        return _restore(backend.to_str(), dict(self._settings), self._source, self.pairs, kept)

    @cached_property
    def word_start(self) -> str | None:
        """The prefix (▁ or Ġ) of tokens that begin a word; None if ## marks those that do not."""
        if isinstance(self._backend.model, models.WordPiece):
            return None
        tokens = self.tokens()
        return next((mark for mark in "▁Ġ" if any(token.startswith(mark) for token in tokens)), None)

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 of the vocabulary and the splitting of texts: equal if texts get equal ids."""
        description = self.description
        normalizer = description["normalizer"]
        if normalizer and normalizer["type"] == "BertNormalizer" and normalizer["strip_accents"] is None:
            normalizer["strip_accents"] = normalizer["lowercase"]
        if description["model"]["type"] == "Unigram":
            # The library's own files do not keep the last digit.
            pieces = description["model"]["vocab"]
            description["model"]["vocab"] = [[piece, f"{score:.6g}"] for piece, score in pieces]
        added = sorted((token["id"], token["content"]) for token in description["added_tokens"])
        parts = [normalizer, description["pre_tokenizer"], description["model"], added]
        specials = [self.unk_id, self.sep_id, self.pad_id, self.cls_id, self.mask_id]
        form = [] if self.pairs == BERT_PAIRS else [self.pairs]
        text = json.dumps([*parts, specials, *form], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def __reduce__(self):
        """Pickles the tokenizer without its word cache."""
        parts = self._backend.to_str(), self._settings, self._source, self.pairs, self._vocabulary_lines
        return _restore, parts

    def save(
        self,
        directory: str | Path,
        *,
        with_segments: bool = True,
        starts_in_sentence: bool = False,
        for_pytorch: bool = False,
    ) -> None:
        """Writes the tokenizer's files into a model directory and removes those of another tokenizer.

        Args:
          with_segments: whether the model takes the segments of tokens.
          starts_in_sentence: whether a text's first word is spelled as the others are, see `in_sentence`.
          for_pytorch: `tokenizer.json` beside `vocab.txt`, for programs that read it alone.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        # Some readers would prefer a file left from an earlier tokenizer.
        others = (TOKEN_IDS_FILE, MERGES_FILE, "special_tokens_map.json", "added_tokens.json")
        for name in (VOCABULARY_FILE, FAST_FILE, *others):
            (directory / name).unlink(missing_ok=True)
        settings = {key: value for key, value in self._settings.items() if key not in _LOCAL_SETTINGS}
        settings |= self.special_tokens
        added = self._backend.get_added_tokens_decoder()
        settings["added_tokens_decoder"] = {
            str(index): describe_token(token) for index, token in sorted(added.items())
        }
        if self._vocabulary_lines is None:
            backend = self._backend
            if starts_in_sentence and isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
                backend = tokenizers.Tokenizer.from_str(backend.to_str())
                backend.pre_tokenizer.add_prefix_space = settings["add_prefix_space"] = True
                backend.post_processor = self._assembling(backend)
            backend.save(str(directory / FAST_FILE))
            # Any other class of transformers would rebuild the tokenizer from its vocabulary.
            settings["tokenizer_class"] = "PreTrainedTokenizerFast"
            with_segments = with_segments and self.pairs.has_segments
            segments = ["token_type_ids"] * with_segments
            settings["model_input_names"] = ["input_ids", *segments, "attention_mask"]
        else:
            write_text(directory / VOCABULARY_FILE, "".join(f"{token}\n" for token in self._vocabulary_lines))
            settings["tokenizer_class"] = "BertTokenizer"
            if for_pytorch:
                self._backend.save(str(directory / FAST_FILE))
            if not with_segments:
                settings["model_input_names"] = ["input_ids", "attention_mask"]
        write_json(directory / CONFIG_FILE, settings)


def _restore(
    backend: str, settings: dict[str, Any], source: Path, pairs: PairForm, lines: list[str] | None
) -> Tokenizer:
    return Tokenizer(tokenizers.Tokenizer.from_str(backend), settings, source, pairs, lines)
