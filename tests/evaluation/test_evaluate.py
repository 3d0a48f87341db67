"""run_eval.py on GLUE's files: both MNLI sets, label order, predictions and the benchmark's own files."""

import json
from pathlib import Path

import numpy as np
import pytest

from bert_emd_jax.commands import evaluate
from bert_emd_jax.data.examples import Examples
from bert_emd_jax.data.tasks import get_task
from bert_emd_jax.errors import UserError
from bert_emd_jax.evaluation.submission import write_submission

LABELS = ("contradiction", "entailment", "neutral")
PHRASES = ("the film is good", "a dull plot", "never bad !", "it was so long", "love this movie")


def glue_rows(count: int, shift: int = 0) -> list[tuple[str, str, str]]:
    return [
        (PHRASES[row % 5], PHRASES[(row * 3 + shift) % 5] + " ." * (row % 4), LABELS[(row * row + shift) % 3])
        for row in range(count)
    ]


def write_mnli(directory: Path, names: tuple[str, ...]) -> None:
    directory.mkdir(exist_ok=True)
    for shift, name in enumerate(names):
        has_labels = name.startswith("dev")
        header = ["index", "sentence1", "sentence2"] + ["gold_label"] * has_labels
        rows = [
            [str(100 + row), a, b] + [label] * has_labels
            for row, (a, b, label) in enumerate(glue_rows(9 + shift, shift))
        ]
        text = "".join("\t".join(cells) + "\n" for cells in [header, *rows])
        (directory / name).write_text(text)


def run(model: Path, data: Path, output: Path, *more: str) -> int:
    flags = ["--student_model", model, "--data_dir", data, "--output_dir", output, "--eval_batch_size", 16]
    return evaluate.main([*map(str, flags), "--max_seq_length", "32", *more])


def table(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text().splitlines()]


def test_mnli_and_the_diagnostic_set(tmp_path, tiny_model_dir, capsys):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    theirs_order = ("ENTAILMENT", "neutral", "Contradiction")
    model = tiny_model_dir("model", num_labels=3, id2label=theirs_order, num_hidden_layers=1)
    data, output = tmp_path / "MNLI", tmp_path / "scores"
    write_mnli(data, ("dev_matched.tsv", "dev_mismatched.tsv", "test_matched.tsv", "diagnostic.tsv"))

    def reference(rows):
        """The names that transformers gives to the pairs, by its own id2label."""
        classifier = transformers.AutoModelForSequenceClassification.from_pretrained(model / "pytorch").eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(model / "pytorch")
        texts = [row[0] for row in rows], [row[1] for row in rows]
        with torch.no_grad():
            logits = classifier(**tokenizer(*texts, padding=True, return_tensors="pt")).logits
        return [classifier.config.id2label[index].lower() for index in logits.argmax(-1).tolist()]

    assert run(model, data, output, "--task_name", "mnli") == 0
    assert "put into the order of MNLI: contradiction, entailment, neutral" in capsys.readouterr().out
    metrics = json.loads((output / "eval_results.json").read_text())["student"]["metrics"]
    assert set(metrics) == {"accuracy", "accuracy_mismatched"}
    for shift, suffix in enumerate(("", "_mismatched")):
        rows = glue_rows(9 + shift, shift)
        expected = reference(rows)
        written = table(output / f"predictions_dev{suffix}.tsv")
        assert written[0][:3] == ["index", "prediction", "label"]
        assert [row[1] for row in written[1:]] == expected
        assert [row[0] for row in written[1:]] == [str(100 + row) for row in range(9 + shift)]
        right = [label == row[2] for label, row in zip(expected, rows, strict=True)]
        assert metrics["accuracy" + suffix] == pytest.approx(np.mean(right))

    assert run(model, data, output, "--task_name", "mnli", "--split", "test", "--submission") == 0
    assert "no test_mismatched; MNLI is scored on the matched set only" in capsys.readouterr().out
    assert json.loads((output / "eval_results.json").read_text())["student"]["metrics"] == {}
    expected = reference(glue_rows(11, 2))
    rows = [["index", "prediction"], *([str(100 + row), name] for row, name in enumerate(expected))]
    assert table(output / "MNLI-m.tsv") == rows
    assert not (output / "MNLI-mm.tsv").exists()

    assert run(model, data, output, "--task_name", "ax", "--split", "test", "--submission") == 0
    assert [row[1] for row in table(output / "AX.tsv")[1:]] == reference(glue_rows(12, 3))
    assert not list(output.glob(".*"))


SUBMISSIONS = {
    # task: (file, logits, predictions)
    "cola": ("CoLA.tsv", [[2, 1], [0, 1]], ["0", "1"]),
    "sst-2": ("SST-2.tsv", [[2, 1], [0, 1]], ["0", "1"]),
    "mrpc": ("MRPC.tsv", [[2, 1], [0, 1]], ["0", "1"]),
    "sts-b": ("STS-B.tsv", [[5.7], [-0.2], [3.14159]], ["5.000", "0.000", "3.142"]),
    "qqp": ("QQP.tsv", [[2, 1], [0, 1]], ["0", "1"]),
    "mnli": ("MNLI-m.tsv", np.eye(3), ["contradiction", "entailment", "neutral"]),
    "qnli": ("QNLI.tsv", np.eye(2), ["entailment", "not_entailment"]),
    "rte": ("RTE.tsv", np.eye(2), ["entailment", "not_entailment"]),
    "wnli": ("WNLI.tsv", np.eye(2), ["0", "1"]),
    "ax": ("AX.tsv", np.eye(3), ["contradiction", "entailment", "neutral"]),
}


def unlabelled(count: int, skipped: tuple[int, ...] = ()) -> Examples:
    lines = np.arange(count)
    return Examples([""] * count, None, None, lines, [f"{row}" for row in lines], Path("test.tsv"), skipped)


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_the_form_of_the_benchmark(tmp_path, name):
    file, logits, predictions = SUBMISSIONS[name]
    logits = np.asarray(logits, np.float32)
    path = write_submission(tmp_path, get_task(name), "test", unlabelled(len(logits)), logits)
    assert path == tmp_path / file
    lines = ["index\tprediction", *(f"{row}\t{value}" for row, value in enumerate(predictions))]
    assert path.read_bytes() == ("\n".join(lines) + "\n").encode()
    if name == "mnli":
        other = write_submission(tmp_path, get_task(name), "test_mismatched", unlabelled(3), logits)
        assert other.name == "MNLI-mm.tsv"


def test_a_prediction_for_every_row(tmp_path):
    with pytest.raises(UserError, match=r"test\.tsv:7: malformed"):
        write_submission(tmp_path, get_task("qqp"), "test", unlabelled(2, (7,)), np.eye(2))
    assert not list(tmp_path.iterdir())


def test_wrong_flags_are_one_line(tmp_path, task_dir, tiny_model_dir, capsys):
    model, output = tiny_model_dir("model"), tmp_path / "scores"

    def refused(needle: str, *flags: str, model: Path = model) -> None:
        capsys.readouterr()
        assert run(model, task_dir, output, *flags) == 2
        error = capsys.readouterr().err
        assert needle in error
        assert error.count("\n") == 1
        assert not output.exists()

    refused("add --split test", "--task_name", "custom", "--submission")
    refused("custom is not a task of the GLUE", "--task_name", "custom", "--submission", "--split", "test")
    three = tiny_model_dir("three", num_labels=3, id2label=LABELS)
    refused("AX has no dev split here, only test", "--task_name", "ax", model=three)
    refused("it has 2 labels, task MNLI has 3", "--task_name", "mnli")
    refused("--eval_batch_size 0", "--task_name", "custom", "--eval_batch_size", "0")
