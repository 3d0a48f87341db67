"""Proposals for masked words against transformers, one word at a time as the original program asks."""

from pathlib import Path

import numpy as np
import pytest
from torch_reference import tiny_torch_model, torch, transformers

from bert_emd_jax.augmentation.masked_lm import WordPredictor, load_masked_lm
from bert_emd_jax.augmentation.word_replacements import WordReplacements
from bert_emd_jax.augmentation.word_vectors import WordVectors
from bert_emd_jax.augmentation.words import find_words, proposable_words
from bert_emd_jax.devices.parallel import replicate
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.heads import MaskedLanguageModel

TEXTS = [
    "the film is bad",
    "great plot , dull actor .",
    "love",
    "a really long and sad movie !",
    "hating unfunny hates",
]
COUNT = 6


@pytest.fixture(scope="module")
def masked_lm(tmp_path_factory, vocabulary):
    """A Hugging Face directory, and the model in it as transformers' own."""
    directory = tmp_path_factory.mktemp("masked_lm")
    (directory / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    return directory, tiny_torch_model(
        directory, kind="masked_lm", vocab_size=len(vocabulary), initializer_range=0.3
    )


def their_proposals(directory: Path, model, text: str, word: str) -> list[str]:
    """All words by the logits at the mask, the original text after it, likeliest first."""
    tokenizer = transformers.BertTokenizer.from_pretrained(directory)
    encoded = tokenizer(text.replace(word, "[MASK]"), text, return_tensors="pt")
    position = int((encoded["input_ids"][0] == tokenizer.mask_token_id).nonzero()[0])
    with torch.no_grad():
        logits = model(**encoded).logits[0, position]
    tokens = tokenizer.convert_ids_to_tokens(logits.argsort(descending=True).tolist())
    return [token for token in tokens if token.isalpha() and token != word]


def test_proposals_are_those_of_transformers(masked_lm):
    directory, theirs = masked_lm
    model = load_masked_lm(directory)
    replacements = WordReplacements(TEXTS, model, None, COUNT, batch_size=3)
    compared = 0
    for text in TEXTS[:4]:
        for start, end, candidates in replacements.of(text):
            assert list(candidates) == their_proposals(directory, theirs, text, text[start:end])[:COUNT]
            compared += 1
    assert compared == 11
    assert replacements.counts == (11, 0, 3)  # the last text's words have no token of their own
    assert replacements.of(TEXTS[4]) == []


def test_word_vectors_for_words_of_several_pieces(masked_lm):
    vectors = WordVectors(
        ["hates", "loves", "film", "Likes"], np.array([[1, 0.0], [1, 0.2], [0, 1], [1, 0.1]])
    )
    replacements = WordReplacements(TEXTS, load_masked_lm(masked_lm[0]), vectors, 2, batch_size=8)
    assert replacements.of(TEXTS[4]) == [(15, 20, ("Likes", "loves"))]
    assert replacements.counts == (11, 1, 2)


def test_proposals_do_not_depend_on_the_batches(masked_lm):
    model = load_masked_lm(masked_lm[0])
    words, inputs = find_words(model.tokenizer, TEXTS * 3, 32)
    is_predicted = words.positions > 0
    admitted = np.array([word != "" for word in proposable_words(model.tokenizer)])
    params = replicate(model.params)
    done = []
    results = []
    for batch_size in (1, 8, 40):
        predictor = WordPredictor(MaskedLanguageModel(model.config), admitted, model.tokenizer.mask_id, COUNT)
        where = words.texts[is_predicted], words.positions[is_predicted]
        results.append(predictor.predict(params, inputs, *where, batch_size, done.append))
    assert sum(done) == 3 * 33
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    assert admitted[results[0]].all()


def test_no_words_and_more_candidates_than_pieces(masked_lm):
    model = load_masked_lm(masked_lm[0])
    assert WordReplacements(["the", ""], model, None, COUNT, batch_size=2).of("the") == []
    (found,) = WordReplacements(["love"], model, None, 10_000, batch_size=2).of("love")
    assert set(found.candidates) == {word for word in proposable_words(model.tokenizer) if word} - {"love"}


@pytest.mark.parametrize("kind", ["encoder", "classifier"])
def test_models_without_the_head_are_refused(tmp_path, vocabulary, kind):
    tiny_torch_model(tmp_path, kind=kind, vocab_size=len(vocabulary))
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    with pytest.raises(UserError, match=r"has no masked-LM head \(cls\.predictions"):
        load_masked_lm(tmp_path)
