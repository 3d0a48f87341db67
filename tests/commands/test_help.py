"""What `--help` shows: every flag once, under its subject, fit for the terminal, and at once."""

import io
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bert_emd_jax.commands import (
    augment,
    compare,
    convert,
    demo,
    demo_embeddings,
    distill,
    evaluate,
    finetune,
    pretrain_data,
)
from bert_emd_jax.commands.cli import run_program
from bert_emd_jax.commands.flags import flag_groups, parse_flags
from bert_emd_jax.configs import all_flags
from bert_emd_jax.distillation.distill_config import DistillConfig, GeneralDistillConfig
from bert_emd_jax.evaluation.evaluation_config import EvaluationConfig
from bert_emd_jax.training.training_config import FinetuneConfig

PROGRAMS = {
    "finetune": (finetune.main, [], FinetuneConfig),
    "distill": (distill.main, [], DistillConfig),
    "general": (distill.main, ["--pregenerated_data", "x"], GeneralDistillConfig),
    "evaluate": (evaluate.main, [], EvaluationConfig),
    "compare": (evaluate.main, ["--compare"], compare.CompareConfig),
    "pretrain_data": (pretrain_data.main, [], pretrain_data.PretrainDataConfig),
    "augment": (augment.main, [], augment.AugmentConfig),
    "convert": (convert.main, [], convert.ConvertConfig),
    "demo": (demo.main, [], demo.DemoConfig),
    "demo_embeddings": (demo_embeddings.main, [], demo_embeddings.EmbeddingDemoConfig),
}


def help_text(program: str, columns: int, monkeypatch) -> str:
    screen = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    main, arguments, _ = PROGRAMS[program]
    with monkeypatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        patch.setattr(sys, "stdout", screen)
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--help"])
    assert ended.value.code == 0
    screen.seek(0)
    return screen.read()


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_flag_once_with_its_text(program, monkeypatch):
    text = help_text(program, 100, monkeypatch)
    assert max(map(len, text.splitlines())) <= 100
    described = [flag for group in flag_groups(PROGRAMS[program][2]) for flag in group.flags]
    names = [flag.flag.name for flag in described]
    assert sorted(names) == sorted(flag.name for flag in all_flags(PROGRAMS[program][2]))
    flat = re.sub(r"[│\s]+", " ", text)
    for name, flag in zip(names, described, strict=True):
        assert len(re.findall(rf"^│ (?:--\w+ \w+, )*--{name}\b", text, flags=re.M)) == 1, name
        assert flag.text, name
        assert flag.text in flat
    assert "{None}" not in text


@pytest.mark.parametrize("columns", [80, 120])
def test_subjects_defaults_and_examples(columns, monkeypatch):
    text = help_text("distill", columns, monkeypatch)
    assert max(map(len, text.splitlines())) <= columns
    subjects = re.findall(r"─ ([a-z ]+) options ─", text)
    # What must be given comes first.
    assert sorted(subjects[:3]) == ["program", "task", "teacher and student"]
    assert {"mapping", "optimizer", "run", "custom task"} <= set(subjects)
    flat = re.sub(r"[│\s]+", " ", text)
    assert (
        "--num_train_epochs FLOAT Passes over the training data; a fraction ends within one. (default: 10)"
        in flat
    )
    examples = text[text.index("Examples:") : text.index("╭")].replace("\\\n", "")
    lines = re.findall(r"\$ python run_distill\.py (.+)", examples)
    for line in lines:
        assert parse_flags(DistillConfig, line.split(), "x", "").pair.teacher_model == (Path("teacher"),)
    assert len(lines) == 2


def test_a_form_gives_the_config():
    given = ["--bert-model", "b", "--data_dir=d", "--task_name", "cola", "--output_dir", "o"]
    config = parse_flags(
        FinetuneConfig, [*given, "--no_do_lower_case", "--labels", "a,b", "--resume"], "x", ""
    )
    task, columns = config.task, config.task.columns
    assert (config.bert_model.name, task.task_name, task.do_lower_case) == ("b", "cola", False)
    assert (columns.labels, columns.text_column) == (("a", "b"), None)
    assert (config.run.resume, config.optimizer.learning_rate) == (True, 3e-5)


def test_help_answers_at_once():
    start = time.perf_counter()
    subprocess.run([sys.executable, "run_distill.py", "--help"], check=True, capture_output=True)
    assert time.perf_counter() - start < 5  # 0.3 s on an idle machine


def test_a_full_device_is_one_line(capsys):
    def run(config):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate\n4096 bytes.")

    program = {"prog": "x.py", "description": ""}
    assert run_program(demo.DemoConfig, run, argv=[], **program) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "x.py: error: out of the device's memory: try a larger --gradient_accumulation_steps" in said
    assert "4096 bytes" in said
    with pytest.raises(RuntimeError):
        run_program(demo.DemoConfig, run, argv=["--debug"], **program)
