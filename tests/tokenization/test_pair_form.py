"""Byte-level BPE, and pairs of other families, against transformers' own tokenizers."""

import json
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from bert_emd_jax.encoding.dataset import assemble
from bert_emd_jax.errors import UserError
from bert_emd_jax.tokenization.comparison import reads_the_same
from bert_emd_jax.tokenization.pair_form import BERT_PAIRS, ROBERTA_PAIRS, PairForm, declared_pairs
from bert_emd_jax.tokenization.tokenizer import Tokenizer

from .test_sentencepiece import train
from .test_tokenizer import ODD_TEXTS

transformers = pytest.importorskip("transformers")

from family_models import write_merges

SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
TEXTS = [*ODD_TEXTS, " leading and trailing ", "a<mask>", "don't 1,000 stop", "</s><s>"]


@pytest.fixture(scope="module")
def merges(tmp_path_factory) -> Path:
    """vocab.json and merges.txt of a small RoBERTa."""
    directory = tmp_path_factory.mktemp("merges")
    words = ["the", "cat", "sat", "on", "a", "mat", "while", "dogs", "were", "running", "don't", "stop"]
    lines = [" ".join(random.Random(row).choices(words, k=8)) for row in range(200)]
    write_merges(directory, "\n".join(lines))
    return directory


def as_pairs(ours: Tokenizer, a: str, b: str | None, length: int) -> list[int]:
    ids_a, *ids_b = ours.encode([a] if b is None else [a, b])
    return assemble(ours, ids_a, ids_b[0] if ids_b else None, length)[0]


def assert_same_pairs(ours: Tokenizer, theirs: Any, words: list[str]) -> None:
    """Random pairs and single texts, most of them truncated."""
    draw = random.Random(0)
    for _ in range(300):
        a, b = (" ".join(draw.choices(words, k=draw.randint(0, 12))) for _ in range(2))
        length = draw.randint(8, 20)
        # As a batch: a single pair whose second text is empty would be taken for one text.
        expected = theirs([a], [b], truncation=True, max_length=length)["input_ids"][0]
        assert as_pairs(ours, a, b, length) == expected
        expected = theirs(a, truncation=True, max_length=length)["input_ids"]
        assert as_pairs(ours, a, None, length) == expected


@pytest.mark.parametrize("form", ["merges", "fast", "saved", "travelled"])
def test_robertas_tokenizer(merges: Path, tmp_path: Path, form: str):
    theirs = transformers.RobertaTokenizer.from_pretrained(merges)
    ours = Tokenizer.from_directory(merges)
    if form == "fast":
        theirs.save_pretrained(tmp_path)
        for name in ("vocab.json", "merges.txt"):
            (tmp_path / name).unlink(missing_ok=True)
        ours = Tokenizer.from_directory(tmp_path)
    elif form == "saved":
        ours.save(tmp_path)
        ours = Tokenizer.from_directory(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta"}))
        again = transformers.AutoTokenizer.from_pretrained(tmp_path)
        assert "token_type_ids" not in again("a cat", "the mat")
        assert again("a cat", "the mat") == theirs("a cat", "the mat")
        spans = again("a cat sat", return_offsets_mapping=True)["offset_mapping"]
        assert spans == theirs("a cat sat", return_offsets_mapping=True)["offset_mapping"]
    elif form == "travelled":
        ours = pickle.loads(pickle.dumps(ours))
    assert ours.pairs == ROBERTA_PAIRS
    assert ours.encode(TEXTS) == [theirs.encode(text, add_special_tokens=False) for text in TEXTS]
    assert [ours.cls_id, ours.pad_id, ours.sep_id, ours.unk_id, ours.mask_id] == theirs.convert_tokens_to_ids(
        SPECIALS
    )
    assert (ours.vocab_size, ours.word_start) == (len(theirs), "Ġ")
    # Published RoBERTas give the space before a mask to it, transformers 5 does not if files are silent.
    spaced = [ours.mask_id] if form != "fast" else theirs.encode(" <mask>", add_special_tokens=False)
    assert ours.encode([" <mask>"]) == [spaced]
    assert_same_pairs(ours, theirs, ["cat", "dogs", "running", "don't", "Zürich", "🙂"])
    for text, encoding in zip(TEXTS, ours.encode_with_offsets(TEXTS), strict=True):
        expected = theirs(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        assert encoding.offsets == expected


def test_words_of_a_sentence_begin_with_a_space(merges: Path):
    words = ["The", "cats", ",", "don't", " spaced", "Zürich"]
    theirs = transformers.RobertaTokenizer.from_pretrained(merges, add_prefix_space=True)
    encoding = theirs(words, is_split_into_words=True, add_special_tokens=False)
    ours = Tokenizer.from_directory(merges)
    found = ours.encode(ours.in_sentence(words))
    assert [index for of_word in found for index in of_word] == encoding["input_ids"]
    assert [ours.word_of(token) for token in ("Ġcat", "cat", "ĠcafÃ©", "Ġ")] == ["cat", "", "café", ""]
    assert [len(of_word) for of_word in found] == [encoding.word_ids().count(n) for n in range(len(words))]


@pytest.mark.parametrize("form", ["model", "fast"])
def test_xlm_robertas_pairs(tmp_path: Path, form: str):
    plain = {"pad_id": -1, "unk_id": 0, "bos_id": 1, "eos_id": 2, "unk_piece": "<unk>"}
    plain |= {"bos_piece": "<s>", "eos_piece": "</s>", "user_defined_symbols": []}
    path = train(tmp_path, "sentencepiece.bpe.model", **plain)
    theirs = transformers.XLMRobertaTokenizer.from_pretrained(tmp_path)
    if form == "fast":
        path.unlink()
        theirs.save_pretrained(tmp_path)
    ours = Tokenizer.from_directory(tmp_path)
    assert ours.pairs == ROBERTA_PAIRS
    assert_same_pairs(ours, theirs, ["cat", "dogs", "running", "café"])


@pytest.mark.parametrize("name", ["DistilBertTokenizer", "ElectraTokenizer"])
def test_berts_tokenizer_under_another_name(vocabulary_directory: Path, tmp_path: Path, name: str):
    shutil.copy(vocabulary_directory / "vocab.txt", tmp_path)
    theirs = getattr(transformers, name).from_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path / "saved")
    ours = Tokenizer.from_directory(tmp_path / "saved")
    bert = Tokenizer.from_directory(vocabulary_directory)
    assert ours.fingerprint == bert.fingerprint
    assert as_pairs(ours, "the cat", "a mat", 16) == theirs("the cat", "a mat")["input_ids"]
    ours.save(tmp_path / "without", with_segments=False)
    (tmp_path / "without" / "config.json").write_text(json.dumps({"model_type": "distilbert"}))
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "without")
    assert set(again("the cat", "a mat")) == {"input_ids", "attention_mask"}


def test_other_templates():
    def template(*parts: tuple[str, int]) -> dict[str, Any]:
        kinds = ("Sequence" if name in "AB" else "SpecialToken" for name, _ in parts)
        pair = [{kind: {"id": name, "type_id": n}} for kind, (name, n) in zip(kinds, parts, strict=True)]
        return {"post_processor": {"type": "TemplateProcessing", "pair": pair}}

    ours = [("[CLS]", 0), ("A", 0), ("[SEP]", 0), ("B", 1), ("[SEP]", 1)]
    assert declared_pairs({}, template(*ours)) == BERT_PAIRS
    flat = [(name, 0) for name, _ in ours]
    assert declared_pairs({}, template(*flat)) == PairForm(1, False)
    assert declared_pairs({}, template(*flat[:3], ("[SEP]", 0), *flat[3:])) == ROBERTA_PAIRS
    for other in (ours[1:], [*ours[:3], ("[CLS]", 0), *ours[3:]], [*ours[:2], ours[3], ours[2], ours[4]], []):
        assert declared_pairs({}, template(*other)) is None
    assert declared_pairs({"tokenizer_class": "RobertaTokenizerFast"}) == ROBERTA_PAIRS
    assert declared_pairs({"tokenizer_class": "BertTokenizer"}) == BERT_PAIRS


def test_tokenizers_are_compared_by_what_they_do(merges: Path, vocabulary_directory: Path, tmp_path: Path):
    ours = Tokenizer.from_directory(merges)
    ours.save(tmp_path / "fast")
    description = json.loads((tmp_path / "fast" / "tokenizer.json").read_text())
    description["pre_tokenizer"]["trim_offsets"] = not description["pre_tokenizer"]["trim_offsets"]
    (tmp_path / "fast" / "tokenizer.json").write_text(json.dumps(description))
    same = Tokenizer.from_directory(tmp_path / "fast")
    assert same.fingerprint != ours.fingerprint  # they say it otherwise, and do the same
    assert reads_the_same(ours, same)
    description["pre_tokenizer"]["add_prefix_space"] = True
    (tmp_path / "fast" / "tokenizer.json").write_text(json.dumps(description))
    assert not reads_the_same(ours, Tokenizer.from_directory(tmp_path / "fast"))
    lower, cased = (Tokenizer.from_directory(vocabulary_directory, lowers) for lowers in (True, False))
    assert not reads_the_same(lower, cased)
    assert not reads_the_same(lower, ours)


def test_damaged_merges_are_one_line(merges: Path, tmp_path: Path):
    shutil.copy(merges / "vocab.json", tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\nqq zz\n")
    with pytest.raises(UserError, match=r"merges.txt: not the merges of vocab.json"):
        Tokenizer.from_directory(tmp_path)
