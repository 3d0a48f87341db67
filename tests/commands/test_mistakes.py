"""What people type wrongly: one line that says what is meant, on every program."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import xla_flags

from bert_emd_jax.commands import augment, bert_emd, convert, distill, evaluate, finetune, pretrain_data
from bert_emd_jax.configs import Config
from bert_emd_jax.errors import UserError
from bert_emd_jax.training.training_config import FinetuneConfig

PROGRAMS = [augment, convert, distill, evaluate, finetune, pretrain_data]
DISTILL = ["--teacher_model", "t", "--data_dir", "d", "--task_name", "custom", "--output_dir", "o"]


def one_line(program, args: list[str], capsys: pytest.CaptureFixture) -> str:
    assert program.main(args) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


@pytest.mark.parametrize(
    ("program", "args", "message"),
    [
        (distill, ["--teacher_modle", "x"], "--teacher_modle: no such flag; did you mean teacher_model?"),
        (distill, ["--no_tokencache"], "--no_tokencache: no such flag"),
        (evaluate, ["--student-modl=x"], "--student_modl: no such flag; did you mean student_model?"),
        (finetune, ["--bert_modle", "x"], "did you mean bert_model?"),
        (bert_emd, ["distil"], "did you mean distill?"),
        (bert_emd, ["evaluate"], "did you mean eval?"),
        (
            distill,
            [*DISTILL, "--student_init_layers", "1", "3", "5"],
            "--student_init_layers 1 3 5: commas are wanted between them, as --student_init_layers 1,3,5",
        ),
        (finetune, ["--labels", "bad,", "good"], "as --labels bad,good"),
    ],
)
def test_a_slip_is_named(program, args, message, capsys):
    assert message in one_line(program, args, capsys)


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_program_knows_nonsense(program, capsys):
    assert "--frobnicate: no such flag; --help lists them" in one_line(program, ["--frobnicate", "1"], capsys)


def test_every_module_of_a_program_runs():
    for program in (*PROGRAMS, bert_emd):
        assert '__name__ == "__main__"' in Path(program.__file__).read_text(encoding="utf-8")


def settings(**changes) -> Config:
    values = {"bert_model": "m", "data_dir": "d", "task_name": "cola", "output_dir": "o"}
    return FinetuneConfig(**(values | changes))


def test_values_are_read_by_the_type_of_their_flag(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    config = settings(
        train_batch_size="16",
        learning_rate="5e-5",
        output_dir="~/runs",
        labels="bad,good",
        num_train_epochs=2,
    )
    assert (config.optimizer.train_batch_size, config.optimizer.learning_rate) == (16, 5e-5)
    assert config.program.output_dir == Path("/home/ada/runs")
    assert config.task.columns.labels == ("bad", "good")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_batch_size": "5%"}, "--train_batch_size 5%: a whole number is wanted, not str"),
        ({"train_batch_size": 8.5}, "--train_batch_size 8.5: a whole number is wanted, not float"),
        ({"learning_rate": None}, "--learning_rate None: a number is wanted, not NoneType"),
        ({"resume": "yes"}, "--resume yes: True or False is wanted, not str"),
        (
            {"dtype": "float64"},
            "--dtype float64: is none of auto, float32, bfloat16, float16; did you mean float16?",
        ),
        ({"bert_model": 5}, "--bert_model 5: a path is wanted, not int"),
        ({"labels": 5}, "--labels 5: a list is wanted"),
        ({"task_name": Path("cola")}, "--task_name cola: text is wanted"),
        ({"seed": 2**32}, "--seed 4294967296: must be below 4294967296"),
    ],
)
def test_values_of_another_type_are_refused(changes, message):
    with pytest.raises(UserError) as refused:
        settings(**changes)
    assert message in str(refused.value)


def test_the_directory_above_the_tasks(tmp_path, task_dir, tiny_model_dir, capsys):
    flags = ["--bert_model", str(tiny_model_dir("model")), "--output_dir", str(tmp_path / "o")]
    flags += ["--max_seq_length", "24", "--data_dir"]
    glue = tmp_path / "glue" / "SST-2"
    glue.mkdir(parents=True)
    for split in ("train", "dev"):
        (glue / f"{split}.tsv").write_text("sentence\tlabel\ngood\t1\n")
    capsys.readouterr()
    error = one_line(finetune, [*flags, str(tmp_path / "glue"), "--task_name", "sst-2"], capsys)
    assert f"it is in {glue}: give that as --data_dir" in error
    error = one_line(finetune, [*flags, str(task_dir.parent), "--task_name", "custom"], capsys)
    assert "there is one in task below it" in error


def test_labels_that_the_terminal_cannot_show_end_nothing(tmp_path, task_dir, tiny_model_dir):
    """In a C locale, with a model that has a label in Greek."""
    labels = ("bad", "good")
    model = tiny_model_dir("model", num_hidden_layers=1, id2label=("κακό", "négatif"))
    for split in ("train", "dev", "test"):
        path = task_dir / f"{split}.csv"
        text = path.read_text()
        for label, name in zip(labels, ("κακό", "négatif"), strict=True):
            text = text.replace(f",{label}\n", f",{name}\n")
        path.write_text(text, encoding="utf-8")
    flags = ["--bert_model", model, "--data_dir", task_dir, "--task_name", "custom", "--max_steps", 1]
    flags += ["--output_dir", tmp_path / "run", "--max_seq_length", 24]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "XLA_FLAGS": xla_flags(1)}
    done = subprocess.run(
        [sys.executable, "-m", "bert_emd_jax.commands.finetune", *map(str, flags)],
        env=environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert "négatif" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "négatif" in (tmp_path / "run" / "eval_results.json").read_text(encoding="utf-8")
