"""The files that describe a tokenizer: `vocab.txt`, `tokenizer_config.json` and those beside them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from bert_emd_jax import layout
from bert_emd_jax.errors import UserError, one_line

VOCABULARY_FILE = "vocab.txt"
FAST_FILE = "tokenizer.json"
TOKEN_IDS_FILE, MERGES_FILE = "vocab.json", "merges.txt"
CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS = {
    "unk_token": ("[UNK]", "<unk>"),
    "sep_token": ("[SEP]", "</s>"),
    "pad_token": ("[PAD]", "<pad>"),
    "cls_token": ("[CLS]", "<s>"),
    "mask_token": ("[MASK]", "<mask>"),
}
"""What the special tokens are usually called; the first name is BERT's."""
_OTHER_ROLES = {"cls_token": "bos_token", "sep_token": "eos_token"}


def read_vocabulary(path: Path) -> list[str]:
    """Reads the token of every line. Raises UserError if the file is empty or not UTF-8."""
    lines = path.read_bytes().split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    tokens = []
    for number, line in enumerate(lines, start=1):
        try:
            tokens.append(line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip())
        except UnicodeDecodeError:
            raise UserError(f"{path}:{number}: not UTF-8 text; the vocabulary is one piece a line") from None
    if not any(tokens):
        raise UserError(f"{path}: the vocabulary is empty; fetch it again")
    return tokens


def read_settings(directory: Path) -> dict[str, Any]:
    """Reads `tokenizer_config.json` and `special_tokens_map.json`; {} if neither is there."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", CONFIG_FILE):
        if (directory / name).is_file():
            settings |= read_json_object(directory / name)
    for name in ("do_lower_case", "tokenize_chinese_chars", "strip_accents"):
        if settings.get(name) is None:
            settings.pop(name, None)
        elif not isinstance(settings[name], bool):
            raise UserError(
                f"{directory / CONFIG_FILE}: {name} must be true or false, not {settings[name]!r}"
            )
    return settings


def read_json_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file. Raises UserError if it holds anything but an object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({one_line(error)}); fetch it again") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object; fetch it again")
    return value


def name_special_tokens(settings: dict[str, Any], directory: Path, vocabulary: Mapping[str, int]) -> None:
    """Fills in the special tokens that the settings do not name.

    Takes the first usual name that is in the vocabulary, else the token whose id the model's `config.json`
    gives.
    """
    for role, usual in SPECIAL_TOKENS.items():
        if settings.get(role):
            continue
        name = next((name for name in usual if name in vocabulary), None)
        if name is None and (directory / layout.CONFIG).is_file():
            config = read_json_object(directory / layout.CONFIG)
            index = config.get(f"{role}_id", config.get(f"{_OTHER_ROLES.get(role, role)}_id"))
            tokens = {number: token for token, number in vocabulary.items()}
            name = tokens.get(index) if isinstance(index, int) else None
        settings[role] = name or usual[0]


def add_declared_tokens(backend: tokenizers.Tokenizer, source: Path, settings: dict[str, Any]) -> None:
    """Adds the tokens that the files declare beside the vocabulary.

    Raises UserError if one does not get the id that the files give it.
    """
    directory = source.parent
    declared: dict[int, Any] = {}
    decoder = settings.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise UserError(f"{directory / CONFIG_FILE}: added_tokens_decoder must map ids to tokens")
    for index, token in decoder.items():
        if not index.isdecimal():
            raise UserError(
                f"{directory / CONFIG_FILE}: added_tokens_decoder has {index!r} where an id should be"
            )
        declared[int(index)] = token
    legacy = directory / "added_tokens.json"
    if legacy.is_file():
        for token, index in read_json_object(legacy).items():
            if type(index) is not int:
                raise UserError(f"{legacy}: {index!r} should be the id of {token!r}")
            declared.setdefault(index, token)
    for index, token in sorted(declared.items()):
        flags = {"normalized": True}
        if isinstance(token, dict):
            names = ("single_word", "lstrip", "rstrip", "normalized", "special")
            flags = {name: bool(token.get(name, False)) for name in names}
        content = token_content(token, directory / CONFIG_FILE)
        if flags["normalized"] and backend.normalizer and not backend.normalizer.normalize_str(content):
            raise UserError(f"{directory / CONFIG_FILE}: nothing of the added token {content!r} is kept")
        backend.add_tokens([AddedToken(content, **flags)])
        if backend.token_to_id(content) != index:
            raise UserError(
                f"{directory / CONFIG_FILE}: the added token {content!r} should have id {index},"
                f" which does not follow from {source.name}"
            )
    for role in ("additional_special_tokens", "extra_special_tokens"):
        tokens = settings.get(role) or ()
        if not isinstance(tokens, list | tuple | dict):
            raise UserError(f"{directory / CONFIG_FILE}: {role} must list tokens")
        for token in tokens.values() if isinstance(tokens, dict) else tokens:
            backend.add_special_tokens([token_content(token, directory / CONFIG_FILE)])


def describe_token(token: AddedToken) -> dict[str, Any]:
    """Returns an added token as `tokenizer_config.json` describes it."""
    names = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    return {name: getattr(token, name) for name in names}


def token_content(token: Any, source: Path) -> str:
    """Returns the text of a token that a file gives as a string or as an object.

    Raises UserError, naming `source`, if it is neither or not valid Unicode.
    """
    content: Any = token.get("content") if isinstance(token, dict) else token
    try:
        content.encode()
    except (AttributeError, UnicodeEncodeError):
        raise UserError(f"{source}: {token!r} is no token; it should be its text") from None
    return content
