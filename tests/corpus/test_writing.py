"""The files that run_pretrain_data.py writes, and what it refuses."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from corpora import numbered_corpus, write_corpus

from bert_emd_jax.commands.pretrain_data import main
from bert_emd_jax.corpus.pretraining_examples import ExampleSettings
from bert_emd_jax.corpus.writing import write_epochs


@pytest.fixture(scope="module")
def text_corpus(tmp_path_factory) -> Path:
    """More sentences than one block holds."""
    generator = np.random.default_rng(0)
    words = ["the", "a", "cat", "sat", "unaffable", "running", "café", "Berlin", "中文", "🙂", '"x"', "\\"]
    lines = []
    for _ in range(1500):
        for _ in range(generator.integers(1, 25)):
            lines.append(" ".join(generator.choice(words, generator.integers(1, 12))))
        lines.append("")
    return write_corpus(tmp_path_factory.mktemp("corpus"), "\n".join(lines))


def flags(corpus: Path, model: Path, output: Path, *more: str) -> list[str]:
    given = [
        "--train_corpus",
        corpus,
        "--bert_model",
        model,
        "--output_dir",
        output,
        "--epochs_to_generate",
        2,
    ]
    return [*map(str, given), "--max_seq_len", "64", *more]


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


MASKING = ("--masked_lm_prob", "0.15", "--do_whole_word_mask")


def test_files_are_the_original_ones(tmp_path, text_corpus, vocabulary_directory, capsys):
    assert main(flags(text_corpus, vocabulary_directory, tmp_path / "out", "--do_lower_case", *MASKING)) == 0
    files = files_of(tmp_path / "out")
    names = [f"epoch_{epoch}{kind}.json" for epoch in (0, 1) for kind in ("", "_metrics")]
    assert list(files) == [*names, "pretraining_data.json"]
    vocabulary = set((vocabulary_directory / "vocab.txt").read_text(encoding="utf-8").split("\n"))
    for epoch in (0, 1):
        lines = files[f"epoch_{epoch}.json"].decode("ascii").splitlines()
        metrics = json.loads(files[f"epoch_{epoch}_metrics.json"])
        assert metrics == {"num_training_examples": len(lines), "max_seq_len": 64}
        for line in lines:
            record = json.loads(line)
            assert json.dumps(record) == line
            assert list(record) == [
                "tokens",
                "segment_ids",
                "is_random_next",
                "masked_lm_positions",
                "masked_lm_labels",
            ]
            tokens, segment_ids = record["tokens"], record["segment_ids"]
            assert len(tokens) == len(segment_ids) <= 64
            assert segment_ids == sorted(segment_ids)
            assert tokens[segment_ids.count(0) - 1] == "[SEP]"
            assert set(tokens) <= vocabulary
            positions = record["masked_lm_positions"]
            assert positions == sorted(set(positions))
            assert len(positions) == len(record["masked_lm_labels"]) > 0
            assert not {"[CLS]", "[SEP]"} & set(record["masked_lm_labels"])
    assert files["epoch_0.json"] != files["epoch_1.json"]
    assert "1500 documents" in capsys.readouterr().out


def test_files_do_not_depend_on_workers_or_memory(tmp_path, text_corpus, vocabulary_directory):
    ways = {
        "one": (),
        "reduced": ("--reduce_memory",),
        "two": ("--num_workers", "2"),
        "three reduced": ("--num_workers", "3", "--reduce_memory"),
        "other seed": ("--seed", "1"),
    }
    for name, more in ways.items():
        assert main(flags(text_corpus, vocabulary_directory, tmp_path / name, *MASKING, *more)) == 0
    expected = files_of(tmp_path / "one")
    assert len(expected["epoch_0.json"]) > 1_000_000
    for name in ("reduced", "two", "three reduced"):
        assert files_of(tmp_path / name) == expected
    assert files_of(tmp_path / "other seed")["epoch_0.json"] != expected["epoch_0.json"]


def test_shards_make_up_the_whole(tmp_path, text_corpus, vocabulary_directory):
    """More shards than blocks: one of them is empty."""
    assert main(flags(text_corpus, vocabulary_directory, tmp_path / "whole", *MASKING)) == 0
    for index in range(4):
        more = ("--shard", f"{index}/4", "--num_workers", str(1 + index % 2))
        assert main(flags(text_corpus, vocabulary_directory, tmp_path / "parts", *MASKING, *more)) == 0
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == [
        f"shard_{index}_of_4" for index in range(4)
    ]
    for epoch in (0, 1):
        parts = [tmp_path / "parts" / f"shard_{index}_of_4" / f"epoch_{epoch}.json" for index in range(4)]
        sizes = [part.stat().st_size for part in parts]
        assert min(sizes) == 0
        assert sorted(sizes)[1] > 100_000
        whole = (tmp_path / "whole" / f"epoch_{epoch}.json").read_bytes()
        assert b"".join(part.read_bytes() for part in parts) == whole


def test_without_masks(tmp_path, text_corpus, vocabulary_directory):
    assert main(flags(text_corpus, vocabulary_directory, tmp_path / "out", "--one_seq")) == 0
    for line in (tmp_path / "out" / "epoch_0.json").read_text().splitlines():
        record = json.loads(line)
        assert record["masked_lm_positions"] == record["masked_lm_labels"] == []
        assert "[MASK]" not in record["tokens"]
        first = record["tokens"].index("[SEP]") + 1
        assert record["segment_ids"] == [0] * first + [1] * (len(record["tokens"]) - first)
        assert record["tokens"].count("[SEP]") == 2
        assert not record["is_random_next"]


def test_lower_casing_is_the_tokenizers_unless_said(tmp_path, vocabulary_directory):
    corpus = write_corpus(tmp_path, "Berlin Berlin\n\nBerlin Berlin\n")
    for name, more, token in (("a", (), "berlin"), ("b", ("--no_do_lower_case",), "Berlin")):
        assert main(flags(corpus, vocabulary_directory, tmp_path / name, *more)) == 0
        assert f'"{token}"' in (tmp_path / name / "epoch_0.json").read_text()


def test_several_workers_need_a_directory():
    corpus, vocabulary = numbered_corpus([2, 2], [3])
    with pytest.raises(ValueError, match="corpus in a directory"):
        write_epochs(corpus, vocabulary, ExampleSettings(), [0], Path(), workers=2)


def refused(capsys, message, *arguments):
    assert main(flags(*arguments)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)


def test_what_is_wrong_is_one_line(tmp_path, text_corpus, vocabulary_directory, capsys):
    output = tmp_path / "out"
    model = vocabulary_directory
    refused(capsys, "--train_corpus .*no such file", tmp_path / "none", model, output)
    refused(capsys, "no such directory", text_corpus, tmp_path / "none", output)
    refused(capsys, "--masked_lm_prob 1.5", text_corpus, model, output, "--masked_lm_prob", "1.5")
    refused(capsys, "--num_workers 0", text_corpus, model, output, "--num_workers", "0")
    refused(capsys, "--seed -1", text_corpus, model, output, "--seed", "-1")
    refused(capsys, "--max_seq_len 4", text_corpus, model, output, "--max_seq_len", "4")
    refused(capsys, "not a directory", text_corpus, model, text_corpus)
    for shard in ("2/2", "1", "-1/2", "0/0", "a/b"):
        refused(capsys, f"--shard {shard}: must be I/N", text_corpus, model, output, f"--shard={shard}")
    refused(capsys, "give one of them", text_corpus, model, output, "--resume", "--overwrite")
    assert not output.exists()
    one_document = write_corpus(tmp_path, "the cat\nsat\n")
    refused(capsys, "no empty line between documents", one_document, model, output)
    assert list(output.iterdir()) == []


def test_overwriting_takes_its_own_files_only(tmp_path, text_corpus, vocabulary_directory, capsys):
    output = tmp_path / "out"
    output.mkdir()
    for name in ("epoch_7.json", "epoch_7_metrics.json", "epoch_notes.json", "mine.txt"):
        (output / name).write_text("mine")
    for name in (".corpus", "epoch_8", "epoch_9.partial", "epoch_notes"):
        (output / name).mkdir()
        (output / name / "tokens.bin").write_text("of a killed run")
    refused(capsys, "not empty; --resume .* --overwrite", text_corpus, vocabulary_directory, output)
    refused(capsys, "no pretraining_data.json", text_corpus, vocabulary_directory, output, "--resume")
    assert len(list(output.iterdir())) == 8
    bad = write_corpus(tmp_path, b"\xff\n")
    refused(capsys, r"corpus\.txt:1", bad, vocabulary_directory, output, "--overwrite")
    assert {path.name for path in output.iterdir()} == {"epoch_notes", "epoch_notes.json", "mine.txt"}
    assert main(flags(text_corpus, vocabulary_directory, output, "--overwrite")) == 0
    assert {path.name for path in output.iterdir()} == {
        "epoch_0.json",
        "epoch_0_metrics.json",
        "epoch_1.json",
        "epoch_1_metrics.json",
        "epoch_notes",
        "epoch_notes.json",
        "mine.txt",
        "pretraining_data.json",
    }
