"""Which words may be replaced, by what, and how often: counted out, and checked against closed forms."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from bert_emd_jax.augmentation.words import (
    STOP_WORDS,
    Replacement,
    find_words,
    proposable_words,
    sample_variants,
    usable_candidates,
)
from bert_emd_jax.tokenization.tokenizer import Tokenizer


def words_of(tokenizer: Tokenizer, text: str, max_length: int = 64) -> list[tuple[str, int]]:
    """Every replaceable word of a text with its position."""
    words, _ = find_words(tokenizer, [text], max_length)
    return [(text[start:end], int(position)) for _, start, end, position in zip(*words, strict=True)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat sat on the mat.", [("cat", 2), ("sat", 3), ("mat", 6)]),
        ("  Berlin\tcafé,dog", [("Berlin", 1), ("café", 2), ("dog", 4)]),
        ("cat unaffable cat", [("cat", 1), ("unaffable", 0), ("cat", 5)]),  # un ##aff ##able
        ("the cat's 3d mat2 A.I.", [("cat", 2)]),
        ("cafe\u0301 dog \u0301", [("dog", 2)]),  # an accent of its own would be left behind
        ("cat [MASK] [SEP] dog", [("cat", 1), ("dog", 4)]),
        ("漢 cat\x00dog ca\u200bt", [("漢", 0)]),  # not in the vocabulary; what is dropped within words
        ("中文", [("中", 1), ("文", 2)]),
        *[(text, []) for text in ("", " ", "...", "42", "I don't, you'd")],
    ],
)
def test_words_and_positions(tokenizer, text, expected):
    assert words_of(tokenizer, text) == expected


def test_inputs_are_the_text_twice(tokenizer):
    """As in the original program: the first copy is segment 0 and gets the mask."""
    texts = ["cat sat", "", "the dog running"]
    words, inputs = find_words(tokenizer, texts, 64)
    assert words.texts.tolist() == [0, 0, 2, 2]
    vocabulary = np.array(tokenizer.tokens())
    batch = inputs.collate(np.arange(3), 20)
    tokens = [
        vocabulary[row[:length]].tolist()
        for row, length in zip(batch["input_ids"], inputs.lengths, strict=True)
    ]
    assert tokens[0] == ["[CLS]", "cat", "sat", "[SEP]", "cat", "sat", "[SEP]"]
    assert tokens[1] == ["[CLS]", "[SEP]", "[SEP]"]
    assert batch["token_type_ids"][0].tolist()[:8] == [0, 0, 0, 0, 1, 1, 1, 0]
    for text, start, end, position in zip(*words, strict=True):
        if position:
            assert tokens[text][position] == texts[text][start:end]


@pytest.mark.parametrize(
    ("max_length", "positions"), [(64, [1, 2, 3]), (9, [1, 2, 3]), (5, [1, 2, 3]), (4, [1, 2, 0])]
)
def test_inputs_end_at_the_longest_length(tokenizer, max_length, positions):
    assert words_of(tokenizer, "cat dog mat", max_length) == list(
        zip(["cat", "dog", "mat"], positions, strict=True)
    )
    _, inputs = find_words(tokenizer, ["cat dog mat"], max_length)
    assert len(inputs.token_ids) == min(9, max_length)


def test_what_a_piece_proposes(tokenizer):
    words = dict(zip(tokenizer.tokens(), proposable_words(tokenizer), strict=True))
    assert words["cat"] == "cat"
    assert words["Berlin"] == "Berlin"
    assert {words[token] for token in ("[MASK]", "[UNK]", "##able", "##a", "7", ".", "'")} == {""}


def test_sentencepiece_words(tmp_path):
    """Words are what stands between spaces there: punctuation must be split off, spaces left out."""
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(
        "\n".join(["the cat sat on a mat, while dogs ran.", "(cats and dogs) sat!", "the dog"] * 40)
    )
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(tmp_path / "spiece"), vocab_size=48, pad_id=0, unk_id=1, bos_id=2,
        eos_id=3, pad_piece="[PAD]", unk_piece="[UNK]", bos_piece="[CLS]", eos_piece="[SEP]",
        user_defined_symbols=["[MASK]"], hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    (tmp_path / "spiece.vocab").unlink()
    tokenizer = Tokenizer.from_directory(Path(tmp_path))
    text = "the cat sat, (while dogs) on a mat!"
    found = words_of(tokenizer, text)
    assert [word for word, _ in found] == ["cat", "sat", "dogs", "mat"]
    tokens = [tokenizer.tokens()[index] for index in tokenizer.encode([text])[0]]
    for word, position in found:
        if position:
            assert tokens[position - 1].lstrip("▁") == word
    assert any(position for _, position in found)
    proposals = set(proposable_words(tokenizer))
    assert "sat" in proposals
    assert not proposals & {"▁sat", "[MASK]", ".", ","}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("plot", ("film", "movie", "Paris", "TV")),
        ("Plot", ("Film", "Movie", "Paris", "TV")),
        ("PLOT", ("FILM", "MOVIE", "PARIS", "TV")),
        ("I", ("Film", "Movie", "Paris", "TV")),
        ("Movie", ("Film", "Paris", "TV")),
        ("tv", ("film", "movie", "Paris")),
    ],
)
def test_candidates_have_the_words_case(word, expected):
    proposals = ["film", "movie", "Movie", "", "Paris", "TV", "film"]
    assert usable_candidates(word, proposals) == expected


def test_a_stop_word_list_of_words():
    assert {"the", "not", "don", "t"} <= STOP_WORDS
    assert all(word.isalpha() and word.islower() for word in STOP_WORDS)


TEXT = "a cat, two  cats"
REPLACEMENTS = [Replacement(2, 5, ("dog", "mouse", "bird")), Replacement(12, 16, ("dogs",))]
POSSIBLE = {
    f"a {first}, two  {second}"
    for first, second in itertools.product(("cat", "dog", "mouse", "bird"), ("cats", "dogs"))
} - {TEXT}


def test_every_combination_and_no_other_is_drawn_once():
    variants = sample_variants(TEXT, REPLACEMENTS, 1000, 0.5, np.random.default_rng(0))
    assert len(variants) == len(POSSIBLE) == 7
    assert set(variants) == POSSIBLE
    assert sample_variants(TEXT, [], 1000, 0.5, np.random.default_rng(0)) == []
    assert len(sample_variants(TEXT, REPLACEMENTS, 2, 0.5, np.random.default_rng(1))) <= 2


def test_words_are_replaced_with_the_given_probability():
    """One draw each from many generators: the shares are binomial, within five standard deviations."""
    count, probability = 4000, 0.3
    drawn = [
        sample_variants(TEXT, REPLACEMENTS, 1, probability, np.random.default_rng((7, number)))
        for number in range(count)
    ]
    texts = [variants[0] if variants else TEXT for variants in drawn]

    def share(expected: float, matches: int) -> None:
        deviation = (expected * (1 - expected) / count) ** 0.5
        assert abs(matches / count - expected) < 5 * deviation

    share(probability, sum("cats" not in text for text in texts))
    share(1 - probability, sum("a cat," in text for text in texts))
    for word in ("dog,", "mouse", "bird"):
        share(probability / 3, sum(word in text for text in texts))
    share((1 - probability) ** 2, texts.count(TEXT))


def test_probability_one_replaces_every_word():
    variants = sample_variants(TEXT, REPLACEMENTS, 50, 1.0, np.random.default_rng(0))
    assert set(variants) == {f"a {word}, two  dogs" for word in ("dog", "mouse", "bird")}
