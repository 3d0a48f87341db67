"""TinyBERT's data augmentation (Jiao et al. 2020, arXiv 1909.10351, Algorithm 1): which words of a text
may be replaced, and texts with some of them replaced at random."""

import unicodedata
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from bert_emd_jax.data.encoding import EncodedDataset
from bert_emd_jax.tokenization.tokenizer import Tokenizer

SAMPLES_PER_TEXT = {
    **{"CoLA": 30, "MRPC": 30, "RTE": 30, "STS-B": 30},
    **{"QNLI": 20, "SST-2": 20},
    **{"MNLI": 10, "QQP": 10},
}
"""Variants that TinyBERT's authors draw of each text; other tasks have `DEFAULT_SAMPLES`."""
DEFAULT_SAMPLES = 30

_PRONOUNS = """i me my myself we our ours ourselves you your yours yourself yourselves he him his himself
    she her hers herself it its itself they them their theirs themselves this that these those"""
_VERBS = "am is are was were be been being have has had having do does did doing can will should"
_QUESTIONS = "what which who whom whose where when why how"
_CONNECTIVES = """a an the and but if or because as until while than of at by for with about against between
    into through during before after above below to from up down in out on off over under"""
_ADVERBS = "again further then once here there now just only too very so not no nor own same"
_QUANTIFIERS = "all any both each few more most other some such"
_CONTRACTIONS = """s t d m o y re ve ll ma ain aren couldn didn doesn don hadn hasn haven isn mightn mustn
    needn shan shouldn wasn weren won wouldn"""  # what is left of them at the apostrophe
STOP_WORDS = frozenset(
    " ".join((_PRONOUNS, _VERBS, _QUESTIONS, _CONNECTIVES, _ADVERBS, _QUANTIFIERS, _CONTRACTIONS)).split()
)
"""English words that carry grammar rather than content."""


class ReplaceableWords(NamedTuple):
    """Content words of texts, in the order of the texts; one entry of each array per word.

    `texts` says which text a word is in, `starts` and `ends` where in it. `positions` is the place of its
    only piece in the row of `masked_inputs`; 0, the place of [CLS], where it has several pieces, is
    unknown, or lies behind the longest input.
    """

    texts: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    positions: np.ndarray


class Replacement(NamedTuple):
    """A word's place in its text, and what may stand there instead."""

    start: int
    end: int
    candidates: tuple[str, ...]


def is_content_word(word: str) -> bool:
    """Whether a word may be replaced: letters only, and no stop word."""
    return word.isalpha() and word.lower() not in STOP_WORDS


def find_words(
    tokenizer: Tokenizer, texts: Sequence[str], max_length: int
) -> tuple[ReplaceableWords, EncodedDataset]:
    """The words to replace, and `[CLS] text [SEP] text [SEP]` for every text.

    A masked-language model sees a word's context twice: around the mask, which goes into the first
    copy, and whole in the second, so that what it proposes fits the sentence and resembles the word.
    Inputs end after `max_length` tokens.
    """
    words = array("q")
    token_ids = array("i")
    lengths = np.zeros(len(texts), np.int64)
    segment_a_lengths = np.zeros(len(texts), np.int32)
    for number, (text, encoding) in enumerate(zip(texts, _encodings(tokenizer, texts), strict=True)):
        first = [tokenizer.cls_id, *encoding.ids[: max_length - 2], tokenizer.sep_id]
        row = [*first, *encoding.ids, tokenizer.sep_id][:max_length]
        token_ids.extend(row)
        lengths[number], segment_a_lengths[number] = len(row), len(first)
        for begin, end, start, stop in _pieces_of_words(text, encoding):
            if not is_content_word(text[start:stop]) or unicodedata.combining(text[stop : stop + 1] or " "):
                continue
            is_one_known = end - begin == 1 and encoding.ids[begin] != tokenizer.unk_id
            position = begin + 1 if is_one_known and begin + 1 < len(first) - 1 else 0
            words.extend((number, start, stop, position))
    table = np.array(words, np.int64).reshape(-1, 4).T
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    inputs = EncodedDataset(np.array(token_ids, np.int32), offsets, segment_a_lengths, None, tokenizer.pad_id)
    return ReplaceableWords(*table), inputs


def _encodings(tokenizer: Tokenizer, texts: Sequence[str], at_once: int = 4096) -> Iterator:
    """Encodings with offsets, some thousand texts at a time."""
    for start in range(0, len(texts), at_once):
        yield from tokenizer.encode_with_offsets(texts[start : start + at_once])


def _pieces_of_words(text: str, encoding) -> Iterator[tuple[int, int, int, int]]:
    """For every word its first piece and the one after its last, and the same in characters.

    Where words are what stands between spaces, as for SentencePiece, punctuation is split off.
    """
    begin = 0
    word_ids, offsets = encoding.word_ids, encoding.offsets
    has_letters = [any(map(str.isalnum, text[start:stop])) for start, stop in offsets]
    for piece in range(1, len(word_ids) + 1):
        goes_on = (
            piece < len(word_ids)
            and word_ids[piece] == word_ids[begin]
            and has_letters[piece]
            and has_letters[piece - 1]
        )
        if not goes_on:
            start, stop = offsets[begin][0], offsets[piece - 1][1]
            start = stop - len(text[start:stop].lstrip())  # a space may be part of SentencePiece's pieces
            yield begin, piece, start, stop
            begin = piece


def proposable_words(tokenizer: Tokenizer) -> list[str]:
    """What each piece stands for as a word of its own, `[vocab_size]`; "" for those that are no words.

    Special tokens, continuations of words, numbers and punctuation are none.
    """
    mark = tokenizer.word_start
    special = set(tokenizer.special_tokens.values())
    words = []
    for piece in tokenizer.tokens():
        word = piece if mark is None else piece.removeprefix(mark) * piece.startswith(mark)
        words.append(word if word.isalpha() and piece not in special else "")
    return words


def usable_candidates(word: str, proposals: Sequence[str]) -> tuple[str, ...]:
    """Proposals for a word, in its case, without repetitions and the word itself, whatever their case."""
    candidates: dict[str, str] = {}
    for proposal in filter(None, proposals):
        candidates.setdefault(proposal.casefold(), _in_case_of(word, proposal))
    candidates.pop(word.casefold(), None)
    return tuple(candidates.values())


def _in_case_of(word: str, proposal: str) -> str:
    if len(word) > 1 and word.isupper():
        return proposal.upper()
    return proposal[0].upper() + proposal[1:] if word[0].isupper() else proposal


def sample_variants(
    text: str,
    replacements: Sequence[Replacement],
    samples: int,
    probability: float,
    generator: np.random.Generator,
) -> list[str]:
    """Different texts from `samples` draws; each replaces every word with `probability` by any candidate.

    Draws that change nothing, or repeat an earlier one, are left out.
    """
    if not replacements:
        return []
    shape = (samples, len(replacements))
    is_replaced: Bool[np.ndarray, "samples words"] = generator.random(shape) < probability
    choices = generator.integers(0, [len(word.candidates) for word in replacements], shape)
    variants: dict[str, None] = {}
    for marks, picks in zip(is_replaced.tolist(), choices.tolist(), strict=True):
        parts: list[str] = []
        kept_from = 0
        for word, is_drawn, pick in zip(replacements, marks, picks, strict=True):
            if is_drawn:
                parts += [text[kept_from : word.start], word.candidates[pick]]
                kept_from = word.end
        if parts:
            variants["".join([*parts, text[kept_from:]])] = None
    return list(variants)
