"""The programs end to end on a tiny model: what they leave, resume, and what they say to bad input."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from bert_emd_jax.checkpoints.model_directory import load_model
from bert_emd_jax.commands import convert, distill, evaluate, finetune


def train_flags(task_dir: Path, output_dir: Path, *more: object) -> list[str]:
    flags = ["--data_dir", task_dir, "--task_name", "custom", "--output_dir", output_dir]
    flags += ["--max_seq_length", 24, "--train_batch_size", 8, "--eval_batch_size", 4, "--log_steps", 2]
    return [str(flag) for flag in (*flags, *more)]


def distill_flags(teacher: Path, task_dir: Path, output_dir: Path, *more: object) -> list[str]:
    flags = train_flags(task_dir, output_dir, "--teacher_model", teacher, "--num_train_epochs", 2, *more)
    has_start = any(flag.startswith(("--student_", "--student_config")) for flag in flags)
    return flags if has_start else [*flags, "--student_init_layers", "1,3"]


def rows(run: Path, kind: str) -> list[dict]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def test_finetune_distill_evaluate_and_convert(tmp_path, task_dir, tiny_model_dir, capsys):
    start = tiny_model_dir("start")
    teacher, student, scores = tmp_path / "teacher", tmp_path / "student", tmp_path / "scores"
    learning = ("--learning_rate", 3e-3, "--num_train_epochs", 12)  # whatever the seed
    assert finetune.main(train_flags(task_dir, teacher, "--bert_model", start, *learning)) == 0
    results = json.loads((teacher / "eval_results.json").read_text())
    assert results["student"]["metrics"]["accuracy"] > 0.8  # the labels are plain to see in the words
    assert "teacher" not in results

    flags = distill_flags(teacher, task_dir, student, "--check_every", 3, "--learning_rate", 1e-2)
    assert distill.main(flags) == 0
    left = {path.name for path in student.iterdir()}
    assert left >= {
        *("config.json", "vocab.txt", "tokenizer_config.json", "params", "pytorch", "checkpoints"),
        *("run_config.json", "metrics.jsonl", "eval_results.json", "layer_mapping.npz", "report.html"),
        "tensorboard",
    }
    assert not [name for name in left if name.startswith(".")]
    config = json.loads((student / "run_config.json").read_text())
    assert config["flags"]["student_init_layers"] == [1, 3]
    assert config["versions"]["jax"]

    # The best row of the dev set is the one whose weights were kept.
    best = max(rows(student, "eval"), key=lambda row: (row["accuracy"], -row["step"]))
    results = json.loads((student / "eval_results.json").read_text())
    assert (results["best_step"], results["student"]["metrics"]["accuracy"]) == (
        best["step"],
        best["accuracy"],
    )
    assert (results["rows"], results["chose_step"], results["test"]["rows"]) == (11, True, 11)
    for scored in (results, results["test"]):
        above = scored["difference"]
        ours, theirs = (scored[name]["metrics"]["accuracy"] for name in ("student", "teacher"))
        assert above["low"] <= above["value"] <= above["high"]
        assert above["value"] == pytest.approx(ours - theirs)
    for split in ("dev", "test"):  # from the rows that were kept, by themselves
        kept = [
            json.loads(line) for line in (student / f"{split}_predictions.jsonl").read_text().splitlines()
        ]
        right = [results["labels"][int(np.argmax(row["student"]))] == row["label"] for row in kept]
        scored = results["test"] if split == "test" else results
        assert np.mean(right) == pytest.approx(scored["student"]["metrics"]["accuracy"])
    assert results["timed_on"]["cores"] >= 1
    said = capsys.readouterr().out
    assert "The student keeps" in said
    assert f"of its teacher's accuracy on {results['test']['rows']} test rows" in said
    assert results["teacher"]["layers"] == 4
    assert results["student"]["layers"] == 2
    checks = rows(student, "check")
    assert [row["step"] for row in checks] == [3, 6, 9]
    assert all(abs(row[f"{kind}_gap"]) < 1e-5 for row in checks for kind in ("attention", "hidden"))
    with np.load(student / "layer_mapping.npz") as mapping:
        assert mapping["hidden_flow"].shape == (len(rows(student, "train")), 2, 4)
        np.testing.assert_allclose(mapping["hidden_flow"].sum(axis=(1, 2)), 1, rtol=1e-6)

    capsys.readouterr()
    flags = [
        *train_flags(task_dir, scores)[:6],
        "--do_eval",
        "--student_model",
        str(student),
        "--do_lower_case",
    ]
    assert evaluate.main([*flags, "--eval_batch_size", "4", "--max_seq_length", "24"]) == 0
    assert f"accuracy: {best['accuracy']:.4f}" in capsys.readouterr().out
    predictions = [line.split("\t") for line in (scores / "predictions_dev.tsv").read_text().splitlines()[1:]]
    assert len(predictions) == 11
    assert np.mean([row[1] == row[2] for row in predictions]) == pytest.approx(best["accuracy"])

    assert convert.main(["--input", str(student / "pytorch"), "--output_dir", str(tmp_path / "back")]) == 0
    back, model = load_model(tmp_path / "back"), load_model(student)
    np.testing.assert_array_equal(back.params["classifier"]["kernel"], model.params["classifier"]["kernel"])
    assert back.config == model.config


def test_exported_student_gives_the_same_logits_in_transformers(tmp_path, task_dir, tiny_model_dir):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    teacher, student = tiny_model_dir("teacher"), tmp_path / "student"
    assert distill.main(distill_flags(teacher, task_dir, student, "--max_steps", 2)) == 0
    model = transformers.AutoModelForSequenceClassification.from_pretrained(student / "pytorch").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(student / "pytorch")
    texts = [
        line.rsplit(",", 1)[0].strip('"') for line in (task_dir / "dev.csv").read_text().splitlines()[1:]
    ]
    with torch.no_grad():
        theirs = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.softmax(-1).numpy()
    flags = [*train_flags(task_dir, tmp_path / "scores")[:8], "--student_model", str(student)]
    assert evaluate.main(flags) == 0
    lines = (tmp_path / "scores" / "predictions_dev.tsv").read_text().splitlines()[1:]
    ours = np.array([[float(value) for value in line.split("\t")[3:]] for line in lines])
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    assert model.config.id2label == {0: "bad", 1: "good"}


def test_resume_goes_by_what_is_read_and_not_by_where_it_is(
    tmp_path, task_dir, tiny_model_dir, monkeypatch, capsys
):
    from bert_emd_jax.training import prefetch

    teacher, student = tiny_model_dir("teacher"), tmp_path / "student"
    more = ("--save_steps", 3)
    with monkeypatch.context() as patched:
        patched.setattr(prefetch, "split_for_training", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert distill.main(distill_flags(teacher, task_dir, student, *more)) == 130
    # Elsewhere, with other content: refused, and what is there stays.
    moved, task = (
        shutil.copytree(teacher, tmp_path / "moved"),
        shutil.copytree(task_dir, tmp_path / "moved_task"),
    )
    first, *others = (task / "train.csv").read_text().splitlines(keepends=True)
    (task / "train.csv").write_text(first + "".join(reversed(others)))
    capsys.readouterr()
    assert distill.main(distill_flags(moved, task, student, *more, "--resume")) == 2
    assert "--resume: the training rows are not what the run in" in capsys.readouterr().err
    other = tiny_model_dir("other", seed=1)
    assert distill.main(distill_flags(other, task_dir, student, *more, "--resume")) == 2
    assert "the teacher" in capsys.readouterr().err
    (task / "train.csv").write_text(first + "".join(others))
    assert distill.main(distill_flags(moved, task, student, *more, "--resume")) == 0


def test_a_resumed_run_ends_as_if_it_had_not_stopped(tmp_path, task_dir, tiny_model_dir, monkeypatch):
    """With all that a state may hold: learned layer weights, scales of costs, micro-batches."""
    from bert_emd_jax.training import prefetch

    teacher = tiny_model_dir("teacher")
    more = ("--save_steps", 3, "--gradient_accumulation_steps", 2, "--alpha", 0.5)
    more += ("--layer_weight_rule", "learned", "--balance", "costs")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert distill.main(distill_flags(teacher, task_dir, whole, *more)) == 0

    collate_calls = 0
    original = prefetch.split_for_training

    def stops(*args):
        nonlocal collate_calls
        collate_calls += 1
        if collate_calls > 7:  # between two checkpoints
            raise KeyboardInterrupt
        return original(*args)

    with monkeypatch.context() as patched:
        patched.setattr(prefetch, "split_for_training", stops)
        assert distill.main(distill_flags(teacher, task_dir, broken, *more)) == 130
    assert not (broken / "eval_results.json").exists()
    assert distill.main(distill_flags(teacher, task_dir, broken, *more, "--resume")) == 0

    ours, theirs = load_model(broken), load_model(whole)
    for a, b in zip(_leaves(ours.params), _leaves(theirs.params), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(ours.projection["kernel"], theirs.projection["kernel"])
    timeless = [
        [
            {name: value for name, value in row.items() if name != "examples_per_second"}
            for row in rows(run, kind)
        ]
        for run in (whole, broken)
        for kind in ("train", "eval")
    ]
    assert timeless[:2] == timeless[2:]
    with np.load(whole / "layer_mapping.npz") as a, np.load(broken / "layer_mapping.npz") as b:
        assert set(a.files) == set(b.files)
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])


def _leaves(tree) -> list[np.ndarray]:
    import jax

    return jax.tree.leaves(tree)


def test_output_directories_are_never_emptied_unasked(tmp_path, task_dir, tiny_model_dir, capsys):
    teacher, output = tiny_model_dir("teacher"), tmp_path / "run"
    flags = distill_flags(teacher, task_dir, output, "--max_steps", 1)
    assert distill.main(flags) == 0
    (output / "notes.txt").write_text("mine")
    before = (output / "metrics.jsonl").stat().st_mtime_ns

    capsys.readouterr()
    assert distill.main(flags) == 2
    assert "--resume continues that run, --overwrite replaces it" in capsys.readouterr().err
    assert (output / "metrics.jsonl").stat().st_mtime_ns == before

    assert distill.main([*flags, "--resume"]) == 0  # finished: nothing to do
    assert (output / "metrics.jsonl").stat().st_mtime_ns == before

    assert distill.main([*flags, "--resume", "--beta", "0.5"]) == 2
    assert "--beta was 0.01, is 0.5" in capsys.readouterr().err

    assert distill.main([*flags, "--overwrite"]) == 0
    assert (output / "notes.txt").read_text() == "mine"
    assert (output / "metrics.jsonl").stat().st_mtime_ns != before


def one_line(capsys, *needles: str) -> None:
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert "Traceback" not in error
    for needle in needles:
        assert needle in error


def test_bad_input_is_one_line_and_exit_code_2(tmp_path, task_dir, tiny_model_dir, vocabulary_dir, capsys):
    teacher, output = tiny_model_dir("teacher"), tmp_path / "out"
    capsys.readouterr()

    def refused(flags: list[str], *needles: str, program=distill) -> None:
        assert program.main(flags) == 2
        one_line(capsys, *needles)
        assert not output.exists()

    refused(distill_flags(tmp_path / "nowhere", task_dir, output), "nowhere", "no such file or directory")
    refused(distill_flags(vocabulary_dir, task_dir, output), "model.safetensors")
    refused(distill_flags(teacher, tmp_path / "nodata", output), "nodata")
    flags = distill_flags(teacher, task_dir, output)
    flags[flags.index("custom")] = "sst-3"
    refused(flags, "sst-3")
    refused(distill_flags(teacher, task_dir, output, "--learning_rate", -1), "--learning_rate -1.0")
    refused(distill_flags(teacher, task_dir, output, "--student_init_layers", "0,7"), "0,7", "0 to 3")
    refused(distill_flags(teacher, task_dir, output, "--max_seq_length", 100), "64 tokens")
    refused(
        distill_flags(teacher, task_dir, output, "--student_init_layers", "0", "--student_model", teacher),
        "--student_model and --student_init_layers",
    )
    refused(distill_flags(teacher, task_dir, output, "--gradient_accumulation_steps", 3), "divisor")
    refused(distill_flags(teacher, task_dir, output, "--aug_train"), "train_aug.csv: no such file")
    refused(distill_flags(teacher, task_dir, teacher, "--overwrite"), "is the model of --teacher_model")
    assert (teacher / "params").is_dir()
    other = tiny_model_dir("other", vocab_size=90)
    refused(distill_flags(teacher, task_dir, output, "--student_model", other), "word embeddings")
    deep = tiny_model_dir("deep", num_hidden_layers=5)
    refused(
        distill_flags(teacher, task_dir, output, "--student_model", deep, "--mapping", "uniform"), "uniform"
    )
    other_labels = tiny_model_dir("other_labels", id2label=("happy", "sad"))
    refused(distill_flags(other_labels, task_dir, output), "happy, sad", "those of custom are bad, good")
    three = tiny_model_dir("three", num_labels=3, id2label=("a", "b", "c"))
    refused(distill_flags(three, task_dir, output), "3 labels")

    text = (vocabulary_dir / "vocab.txt").read_text()
    changed = tiny_model_dir("changed")
    (changed / "vocab.txt").write_text(text.replace("movie", "opera"))
    refused(distill_flags(teacher, task_dir, output, "--student_model", changed), "different tokenizers")

    train = task_dir / "train.csv"
    original = train.read_text()
    train.write_text(original + "some text,ugly\n")
    refused(distill_flags(teacher, task_dir, output, "--labels", "bad,good"), "train.csv:39", "ugly")
    train.write_text("text,label\n")
    refused(distill_flags(teacher, task_dir, output, "--labels", "bad,good"), "train.csv")
    train.write_text(original)

    config = json.loads((teacher / "config.json").read_text())
    (teacher / "config.json").write_text(json.dumps(config | {"model_type": "albert"}))
    refused(distill_flags(teacher, task_dir, output), "albert")
    (teacher / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))
    refused(distill_flags(teacher, task_dir, output), "of another shape")
    flags = [*train_flags(task_dir, output)[:6], "--student_model", str(tmp_path / "nowhere")]
    refused(flags, "nowhere", program=evaluate)


def test_help_needs_no_jax():
    import subprocess
    import sys

    code = (
        "import sys\nfrom bert_emd_jax.commands import distill, finetune, evaluate, convert\n"
        "bad = [name for name in ('jax', 'flax', 'torch', 'matplotlib') if name in sys.modules]\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


def test_float16_from_start_to_end_and_on_resuming(tmp_path, task_dir, tiny_model_dir, capsys):
    """A resumed run goes on in the type that it began with, whatever suits the device."""
    teacher, student = tiny_model_dir("teacher"), tmp_path / "student"
    flags = distill_flags(teacher, task_dir, student, "--max_steps", 3)
    assert distill.main([*flags, "--dtype", "float16"]) == 0
    assert json.loads((student / "run_config.json").read_text())["compute_dtype"] == "float16"
    (row,) = rows(student, "train")[:1]
    assert (row["loss_scale"], row["skipped_steps"], row["bad_steps"]) == (2**16, 0, 0)
    (student / "eval_results.json").unlink()
    assert distill.main([*flags, "--dtype", "float32", "--resume"]) == 2
    assert "--dtype was float16, is float32" in capsys.readouterr().err
    assert distill.main([*flags, "--resume"]) == 0
    assert json.loads((student / "run_config.json").read_text())["compute_dtype"] == "float16"
    assert (student / "eval_results.json").is_file()
