"""Training batches of pretraining data, against the records of the JSON lines."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from corpora import SPECIALS, write_corpus

from bert_emd_jax.commands.pretrain_data import main
from bert_emd_jax.corpus.dataset import PregeneratedData
from bert_emd_jax.errors import UserError
from bert_emd_jax.tokenization.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    generator = np.random.default_rng(0)
    words = ["the", "a", "cat", "sat", "unaffable", "running", "café", "Berlin", "中文", "🙂", '"x"', "\\"]
    lines = []
    for _ in range(1200):
        for _ in range(generator.integers(1, 25)):
            lines.append(" ".join(generator.choice(words, generator.integers(1, 12))))
        lines.append("")
    return write_corpus(tmp_path_factory.mktemp("corpus"), "\n".join(lines))


@pytest.fixture(scope="module")
def generated(tmp_path_factory, corpus, vocabulary_directory) -> Path:
    """The same data in every form, each in a directory of its name."""
    directory = tmp_path_factory.mktemp("generated")
    for name, *more in (
        ("jsonl",),
        ("arrays", "--format", "arrays"),
        ("shards", "--shard", "0/3"),
        ("shards", "--shard", "1/3"),
        ("shards", "--shard", "2/3"),
        ("array_shards", "--format", "arrays", "--shard", "0/2"),
        ("array_shards", "--format", "arrays", "--shard", "1/2"),
        ("pairs_without_masks", "--format", "arrays", "--masked_lm_prob", "0"),
        ("one_seq", "--format", "arrays", "--one_seq", "--do_whole_word_mask"),
        ("one_seq_jsonl", "--one_seq", "--do_whole_word_mask"),
    ):
        given = ["--train_corpus", corpus, "--bert_model", vocabulary_directory]
        given += ["--output_dir", directory / name, "--epochs_to_generate", 2, "--max_seq_len", 48]
        assert main([*map(str, given), "--masked_lm_prob", "0.15", *more]) == 0
    return directory


def expected_batch(records, ids, length, padded_rows, most_masked):
    """What a batch of some records should be, row by row and token by token."""
    batch = {name: np.zeros((padded_rows, length), int) for name in ("attention_mask", "token_type_ids")}
    batch["input_ids"] = np.full((padded_rows, length), ids["[PAD]"])
    lm_labels = np.full((padded_rows, length), -1)
    batch["weights"] = np.zeros(padded_rows)
    for row, record in enumerate(records):
        for column, (token, segment) in enumerate(zip(record["tokens"], record["segment_ids"], strict=True)):
            batch["input_ids"][row, column] = ids[token]
            batch["attention_mask"][row, column] = 1
            batch["token_type_ids"][row, column] = segment
        for column, label in zip(record["masked_lm_positions"], record["masked_lm_labels"], strict=True):
            lm_labels[row, column] = ids[label]
        batch["weights"][row] = 1
    return batch | masked_of_dense(lm_labels, most_masked)


def masked_of_dense(lm_labels, most_masked):
    """Positions and labels of masked tokens from an array that has -1 at all other positions."""
    width = min(-(-most_masked // 4) * 4, lm_labels.shape[1])
    order = np.argsort(lm_labels == -1, axis=1, kind="stable")[:, :width]
    labels = np.take_along_axis(lm_labels, order, axis=1)
    return {"masked_positions": np.where(labels == -1, 0, order), "masked_labels": labels}


@pytest.mark.parametrize(
    ("name", "records_of"),
    [(name, "jsonl") for name in ("jsonl", "arrays", "shards", "array_shards")]
    + [("one_seq", "one_seq_jsonl")],
)
def test_batches_are_the_records(generated, tokenizer, name, records_of):
    ids = {token: index for index, token in enumerate(tokenizer.tokens())}
    data = PregeneratedData.open(generated / name, tokenizer)
    assert data.epochs == 2
    assert data.max_seq_len == 48
    for epoch in (0, 1, 4):
        lines = (generated / records_of / f"epoch_{epoch % 2}.json").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        dataset = data.epoch(epoch)
        assert len(dataset) == len(records) == data.example_count(epoch)
        assert dataset.lengths.tolist() == [len(record["tokens"]) for record in records]
        masked = [len(record["masked_lm_labels"]) for record in records]
        assert (dataset.masked_tokens, dataset.most_masked) == (sum(masked), max(masked))
        assert dataset.is_random_next.tolist() == [record["is_random_next"] for record in records]
        rows = np.random.default_rng(epoch).choice(len(records), 200, replace=False)
        batch = dataset.collate(rows, 50, 203)
        expected = expected_batch([records[row] for row in rows], ids, 50, 203, max(masked))
        assert batch.keys() == expected.keys()
        for key, values in expected.items():
            assert batch[key].dtype == (np.float32 if key == "weights" else np.int32)
            np.testing.assert_array_equal(batch[key], values, err_msg=key)


def test_collate_refuses_what_does_not_fit(generated, tokenizer):
    dataset = PregeneratedData.open(generated / "arrays", tokenizer).epoch(0)
    longest = int(np.argmax(dataset.lengths))
    with pytest.raises(ValueError, match="48 tokens does not fit into a length of 47"):
        dataset.collate(np.array([longest]), 47)
    with pytest.raises(ValueError, match="2 rows do not fit into a batch of 1"):
        dataset.collate(np.array([0, 1]), 48, 1)
    batch = dataset.collate(np.zeros(0, int), 8, 2)
    assert not batch["weights"].any()
    assert batch["masked_labels"].shape == (2, 8)
    assert (batch["masked_labels"] == -1).all()


def test_without_masks(generated, tokenizer):
    dataset = PregeneratedData.open(generated / "pairs_without_masks", tokenizer).epoch(0)
    assert dataset.masked_tokens == 0
    batch = dataset.collate(np.arange(len(dataset)), 48)
    assert "masked_labels" not in batch
    assert not (batch["input_ids"] == tokenizer.mask_id).any()
    assert 0.3 < dataset.is_random_next.mean() < 0.9


def test_arrays_are_plain_npy_files(generated, tokenizer):
    directory = generated / "arrays" / "epoch_1"
    arrays = {path.stem: np.load(path) for path in directory.iterdir()}
    assert {name: array.dtype.name for name, array in arrays.items()} == {
        "token_ids": "uint16",
        "lengths": "int32",
        "first_lengths": "int32",
        "is_random_next": "bool",
        "masked_counts": "int32",
        "masked_positions": "int32",
        "masked_labels": "uint16",
    }
    assert len(arrays["token_ids"]) == arrays["lengths"].sum()


def test_the_originals_own_files(generated, tokenizer, tmp_path):
    """They come without a description; their tokens are checked one by one."""
    record = {
        "tokens": ["[CLS]", "the", "[MASK]", "[SEP]", "sat", "[SEP]"],
        "segment_ids": [0, 0, 0, 0, 1, 1],
        "is_random_next": False,
        "masked_lm_positions": [2],
        "masked_lm_labels": ["cat"],
    }
    (tmp_path / "epoch_0.json").write_text(json.dumps(record) + "\n")
    (tmp_path / "epoch_0_metrics.json").write_text('{"num_training_examples": 1, "max_seq_len": 128}')
    batch = PregeneratedData.open(tmp_path, tokenizer).epoch(3).collate(np.array([0]), 8)
    the, cat, sat = (ids[0] for ids in tokenizer.encode(["the", "cat", "sat"]))
    assert batch["input_ids"].tolist() == [[2, the, 4, 3, sat, 3, 0, 0]]
    assert batch["masked_positions"].tolist() == [[2, 0, 0, 0]]
    assert batch["masked_labels"].tolist() == [[cat, -1, -1, -1]]


def test_masked_tokens_in_any_order(tokenizer, tmp_path):
    """Other programs may list them unsorted, or one of them twice: the last one counts."""
    generator = np.random.default_rng(0)
    words = ["the", "cat", "sat", "on", "mat"]
    ids = {token: index for index, token in enumerate(tokenizer.tokens())}
    lm_labels = np.full((40, 12), -1)
    records = []
    for labels in lm_labels:
        positions = generator.integers(0, 10, generator.integers(0, 7)).tolist()
        chosen = generator.choice(words, len(positions)).tolist()
        for position, word in zip(positions, chosen, strict=True):
            labels[position] = ids[word]
        record = {"tokens": ["the"] * 10, "segment_ids": [0] * 10, "is_random_next": False}
        records.append(record | {"masked_lm_positions": positions, "masked_lm_labels": chosen})
    most = max(len(record["masked_lm_labels"]) for record in records)
    (tmp_path / "epoch_0.json").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "epoch_0_metrics.json").write_text('{"num_training_examples": 40, "max_seq_len": 12}')
    batch = PregeneratedData.open(tmp_path, tokenizer).epoch(0).collate(np.arange(40), 12)
    for name, values in masked_of_dense(lm_labels, most).items():
        np.testing.assert_array_equal(batch[name], values)


def altered(**changes) -> str:
    record = {
        "tokens": ["[CLS]", "the", "[SEP]"],
        "segment_ids": [0, 0, 0],
        "is_random_next": False,
        "masked_lm_positions": [],
        "masked_lm_labels": [],
    }
    return json.dumps({key: value for key, value in (record | changes).items() if value is not None})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "no record"),
        ("[]", "no record"),
        ("", "no record"),
        (altered(tokens=None), "no record"),
        (altered(tokens=[]), "no record"),
        (altered(tokens=[["the"]] * 3), "no record"),
        (altered(segment_ids=[0, 0]), "no record"),
        (altered(segment_ids=[0, 1, 0]), "no record"),
        (altered(segment_ids={"0": 3}), "no record"),
        (altered(is_random_next="no"), "no record"),
        (altered(masked_lm_positions=[1]), "no record"),
        (altered(masked_lm_positions=[3], masked_lm_labels=["the"]), "no record"),
        (altered(masked_lm_positions=["1"], masked_lm_labels=["the"]), "no record"),
        (altered(tokens=["[CLS]", "strange", "[SEP]"]), "no token 'strange'"),
        (altered(masked_lm_positions=[1], masked_lm_labels=["strange"]), "no token 'strange'"),
        (altered(tokens=["the"] * 9, segment_ids=[0] * 9), "9 tokens, but the metrics say max_seq_len 8"),
        ("\udcff", "not valid UTF-8"),
    ],
)
def test_bad_records_are_named(tmp_path, tokenizer, line, message):
    text = f"{altered()}\n{line}\n{altered()}\n".encode(errors="surrogateescape")
    (tmp_path / "epoch_0.json").write_bytes(text)
    (tmp_path / "epoch_0_metrics.json").write_text('{"num_training_examples": 3, "max_seq_len": 8}')
    data = PregeneratedData.open(tmp_path, tokenizer)
    with pytest.raises(UserError, match=rf"epoch_0\.json:2: .*{message}"):
        data.epoch(0)


def copied(generated: Path, name: str, tmp_path: Path) -> Path:
    return shutil.copytree(generated / name, tmp_path / name)


def test_damaged_data(generated, tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"no such directory; bert-emd pretrain-data makes it"):
        PregeneratedData.open(tmp_path / "none", tokenizer)
    with pytest.raises(UserError, match=r"no pretraining data; bert-emd pretrain-data makes it"):
        PregeneratedData.open(tmp_path, tokenizer)
    jsonl = copied(generated, "jsonl", tmp_path)
    with (jsonl / "epoch_0.json").open("r+b") as file:
        file.truncate(file.read().rindex(b"{"))
    with pytest.raises(UserError, match=r"says (\d+) examples, there are"):
        PregeneratedData.open(jsonl, tokenizer).epoch(0)
    (jsonl / "epoch_1_metrics.json").write_text("{}")
    with pytest.raises(UserError, match=r"epoch_1_metrics\.json: no num_training_examples"):
        PregeneratedData.open(jsonl, tokenizer)
    (jsonl / "epoch_1_metrics.json").unlink()
    (jsonl / "epoch_1.partial").mkdir()
    with pytest.raises(UserError, match="epoch 1 is not complete"):
        PregeneratedData.open(jsonl, tokenizer)
    arrays = copied(generated, "arrays", tmp_path)
    with (arrays / "epoch_0" / "token_ids.npy").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(UserError, match=r"token_ids\.npy: cannot be read"):
        PregeneratedData.open(arrays, tokenizer).epoch(0)
    shutil.copy(arrays / "epoch_1" / "lengths.npy", arrays / "epoch_0")
    shutil.copy(arrays / "epoch_1" / "token_ids.npy", arrays / "epoch_0")
    with pytest.raises(UserError, match="do not have the same examples"):
        PregeneratedData.open(arrays, tokenizer).epoch(0)


def test_shards_that_do_not_belong_together(generated, tokenizer, tmp_path):
    shards = copied(generated, "shards", tmp_path)
    description = shards / "shard_1_of_3" / "pretraining_data.json"
    text = description.read_text()
    description.write_text(text.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(UserError, match="shard_1_of_3: made with another seed than shard_0_of_3"):
        PregeneratedData.open(shards, tokenizer)
    description.write_text(text)
    (shards / "shard_2_of_3" / "epoch_1_metrics.json").unlink()
    with pytest.raises(UserError, match="have 1 to 2 epochs"):
        PregeneratedData.open(shards, tokenizer)
    shutil.rmtree(shards / "shard_2_of_3")
    with pytest.raises(UserError, match=r"shard_2_of_3 is missing; .*--shard 2/3"):
        PregeneratedData.open(shards, tokenizer)
    shutil.copytree(generated / "array_shards", shards, dirs_exist_ok=True)
    with pytest.raises(UserError, match="more than one run"):
        PregeneratedData.open(shards, tokenizer)


@pytest.mark.parametrize("name", ["jsonl", "arrays", "shards"])
def test_another_vocabulary_is_refused(generated, tmp_path, name):
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIALS, "the", "cat"]))
    with pytest.raises(UserError, match="another vocabulary than this model's"):
        PregeneratedData.open(generated / name, Tokenizer.from_directory(tmp_path))
