"""A trimmed tokenizer splits the texts it was made for as before, and others without losing a character."""

import random
from pathlib import Path

import pytest
import sentencepiece
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from bert_emd_jax.errors import UserError
from bert_emd_jax.tokenization.tokenizer import Tokenizer
from bert_emd_jax.tokenization.trimming import trim_tokenizer

from .test_sentencepiece import BERT_NAMES, FIRST_IDS

ROOTS = [
    *("walk", "talk", "run", "sing", "read", "write", "paint", "jump", "climb"),
    *("think", "speak", "listen", "hear", "see", "dream", "play", "work"),
]
ENDINGS = ("", "s", "ing", "er", "ers", "able", "ness", "fully")


def sentences(seed: int, count: int, roots: list[str]) -> list[str]:
    draw = random.Random(seed)
    return [
        " ".join(f"{draw.choice(roots)}{draw.choice(ENDINGS)}" for _ in range(draw.randint(3, 9)))
        for _ in range(count)
    ]


CORPUS = sentences(0, 400, ROOTS)


def wordpiece(directory: Path) -> Path:
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=250, special_tokens=specials))
    vocabulary = sorted(backend.get_vocab().items(), key=lambda entry: entry[1])
    (directory / "vocab.txt").write_text("".join(f"{token}\n" for token, _ in vocabulary))
    return directory


def byte_level(directory: Path) -> Path:
    pytest.importorskip("transformers")
    from family_models import write_merges

    write_merges(directory, "\n".join(CORPUS))
    return directory


def unigram(directory: Path) -> Path:
    (directory / "corpus.txt").write_text("\n".join(CORPUS))
    sentencepiece.SentencePieceTrainer.train(
        input=str(directory / "corpus.txt"),
        model_prefix=str(directory / "spiece"),
        vocab_size=150,
        hard_vocab_limit=False,
        user_defined_symbols=["[MASK]"],
        minloglevel=2,
        **FIRST_IDS,
        **BERT_NAMES,
    )
    return directory


@pytest.mark.parametrize("make", [wordpiece, byte_level, unigram])
def test_texts_are_split_as_before(tmp_path: Path, make):
    directory = tmp_path / "whole"
    directory.mkdir()
    whole = Tokenizer.from_directory(make(directory))
    texts = sentences(1, 60, ROOTS[:5])
    trimmed, kept, used = trim_tokenizer(whole, texts)
    assert used < len(kept) < 0.8 * whole.vocab_size
    assert trimmed.vocab_size == len(kept)
    trimmed.save(tmp_path / "saved", for_pytorch=True)
    read = Tokenizer.from_directory(tmp_path / "saved")
    second_texts = list(whole.in_sentence(texts))
    for tokenizer in (trimmed, read):
        for given in (texts, second_texts):
            ids = [[kept[index] for index in row] for row in tokenizer.encode(given)]
            assert ids == whole.encode(given)
        assert kept[tokenizer.mask_id] == whole.mask_id
        assert kept[tokenizer.pad_id] == whole.pad_id
    # Words that were never there are spelled with what is left.
    others = sentences(2, 60, ROOTS[5:])
    spelled = [[trimmed.tokens()[index] for index in row] for row in trimmed.encode(others)]
    assert sum(map(len, spelled)) > sum(map(len, whole.encode(others)))
    if make is not unigram:  # where the library joins what is unknown
        assert trimmed.unk_id not in {index for row in trimmed.encode(others) for index in row}


@pytest.mark.parametrize("make", [wordpiece, byte_level])
def test_transformers_reads_it_alike(tmp_path: Path, make):
    transformers = pytest.importorskip("transformers")
    (tmp_path / "whole").mkdir()
    whole = Tokenizer.from_directory(make(tmp_path / "whole"))
    trimmed, *_ = trim_tokenizer(whole, sentences(1, 60, ROOTS[:5]))
    trimmed.save(tmp_path / "saved", for_pytorch=True)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    for text in sentences(3, 40, ROOTS):
        assert theirs(text, add_special_tokens=False)["input_ids"] == trimmed.encode([text])[0]
        assert theirs(text)["input_ids"][0] == trimmed.cls_id


def test_another_kind_is_refused(tmp_path: Path):
    (tmp_path / "whole").mkdir()
    whole = Tokenizer.from_directory(wordpiece(tmp_path / "whole"))
    words = tokenizers.Tokenizer(models.WordLevel({f"{t}": i for i, t in enumerate(whole.tokens())}, "[UNK]"))
    other = whole.with_backend(words, range(whole.vocab_size))
    with pytest.raises(UserError, match="of kind WordLevel cannot be trimmed"):
        trim_tokenizer(other, ["walk"])
