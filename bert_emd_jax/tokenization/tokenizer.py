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
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from bert_emd_jax.errors import UserError, one_line
from bert_emd_jax.files import write_json, write_text
from bert_emd_jax.tokenization.pair_form import (
    BERT_PAIRS,
    ROBERTA_PAIRS,
    PairForm,
    assembling,
    declared_pairs,
    is_byte_level,
)
from bert_emd_jax.tokenization.sentencepiece_model import build_tokenizer, sentencepiece_pairs
from bert_emd_jax.tokenization.tokenizer_files import (
    CONFIG_FILE,
    FAST_FILE,
    MERGES_FILE,
    SPECIAL_TOKENS,
    TOKEN_IDS_FILE,
    VOCABULARY_FILE,
    add_declared_tokens,
    describe_token,
    name_special_tokens,
    read_json_object,
    read_settings,
    read_vocabulary,
    token_content,
)
from bert_emd_jax.tokenization.word_cache import WordCache

logger = logging.getLogger(__name__)

# Settings of the directory that the tokenizer was read from, not of the tokenizer.
_LOCAL_SETTINGS = ("name_or_path", "tokenizer_file", "special_tokens_map_file", "vocab_file", "auto_map")
_LONGEST_WORD = 100
# A tokenizer without a longest input says so by an enormous number.
_NO_LIMIT = 10**6
_OWN_CLASSES = tuple(
    f"{name}Tokenizer{ending}" for name in ("Bert", "DistilBert", "Electra") for ending in ("", "Fast")
)


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
    ):
        """Raises UserError if the vocabulary lacks a special token.

        Args:
          settings: the entries of `tokenizer_config.json`.
          source: the tokenizer's file, for error messages.
        """
        self.pairs = pairs
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._settings = settings
        self._source = source
        self._vocabulary_lines: list[str] | None = None
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
        directory = Path(directory)
        if not directory.is_dir():
            raise UserError(f"{directory}: no such directory; a tokenizer is read from a model directory")
        settings = read_settings(directory)
        if (directory / VOCABULARY_FILE).is_file():
            if not (directory / FAST_FILE).is_file():
                return cls._from_vocabulary(directory, settings, do_lower_case)
            fast = cls._from_fast_file(directory, dict(settings), do_lower_case)
            try:
                tokenizer = cls._from_vocabulary(directory, settings, do_lower_case)
            except UserError:  # of another vocabulary than the rest of the files
                tokenizer = fast
            if tokenizer.fingerprint == fast.fingerprint:
                return tokenizer
            logger.info(
                "%s: %s says something else than %s, which counts", directory, VOCABULARY_FILE, FAST_FILE
            )
            return fast
        if (directory / FAST_FILE).is_file():
            return cls._from_fast_file(directory, settings, do_lower_case)
        if (directory / MERGES_FILE).is_file() and (directory / TOKEN_IDS_FILE).is_file():
            return cls._from_merges(directory, settings, do_lower_case)
        models_found = sorted(directory.glob("*.model"))
        if len(models_found) > 1:
            raise UserError(f"{directory}: {len(models_found)} files *.model; keep the tokenizer's alone")
        if models_found:
            return cls._from_sentencepiece(models_found[0], settings, do_lower_case)
        raise UserError(
            f"{directory}: no tokenizer here; it needs {VOCABULARY_FILE} or {FAST_FILE},"
            f" {TOKEN_IDS_FILE} and {MERGES_FILE}, or a SentencePiece *.model"
        )

    @classmethod
    def _from_vocabulary(cls, directory: Path, settings: dict, do_lower_case: bool | None) -> "Tokenizer":
        path = directory / VOCABULARY_FILE
        splitter = settings.get("word_tokenizer_type") or "basic"
        if splitter != "basic" or (settings.get("subword_tokenizer_type") or "wordpiece") != "wordpiece":
            raise UserError(f"{path}: its words are found by {splitter}, which is not supported")
        lines = read_vocabulary(path)
        if do_lower_case is not None:
            settings["do_lower_case"] = do_lower_case
        elif "do_lower_case" not in settings and _has_capitals(lines):
            logger.warning(
                "%s: has words with capital letters, and no %s says whether text is lower-cased: it is;"
                " --no_do_lower_case keeps its case",
                path,
                CONFIG_FILE,
            )
        settings.setdefault("do_lower_case", True)
        # A token on two lines gets the later id, as in every reader of this format.
        vocabulary = {token: index for index, token in enumerate(lines)}
        name_special_tokens(settings, directory, vocabulary)
        unknown = token_content(settings["unk_token"], path)
        backend = tokenizers.Tokenizer(
            models.WordPiece(vocabulary, unk_token=unknown, max_input_chars_per_word=_LONGEST_WORD)
        )
        backend.normalizer = _bert_normalizer(settings)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece(prefix="##")
        specials = [token_content(settings[role], path) for role in SPECIAL_TOKENS]
        backend.add_special_tokens([token for token in specials if token in vocabulary])
        add_declared_tokens(backend, path, settings)
        tokenizer = cls(backend, settings, path)
        tokenizer._vocabulary_lines = lines
        return tokenizer

    @classmethod
    def _from_fast_file(cls, directory: Path, settings: dict, do_lower_case: bool | None) -> "Tokenizer":
        path = directory / FAST_FILE
        description = read_json_object(path)
        try:
            backend = tokenizers.Tokenizer.from_str(json.dumps(description))
        except Exception as error:  # the library raises bare Exceptions
            raise UserError(
                f"{path}: not a tokenizer that this program can read ({one_line(error)}); fetch it again"
            ) from error
        is_own_class = (settings.get("tokenizer_class") or _OWN_CLASSES[0]) in _OWN_CLASSES
        if is_own_class and isinstance(backend.model, models.WordPiece):
            # transformers' own class takes the vocabulary from this file, and all else from the settings.
            _check_own_class(backend, path)
            if do_lower_case is None:
                do_lower_case = settings.get("do_lower_case", True)
            settings["do_lower_case"] = do_lower_case
            backend.normalizer = _bert_normalizer(settings)
            backend.model.unk_token = token_content(settings.get("unk_token") or "[UNK]", path)
        elif isinstance(backend.normalizer, normalizers.BertNormalizer):
            if do_lower_case is None:
                do_lower_case = settings.get("do_lower_case", backend.normalizer.lowercase)
            settings["do_lower_case"] = backend.normalizer.lowercase = do_lower_case
        _check_case(backend, path, do_lower_case)
        if backend.get_vocab_size() == 0:
            raise UserError(f"{path}: the vocabulary is empty; fetch it again")
        add_declared_tokens(backend, path, settings)
        name_special_tokens(settings, directory, backend.get_vocab(with_added_tokens=True))
        pairs = declared_pairs(settings, description)
        tokenizer = cls(backend, settings, path, pairs or BERT_PAIRS)
        if pairs is None:
            names = tokenizer.special_tokens
            pair = f"{names['cls_token']} A {names['sep_token']} B {names['sep_token']}"
            logger.info("%s: pairs are put together as %s with segments 0 and 1, not as it says", path, pair)
        return tokenizer

    @classmethod
    def _from_merges(cls, directory: Path, settings: dict, do_lower_case: bool | None) -> "Tokenizer":
        """Reads the byte-level BPE of GPT-2 and RoBERTa."""
        path = directory / MERGES_FILE
        try:
            model = models.BPE.from_file(str(directory / TOKEN_IDS_FILE), str(path))
        except Exception as error:  # the library raises bare Exceptions
            raise UserError(
                f"{path}: not the merges of {TOKEN_IDS_FILE} ({one_line(error)}); fetch both again"
            ) from error
        backend = tokenizers.Tokenizer(model)
        prefix = bool(settings.get("add_prefix_space", False))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
        backend.decoder = decoders.ByteLevel()
        _check_case(backend, path, do_lower_case)
        vocabulary = backend.get_vocab()
        name_special_tokens(settings, directory, vocabulary)
        for role in SPECIAL_TOKENS:
            token = token_content(settings[role], path)
            if token in vocabulary:
                # As RoBERTa's own class: the space before a mask belongs to it.
                backend.add_special_tokens(
                    [AddedToken(token, lstrip=role == "mask_token", normalized=False, special=True)]
                )
        add_declared_tokens(backend, path, settings)
        return cls(backend, settings, path, ROBERTA_PAIRS)

    @classmethod
    def _from_sentencepiece(cls, path: Path, settings: dict, do_lower_case: bool | None) -> "Tokenizer":
        backend = build_tokenizer(path, settings, do_lower_case)
        _check_case(backend, path, do_lower_case)
        add_declared_tokens(backend, path, settings)
        name_special_tokens(settings, path.parent, backend.get_vocab(with_added_tokens=True))
        return cls(backend, settings, path, sentencepiece_pairs(path, settings))

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


def _bert_normalizer(settings: dict[str, Any]) -> normalizers.BertNormalizer:
    return normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings["do_lower_case"],
    )


def _check_own_class(backend: tokenizers.Tokenizer, path: Path) -> None:
    """Raises UserError if a file for BERT's own tokenizer class finds words in another way than that."""
    normalizer, model = backend.normalizer, backend.model
    assert isinstance(model, models.WordPiece)
    its_own = {
        "normalizer": isinstance(normalizer, normalizers.BertNormalizer) and normalizer.clean_text,
        "pre_tokenizer": isinstance(backend.pre_tokenizer, pre_tokenizers.BertPreTokenizer),
        "continuing_subword_prefix": model.continuing_subword_prefix == "##",
        "max_input_chars_per_word": model.max_input_chars_per_word == _LONGEST_WORD,
    }
    if others := [name for name, is_own in its_own.items() if not is_own]:
        raise UserError(
            f"{path}: {', '.join(others)} is not that of BertTokenizer, and it depends on the version of"
            " transformers which counts; for this one, write"
            f' "tokenizer_class": "PreTrainedTokenizerFast" in {CONFIG_FILE}'
        )


def _has_capitals(vocabulary: Sequence[str]) -> bool:
    """Whether a vocabulary keeps case: it has words with capitals beside the special tokens."""
    return any(token != token.lower() and not token.startswith(("[", "<")) for token in vocabulary)


def _check_case(backend: tokenizers.Tokenizer, path: Path, do_lower_case: bool | None) -> None:
    """Raises UserError if a tokenizer cannot do what `do_lower_case` says."""
    lower_cases = backend.normalizer is not None and backend.normalizer.normalize_str("A") == "a"
    if do_lower_case is not None and do_lower_case != lower_cases:
        habit = "does not lower-case" if do_lower_case else "lower-cases"
        raise UserError(
            f"{path}: this tokenizer {habit} and cannot be told otherwise; leave --do_lower_case away"
        )


def _restore(
    backend: str, settings: dict[str, Any], source: Path, pairs: PairForm, lines: list[str] | None
) -> Tokenizer:
    tokenizer = Tokenizer(tokenizers.Tokenizer.from_str(backend), settings, source, pairs)
    tokenizer._vocabulary_lines = lines
    return tokenizer
