"""The programs themselves on damaged files: exit code 2, one line, and nothing written."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from mutations.harness import read_files
from mutations.mutators import damaged_json, damaged_json_lines

from bert_emd_jax.commands import augment, compare, convert, distill, evaluate, finetune, pretrain_data

SIZES = {"num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 8, "max_position_embeddings": 16}


@pytest.fixture
def places(tmp_path: Path, tiny_model_dir, task_dir: Path) -> dict[str, Path]:
    (tmp_path / "corpus.txt").write_text("the film is good\n\na movie\n")
    return {"model": tiny_model_dir("model", **SIZES), "task": task_dir, "corpus": tmp_path / "corpus.txt"}


TASK = ("--data_dir", "{task}", "--task_name", "custom")
OUTPUT = ("--output_dir", "{output}")
NESTED = b'{"a":' * 100_000


@pytest.mark.parametrize(
    ("main", "flags", "damaged", "content"),
    [
        (finetune.main, ("--bert_model", "{model}", *TASK, *OUTPUT), "model/config.json", NESTED),
        (
            finetune.main,
            ("--bert_model", "{model}", *TASK, *OUTPUT),
            "model/config.json",
            b'{"hidden_size": 1e999}',
        ),
        (finetune.main, ("--bert_model", "{model}", *TASK, *OUTPUT), "model/vocab.txt", b"\xff\xfe"),
        (finetune.main, ("--bert_model", "{model}", *TASK, *OUTPUT), "task/train.csv", b'text,label\n"a,b\n'),
        (
            finetune.main,
            ("--bert_model", "{model}", *TASK, *OUTPUT),
            "task/train.csv",
            b"text,label\n\x1b[2J\n",
        ),
        (
            distill.main,
            ("--teacher_model", "{model}/pytorch", "--student_init_layers", "0", *TASK, *OUTPUT),
            "model/pytorch/model.safetensors",
            b"\xff" * 64,
        ),
        (
            distill.main,
            ("--teacher_model", "{model}", "--student_config", "{model}/pytorch/config.json", *TASK, *OUTPUT),
            "model/pytorch/config.json",
            b'{"num_hidden_layers": ' + b"9" * 5000 + b"}",
        ),
        (
            evaluate.main,
            ("--do_eval", "--student_model", "{model}", *TASK, *OUTPUT),
            "task/dev.csv",
            b"\x00" * 100,
        ),
        (
            convert.main,
            ("--input", "{model}/pytorch", *OUTPUT),
            "model/pytorch/tokenizer_config.json",
            b"[[\n]]",
        ),
        (
            augment.main,
            ("--bert_model", "{model}", *TASK, *OUTPUT),
            "task/train.csv",
            b"text,text,label\na,b,c\n",
        ),
        (
            pretrain_data.main,
            ("--bert_model", "{model}", "--train_corpus", "{corpus}", *OUTPUT),
            "corpus.txt",
            b"the film\n\xc3\x28\n",
        ),
    ],
)
def test_damaged_input_is_one_line(
    tmp_path: Path,
    places: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    main: Callable[[Sequence[str]], int],
    flags: Sequence[str],
    damaged: str,
    content: bytes,
):
    output = tmp_path / "output"
    (tmp_path / damaged).write_bytes(content)
    before = read_files(tmp_path)
    assert main([flag.format(output=output, **places) for flag in flags]) == 2
    assert_one_line(capsys)
    assert not output.exists() or not list(output.iterdir())
    assert read_files(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "damage"), [("eval_results.json", damaged_json), ("metrics.jsonl", damaged_json_lines)]
)
def test_damaged_runs_are_compared_or_refused(tmp_path: Path, capsys, name: str, damage):
    from report import synthetic_run

    run = synthetic_run.write_run(tmp_path / "run")
    synthetic_run.write_rows(run / "metrics.jsonl", synthetic_run.metric_rows(8))
    content = (run / name).read_bytes()
    for number in range(12):
        (run / name).write_bytes(damage(content, random.Random(number)))
        code = compare.main(["--compare", str(run), "--output_dir", str(tmp_path / "output")])
        if code == 0:
            capsys.readouterr()
            continue
        assert code == 2
        assert_one_line(capsys)


def assert_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "error: " in said
    assert said[:-1].isprintable()
