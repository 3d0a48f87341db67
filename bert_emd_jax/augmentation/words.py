"""TinyBERT's data augmentation (Jiao et al. 2020, arXiv 1909.10351, Algorithm 1): finds the words of a text
that may be replaced, and replaces some of them at random."""

import unicodedata
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from bert_emd_jax.encoding.dataset import EncodedDataset
from bert_emd_jax.tokenization.tokenizer import Tokenizer

SAMPLES_PER_TEXT = {
    **{"CoLA": 30, "MRPC": 30, "RTE": 30, "STS-B": 30},
    **{"QNLI": 20, "SST-2": 20},
    **{"MNLI": 10, "QQP": 10},
}
"""Variants of each text that TinyBERT's authors draw; `DEFAULT_SAMPLES` for other tasks."""
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
    needn shan shouldn wasn weren won wouldn"""  # split at the apostrophe
STOP_WORDS = frozenset(
    " ".join((_PRONOUNS, _VERBS, _QUESTIONS, _CONNECTIVES, _ADVERBS, _QUANTIFIERS, _CONTRACTIONS)).split()
)
"""English words that carry grammar rather than content."""


class ReplaceableWords(NamedTuple):
    """Content words of texts, in the order of the texts; one entry of each array per word.

    `texts` are the indices of their texts, `starts` and `ends` their characters in these. `positions` are
    those of their tokens in the input; 0, the position of [CLS], if a word has several tokens, is unknown,
    or lies beyond the longest input.
    """

    texts: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    positions: np.ndarray


class Replacement(NamedTuple):
    """The characters of a word in its text, and the words that may replace it."""

    start: int
    end: int
    candidates: tuple[str, ...]


def is_content_word(word: str) -> bool:
    """Whether a word may be replaced: it has only letters and is no stop word."""
    return word.isalpha() and word.lower() not in STOP_WORDS


def find_words(
    tokenizer: Tokenizer, texts: Sequence[str], max_length: int
) -> tuple[ReplaceableWords, EncodedDataset]:
    """Returns the words to replace, and an input `[CLS] text [SEP] text [SEP]` for every text.

    A masked-language model sees a word's context around the mask, in the first copy, and the whole text in
    the second one, so that its predictions fit the sentence and resemble the word. Inputs are truncated to
    `max_length` tokens.
    """
    words = array("q")
    token_ids = array("i")
    lengths = np.zeros(len(texts), np.int64)
    segment_a_lengths = np.zeros(len(texts), np.int32)
    for number, (text, encoding) in enumerate(zip(texts, _encodings(tokenizer, texts), strict=True)):
        first = [tokenizer.cls_id, *encoding.ids[: max_length - 2], tokenizer.sep_id]
        between = [tokenizer.sep_id] * (tokenizer.pairs.separators - 1)
        row = [*first, *between, *encoding.ids, tokenizer.sep_id][:max_length]
        token_ids.extend(row)
        lengths[number] = len(row)
        segment_a_lengths[number] = len(first) if tokenizer.pairs.has_segments else len(row)
        for begin, end, start, stop in _word_spans(text, encoding):
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
    """Yields the encodings of texts, a few thousand texts at a time."""
    for start in range(0, len(texts), at_once):
        yield from tokenizer.encode_with_offsets(texts[start : start + at_once])


def _word_spans(text: str, encoding) -> Iterator[tuple[int, int, int, int]]:
    """Yields for every word its first token and the one after its last, and the same in characters.

    If words are separated by spaces alone, as for SentencePiece, punctuation is split off.
    """
    begin = 0
    word_ids, offsets = encoding.word_ids, encoding.offsets
    has_letters = [any(map(str.isalnum, text[start:stop])) for start, stop in offsets]
    for token in range(1, len(word_ids) + 1):
        continues = token < len(word_ids) and word_ids[token] == word_ids[begin]
        if not (continues and has_letters[token] and has_letters[token - 1]):
            start, stop = offsets[begin][0], offsets[token - 1][1]
            start = stop - len(text[start:stop].lstrip())  # a space may be part of SentencePiece's tokens
            yield begin, token, start, stop
            begin = token


def proposable_words(tokenizer: Tokenizer) -> list[str]:
    """Returns the word that each token is, `[vocab_size]`; "" for tokens that are no words.

    These are special tokens, continuations of words, numbers and punctuation.
    """
    special = set(tokenizer.special_tokens.values())
    words = []
    for token in tokenizer.tokens():
        word = tokenizer.word_of(token)
        words.append(word if word.isalpha() and token not in special else "")
    return words


def usable_candidates(word: str, proposals: Sequence[str]) -> tuple[str, ...]:
    """Returns the proposals for a word in its case, without the word and repetitions in any case."""
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
    """Returns different texts from `samples` draws, without those that change nothing.

    Each draw replaces every word with `probability` by a random one of its candidates.
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
