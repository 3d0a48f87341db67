"""What --dry_run says, against the files it is about, and that it leaves nothing behind."""

import csv
from pathlib import Path

import jax
import numpy as np
import pytest

import bert_emd_jax
from bert_emd_jax import distill, finetune, general_distill
from bert_emd_jax.commands import distill as distill_program
from bert_emd_jax.commands import finetune as finetune_program
from bert_emd_jax.commands import pretrain_data as pretrain_data_program
from bert_emd_jax.configs import all_flags, spelled_flag
from bert_emd_jax.distillation.distill_config import DistillConfig
from bert_emd_jax.distillation.recipes import RECIPES
from bert_emd_jax.training import dry_run


def flags(task_dir, output_dir, **more):
    task = {"data_dir": task_dir, "task_name": "custom", "max_seq_length": 24, "token_cache": False}
    return task | {"output_dir": output_dir, "train_batch_size": 8, "dry_run": True} | more


@pytest.fixture
def no_steps(monkeypatch):
    """Compiles nothing: for what is said beside times and memory."""
    measured = {"memory": 2_500_000_000, "seconds_per_step": {24: 10.0}}
    monkeypatch.setattr(dry_run, "_measured", lambda *arguments: measured)


@pytest.mark.usefixtures("no_steps")
def test_the_facts_of_a_distillation(tmp_path, task_dir, tiny_model_dir):
    teacher, output = tiny_model_dir("teacher", num_hidden_layers=3), tmp_path / "student"
    facts = distill(
        teacher_model=teacher, student_init_layers=[0, 2], num_train_epochs=3, **flags(task_dir, output)
    )
    assert not output.exists()
    assert facts["refused"] is None
    with (task_dir / "train.csv").open() as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    # Every word of the tiny vocabulary is one token; [CLS] and [SEP] come on top.
    lengths = np.minimum([len(text.split()) + 2 for text in texts], 24)
    assert (facts["rows"], facts["tokens_per_epoch"]) == (37, lengths.sum())
    assert (facts["steps_per_epoch"], facts["steps"]) == (5, 15)
    assert sum(facts["batches_per_epoch"].values()) == 5
    assert facts["padded_tokens_per_epoch"] == 8 * sum(
        length * count for length, count in facts["batches_per_epoch"].items()
    )
    assert facts["padded_tokens_per_epoch"] > facts["tokens_per_epoch"]
    assert (facts["teacher"]["layers"], facts["student"]["layers"]) == (3, 2)
    assert facts["mapping"] == {
        "name": "emd",
        "student_layers": 2,
        "teacher_layers": 3,
        "layer_weight_rule": "normalize",
    }
    assert facts["devices"] == ["cpu"] * jax.device_count()


def test_memory_and_time_are_those_of_real_steps(tmp_path, task_dir, tiny_model_dir):
    model, output = tiny_model_dir("model", num_hidden_layers=1), tmp_path / "out"
    facts = finetune(bert_model=model, **flags(task_dir, output, gradient_accumulation_steps=2))
    # The model and AdamW's two moments are there in float32.
    weights = 3 * 4 * facts["student"]["parameters"]
    assert weights < facts["memory"] < 50 * weights
    assert max(facts["batches_per_epoch"]) in facts["seconds_per_step"]
    assert 0 < facts["seconds"] < 60
    assert not output.exists()


@pytest.mark.usefixtures("no_steps")
def test_a_program_says_it_and_what_would_be_refused(tmp_path, task_dir, tiny_model_dir, capsys):
    model, output = tiny_model_dir("model", num_hidden_layers=1), tmp_path / "out"
    line = ["--bert_model", model, "--data_dir", task_dir, "--task_name", "custom", "--output_dir", output]
    line = [str(part) for part in [*line, "--max_seq_length", 24, "--train_batch_size", 8, "--dry_run"]]
    assert finetune_program.main(line) == 0
    said = capsys.readouterr().out
    for part in ("nothing is written", "  rows     37\n", "15 = 3 epochs of 5", "1 layers, width 16"):
        assert part in said
    assert f"2.50 GB on each of {jax.device_count()} × cpu for a step of 24 tokens" in said
    assert "about 2 min (an estimate from a few steps: 10,000 ms at 24 tokens)" in said
    assert f"output   {output}\n" in said
    assert not output.exists()

    output.mkdir()
    (output / "notes.txt").write_text("mine")
    assert finetune_program.main(line) == 2
    captured = capsys.readouterr()
    assert f"output   {output}: refused" in captured.out
    assert "the run would stop here" in captured.err
    assert "is not empty" in captured.err
    assert [path.name for path in output.iterdir()] == ["notes.txt"]


@pytest.mark.usefixtures("no_steps")
def test_overwrite_removes_nothing(tmp_path, task_dir, tiny_model_dir):
    output = tmp_path / "out"
    output.mkdir()
    (output / "run_config.json").write_text("{}")
    facts = finetune(
        bert_model=tiny_model_dir("model", num_hidden_layers=1),
        **flags(task_dir, output, overwrite=True),
    )
    assert facts["refused"] is None
    assert [path.name for path in output.iterdir()] == ["run_config.json"]


@pytest.mark.usefixtures("no_steps")
def test_general_distillation(tmp_path, vocabulary_dir, tiny_model_dir):
    (tmp_path / "corpus.txt").write_text("the film is good\na great plot\n\nnever dull\nso sad\n\n" * 20)
    line = ["--train_corpus", tmp_path / "corpus.txt", "--bert_model", vocabulary_dir, "--max_seq_len", 16]
    line += ["--output_dir", tmp_path / "corpus", "--epochs_to_generate", 2, "--seed", 3]
    assert pretrain_data_program.main([str(part) for part in line]) == 0
    counts = [len((tmp_path / "corpus" / f"epoch_{k}.json").read_text().splitlines()) for k in (0, 1)]
    output = tmp_path / "student"
    facts = general_distill(
        teacher_model=tiny_model_dir("teacher", num_hidden_layers=2),
        **{"student_init_layers": [1], "pregenerated_data": tmp_path / "corpus", "output_dir": output},
        **{"held_out_rows": 5, "train_batch_size": 4, "num_train_epochs": 4, "dry_run": True},
    )
    assert facts["rows"] == counts[0] - 5
    assert facts["steps"] == 4 * -(-(min(counts) - 5) // 4)
    assert not output.exists()


def test_a_mistake_is_the_real_runs_mistake(tmp_path, task_dir, tiny_model_dir, capsys):
    teacher = tiny_model_dir("teacher", num_hidden_layers=2)
    line = ["--teacher_model", teacher, "--student_init_layers", "5", "--data_dir", task_dir, "--dry_run"]
    line += ["--task_name", "custom", "--output_dir", tmp_path / "out"]
    assert distill_program.main([str(part) for part in line]) == 2
    assert "--student_init_layers" in capsys.readouterr().err


@pytest.mark.parametrize("measured", [{64: 2.0}, {64: 2.0, 16: 0.5}, {64: 2.0, 16: 0.8}])
def test_times_lie_on_a_line(measured):
    batches = {16: 10, 32: 5, 64: 1}
    points = sorted(measured.items() if len(measured) > 1 else [(0, 0.0), *measured.items()])
    line = np.polyfit(*zip(*points, strict=True), 1)
    expected = 2.5 * sum(count * np.polyval(line, length) for length, count in batches.items())
    assert dry_run._seconds(measured, batches, 2.5) == pytest.approx(expected)


@pytest.mark.usefixtures("no_steps")
def test_the_recipe_is_of_flags_that_were_left_at_their_defaults(tmp_path, task_dir, tiny_model_dir, capsys):
    line = ["--teacher_model", str(tiny_model_dir("teacher")), "--student_init_layers", "1,3", "--dry_run"]
    line += ["--data_dir", str(task_dir), "--task_name", "custom", "--max_seq_length", "24"]
    line += ["--output_dir", str(tmp_path / "student")]

    def recipe(*more: str) -> str | None:
        assert distill_program.main([*line, *more]) == 0
        found = [one for one in capsys.readouterr().out.splitlines() if one.startswith("  recipe")]
        return found[0].split("   ", 1)[1].strip() if found else None

    short = "a classifier with some of its teacher's layers, up to 300 steps"
    assert recipe() == f"for {short}, try --learning_rate 0.0004 (docs/recipes.md says why)"
    assert recipe("--learning_rate", "2e-5") is None  # somebody knows better
    assert "try --learning_rate 0.0001 " in (recipe("--num_train_epochs", "400") or "")
    narrow = recipe("--student_width", "8", "--learning_rate", "3e-4")
    assert narrow is not None
    assert "narrower than its teacher, try --num_train_epochs 6 --beta 1.0 " in narrow


def test_recipes_have_flags_that_there_are_and_a_place_in_the_docs():
    text = (Path(bert_emd_jax.__file__).parents[1] / "docs" / "recipes.md").read_text()
    known = {flag.name for flag in all_flags(DistillConfig)}
    for recipe in RECIPES:
        assert set(recipe.flags) <= known
        assert recipe.title in text
        row = next(line for line in text.splitlines() if line.startswith(f"| {recipe.title} |"))
        for name, value in recipe.flags.items():
            assert " ".join(spelled_flag(name, value)) in row, (recipe.title, name)
