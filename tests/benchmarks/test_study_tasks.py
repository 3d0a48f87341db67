"""The tasks that a study writes are rows of the originals, and the package reads them."""

from pathlib import Path

import pytest
import study
from comparison.tasks import available_tasks, training_rows, write_task

from bert_emd_jax.commands import demo_assets
from bert_emd_jax.data.readers import read_split
from bert_emd_jax.data.tasks import get_task
from bert_emd_jax.errors import UserError


def glue(directory: Path) -> Path:
    """Tasks of 30 training and 6 dev rows, with separators in them that end no line."""
    forms = {
        "CoLA": ("", "src\t{label}\t*\tA sentence\x0b of row {row} .\n"),
        "SST-2": ("sentence\tlabel\n", 'a "film\u2028 of row {row} \t{label}\n'),
        "MRPC": (
            "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n",
            "{label}\t1\t2\tone of row {row}\ttwo\n",
        ),
    }
    for name, (header, form) in forms.items():
        (directory / name).mkdir(parents=True)
        for split, rows in (("train", 30), ("dev", 6)):
            body = "".join(form.format(label=row % 2, row=row) for row in range(rows))
            (directory / name / f"{split}.tsv").write_bytes((header + body).encode())
    return directory


@pytest.mark.parametrize("name", ["cola", "sst-2", "mrpc"])
def test_rows_of_glue(tmp_path: Path, name: str):
    source = glue(tmp_path / "glue")
    # CoLA may have three times the limit.
    write_task(name, tmp_path / "few" / name, source, 3 if name == "cola" else 9, tiny=False)
    write_task(name, tmp_path / "all" / name, source, 0, tiny=False)
    task = get_task(name)
    few, everything = (read_split(task, tmp_path / size / name, "train") for size in ("few", "all"))
    assert len(few) == 9
    assert len(everything) == 30
    texts = everything.texts_a
    assert [texts.index(text) for text in few.texts_a] == sorted(texts.index(text) for text in few.texts_a)
    assert len(read_split(task, tmp_path / "few" / name, "dev")) == 6
    assert training_rows(name, tmp_path / "few" / name) == 9
    before = (tmp_path / "few" / name / "train.tsv").read_bytes()
    write_task(name, tmp_path / "again", source, 3 if name == "cola" else 9, tiny=False)
    assert (tmp_path / "again" / "train.tsv").read_bytes() == before


def test_rows_of_rotten_tomatoes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = [(f"film {number}", str(number % 2)) for number in range(5000)]
    monkeypatch.setattr(demo_assets, "rotten_tomatoes", lambda: rows)
    for halves, dev_rows in ((False, 1000), (True, 3000)):
        directory = tmp_path / str(halves)
        write_task("rotten_tomatoes", directory, None, 1500, tiny=False, halves=halves)
        task = get_task("custom", data_dir=directory)
        texts = {split: read_split(task, directory, split).texts_a for split in ("train", "dev")}
        assert {split: len(found) for split, found in texts.items()} == {"train": 1500, "dev": dev_rows}
        assert not set(texts["train"]) & set(texts["dev"])
        assert not (directory / "test.csv").exists()  # one without rows is refused


def test_tasks_that_need_a_directory(tmp_path: Path):
    assert available_tasks(None) == ("rotten_tomatoes", "snli")
    assert set(available_tasks(tmp_path)) == {"rotten_tomatoes", "snli", "sst-2", "mrpc", "cola"}
    with pytest.raises(UserError, match="MRPC needs --glue_dir"):
        write_task("mrpc", tmp_path / "out", None, 0, tiny=False)
    with pytest.raises(UserError, match=r"MRPC/train\.tsv: no such file"):
        write_task("mrpc", tmp_path / "out", tmp_path, 0, tiny=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--methods", "emd,best"], "--methods best: unknown; choose among finetune, logits, uniform, emd"),
        (["--tasks", "imdb"], "--tasks imdb: unknown"),
        (["--betas", "small"], "--betas small: numbers, as 0.01,0.1,1"),
        (["--learning_rate_factors", "1,x"], "--learning_rate_factors 1,x: numbers, as 0.01,0.1,1"),
        (["report"], "runs.jsonl: no such file"),
        ([], "holds something that is not a study"),
    ],
)
def test_a_wrong_flag_is_one_line(tmp_path: Path, monkeypatch, capsys, flags: list[str], message: str):
    (tmp_path / "thesis.txt").touch()
    monkeypatch.setattr("sys.argv", ["study.py", *flags, "--output_dir", str(tmp_path)])
    assert study.main() == 2
    assert message in capsys.readouterr().err


def test_the_runs_are_listed(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["study.py", "list", "--smoke", "--output_dir", str(tmp_path / "none")])
    assert study.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"0 of {len(lines) - 1} runs are done"
    assert not (tmp_path / "none").exists()
