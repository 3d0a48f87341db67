"""Distillation on rows without labels, alone and beside others: with alpha 1 the same as with labels."""

import csv
import json

import numpy as np
import pytest
from commands.test_answers import write_questions
from commands.test_programs import distill_flags, rows
from commands.test_tokens import write_sentences

from bert_emd_jax.checkpoints.model_directory import load_model, save_model
from bert_emd_jax.commands import distill
from bert_emd_jax.data.task_config import TaskConfig
from bert_emd_jax.data.tasks import get_task
from bert_emd_jax.encoding.task_data import read_unlabelled
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.initialization import NewHead


def without_labels(task_dir, directory):
    directory.mkdir()
    for path in task_dir.glob("*.csv"):
        (directory / path.name).write_bytes(path.read_bytes())
    with (task_dir / "train.csv").open(newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    (directory / "train.csv").write_text("\n".join(["text", *(f'"{text}"' for text in texts)]) + "\n")
    return directory


def test_texts_without_labels_teach_what_the_teacher_says(tmp_path, task_dir, tiny_model_dir, capsys):
    teacher, bare = tiny_model_dir("teacher"), without_labels(task_dir, tmp_path / "bare")
    labelled, unlabelled = tmp_path / "labelled", tmp_path / "unlabelled"
    assert distill.main(distill_flags(teacher, task_dir, labelled)) == 0
    assert distill.main(distill_flags(teacher, bare, unlabelled)) == 0
    ours, theirs = rows(unlabelled, "train"), rows(labelled, "train")
    losses = ([row["loss"] for row in run] for run in (ours, theirs))
    assert next(losses) == pytest.approx(next(losses), rel=1e-5)
    assert "hard_loss" in theirs[0]
    assert "hard_loss" not in ours[0]
    results = json.loads((unlabelled / "eval_results.json").read_text())
    assert results["labels"] == ["bad", "good"]  # the teacher's
    assert results["test"]["rows"] == 11
    # Labels that are wanted and not there.
    capsys.readouterr()
    assert distill.main(distill_flags(teacher, bare, tmp_path / "o", "--alpha", 0.5)) == 2
    assert "train.csv:1: no column 'label'" in capsys.readouterr().err


def halves(task_dir, directory, suffix):
    """The task with half of its training rows, and a file of the texts of the others."""
    directory.mkdir()
    for path in task_dir.glob("*.csv"):
        (directory / path.name).write_bytes(path.read_bytes())
    head, *lines = (task_dir / "train.csv").read_text().splitlines()
    (directory / "train.csv").write_text("\n".join([head, *lines[:20]]) + "\n")
    texts = [row["text"] for row in csv.DictReader([head, *lines[20:]])]
    written = {
        ".txt": "".join(f"{text}\n" for text in texts),
        ".jsonl": "".join(json.dumps({"text": text, "label": "nonsense"}) + "\n" for text in texts),
    }
    (directory / f"more{suffix}").write_text(written[suffix])
    return directory, directory / f"more{suffix}"


def test_further_rows_without_labels(tmp_path, task_dir, tiny_model_dir, capsys):
    teacher, cache = tiny_model_dir("teacher"), "memory"
    data, more = halves(task_dir, tmp_path / "halves", ".jsonl")
    flags = ("--unlabelled", more, "--teacher_cache", cache)
    assert distill.main(distill_flags(teacher, data, tmp_path / "half", *flags)) == 0
    assert "20 training rows and 17 without labels" in capsys.readouterr().out
    assert distill.main(distill_flags(teacher, task_dir, tmp_path / "all", "--teacher_cache", cache)) == 0
    ours, theirs = rows(tmp_path / "half", "train"), rows(tmp_path / "all", "train")
    # Alpha is 1: labels change nothing.
    assert [row["loss"] for row in ours] == pytest.approx([row["loss"] for row in theirs], rel=1e-6)
    assert ours[0]["hard_loss"] < theirs[0]["hard_loss"]  # of half of the rows
    # Other rows are another run.
    more.write_text(more.read_text().replace("the", "a", 1))
    (tmp_path / "half" / "eval_results.json").unlink()
    assert distill.main(distill_flags(teacher, data, tmp_path / "half", *flags, "--resume")) == 2
    assert "the training rows" in capsys.readouterr().err


def test_labels_count_where_they_are(tmp_path, task_dir, tiny_model_dir):
    data, more = halves(task_dir, tmp_path / "halves", ".txt")
    flags = ("--unlabelled", more, "--alpha", 0.25, "--beta", 0, "--max_steps", 1, "--train_batch_size", 64)
    flags += ("--student_dropout", 0, "--student_init_layers", "1,3")
    run = tmp_path / "run"
    assert distill.main(distill_flags(tiny_model_dir("teacher"), data, run, *flags)) == 0
    (row,) = rows(run, "train")
    # All rows are in the one batch: the labels' loss has 3/4 of 20 of 37 rows, the teacher's what is left.
    assert row["prediction_loss"] == pytest.approx(row["loss"])
    whole = distill_flags(tmp_path / "teacher", data, tmp_path / "known", *flags[2:])
    assert distill.main(whole) == 0
    (known,) = rows(tmp_path / "known", "train")
    assert row["hard_loss"] == pytest.approx(known["hard_loss"] * 20 / 37, rel=1e-5)
    soft_of_known = known["soft_loss"] * 20 / 37
    expected = row["soft_loss"] - 0.75 * soft_of_known + 0.75 * row["hard_loss"]
    assert row["loss"] == pytest.approx(expected, rel=1e-5)


def test_files_of_the_benchmarks_tasks(tmp_path):
    (tmp_path / "pairs.tsv").write_text("sentence1\tsentence2\na film\tthe plot\n")
    (tmp_path / "texts.csv").write_text("sentence,label\na film,9\n")
    (tmp_path / "texts.txt").write_text("a film\n")
    for name, file, texts in (
        ("mrpc", "pairs.tsv", (["a film"], ["the plot"])),
        ("sst-2", "texts.csv", (["a film"], None)),
        ("cola", "texts.txt", (["a film"], None)),
    ):
        config = TaskConfig(data_dir=tmp_path, task_name=name)
        examples = read_unlabelled(config, get_task(name), tmp_path / file)
        assert (examples.texts_a, examples.texts_b) == texts
        assert examples.labels is None
    with pytest.raises(UserError, match=r"a row of MRPC has two texts: name the columns"):
        read_unlabelled(
            TaskConfig(data_dir=tmp_path, task_name="mrpc"), get_task("mrpc"), tmp_path / "texts.txt"
        )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("more.txt", None, "no such file"),
        ("more.txt", "\n", "no rows"),
        ("more.xml", "x", "kind classification reads .tsv, .csv, .jsonl, .parquet, .txt"),
        ("more.csv", "words\na b\n", "no column 'text' or 'sentence'"),
        ("more.csv", "text,text\na,b\n", "2 columns are named 'text'"),
    ],
)
def test_mistakes_in_a_line(tmp_path, task_dir, tiny_model_dir, capsys, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    flags = distill_flags(tiny_model_dir("t"), task_dir, tmp_path / "o", "--unlabelled", tmp_path / name)
    assert distill.main(flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_words_without_labels_as_well(tmp_path, tiny_model_dir):
    data = write_sentences(tmp_path / "data", (("train", 30), ("dev", 10)))
    names = ("B-OTHER", "B-THING", "I-THING", "O")
    head = NewHead(4, seed=1, id2label=names, problem_type="token_classification")
    save_model(tmp_path / "teacher", load_model(tiny_model_dir("base"), head="token", new_head=head))
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "dev.conll").write_bytes((data / "dev.conll").read_bytes())
    lines = [line.split(" ")[0] for line in (data / "train.conll").read_text().splitlines()]
    (bare / "train.conll").write_text("\n".join(lines) + "\n")
    losses = []
    for directory in (data, bare):
        run = tmp_path / f"run_{directory.name}"
        flags = distill_flags(tmp_path / "teacher", directory, run, "--beta", 0, "--kind", "token")
        assert distill.main(flags) == 0
        losses.append([row["loss"] for row in rows(run, "train")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert np.isfinite(losses[0]).all()

    # Half of the sentences with labels, half without: the order of rows is that of the files.
    sentences = (data / "train.conll").read_text().split("\n\n")
    half = tmp_path / "half"
    half.mkdir()
    (half / "dev.conll").write_bytes((data / "dev.conll").read_bytes())
    (half / "train.conll").write_text("\n\n".join(sentences[:15]) + "\n")
    more = "\n\n".join(sentences[15:])
    (tmp_path / "more.conll").write_text("\n".join(line.split(" ")[0] for line in more.splitlines()) + "\n")
    flags = ("--beta", 0, "--kind", "token", "--unlabelled", tmp_path / "more.conll")
    assert distill.main(distill_flags(tmp_path / "teacher", half, tmp_path / "run_half", *flags)) == 0
    of_half = [row["loss"] for row in rows(tmp_path / "run_half", "train")]
    assert of_half == pytest.approx(losses[0], rel=1e-5)


def test_questions_without_answers(tmp_path, tiny_model_dir):
    data = write_questions(tmp_path / "data")
    more = json.loads((data / "train.json").read_text())
    for paragraph in more["data"][0]["paragraphs"]:
        for entry in paragraph["qas"]:
            del entry["answers"]
    (tmp_path / "more.json").write_text(json.dumps(more))
    head = NewHead(2, seed=1, problem_type="question_answering")
    save_model(tmp_path / "teacher", load_model(tiny_model_dir("base"), head="answer", new_head=head))
    flags = ("--kind", "answer", "--max_seq_length", 24, "--max_query_length", 6, "--beta", 0, "--alpha", 0.5)
    flags += ("--max_steps", 1, "--train_batch_size", 128)
    flags += ("--student_dropout", 0, "--student_init_layers", "1,3")
    runs = {}
    for name, further in (("known", ()), ("both", ("--unlabelled", tmp_path / "more.json"))):
        more_flags = (*flags, *further)
        assert distill.main(distill_flags(tmp_path / "teacher", data, tmp_path / name, *more_flags)) == 0
        (runs[name],) = rows(tmp_path / name, "train")
    # The same rows once with answers and once without.
    assert runs["both"]["soft_loss"] == pytest.approx(runs["known"]["soft_loss"], rel=1e-5)
    assert runs["both"]["hard_loss"] == pytest.approx(runs["known"]["hard_loss"] / 2, rel=1e-5)
    expected = 0.75 * runs["known"]["soft_loss"] + 0.25 * runs["known"]["hard_loss"]
    assert runs["both"]["loss"] == pytest.approx(expected, rel=1e-5)
