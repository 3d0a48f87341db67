"""Texts to piece ids: WordPiece from `vocab.txt`, or any tokenizer from a `tokenizer.json`."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from bert_emd_jax.data.word_cache import WordCache
from bert_emd_jax.errors import UserError

VOCABULARY_FILE = "vocab.txt"
FAST_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
# Settings that hold for the place the tokenizer was read from, not for the tokenizer.
_LOCAL_SETTINGS = ("name_or_path", "tokenizer_file", "special_tokens_map_file", "vocab_file", "auto_map")
_LONGEST_WORD = 100


class Tokenizer:
    """The tokenizer of a BERT: piece ids without special tokens, and the ids of the special tokens."""

    def __init__(self, backend: tokenizers.Tokenizer, settings: dict[str, Any], source: Path):
        """`settings` are those of a `tokenizer_config.json`; `source` is named in error messages.

        Raises UserError when the vocabulary has no such token as a special token is said to be.
        """
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._settings = settings
        self._source = source
        self._vocabulary_lines: list[str] | None = None
        self._words = WordCache(backend) if WordCache.suits(backend) else None
        self.special_tokens = {
            role: _content(settings.get(role) or SPECIAL_TOKENS[role]) for role in SPECIAL_TOKENS
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

    @classmethod
    def from_directory(cls, directory: str | Path, do_lower_case: bool | None = None) -> "Tokenizer":
        """The tokenizer of a model directory: `vocab.txt` where there is one, else `tokenizer.json`.

        `do_lower_case` None means what `tokenizer_config.json` says, and true where it is silent.
        """
        directory = Path(directory)
        if not directory.is_dir():
            raise UserError(f"{directory}: no such directory; a tokenizer is read from a model directory")
        settings = _read_settings(directory)
        if (directory / VOCABULARY_FILE).is_file():
            return cls._from_vocabulary(directory, settings, do_lower_case)
        if (directory / FAST_FILE).is_file():
            return cls._from_fast_file(directory, settings, do_lower_case)
        models_found = sorted(path.name for path in directory.glob("*.model"))
        if models_found:
            raise UserError(
                f"{directory / models_found[0]}: SentencePiece models are not read yet; "
                f"save the tokenizer as {FAST_FILE} beside it"
            )
        raise UserError(f"{directory}: no tokenizer here; it needs {VOCABULARY_FILE} or {FAST_FILE}")

    @classmethod
    def _from_vocabulary(cls, directory: Path, settings: dict, do_lower_case: bool | None) -> "Tokenizer":
        path = directory / VOCABULARY_FILE
        lines = _read_vocabulary(path)
        if do_lower_case is not None:
            settings["do_lower_case"] = do_lower_case
        lower_case = settings.setdefault("do_lower_case", True)
        unknown = _content(settings.get("unk_token") or SPECIAL_TOKENS["unk_token"])
        # A piece that stands on two lines gets the later id, as in every reader of this format.
        vocabulary = {piece: index for index, piece in enumerate(lines)}
        backend = tokenizers.Tokenizer(
            models.WordPiece(vocabulary, unk_token=unknown, max_input_chars_per_word=_LONGEST_WORD)
        )
        backend.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
            strip_accents=settings.get("strip_accents"),
            lowercase=lower_case,
        )
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece(prefix="##")
        specials = [_content(settings.get(role) or default) for role, default in SPECIAL_TOKENS.items()]
        backend.add_special_tokens([token for token in specials if token in vocabulary])
        _add_tokens(backend, directory, settings)
        tokenizer = cls(backend, settings, path)
        tokenizer._vocabulary_lines = lines
        cls_token, sep_token = tokenizer.special_tokens["cls_token"], tokenizer.special_tokens["sep_token"]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{cls_token}:0 $A:0 {sep_token}:0",
            pair=f"{cls_token}:0 $A:0 {sep_token}:0 $B:1 {sep_token}:1",
            special_tokens=[(cls_token, tokenizer.cls_id), (sep_token, tokenizer.sep_id)],
        )
        return tokenizer

    @classmethod
    def _from_fast_file(cls, directory: Path, settings: dict, do_lower_case: bool | None) -> "Tokenizer":
        path = directory / FAST_FILE
        description = _read_json_object(path)
        normalizer = description.get("normalizer") or {}
        if normalizer.get("type") == "BertNormalizer":
            if do_lower_case is None:
                do_lower_case = settings.get("do_lower_case", normalizer.get("lowercase", True))
            normalizer["lowercase"] = settings["do_lower_case"] = do_lower_case
        try:
            backend = tokenizers.Tokenizer.from_str(json.dumps(description))
        except Exception as error:  # the library raises bare Exceptions
            raise UserError(
                f"{path}: not a tokenizer that this program can read ({_one_line(error)})"
            ) from error
        lower_cases = backend.normalizer is not None and backend.normalizer.normalize_str("A") == "a"
        if do_lower_case is not None and do_lower_case != lower_cases:
            wish = "does not lower-case" if do_lower_case else "lower-cases"
            raise UserError(
                f"{path}: this tokenizer {wish} and cannot be told otherwise; leave --do_lower_case away"
            )
        if backend.get_vocab_size() == 0:
            raise UserError(f"{path}: the vocabulary is empty")
        return cls(backend, settings, path)

    @property
    def vocab_size(self) -> int:
        """One more than the largest id that can occur: the rows that an embedding table needs."""
        largest = max(self._backend.get_vocab(with_added_tokens=True).values())
        return max(largest + 1, len(self._vocabulary_lines or ()))

    def encode_pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """The piece ids of every text, without special tokens and without any truncation."""
        if self._words is not None:
            return self._words.encode(texts)
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def pieces(self) -> list[str]:
        """The piece of every id, `[vocab_size]`; ids that stand for nothing have the unknown token."""
        pieces = [self.special_tokens["unk_token"]] * self.vocab_size
        for piece, index in self._backend.get_vocab(with_added_tokens=True).items():
            pieces[index] = piece
        return pieces

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 of the vocabulary and of how texts are split: equal where texts get equal ids."""
        description = json.loads(self._backend.to_str())
        normalizer = description["normalizer"]
        if normalizer and normalizer["type"] == "BertNormalizer" and normalizer["strip_accents"] is None:
            normalizer["strip_accents"] = normalizer["lowercase"]
        added = sorted((token["id"], token["content"]) for token in description["added_tokens"])
        parts = [normalizer, description["pre_tokenizer"], description["model"], added]
        specials = [self.unk_id, self.sep_id, self.pad_id, self.cls_id, self.mask_id]
        text = json.dumps([*parts, specials], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def __reduce__(self):
        """The word cache stays behind when a tokenizer travels to another process."""
        return _restore, (self._backend.to_str(), self._settings, self._source, self._vocabulary_lines)

    def save(self, directory: str | Path) -> None:
        """Writes the tokenizer's files into a model directory, which then holds no other tokenizer."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        # Readers prefer one form or another: a file left from an earlier tokenizer would win.
        for name in (VOCABULARY_FILE, FAST_FILE, "special_tokens_map.json", "added_tokens.json"):
            (directory / name).unlink(missing_ok=True)
        settings = {key: value for key, value in self._settings.items() if key not in _LOCAL_SETTINGS}
        settings |= self.special_tokens
        added = self._backend.get_added_tokens_decoder()
        settings["added_tokens_decoder"] = {
            str(index): _describe(token) for index, token in sorted(added.items())
        }
        if self._vocabulary_lines is None:
            self._backend.save(str(directory / FAST_FILE))
            settings.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
        else:
            text = "".join(f"{piece}\n" for piece in self._vocabulary_lines)
            (directory / VOCABULARY_FILE).write_text(text, encoding="utf-8", newline="\n")
            settings["tokenizer_class"] = "BertTokenizer"
        (directory / CONFIG_FILE).write_text(
            json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def _restore(backend: str, settings: dict[str, Any], source: Path, lines: list[str] | None) -> Tokenizer:
    tokenizer = Tokenizer(tokenizers.Tokenizer.from_str(backend), settings, source)
    tokenizer._vocabulary_lines = lines
    return tokenizer


def _read_vocabulary(path: Path) -> list[str]:
    """The piece of every line."""
    lines = path.read_bytes().split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    pieces = []
    for number, line in enumerate(lines, start=1):
        try:
            pieces.append(line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip())
        except UnicodeDecodeError:
            raise UserError(f"{path}:{number}: not UTF-8 text; the vocabulary is one piece a line") from None
    if not any(pieces):
        raise UserError(f"{path}: the vocabulary is empty")
    return pieces


def _read_settings(directory: Path) -> dict[str, Any]:
    """`tokenizer_config.json` with the special tokens of `special_tokens_map.json`; {} where neither is."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", CONFIG_FILE):
        if (directory / name).is_file():
            settings |= _read_json_object(directory / name)
    for name in ("do_lower_case", "tokenize_chinese_chars", "strip_accents"):
        if settings.get(name) is None:
            settings.pop(name, None)
        elif not isinstance(settings[name], bool):
            raise UserError(
                f"{directory / CONFIG_FILE}: {name} must be true or false, not {settings[name]!r}"
            )
    return settings


def _read_json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({_one_line(error)})") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object")
    return value


def _add_tokens(backend: tokenizers.Tokenizer, directory: Path, settings: dict[str, Any]) -> None:
    """Adds the tokens that stand outside `vocab.txt`, and checks that they get the ids they should have."""
    declared: dict[int, Any] = {}
    for index, token in (settings.get("added_tokens_decoder") or {}).items():
        if not index.isdecimal():
            raise UserError(
                f"{directory / CONFIG_FILE}: added_tokens_decoder has {index!r} where an id should be"
            )
        declared[int(index)] = token
    legacy = directory / "added_tokens.json"
    if legacy.is_file():
        declared |= {
            index: token for token, index in _read_json_object(legacy).items() if index not in declared
        }
    for index, token in sorted(declared.items()):
        flags = {"normalized": False}
        if isinstance(token, dict):
            names = ("single_word", "lstrip", "rstrip", "normalized", "special")
            flags = {name: bool(token.get(name, False)) for name in names}
        backend.add_tokens([AddedToken(_content(token), **flags)])
        if backend.token_to_id(_content(token)) != index:
            raise UserError(
                f"{directory / CONFIG_FILE}: the added token {_content(token)!r} should have id {index}, "
                f"which does not follow from {VOCABULARY_FILE}"
            )


def _describe(token: AddedToken) -> dict[str, Any]:
    names = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    return {name: getattr(token, name) for name in names}


def _content(token: str | dict[str, Any]) -> str:
    """The text of a token that a file names as a string or describes as an object."""
    return str(token["content"]) if isinstance(token, dict) else str(token)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
