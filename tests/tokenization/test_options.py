"""Every option of a tokenizer's files off its default, one by one: the ids of transformers, or a refusal."""

import json
import logging
from pathlib import Path

import pytest

from bert_emd_jax.errors import UserError
from bert_emd_jax.tokenization.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = (
    "the a good bad film movie was not un ##able ##s ##ing caf ##é café cafe naïve"
    " The Good 中 文 new ##tok <x> hello"
)
LETTERS = "bcdefghijklmnopqrstuvwxyzABCXÉé.,!?'[]<>$0123456789"
CONTINUED = [f"##{letter}" for letter in LETTERS if letter.isalnum()]
VOCABULARY = list(dict.fromkeys([*SPECIALS, *WORDS.split(), *LETTERS, *CONTINUED]))
NEW = len(VOCABULARY)
TEXTS = [
    *(
        "[NEW] good[NEW]",
        "The good film",
        "a café naïve 中文 movie!",
        "[MASK] was not [SEP] a",
        "unable films  ",
    ),
    *(
        "<x>hello <X> new tok",
        "Éclair\tnot\u200bgood\x00",
        "hello<x>hello",
        "  <x>  good",
        "GOOD [cls] [CLS]x",
    ),
    *("unable films  ", "", "newtok NEWTOK", "it's $5.00", "GOOD [cls] [CLS]x", "a" * 120),
]


def token(content: str, **flags: bool) -> dict:
    usual = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word", "special"), False)
    return {"content": content} | usual | flags


def fast_file(**changes) -> dict:
    """The tokenizer.json of the vocabulary, with other entries; `a__b` is entry b of entry a."""
    content = json.loads(
        transformers.BertTokenizer(
            vocab={word: index for index, word in enumerate(VOCABULARY)}
        ).backend_tokenizer.to_str()
    )
    for name, value in changes.items():
        outer, _, inner = name.partition("__")
        if inner:
            content[outer][inner] = value
        elif outer == "added_tokens":
            content[outer] += value
        else:
            content[outer] = value
    return content


OWN = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
CASED = OWN | {"do_lower_case": False}
NO_WORD_OF_IT = {"tokenizer_class": "BertTokenizer"}
X = str(VOCABULARY.index("<x>"))
AS_IT_IS = {"tokenizer_class": "PreTrainedTokenizerFast"}
TRUNCATION = {"max_length": 5, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
# vocab.txt, tokenizer.json (as changes), tokenizer_config.json, other files.
EQUAL = {
    "vocabulary alone": (VOCABULARY, None, None, {}),
    "both": (VOCABULARY, {}, OWN, {}),
    "no settings": (VOCABULARY, {}, None, {}),
    "cased": (VOCABULARY, None, CASED, {}),
    "settings cased, file not": (VOCABULARY, {}, CASED, {}),
    "file cased, settings not": (VOCABULARY, {"normalizer__lowercase": False}, OWN, {}),
    "file cased, no settings": (None, {"normalizer__lowercase": False}, None, {}),
    "file cased, no word of it": (
        None,
        {"normalizer__lowercase": False},
        {"tokenizer_class": "BertTokenizer"},
        {},
    ),
    "file cased, another class": (VOCABULARY, {"normalizer__lowercase": False}, AS_IT_IS, {}),
    "accents kept": (VOCABULARY, None, OWN | {"strip_accents": False}, {}),
    "accents kept, file alone": (None, {}, OWN | {"strip_accents": False}, {}),
    "accents kept in the file": (None, {"normalizer__strip_accents": False}, OWN, {}),
    "accents stripped, cased": (VOCABULARY, None, CASED | {"strip_accents": True}, {}),
    "Chinese words": (VOCABULARY, None, OWN | {"tokenize_chinese_chars": False}, {}),
    "Chinese words in the file": (None, {"normalizer__handle_chinese_chars": False}, OWN, {}),
    "no basic tokenizer": (VOCABULARY, None, OWN | {"do_basic_tokenize": False}, {}),
    "never split": (VOCABULARY, None, OWN | {"never_split": ["GOOD"]}, {}),
    "another unknown token": (VOCABULARY, None, OWN | {"unk_token": "hello"}, {}),
    "another unknown token, both": (VOCABULARY, {}, OWN | {"unk_token": "hello"}, {}),
    "another unknown token in the file": (VOCABULARY, {"model__unk_token": "hello"}, OWN, {}),
    "added in the file": (VOCABULARY, {"added_tokens": [token("[NEW]") | {"id": NEW}]}, OWN, {}),
    "added in the file, eats blanks": (
        None,
        {"added_tokens": [token("[NEW]", lstrip=True) | {"id": NEW}]},
        OWN,
        {},
    ),
    "added, eats blanks": (
        VOCABULARY,
        None,
        OWN | {"added_tokens_decoder": {X: token("<x>", lstrip=True, rstrip=True)}},
        {},
    ),
    "added, whole words": (
        VOCABULARY,
        None,
        OWN | {"added_tokens_decoder": {X: token("<x>", single_word=True)}},
        {},
    ),
    "added, in any case": (
        VOCABULARY,
        None,
        OWN | {"added_tokens_decoder": {str(NEW): token("newtok", normalized=True)}},
        {},
    ),
    "added, file alone": (None, {}, OWN | {"added_tokens_decoder": {str(NEW): token("[NEW]")}}, {}),
    "added, another class": (None, {}, AS_IT_IS | {"added_tokens_decoder": {str(NEW): token("[NEW]")}}, {}),
    "added_tokens.json": (VOCABULARY, None, OWN, {"added_tokens.json": {"newtok": NEW}}),
    "added_tokens.json, file alone": (None, {}, OWN, {"added_tokens.json": {"[NEW]": NEW}}),
    "additional specials": (VOCABULARY, None, OWN | {"additional_special_tokens": ["<x>"]}, {}),
    "additional specials, file alone": (None, {}, OWN | {"additional_special_tokens": ["<x>"]}, {}),
    "extra specials": (VOCABULARY, {}, OWN | {"extra_special_tokens": ["<x>"]}, {}),
    "special_tokens_map.json": (
        VOCABULARY,
        None,
        OWN,
        {"special_tokens_map.json": {"additional_special_tokens": ["<x>"]}},
    ),
    "special_tokens_map.json, unknown": (
        VOCABULARY,
        None,
        OWN,
        {"special_tokens_map.json": {"unk_token": "hello"}},
    ),
    "truncation in the file": (VOCABULARY, {"truncation": TRUNCATION}, OWN, {}),
    "longest input": (VOCABULARY, {}, OWN | {"model_max_length": 8}, {}),
    "an older vocabulary": ([*VOCABULARY[:5], *VOCABULARY[6:], "the"], {}, OWN, {}),
}


def write(directory: Path, vocabulary, fast, settings, others) -> Path:
    (directory / "config.json").write_text(json.dumps({"model_type": "bert"}))
    if vocabulary is not None:
        (directory / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    files = others | ({} if fast is None else {"tokenizer.json": fast_file(**fast)})
    files |= {} if settings is None else {"tokenizer_config.json": settings}
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content))
    return directory


@pytest.mark.parametrize("name", EQUAL)
def test_the_ids_are_those_of_transformers(tmp_path, name):
    write(tmp_path, *EQUAL[name])
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = Tokenizer.from_directory(tmp_path)
    expected = [theirs.encode(text, add_special_tokens=False) for text in TEXTS]
    assert ours.encode(TEXTS) == expected
    ours.save(tmp_path / "saved")
    assert Tokenizer.from_directory(tmp_path / "saved").encode(TEXTS) == expected
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert [again.encode(text, add_special_tokens=False) for text in TEXTS] == expected


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("normalizer", {"normalizer": {"type": "Lowercase"}}),
        ("normalizer", {"normalizer__clean_text": False}),
        ("pre_tokenizer", {"pre_tokenizer": {"type": "WhitespaceSplit"}}),
        ("continuing_subword_prefix", {"model__continuing_subword_prefix": "@@"}),
        ("max_input_chars_per_word", {"model__max_input_chars_per_word": 5}),
    ],
)
def test_what_versions_of_transformers_read_differently_is_refused(tmp_path, name, changes):
    write(tmp_path, None, changes, OWN, {})
    with pytest.raises(UserError, match=rf"tokenizer.json: {name} is not that of BertTokenizer"):
        Tokenizer.from_directory(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(AS_IT_IS))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    expected = [theirs.encode(text, add_special_tokens=False) for text in TEXTS]
    assert Tokenizer.from_directory(tmp_path).encode(TEXTS) == expected


def test_a_vocabulary_with_capitals_is_pointed_out(tmp_path, said: pytest.LogCaptureFixture):
    write(tmp_path, VOCABULARY, None, None, {})
    Tokenizer.from_directory(tmp_path)
    assert "--no_do_lower_case keeps its case" in said.text
    said.clear()
    Tokenizer.from_directory(tmp_path, do_lower_case=True)
    write(tmp_path, [word for word in VOCABULARY if word == word.lower() or word in SPECIALS], None, None, {})
    Tokenizer.from_directory(tmp_path)
    assert not [record for record in said.records if record.levelno >= logging.WARNING]
