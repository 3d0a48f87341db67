"""run_augment.py from files to files, with a model whose predictions are known: its bias alone decides."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from bert_emd_jax.checkpoints.model_directory import LoadedModel, save_model
from bert_emd_jax.commands import augment
from bert_emd_jax.data.readers import read_split
from bert_emd_jax.data.tasks import get_task
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.initialization import initial_params
from bert_emd_jax.tokenization.tokenizer import Tokenizer

LIKELIEST = ["plot", "film", "great", "bad", "sad", "the"]
MRPC: str = """\
Quality\t#1 ID\t#2 ID\t#1 String\t#2 String
1\t7\t8\tThe movie is "good" , Amrozi !\tthe actor is not so good
0\t9\t10\tdull hating\tit was so
"""
MRPC_WORDS = {"movie", "good", "actor", "dull"}  # of one token each
VECTORS = "hating 1 0 0.1\nhates 1 0.1 0\nloving 1 0.2 0\ndog 0 1 0\n"


@pytest.fixture(scope="module")
def masked_lm(tmp_path_factory, vocabulary) -> Path:
    """A model directory; the likeliest tokens are no words, then come LIKELIEST in their order."""
    directory = tmp_path_factory.mktemp("masked_lm")
    (directory / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    config = EncoderConfig(
        vocab_size=len(vocabulary),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=48,
    )
    params = initial_params(config, "masked_lm", 0)
    bias = np.zeros(len(vocabulary), np.float32)
    order = ["##ing", "[SEP]", ".", *LIKELIEST]
    bias[[vocabulary.index(token) for token in order]] = 100.0 * np.arange(len(order), 0, -1)
    params["lm_bias"] = bias
    save_model(directory / "model", LoadedModel(config, params, Tokenizer.from_directory(directory)))
    return directory / "model"


@pytest.fixture
def mrpc(tmp_path) -> Path:
    directory = tmp_path / "glue" / "MRPC"
    directory.mkdir(parents=True)
    (directory / "train.tsv").write_text("\ufeff" + MRPC, encoding="utf-8")
    return directory


def run(model: Path, *flags: object) -> int:
    return augment.main([str(flag) for flag in ("--bert_model", model, *flags)])


def cells_of(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text().splitlines()]


def refused(capsys, *flags: object) -> str:
    """The one line of a refusal."""
    capsys.readouterr()
    assert run(*flags) == 2  # pyright: ignore[reportArgumentType]
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_pairs(tmp_path, masked_lm, mrpc, capsys):
    (tmp_path / "vectors.txt").write_text(VECTORS)
    flags = ("--data_dir", mrpc, "--task_name", "mrpc", "--M", 3, "--glove_embs", tmp_path / "vectors.txt")
    assert run(masked_lm, *flags) == 0
    header, *rows = cells_of(mrpc / "train_aug.tsv")
    assert header == MRPC.splitlines()[0].split("\t")
    originals = [line.split("\t") for line in MRPC.splitlines()[1:]]
    assert rows[0] == originals[0]
    second = rows.index(originals[1])
    for original, variants in ((originals[0], rows[1:second]), (originals[1], rows[second + 1 :])):
        assert len({tuple(row) for row in variants}) == len(variants) > 5
        changed = []
        for row in variants:
            assert row[:3] == original[:3]
            # One text of the two is the row's own, whole: a variant never meets another variant.
            changed.append([column for column in (3, 4) if row[column] != original[column]])
            assert len(changed[-1]) == 1
            (column,) = changed[-1]
            for old, new in zip(original[column].split(), row[column].split(), strict=True):
                if old != new:
                    plain = old.strip('"')
                    likely = [word for word in LIKELIEST if word != plain][:3]
                    likely = ["hates", "loving", "dog"] if plain == "hating" else likely
                    assert new.strip('"') in likely
                    assert plain in MRPC_WORDS | {"hating"}
        assert changed == sorted(changed)  # those of the first text come first
    second_words = {row[3].split()[1] for row in rows[second + 1 :]}
    assert len(second_words) > 2
    assert second_words <= {"hating", "hates", "loving", "dog"}
    assert {row[4] for row in rows[second + 1 :]} == {"it was so"}  # stop words alone
    printed = capsys.readouterr().out
    assert "4 different texts: 5 by the masked-language model, 1 by word vectors; 1 others" in printed
    assert f"train_aug.tsv: 2 rows became {len(rows)}" in printed

    examples = read_split(get_task("mrpc"), mrpc, "train", aug_train=True)
    assert examples.texts_a == [row[3] for row in rows]
    assert examples.labels is not None
    assert examples.labels.tolist() == [int(row[0]) for row in rows]


def test_the_seed_decides_and_batches_do_not(tmp_path, masked_lm, mrpc, capsys):
    def augmented(*flags: object) -> bytes:
        assert run(masked_lm, "--glue_dir", mrpc.parent, "--task_name", "MRPC", "--overwrite", *flags) == 0
        return (mrpc / "train_aug.tsv").read_bytes()

    first = augmented("--batch_size", 1)
    assert augmented("--batch_size", 64) == first
    assert augmented("--seed", 1) != first
    # A row's variants do not depend on the rows before it.
    header, _, second = MRPC.splitlines()
    (mrpc / "train.tsv").write_text(f"{header}\n1\t7\t8\tso\tso\n{second}\n")
    rows = [line for line in first.decode().splitlines() if line.startswith("0\t9")]
    assert augmented().decode().splitlines()[2:] == rows
    capsys.readouterr()


def test_how_many_variants(tmp_path, masked_lm, capsys):
    """CoLA has no header, a table of its own for the number of draws, and --N overrules it."""
    directory = tmp_path / "CoLA"
    directory.mkdir()
    sentence = "great movie , bad actor , dull plot , sad film ."
    (directory / "train.tsv").write_text(f"gj04\t1\t\t{sentence}\n")
    flags = ("--data_dir", directory, "--task_name", "cola", "--overwrite")
    for more, most in (((), 30), (("--N", 3), 3), (("--samples", 3, "--p", 1), 3), (("--p", 1e-9), 0)):
        assert run(masked_lm, *flags, *more) == 0
        first, *variants = cells_of(directory / "train_aug.tsv")
        assert first == ["gj04", "1", "", sentence]
        assert most - 2 <= len(variants) <= most
        assert all(row[:3] == first[:3] and row[3] != sentence for row in variants)
    capsys.readouterr()


def test_custom_tasks_in_csv_and_json_lines(tmp_path, masked_lm, capsys):
    table = [["id", "text", "label"], ["1", 'the movie\nwas "dull"', "pos"], ["2", "so , so", "neg"]]
    for name in ("csv", "jsonl"):
        (tmp_path / name).mkdir()
    with (tmp_path / "csv" / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows(table)
    objects = [dict(zip(table[0], row, strict=True)) | {"more": [1]} for row in table[1:]]
    (tmp_path / "jsonl" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in objects))
    for name in ("csv", "jsonl"):
        output = tmp_path / f"{name}_out"
        flags = ("--data_dir", tmp_path / name, "--task_name", "custom", "--output_dir", output, "--N", 4)
        assert run(masked_lm, *flags) == 0
    with (tmp_path / "csv_out" / "train_aug.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    lines = (tmp_path / "jsonl_out" / "train_aug.jsonl").read_text().splitlines()
    assert rows[:2] == table[:2]
    assert rows[-1] == table[2]
    assert 4 <= len(rows) <= 7
    assert [list(map(json.loads(line).get, table[0])) for line in lines] == rows[1:]
    assert all(json.loads(line)["more"] == [1] for line in lines)
    assert not (tmp_path / "csv" / "train_aug.csv").exists()
    capsys.readouterr()


def test_nothing_is_replaced_unasked(masked_lm, mrpc, capsys):
    (mrpc / "train_aug.tsv").write_text("mine")
    error = refused(capsys, masked_lm, "--data_dir", mrpc, "--task_name", "mrpc")
    assert "train_aug.tsv: is there already; --overwrite replaces it" in error
    assert (mrpc / "train_aug.tsv").read_text() == "mine"


def test_a_model_without_the_head_is_refused(tmp_path, tiny_model_dir, mrpc, capsys):
    error = refused(capsys, tiny_model_dir("classifier"), "--data_dir", mrpc, "--task_name", "mrpc")
    assert "has no masked-LM head" in error
    assert not (mrpc / "train_aug.tsv").exists()


def test_a_dry_run_counts_and_writes_nothing(tmp_path, masked_lm, mrpc, capsys):
    flags = ("--data_dir", mrpc, "--task_name", "mrpc", "--N", 7, "--output_dir", tmp_path / "new" / "place")
    assert run(masked_lm, *flags, "--dry_run") == 0
    said = capsys.readouterr().out
    assert "train.tsv: 2 rows, 4 different texts" in said
    # Each of the two rows, and seven variants of each of its two texts.
    assert "train_aug.tsv: would get 30 rows at most, 7 variants of each text" in said
    assert not (tmp_path / "new").exists()


def test_wrong_input_is_one_line(tmp_path, masked_lm, mrpc, capsys):
    task = ("--task_name", "mrpc")
    for flags, words in (
        (("--data_dir", tmp_path, *task), "train.tsv: no such file"),
        (("--data_dir", mrpc, "--task_name", "nosuch"), "no such task"),
        (("--data_dir", mrpc, "--task_name", "ax"), "no train split"),
        (("--data_dir", "tfds", *task), "name a directory"),
        (("--data_dir", mrpc, *task, "--glove_embs", tmp_path / "none.txt"), "none.txt: no such file"),
        (("--data_dir", mrpc, *task, "--output_dir", mrpc / "train.tsv"), "is a file"),
        (("--data_dir", mrpc, *task, "--N", 0), "--samples 0: must be at least 1"),
        (("--data_dir", mrpc, *task, "--p", 1.5), "--probability 1.5"),
        (("--data_dir", mrpc, *task, "--p", "nan"), "--probability nan"),
        (("--data_dir", mrpc, *task, "--seed", -1), "--seed -1"),
        (("--data_dir", mrpc, "--glue_dir", mrpc, *task), "one of --data_dir and --glue_dir"),
        (task, "one of --data_dir and --glue_dir"),
    ):
        assert words in refused(capsys, masked_lm, *flags)
    (mrpc / "train.tsv").write_text(MRPC + "1\t2\n")
    assert "train.tsv:4: 2 columns" in refused(capsys, masked_lm, "--data_dir", mrpc, *task)
    assert [path.name for path in mrpc.iterdir()] == ["train.tsv"]


def test_aug_train_without_the_file_is_refused(mrpc):
    with pytest.raises(UserError, match=r"train_aug\.tsv: no such file"):
        read_split(get_task("mrpc"), mrpc, "train", aug_train=True)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ('text,label\nthe movie is good,"b,a"\ndull hating,\n', {}),
        ("text,a,b\nthe movie is good,1,1\ndull hating,0,0\n", {"label_columns": ("a", "b")}),
    ],
)
def test_copies_keep_their_sets_of_labels(tmp_path, masked_lm, text, columns):
    (tmp_path / "train.csv").write_text(text)
    named = [word for name, labels in columns.items() for word in (f"--{name}", ",".join(labels))]
    flags = ("--data_dir", tmp_path, "--task_name", "custom", "--kind", "multi_label", *named)
    assert run(masked_lm, *flags, "--samples", 3, "--p", 1) == 0
    task = get_task("custom", data_dir=tmp_path, kind="multi_label", **columns)
    examples = read_split(task, tmp_path, "train", aug_train=True)
    assert examples.labels is not None
    assert len(examples) > 2
    labels = examples.labels.tolist()
    of_first = labels.count([1, 1])
    assert of_first > 1
    assert labels == [[1, 1]] * of_first + [[0, 0]] * (len(labels) - of_first)


def test_a_roberta_proposes_whole_words(tmp_path, mrpc):
    """Its tokens are bytes: a word begins with a space, which stays where it is."""
    pytest.importorskip("torch")
    from family_models import write_merges

    text = "\n".join(f" {line}" for line in [" plot films café", *MRPC.replace("\t", " ").splitlines()] * 9)
    size = write_merges(tmp_path / "merges", text)
    tokenizer = Tokenizer.from_directory(tmp_path / "merges")
    config = EncoderConfig(
        vocab_size=size,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=50,
        pad_token_id=1,
        model_type="roberta",
    )
    params = initial_params(config, "masked_lm", 0)
    bias = np.zeros(size, np.float32)
    names = tokenizer.tokens()
    order = ["<s>", "ing", "Ġ.", "Ġcaf\u00c3\u00a9", "Ġplot", "Ġfilms"]
    bias[[names.index(name) for name in order if name in names]] = 100.0
    params["lm_bias"] = bias
    save_model(tmp_path / "model", LoadedModel(config, params, tokenizer))
    assert run(tmp_path / "model", "--data_dir", mrpc, "--task_name", "mrpc", "--M", 6) == 0
    _, *rows = cells_of(mrpc / "train_aug.tsv")
    known = {tokenizer.word_of(name).casefold() for name in names}
    originals = [line.split("\t") for line in MRPC.splitlines()[1:]]
    proposed = set()
    for row in rows:
        original = originals[0 if row[0] == "1" else 1]
        for column in (3, 4):
            for old, new in zip(original[column].split(), row[column].split(), strict=True):
                proposed |= {new.strip('"').casefold()} if old != new else set()
    assert {"plot", "films", "café"} <= proposed <= known
