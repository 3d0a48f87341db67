"""Reads the tokenizer of a directory, whichever files it has."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from bert_emd_jax.errors import UserError, one_line
from bert_emd_jax.tokenization.pair_form import BERT_PAIRS, ROBERTA_PAIRS, declared_pairs
from bert_emd_jax.tokenization.sentencepiece_model import build_tokenizer, sentencepiece_pairs
from bert_emd_jax.tokenization.tokenizer import Tokenizer
from bert_emd_jax.tokenization.tokenizer_files import (
    CONFIG_FILE,
    FAST_FILE,
    MERGES_FILE,
    SPECIAL_TOKENS,
    TOKEN_IDS_FILE,
    VOCABULARY_FILE,
    add_declared_tokens,
    name_special_tokens,
    read_json_object,
    read_settings,
    read_vocabulary,
    token_content,
)

logger = logging.getLogger(__name__)

_LONGEST_WORD = 100
_OWN_CLASSES = tuple(
    f"{name}Tokenizer{ending}" for name in ("Bert", "DistilBert", "Electra") for ending in ("", "Fast")
)


def read_tokenizer(directory: Path, do_lower_case: bool | None) -> Tokenizer:
    """Reads a tokenizer as `Tokenizer.from_directory` says."""
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory; a tokenizer is read from a model directory")
    settings = read_settings(directory)
    if (directory / VOCABULARY_FILE).is_file():
        if not (directory / FAST_FILE).is_file():
            return _from_vocabulary(directory, settings, do_lower_case)
        fast = _from_fast_file(directory, dict(settings), do_lower_case)
        try:
            tokenizer = _from_vocabulary(directory, settings, do_lower_case)
        except UserError:  # of another vocabulary than the rest of the files
            tokenizer = fast
        if tokenizer.fingerprint == fast.fingerprint:
            return tokenizer
        logger.info("%s: %s says something else than %s, which counts", directory, VOCABULARY_FILE, FAST_FILE)
        return fast
    if (directory / FAST_FILE).is_file():
        return _from_fast_file(directory, settings, do_lower_case)
    if (directory / MERGES_FILE).is_file() and (directory / TOKEN_IDS_FILE).is_file():
        return _from_merges(directory, settings, do_lower_case)
    models_found = sorted(directory.glob("*.model"))
    if len(models_found) > 1:
        raise UserError(f"{directory}: {len(models_found)} files *.model; keep the tokenizer's alone")
    if models_found:
        return _from_sentencepiece(models_found[0], settings, do_lower_case)
    raise UserError(
        f"{directory}: no tokenizer here; it needs {VOCABULARY_FILE} or {FAST_FILE},"
        f" {TOKEN_IDS_FILE} and {MERGES_FILE}, or a SentencePiece *.model"
    )


def _from_vocabulary(directory: Path, settings: dict, do_lower_case: bool | None) -> Tokenizer:
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
    return Tokenizer(backend, settings, path, vocabulary_lines=lines)


def _from_fast_file(directory: Path, settings: dict, do_lower_case: bool | None) -> Tokenizer:
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
    tokenizer = Tokenizer(backend, settings, path, pairs or BERT_PAIRS)
    if pairs is None:
        names = tokenizer.special_tokens
        pair = f"{names['cls_token']} A {names['sep_token']} B {names['sep_token']}"
        logger.info("%s: pairs are put together as %s with segments 0 and 1, not as it says", path, pair)
    return tokenizer


def _from_merges(directory: Path, settings: dict, do_lower_case: bool | None) -> Tokenizer:
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
    return Tokenizer(backend, settings, path, ROBERTA_PAIRS)


def _from_sentencepiece(path: Path, settings: dict, do_lower_case: bool | None) -> Tokenizer:
    backend = build_tokenizer(path, settings, do_lower_case)
    _check_case(backend, path, do_lower_case)
    add_declared_tokens(backend, path, settings)
    name_special_tokens(settings, path.parent, backend.get_vocab(with_added_tokens=True))
    return Tokenizer(backend, settings, path, sentencepiece_pairs(path, settings))


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
