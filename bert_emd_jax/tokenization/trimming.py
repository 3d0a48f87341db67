"""A tokenizer with fewer tokens: those of given texts, and what any other text falls back to."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import tokenizers

from bert_emd_jax.errors import UserError
from bert_emd_jax.tokenization.tokenizer import Tokenizer

_TEXTS_AT_A_TIME = 10_000
_BYTE_PIECE = "<0x"  # SentencePiece's names of single bytes


class TrimmedTokenizer(NamedTuple):
    """A smaller tokenizer.

    kept_ids: the old id of every new one, ascending. used: how many of them the texts use; the others are
    special tokens and single characters.
    """

    tokenizer: Tokenizer
    kept_ids: list[int]
    used: int


def trim_tokenizer(tokenizer: Tokenizer, texts: Iterable[str]) -> TrimmedTokenizer:
    """Returns a tokenizer without the tokens that texts never use; it splits these texts as before.

    Special and added tokens stay, and single characters (bytes, for byte-level BPE): a text with other words
    is spelled with more, shorter tokens. Tokens keep their order, ids become consecutive.

    Why the texts are split as before: WordPiece takes the longest token that matches, Unigram the best path,
    BPE the merge of lowest rank, each among candidates. What they chose is kept, so fewer candidates change
    no choice. The merges that lead to a kept token are kept, with the tokens between.

    Raises:
      UserError: the kind of vocabulary is not known.
    """
    description = tokenizer.description
    model = description["model"]
    names = dict(enumerate(tokenizer.tokens()))
    used = _used_ids(tokenizer, texts)
    added = {token["id"] for token in description["added_tokens"]}
    kept = used | added | {index for index, name in names.items() if _is_single(name)}
    kept |= {tokenizer.unk_id, tokenizer.sep_id, tokenizer.pad_id, tokenizer.cls_id, tokenizer.mask_id}
    if model["type"] == "BPE":
        kept, model["merges"] = _with_parts(kept, model["vocab"], model["merges"])
    kept_ids = sorted(kept)
    new_ids = {old: new for new, old in enumerate(kept_ids)}
    if model["type"] in ("WordPiece", "BPE"):
        model["vocab"] = {token: new_ids[old] for token, old in model["vocab"].items() if old in new_ids}
    elif model["type"] == "Unigram":
        model["vocab"] = [model["vocab"][old] for old in kept_ids if old < len(model["vocab"])]
        model["unk_id"] = None if model["unk_id"] is None else new_ids[model["unk_id"]]
    else:
        raise UserError(f"a vocabulary of kind {model['type']} cannot be trimmed")
    for token in description["added_tokens"]:
        token["id"] = new_ids[token["id"]]
    description["post_processor"] = None  # the new tokenizer makes its own, with its own ids
    backend = tokenizers.Tokenizer.from_str(json.dumps(description))
    return TrimmedTokenizer(tokenizer.with_backend(backend, kept_ids), kept_ids, len(used))


def _used_ids(tokenizer: Tokenizer, texts: Iterable[str]) -> set[int]:
    """Returns the ids of texts, as first and as second text of a pair."""
    used: set[int] = set()
    batch: list[str] = []

    def take() -> None:
        for spelled in (batch, tokenizer.in_sentence(batch)):
            used.update(*tokenizer.encode(spelled))
        batch.clear()

    for text in texts:
        batch.append(text)
        if len(batch) == _TEXTS_AT_A_TIME:
            take()
    take()
    return used


def _is_single(token: str) -> bool:
    """Whether a token is one character, with or without the mark of its place in a word, or one byte."""
    plain = token.removeprefix("##")
    return len(plain) <= 1 or (len(plain) == 2 and plain[0] in "▁Ġ") or token.startswith(_BYTE_PIECE)


def _with_parts(
    kept: set[int], vocabulary: Mapping[str, int], merges: list[Any]
) -> tuple[set[int], list[Any]]:
    """Returns the kept ids with those of the tokens they are merged from, and the merges of all of these."""
    names = {index: token for token, index in vocabulary.items()}
    pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]
    by_result: dict[str, list[tuple[str, ...]]] = {}
    for pair in pairs:
        by_result.setdefault("".join(pair), []).append(pair)
    waiting, wanted = [names[index] for index in kept if index in names], set()
    while waiting:
        token = waiting.pop()
        if token not in wanted:
            wanted.add(token)
            waiting += [part for pair in by_result.get(token, ()) for part in pair]
    kept = kept | {vocabulary[token] for token in wanted}
    return kept, [list(pair) for pair in pairs if "".join(pair) in wanted]
