"""The tokenizer against transformers, on text that is not tame."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from bert_emd_jax.errors import UserError
from bert_emd_jax.tokenization.tokenizer import Tokenizer
from bert_emd_jax.tokenization.word_cache import WordCache

transformers = pytest.importorskip("transformers")

ODD_TEXTS = [
    "",
    " \t\n",
    "the CAT sat, un-affable running!",
    "Café naïve ÀÉÎ e\u0301 Berlin",
    "中文字 mixed日 한국어 カナ",
    "🙂 emoji 👩‍👩‍👧‍👦!",
    "a\x00b\x01c\tx\ny\r\nz\u2028w\u200b\ufeff",
    "x" * 100 + " " + "x" * 101,
    "cat " * 3000,
    "[SEP] [CLS] the [MASK]. [PAD] [sep]",
    "ﬁ İstanbul ß ẞ Ａｆｕｌｌ \ue000 \U0001f9ff",
]


def reference(directory: Path, **options):
    return transformers.BertTokenizer.from_pretrained(directory, **options)


def assert_same(ours: Tokenizer, theirs, texts: list[str]) -> None:
    expected = [theirs.encode(text, add_special_tokens=False) for text in texts]
    assert ours.encode(texts) == expected


@pytest.mark.parametrize("lower_case", [True, False])
@pytest.mark.parametrize("strip_accents", [None, True, False])
@pytest.mark.parametrize("chinese", [True, False])
def test_equals_transformers(vocabulary_directory, tmp_path, lower_case, strip_accents, chinese):
    shutil.copy(vocabulary_directory / "vocab.txt", tmp_path)
    options = {"do_lower_case": lower_case, "strip_accents": strip_accents, "tokenize_chinese_chars": chinese}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(options))
    ours, theirs = Tokenizer.from_directory(tmp_path), reference(tmp_path, **options)
    assert_same(ours, theirs, ODD_TEXTS)
    assert ours.vocab_size == len(theirs)
    assert (ours.cls_id, ours.sep_id, ours.pad_id) == (
        theirs.cls_token_id,
        theirs.sep_token_id,
        theirs.pad_token_id,
    )
    assert (ours.mask_id, ours.unk_id) == (theirs.mask_token_id, theirs.unk_token_id)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_equals_transformers_on_any_text(vocabulary_directory, text):
    for lower_case in (True, False):
        ours = _cached(vocabulary_directory, lower_case)
        assert_same(ours[0], ours[1], [text])


_CACHE: dict = {}


def _cached(directory, lower_case):
    if lower_case not in _CACHE:
        ours = Tokenizer.from_directory(directory, lower_case)
        _CACHE[lower_case] = (ours, reference(directory, do_lower_case=lower_case))
    return _CACHE[lower_case]


FRAGMENTS = [
    "the",
    "Cat",
    "caf\u00e9",
    "\u4e2d",
    "[SEP]",
    "[sep]",
    "[",
    "]",
    "<user>",
    "<USER>",
    "user",
    ".",
    "--",
    " ",
    "  ",
]
FRAGMENTS += ["\t", "\x00", "\u2028", "\u0301", "x" * 60, "\u00a0", "\u200b", "9", "\x7f", "_", "\U0001f642"]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join), max_size=4))
@pytest.mark.parametrize("lower_case", [True, False])
def test_words_from_the_cache(vocabulary_directory, lower_case, texts):
    """Words that are remembered are what the library makes of them in their text."""
    theirs = reference(vocabulary_directory, do_lower_case=lower_case)
    backend = theirs.backend_tokenizer
    backend.add_tokens([AddedToken("<user>", normalized=True), AddedToken("9.", normalized=False)])
    cache = _CACHE.setdefault(("words", lower_case), WordCache(backend))
    assert WordCache.suits(backend)
    expected = [encoding.ids for encoding in backend.encode_batch(texts, add_special_tokens=False)]
    for _ in range(2):
        assert cache.encode(texts) == expected


def test_tokens_with_spaces_have_no_cache(vocabulary_directory):
    backend = reference(vocabulary_directory).backend_tokenizer
    backend.add_tokens([AddedToken("the cat", normalized=False)])
    assert not WordCache.suits(backend)


def test_a_tokenizer_can_travel(tokenizer):
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.encode(ODD_TEXTS) == tokenizer.encode(ODD_TEXTS)
    assert again.fingerprint == tokenizer.fingerprint
    assert again.vocab_size == tokenizer.vocab_size


@pytest.mark.parametrize("lower_case", [None, True, False])
def test_saved_tokenizer_loads_everywhere(vocabulary_directory, tmp_path, lower_case):
    ours = Tokenizer.from_directory(vocabulary_directory, lower_case)
    (tmp_path / "tokenizer.json").write_text("{}")  # a leftover that must not win
    ours.save(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    again = Tokenizer.from_directory(tmp_path)
    assert again.fingerprint == ours.fingerprint
    assert again.encode(ODD_TEXTS) == ours.encode(ODD_TEXTS)
    assert_same(ours, transformers.AutoTokenizer.from_pretrained(tmp_path), ODD_TEXTS)
    assert (tmp_path / "vocab.txt").read_bytes() == (vocabulary_directory / "vocab.txt").read_bytes()


@pytest.mark.parametrize("lower_case", [None, True, False])
def test_tokenizer_json(vocabulary_directory, tmp_path, lower_case):
    """The fast file gives what `vocab.txt` gives, whatever truncation and padding it asks for."""
    theirs = reference(vocabulary_directory, do_lower_case=True)
    backend = theirs.backend_tokenizer
    backend.enable_truncation(4)
    backend.enable_padding(length=4)
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    backend.save(str(source / "tokenizer.json"))
    ours = Tokenizer.from_directory(source, lower_case)
    plain = Tokenizer.from_directory(vocabulary_directory, lower_case)
    assert ours.encode(ODD_TEXTS) == plain.encode(ODD_TEXTS)
    assert ours.fingerprint == plain.fingerprint
    assert ours.tokens() == plain.tokens()
    ours.save(target)
    (target / "config.json").write_text('{"model_type": "bert"}')
    assert Tokenizer.from_directory(target).fingerprint == ours.fingerprint
    assert_same(ours, transformers.AutoTokenizer.from_pretrained(target), ODD_TEXTS)


@pytest.mark.parametrize("form", ["config", "legacy", "fast file"])
def test_added_tokens(vocabulary_directory, tmp_path, form):
    """Tokens beyond the vocabulary, in the three places where they have been kept over the years."""
    theirs = reference(vocabulary_directory)
    theirs.add_tokens([AddedToken("<user>", normalized=False), AddedToken("<url>", normalized=False)])
    source = tmp_path / "source"
    theirs.save_pretrained(source)
    if form != "fast file":
        (source / "tokenizer.json").unlink()
        shutil.copy(vocabulary_directory / "vocab.txt", source)
    size = len(theirs)
    if form == "legacy":
        (source / "added_tokens.json").write_text(json.dumps({"<user>": size - 2, "<url>": size - 1}))
    if form == "config":
        declared = {
            str(size - 2): {"content": "<user>", "special": False},
            str(size - 1): {"content": "<url>"},
        }
        (source / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": declared}))
    ours = Tokenizer.from_directory(source)
    assert_same(ours, theirs, [*ODD_TEXTS, "the <user> sat on <url>."])
    assert ours.vocab_size == len(theirs)
    ours.save(tmp_path / "target")
    assert Tokenizer.from_directory(tmp_path / "target").fingerprint == ours.fingerprint


def test_fingerprint_tells_tokenizers_apart(vocabulary_directory, tmp_path):
    cased = Tokenizer.from_directory(vocabulary_directory, False)
    uncased = Tokenizer.from_directory(vocabulary_directory, True)
    lines = (vocabulary_directory / "vocab.txt").read_text(encoding="utf-8").splitlines()
    lines[-1], lines[-2] = lines[-2], lines[-1]
    (tmp_path / "vocab.txt").write_text("\n".join(lines), encoding="utf-8")
    swapped = Tokenizer.from_directory(tmp_path)
    assert len({cased.fingerprint, uncased.fingerprint, swapped.fingerprint}) == 3


def test_vocabulary_lines_are_ids(tmp_path):
    """CRLF, a BOM, a blank and a repeated line do not shift the ids after them."""
    (tmp_path / "vocab.txt").write_bytes(
        b"\xef\xbb\xbf[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\n[MASK]\r\ncat\r\n\r\ndog\r\ncat\r\nmat"
    )
    tokenizer = Tokenizer.from_directory(tmp_path)
    assert tokenizer.encode(["dog mat cat"]) == [[7, 9, 8]]
    assert tokenizer.vocab_size == 10
    tokenizer.save(tmp_path / "saved")
    assert Tokenizer.from_directory(tmp_path / "saved").encode(["dog mat cat"]) == [[7, 9, 8]]


def test_named_special_tokens(tmp_path):
    (tmp_path / "vocab.txt").write_text("<pad>\n<unk>\n<s>\n</s>\n<mask>\ncat\n")
    names = {"pad_token": "<pad>", "unk_token": {"content": "<unk>"}, "cls_token": "<s>", "sep_token": "</s>"}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(names))
    (tmp_path / "tokenizer_config.json").write_text('{"mask_token": "<mask>"}')
    tokenizer = Tokenizer.from_directory(tmp_path)
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id) == (0, 1, 2)
    assert (tokenizer.sep_id, tokenizer.mask_id) == (3, 4)
    assert tokenizer.encode(["cat cow"]) == [[5, 1]]


SPECIAL_LINES = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"
BAD_FILES = {
    "no file": ({}, "needs vocab.txt or tokenizer.json"),
    "sentencepiece": ({"spiece.model": b"x"}, "SentencePiece"),
    "empty": ({"vocab.txt": b""}, "empty"),
    "blank": ({"vocab.txt": b"\n\n"}, "empty"),
    "binary": ({"vocab.txt": b"[PAD]\n\xff\xfe\n"}, "vocab.txt:2: not UTF-8"),
    "no specials": ({"vocab.txt": b"[PAD]\n[UNK]\ncat\n"}, r"lacks \[SEP\], \[CLS\], \[MASK\]"),
    "bad config": (
        {"vocab.txt": SPECIAL_LINES.encode(), "tokenizer_config.json": b"{"},
        "tokenizer_config.json: not valid",
    ),
    "config list": (
        {"vocab.txt": SPECIAL_LINES.encode(), "tokenizer_config.json": b"[]"},
        "expected a JSON object",
    ),
    "wrong type": (
        {"vocab.txt": SPECIAL_LINES.encode(), "tokenizer_config.json": b'{"do_lower_case": "no"}'},
        "must be true or false",
    ),
    "bad added token": (
        {
            "vocab.txt": SPECIAL_LINES.encode(),
            "tokenizer_config.json": b'{"added_tokens_decoder": {"9": {"content": "x"}}}',
        },
        "should have id 9",
    ),
    "bad added id": (
        {
            "vocab.txt": SPECIAL_LINES.encode(),
            "tokenizer_config.json": b'{"added_tokens_decoder": {"x": "y"}}',
        },
        "where an id should be",
    ),
    "broken fast file": ({"tokenizer.json": b"{}"}, "not a tokenizer"),
    "cut fast file": ({"tokenizer.json": b'{"version": "1.0", '}, "not valid JSON"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_one_line(tmp_path, case):
    files, message = BAD_FILES[case]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        Tokenizer.from_directory(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_missing_directory(tmp_path):
    with pytest.raises(UserError, match="no such directory"):
        Tokenizer.from_directory(tmp_path / "nowhere")


def test_tokenizer_json_that_cannot_change_case(tmp_path):
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers

    specials = {
        token: index for index, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat"])
    }
    backend = Backend(models.WordLevel(specials, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.from_directory(tmp_path).encode(["cat Cat"]) == [[5, 1]]
    with pytest.raises(UserError, match="leave --do_lower_case away"):
        Tokenizer.from_directory(tmp_path, do_lower_case=True)
