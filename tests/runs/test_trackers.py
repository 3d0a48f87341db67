"""What can be watched while a run goes on, read back from the files of TensorBoard and Weights & Biases."""

import io
import json
import os
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from bert_emd_jax.errors import UserError
from bert_emd_jax.runs import run_config
from bert_emd_jax.runs.metrics_log import MetricsLog
from bert_emd_jax.runs.progress_bar import in_notebook, progress_bar, progress_fields
from bert_emd_jax.training.training_config import FinetuneConfig

PLAN = np.array([[0.5, 0.0, 0.0], [0.0, 0.25, 0.25]], np.float32)


def finetune_config(directory: Path, **flags) -> FinetuneConfig:
    paths = {"bert_model": Path("m"), "data_dir": Path("d"), "output_dir": directory}
    return FinetuneConfig(task_name="sst-2", **paths, **flags)


def events(directory: Path) -> list:
    """TensorBoard's records: length, its checksum, an Event, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(directory.glob("events.out.tfevents.*")):
        stream = io.BytesIO(path.read_bytes())
        while header := stream.read(12):
            found.append(Event.FromString(stream.read(struct.unpack("<Q", header[:8])[0])))
            stream.read(4)
    return found


def wandb_records(path: Path) -> list[bytes]:
    """A file of W&B: a header of 7 bytes, then LevelDB's log, whose records are cut at blocks of 32 KiB."""
    content, place, records, parts = path.read_bytes(), 7, [], []
    while place < len(content):
        if (room := 32768 - place % 32768) < 7:
            place += room
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        parts.append(content[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            records.append(b"".join(parts))
            parts = []
    return records


def test_the_same_numbers_in_all_files_and_pictures_of_the_plans(tmp_path):
    image = pytest.importorskip("PIL.Image")
    log = MetricsLog(tmp_path, 0)
    for step in range(1, 45):
        log.write("train", step, {"loss": 1 / step, "attention": PLAN, "hidden": PLAN.T[:2]})
    log.write("eval", 44, {"accuracy": 0.5, "best": True, "primary": "accuracy"})
    log.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[0] == {"step": 1, "kind": "train", "loss": 1.0}
    scalars, pictures = {}, []
    for event in events(tmp_path / "tensorboard"):
        for value in event.summary.value:
            if value.HasField("image"):
                assert value.tag == "mapping"
                pictures.append(event.step)
                picture = np.asarray(image.open(io.BytesIO(value.image.encoded_image_string)))
            else:
                scalars[value.tag, event.step] = value.simple_value
    expected = {(f"train/{key}", row["step"]): row[key] for row in rows[:-1] for key in ("loss",)}
    assert scalars == pytest.approx(expected | {("eval/accuracy", 44): 0.5})
    assert pictures == [20, 40, 44]
    # The brightest colour of viridis stands where half of the mass is, the darkest where nothing is.
    colours = {tuple(colour) for colour in picture.reshape(-1, 3)}
    assert {(253, 231, 36), (68, 1, 84)} <= colours
    assert (picture == (253, 231, 36)).all(-1).sum() > 100


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = finetune_config(tmp_path, wandb="a project")
    for step in (1, 2):  # a second run goes on with the first one's
        log = MetricsLog(tmp_path, step - 1, config.run.wandb, config.flags())
        log.write("train", step, {"loss": 0.5 * step, "attention": PLAN})
        log.write("eval", step, {"accuracy": 0.25 * step})
        log.close()
    history, runs = [], []
    for path in sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb")):
        for record in map(Record.FromString, wandb_records(path)):
            if record.HasField("history"):
                items = record.history.item
                history.append({item.nested_key[0] if item.nested_key else item.key: item for item in items})
            if record.HasField("run"):
                runs.append(record.run)
    names = ("step", "train/loss", "eval/accuracy")
    values = [{name: json.loads(row[name].value_json) for name in names if name in row} for row in history]
    assert {"step": 1, "train/loss": 0.5} in values
    assert {"step": 2, "eval/accuracy": 0.5} in values
    assert sum("mapping" in row for row in history) == 2
    assert {run.project for run in runs} == {"a project"}
    assert len({run.run_id for run in runs}) == 1
    settings = {item.key or item.nested_key[0]: item.value_json for item in runs[0].config.update}
    assert json.loads(settings["learning_rate"]) == 3e-5


def test_without_wandb_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(run_config, "_is_installed", lambda package: False)
    with pytest.raises(UserError, match=r"--wandb: .* pip install 'bert_emd_jax\[wandb\]'"):
        finetune_config(tmp_path, wandb="a")


def test_a_refusal_of_wandb_is_one_line(tmp_path, monkeypatch):
    class RefusalError(Exception):
        pass

    def init(**_):
        raise RefusalError("No API key\nconfigured")

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init, Error=RefusalError))
    monkeypatch.setattr(run_config, "_is_installed", lambda package: True)
    with pytest.raises(UserError, match=r"--wandb a: No API key configured; .*wandb login.* WANDB_MODE"):
        MetricsLog(tmp_path, 0, finetune_config(tmp_path, wandb="a").run.wandb)


def test_the_bar_shows_losses_throughput_and_gap():
    row = {"loss": 0.12345, "examples_per_second": 61.4, "attention_gap": 1e-6, "hidden_gap": 2.34e-5}
    assert progress_fields(row) == {"loss": "0.1235", "examples/s": "61", "gap": "2e-05"}
    assert progress_fields({"loss": None, "examples_per_second": 7.0}) == {"examples/s": "7"}
    parts = {"soft_loss": 0.34306, "attention_loss": 4.176, "hidden_loss": None, "hard_loss": 1.0}
    assert list(progress_fields(row | parts).items())[:3] == [
        *(("loss", "0.1235"), ("soft", "0.343"), ("attention", "4.18"))
    ]


def test_the_bar_in_a_notebook(monkeypatch):
    # A notebook's output is no terminal, and yet the bar is wanted there.
    assert not in_notebook()
    with progress_bar(3, 0, shown=True) as bar:
        assert bar.disable == (not sys.stderr.isatty())
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    assert in_notebook()
    with progress_bar(3, 1, shown=True) as bar:
        assert (bar.disable, bar.n, bar.total) == (False, 1, 3)
    with progress_bar(3, 1, shown=False) as bar:
        assert bar.disable


def test_the_command_line_in_the_record_repeats_the_run(tmp_path, monkeypatch):
    from bert_emd_jax.commands.flags import parse_flags
    from bert_emd_jax.distillation.distill_config import DistillConfig
    from bert_emd_jax.distillation.presets import with_preset_flags
    from bert_emd_jax.training.run import directory_of

    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    given = [
        "--teacher_model",
        "t",
        "--student_init_layers",
        "1,3",
        "--data_dir",
        "d e",
        "--task_name",
        "rte",
    ]
    given += ["--output_dir", os.fspath(tmp_path), "--preset", "bert_emd_4", "--no_use_hidden", "--aug_train"]
    given += ["--beta", "0.5", "--max_steps", "7", "--no_do_lower_case"]
    config = parse_flags(DistillConfig, with_preset_flags(given), "x", "")
    directory_of(config, "run_distill").write_config({})
    program, *line = json.loads((tmp_path / "run_config.json").read_text())["command_line"]
    assert (program, line.pop(0)) == ("bert-emd", "distill")
    assert parse_flags(DistillConfig, with_preset_flags(line), "x", "") == config
    assert "--temperature" not in line
