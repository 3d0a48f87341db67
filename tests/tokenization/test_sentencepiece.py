"""SentencePiece models against the library they are made with, and against transformers."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import processors

from bert_emd_jax.corpus.corpus import tokenize_corpus
from bert_emd_jax.corpus.pretraining_examples import (
    ExampleSettings,
    Vocabulary,
    block_examples,
    corpus_blocks,
)
from bert_emd_jax.errors import UserError
from bert_emd_jax.tokenization.tokenizer import Tokenizer

WORDS = ("the", "cat", "sat", "on", "a", "mat", "while", "dogs", "were", "running", "un", "able")
WORDS += ("café", "naïve", "Berlin", "1,000", "don't", ",")
JAPANESE = [
    "吾輩は猫である。名前はまだ無い。",
    "私は猫が好きです。",
    "カタカナとひらがな、漢字。",
    "東京都に住む",
]
TEXTS = [
    *(
        "",
        "   ",
        "the cat sat on a mat",
        " the  CAT \t sat.\n",
        "unable running Berlin café",
        "caf\u0065\u0301",
    ),
    *JAPANESE,
    *(
        "ＡＢＣ　１２３",
        "ｶﾀｶﾅ",
        "ﬁ ½ ①",
        "中文字 한국어",
        "🙂 👩‍👩‍👧‍👦",
        "x" * 300,
        "～〜",
        "a\u00a0b\u3000c\u200b",
    ),
]
BERT_NAMES = {"pad_piece": "[PAD]", "unk_piece": "[UNK]", "bos_piece": "[CLS]", "eos_piece": "[SEP]"}
FIRST_IDS = {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3}


def train(directory: Path, name: str = "spiece.model", **options) -> Path:
    """A model of some hundred pieces; its special tokens are those of BERT unless told otherwise."""
    directory.mkdir(parents=True, exist_ok=True)
    corpus = directory / "corpus.txt"
    rows = [" ".join(WORDS[(row * step) % len(WORDS)] for step in range(1, 9)) for row in range(60)]
    corpus.write_text("\n".join(rows + JAPANESE * 8), encoding="utf-8")
    defaults = {"vocab_size": 170, "model_type": "unigram", "user_defined_symbols": ["[MASK]"]}
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(directory / name).removesuffix(".model"),
        hard_vocab_limit=False,
        character_coverage=1.0,
        minloglevel=2,
        **(defaults | FIRST_IDS | BERT_NAMES | options),
    )
    corpus.unlink()
    return directory / name


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("unigram")).parent


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
@pytest.mark.parametrize("rule", ["nmt_nfkc", "identity", "nmt_nfkc_cf"])
@pytest.mark.parametrize("byte_fallback", [False, True])
def test_pieces_are_those_of_the_library(tmp_path, model_type, rule, byte_fallback):
    options = {"model_type": model_type, "normalization_rule_name": rule, "byte_fallback": byte_fallback}
    path = train(tmp_path, vocab_size=500 if byte_fallback else 170, **options)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(path))
    ours = Tokenizer.from_directory(tmp_path)
    assert ours.encode(TEXTS) == theirs.encode(TEXTS)
    assert ours.vocab_size == theirs.vocab_size()
    assert ours.tokens() == [theirs.id_to_piece(index) for index in range(ours.vocab_size)]
    assert (ours.pad_id, ours.unk_id, ours.cls_id, ours.sep_id) == (0, 1, 2, 3)
    assert ours.mask_id == theirs.piece_to_id("[MASK]")


# Marks behind some letters and half-width voice marks are normalised differently by the two libraries.
ORDINARY = st.characters(
    exclude_categories=["Cs", "Cc", "Cf", "Cn", "Co", "Mn", "Mc", "Me"], max_codepoint=0xFEFF
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(ORDINARY | st.sampled_from("the cat sat, 1,000 café"), max_size=40))
def test_any_ordinary_text(trained, text):
    theirs = _once("library", lambda: sentencepiece.SentencePieceProcessor(str(trained / "spiece.model")))
    ours = _once("ours", lambda: Tokenizer.from_directory(trained))
    if "▁" not in text and "[" not in text:
        assert ours.encode([text]) == [theirs.encode(text)]


_MADE: dict = {}


def _once(name, make):
    if name not in _MADE:
        _MADE[name] = make()
    return _MADE[name]


ENGLISH = [text for text in TEXTS if text.isascii()] + ["the [MASK] sat[SEP] on", "un-able, (cat)!"]


def settings_file(directory: Path, **values) -> None:
    (directory / "tokenizer_config.json").write_text(json.dumps(values))


@pytest.mark.parametrize("keep_accents", [True, False])
@pytest.mark.parametrize("lower_case", [True, False])
def test_albert_tokenizers(trained, tmp_path, lower_case, keep_accents):
    """The usual class of BERTs with SentencePiece vocabularies; it lower-cases and strips accents itself."""
    transformers = pytest.importorskip("transformers")
    options = {"do_lower_case": lower_case, "keep_accents": keep_accents}
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    theirs = transformers.AlbertTokenizer.from_pretrained(trained, **options, **names)
    shutil.copy(trained / "spiece.model", tmp_path)
    settings_file(tmp_path, tokenizer_class="AlbertTokenizer", **options, **names)
    ours = Tokenizer.from_directory(tmp_path)
    texts = [*ENGLISH, "``Café''", "Ünïté"]
    assert ours.encode(texts) == [theirs.encode(text, add_special_tokens=False) for text in texts]
    assert (ours.cls_id, ours.sep_id, ours.mask_id) == (
        theirs.cls_token_id,
        theirs.sep_token_id,
        theirs.mask_token_id,
    )
    assert Tokenizer.from_directory(tmp_path, not lower_case).fingerprint != ours.fingerprint


@pytest.mark.parametrize("named", [True, False])
def test_multilingual_ids_are_moved_by_one(tmp_path, named):
    """XLM-R's numbering, which multilingual MiniLMs have: four tokens first, the mask last."""
    transformers = pytest.importorskip("transformers")
    plain = {"pad_id": -1, "unk_id": 0, "bos_id": 1, "eos_id": 2, "unk_piece": "<unk>"}
    plain |= {"bos_piece": "<s>", "eos_piece": "</s>", "user_defined_symbols": []}
    path = train(tmp_path, "sentencepiece.bpe.model", **plain)
    theirs = transformers.XLMRobertaTokenizer.from_pretrained(tmp_path)
    if named:
        path.rename(tmp_path / "other.model")
        settings_file(tmp_path, tokenizer_class="XLMRobertaTokenizer")
    ours = Tokenizer.from_directory(tmp_path)
    texts = [*ENGLISH, *JAPANESE]
    assert ours.encode(texts) == [theirs.encode(text, add_special_tokens=False) for text in texts]
    assert (ours.cls_id, ours.pad_id, ours.sep_id, ours.unk_id) == (0, 1, 2, 3)
    assert ours.mask_id == theirs.mask_token_id == ours.vocab_size - 1
    library = sentencepiece.SentencePieceProcessor(
        model_file=str(tmp_path / ("other.model" if named else path))
    )
    assert ours.encode(["the cat"]) == [[index + 1 for index in library.encode("the cat")]]


def test_a_slow_tokenizer_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    path = train(tmp_path)
    theirs = transformers.BertGenerationTokenizer(
        str(path),
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        sep_token="[SEP]",
    )
    texts = [text for text in TEXTS if text.strip()]
    expected = [theirs.encode(text, add_special_tokens=False) for text in texts]
    assert Tokenizer.from_directory(tmp_path).encode(texts) == expected


def test_where_special_tokens_are_named(tmp_path):
    odd = {"pad_piece": "<nil>", "unk_piece": "<?>", "bos_piece": "<go>", "eos_piece": "<end>"}
    train(tmp_path, user_defined_symbols=["<hole>"], **odd)
    with pytest.raises(UserError, match=r"lacks \[SEP\], \[PAD\], \[CLS\], \[MASK\]"):
        Tokenizer.from_directory(tmp_path)
    # The model's own config numbers what the tokenizer's files do not name …
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "mask_token_id": 4}
    (tmp_path / "config.json").write_text(json.dumps(ids))
    numbered = Tokenizer.from_directory(tmp_path)
    assert (numbered.pad_id, numbered.cls_id, numbered.sep_id, numbered.mask_id) == (0, 2, 3, 4)
    assert numbered.special_tokens["cls_token"] == "<go>"
    # … and the tokenizer's files come first.
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"cls_token": "<end>", "sep_token": "<go>"}))
    named = Tokenizer.from_directory(tmp_path)
    assert (named.cls_id, named.sep_id, named.mask_id) == (3, 2, 4)


def test_a_mask_beside_the_model(tmp_path):
    """DeBERTa-like: the vocabulary lacks [MASK], which is added behind it."""
    path = train(tmp_path, user_defined_symbols=[])
    size = sentencepiece.SentencePieceProcessor(model_file=str(path)).vocab_size()
    (tmp_path / "added_tokens.json").write_text(json.dumps({"[MASK]": size}))
    tokenizer = Tokenizer.from_directory(tmp_path)
    assert (tokenizer.mask_id, tokenizer.vocab_size) == (size, size + 1)
    assert tokenizer.encode(["[MASK]"]) == [[size]]
    (tmp_path / "added_tokens.json").write_text(json.dumps({"[MASK]": size + 5}))
    with pytest.raises(UserError, match="should have id"):
        Tokenizer.from_directory(tmp_path)


def test_saved_and_exported(trained, tmp_path):
    """What is saved gives the same ids here and in transformers, pairs and segments included."""
    transformers = pytest.importorskip("transformers")
    ours = Tokenizer.from_directory(trained)
    ours.save(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    again, travelled = Tokenizer.from_directory(tmp_path), pickle.loads(pickle.dumps(ours))
    assert again.fingerprint == travelled.fingerprint == ours.fingerprint
    assert again.encode(TEXTS) == travelled.encode(TEXTS) == ours.encode(TEXTS)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert [theirs.encode(text, add_special_tokens=False) for text in TEXTS] == ours.encode(TEXTS)
    pair = theirs("the cat", "a mat")
    a, b = ours.encode(["the cat", "a mat"])
    assert pair["input_ids"] == [ours.cls_id, *a, ours.sep_id, *b, ours.sep_id]
    assert pair["token_type_ids"] == [0] * (len(a) + 2) + [1] * (len(b) + 1)
    assert theirs.pad_token_id == ours.pad_id
    assert theirs.mask_token_id == ours.mask_id


def test_a_fast_file_with_other_pairs(tmp_path, said):
    """tokenizer.json of a SentencePiece vocabulary: its ids are kept; pairs of another form are said."""
    transformers = pytest.importorskip("transformers")
    source = tmp_path / "source"
    plain = {"pad_id": -1, "unk_id": 0, "bos_id": 1, "eos_id": 2, "unk_piece": "<unk>"}
    train(
        source, "sentencepiece.bpe.model", **plain, bos_piece="<s>", eos_piece="</s>", user_defined_symbols=[]
    )
    theirs = transformers.XLMRobertaTokenizer.from_pretrained(source)
    theirs.backend_tokenizer.enable_truncation(3)
    theirs.backend_tokenizer.enable_padding(length=3)
    backend = theirs.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", [("<s>", 0)])
    backend.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.from_directory(tmp_path)
    assert "pairs are put together as <s> A </s> B </s> with segments 0 and 1" in said.text
    reference = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    assert ours.encode(TEXTS) == [
        reference.encode(text, add_special_tokens=False, truncation=False, padding=False) for text in TEXTS
    ]
    assert (ours.cls_id, ours.pad_id, ours.sep_id, ours.unk_id) == (0, 1, 2, 3)
    assert ours.word_start == "▁"


def test_whole_words_are_masked(trained, tmp_path):
    tokenizer = Tokenizer.from_directory(trained)
    library = sentencepiece.SentencePieceProcessor(str(trained / "spiece.model"))
    text = tmp_path / "corpus.txt"
    sentences = ["unable dogs were running while the naïve cat sat on Berlin"] * 6
    text.write_text("\n\n".join("\n".join(sentences) for _ in range(4)), encoding="utf-8")
    corpus = tokenize_corpus(text, tokenizer)
    settings = ExampleSettings(
        max_seq_len=64, masked_lm_prob=0.3, max_predictions_per_seq=20, do_whole_word_mask=True, one_seq=True
    )
    masked_any = False
    for block, documents in enumerate(corpus_blocks(corpus)):
        for batch in block_examples(corpus, Vocabulary.of(tokenizer), settings, 0, block, documents):
            for ids, masked, length in zip(batch.original_ids, batch.masked, batch.lengths, strict=True):
                pieces = [library.id_to_piece(int(index)) for index in ids[:length]]
                # A separator is a word of its own; a text may begin inside one.
                special = np.isin(ids[:length], [tokenizer.cls_id, tokenizer.sep_id])
                after_special = np.append(False, special[:-1])
                words = np.cumsum(special | after_special | [piece.startswith("▁") for piece in pieces])
                assert words[-1] < len(words)  # some words have several pieces
                for word in np.unique(words):
                    assert len(set(masked[:length][words == word])) == 1
                assert not masked[:length][special].any()
                masked_any |= bool(masked.any())
    assert masked_any


def test_refused_models(trained, tmp_path):
    def refused(message: str, content: bytes | None = None, **config) -> None:
        path = tmp_path / "spiece.model"
        path.write_bytes((trained / "spiece.model").read_bytes() if content is None else content)
        settings_file(tmp_path, **config)
        with pytest.raises(UserError, match=message) as caught:
            Tokenizer.from_directory(tmp_path, config.get("flag"))
        assert "\n" not in str(caught.value)

    whole = (trained / "spiece.model").read_bytes()
    refused("not a SentencePiece model", whole[: len(whole) // 2])
    refused("not a SentencePiece model", b"")
    refused("how a CamembertTokenizer numbers its pieces", tokenizer_class="CamembertTokenizer")
    train(tmp_path / "word", model_type="word", vocab_size=30)
    refused("of type word", (tmp_path / "word" / "spiece.model").read_bytes())
    folded = train(tmp_path / "folded", normalization_rule_name="nmt_nfkc_cf").read_bytes()
    refused("this tokenizer lower-cases", folded, flag=False)
    (tmp_path / "second.model").write_bytes(whole)
    refused("2 files")


def test_damaged_bytes_are_refused(tmp_path):
    whole = train(tmp_path / "whole", normalization_rule_name="identity").read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(150):
        content = bytearray(whole)
        for position in generator.integers(0, len(whole), 3):
            content[position] = generator.integers(0, 256)
        (tmp_path / "spiece.model").write_bytes(content)
        try:
            Tokenizer.from_directory(tmp_path).encode(["the cat", ""])
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_words_of_a_japanese_analyser_are_refused(vocabulary_directory, tmp_path):
    shutil.copy(vocabulary_directory / "vocab.txt", tmp_path)
    settings_file(tmp_path, tokenizer_class="BertJapaneseTokenizer", word_tokenizer_type="mecab")
    with pytest.raises(UserError, match="found by mecab"):
        Tokenizer.from_directory(tmp_path)
