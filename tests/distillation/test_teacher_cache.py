"""The teacher's outputs, computed once: as in the step, in memory, on devices, in files, after faults."""

import dataclasses
import functools
import json
import os
import shutil
import signal
from collections import namedtuple
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_emd_jax.checkpoints.model_directory import load_model
from bert_emd_jax.commands import distill
from bert_emd_jax.devices.device_needs import DeviceNeeds
from bert_emd_jax.distillation import outputs_on_devices, teacher_cache, teacher_outputs
from bert_emd_jax.distillation.distill_config import DistillConfig
from bert_emd_jax.distillation.outputs_on_devices import OutputsOnDevices, outputs_from_tables
from bert_emd_jax.distillation.teacher_cache import rows_with_teacher
from bert_emd_jax.distillation.teacher_outputs import KINDS, TeacherOutputs
from bert_emd_jax.encoding.batching import BatchSchedule
from bert_emd_jax.encoding.task_data import load_task_data, task_of
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.heads import SequenceClassifier, forward
from bert_emd_jax.training.row_source import TaskRows

FILES = {f"{kind}.bin" for kind in KINDS}


@pytest.fixture
def teacher(tiny_model_dir):
    return load_model(tiny_model_dir("teacher"))


@pytest.fixture
def config(tmp_path, task_dir) -> DistillConfig:
    return DistillConfig(
        teacher_model=tmp_path / "teacher",
        student_init_layers=(1, 3),
        data_dir=task_dir,
        task_name="custom",
        output_dir=tmp_path / "student",
        cache_dir=tmp_path / "cache",
        max_seq_length=24,
        train_batch_size=8,
        num_train_epochs=2,
    )


@pytest.fixture
def dataset(config, teacher):
    return load_task_data(
        config.task, task_of(config.task), teacher.tokenizer, config.optimizer.steps_on, ()
    ).train


def module_of(teacher):
    return SequenceClassifier(teacher.config)


def test_rows_come_back_as_the_teacher_gives_them(tmp_path, teacher, dataset, monkeypatch):
    monkeypatch.setattr(teacher_outputs, "_BATCHES_PER_COMPILATION", 1)
    outputs = TeacherOutputs(teacher.config, dataset)
    outputs.fill_memory(module_of(teacher), teacher.params)
    rows, length = np.array([30, 2, 17]), 24
    kept = outputs.collate(rows, length, 8)["teacher"]
    batch = dataset.collate(rows, length, 8)
    expected = forward(module_of(teacher), teacher.params, batch)
    real = batch["attention_mask"].astype(bool)
    hidden = np.moveaxis(expected.hidden_states, 1, 0)
    scores = np.moveaxis(expected.attention_scores, 1, 0)
    pairs = real[:, None, None, :, None] & real[:, None, None, None, :]
    for name, values, mask in (
        ("hidden_states", hidden, real[:, None, :, None]),
        ("attention_scores", scores, pairs),
    ):
        ours = kept[name].astype(np.float32)
        assert ours.shape == values.shape
        np.testing.assert_allclose(ours, np.where(mask, values, 0), rtol=2**-8, atol=1e-6)
        assert np.any(np.asarray(values)[~np.broadcast_to(mask, values.shape)])  # so zeros are no accident
    np.testing.assert_allclose(kept["logits"][:3], expected.logits[:3], rtol=1e-5)

    by_kind = (dataset.lengths.astype(int) * 5 * 16 * 2, dataset.lengths.astype(int) ** 2 * 4 * 2 * 2)
    assert outputs.bytes == sum(map(np.sum, by_kind)) + 37 * 2 * 4


@pytest.fixture
def on_devices(monkeypatch):
    """Makes filled tables: in several batches of three lengths, rows of each on several devices."""
    monkeypatch.setattr(outputs_on_devices, "_ROWS_AT_ONCE", 8)
    monkeypatch.setattr(outputs_on_devices, "device_needs", lambda: DeviceNeeds(False, (2, 3)))

    def make(teacher, dataset, kinds=KINDS):
        outputs = OutputsOnDevices(teacher.config, dataset, kinds)
        assert len({batch.length for batch in outputs._batches}) == 3
        outputs.fill(module_of(teacher), teacher.params)
        return outputs

    return make


def read_tables(outputs, rows, length, padded_rows):
    numbers = outputs.collate(rows, length, padded_rows)["kept_rows"]
    assert numbers.tolist() == [*rows, *[-1] * (padded_rows - len(rows))]
    read = jax.jit(functools.partial(outputs_from_tables, length=length))
    return jax.device_get(read(outputs.tables, numbers))


def test_rows_come_back_from_the_tables_of_every_device(teacher, dataset, on_devices):
    outputs = on_devices(teacher, dataset)
    for array in jax.tree.leaves(outputs.tables):
        copies = [np.asarray(shard.data) for shard in array.addressable_shards]
        assert len(copies) == jax.local_device_count()
        assert all(np.array_equal(copies[0], copy) for copy in copies)
    for rows in np.split(np.random.default_rng(0).permutation(len(dataset)), [8, 13, 21]):
        length = int(dataset.lengths[rows].max()) + 3
        kept = read_tables(outputs, rows, length, 17)
        batch = dataset.collate(rows, length, 17)
        expected = forward(module_of(teacher), teacher.params, batch)
        tokens = batch["attention_mask"].astype(bool)
        pairs = tokens[None, :, None, :, None] & tokens[None, :, None, None, :]
        for ours, theirs, mask in (
            (kept.embeddings, expected.embeddings, tokens[:, :, None]),
            (kept.layer_outputs, expected.layer_outputs, tokens[None, :, :, None]),
            (kept.attention_scores, expected.attention_scores, pairs),
        ):
            assert ours.dtype == jnp.bfloat16
            masked = np.where(mask, theirs, 0)
            np.testing.assert_allclose(ours.astype(np.float32), masked, rtol=2**-8, atol=1e-6)
        logits = np.where(batch["attention_mask"][:, :1], expected.logits, 0)
        np.testing.assert_allclose(kept.logits, logits, rtol=1e-5, atol=1e-6)

    # As large as said, and hardly larger than on the host.
    assert outputs.bytes == sum(table.nbytes for table in outputs.tables.values.values())
    on_host = TeacherOutputs(teacher.config, dataset).bytes
    assert on_host <= outputs.bytes < 1.25 * on_host  # room behind the last batch


def test_tables_hold_only_the_kinds_that_are_asked_for(teacher, dataset, on_devices):
    for kinds in (("logits",), ("attention_scores", "logits")):
        kept = read_tables(on_devices(teacher, dataset, kinds), np.array([3, 1]), 24, 2)
        assert kept.layer_outputs is kept.embeddings is None
        assert {kind for kind in KINDS[1:] if getattr(kept, kind) is not None} == set(kinds)


def test_files_hold_the_same_and_are_completed_after_a_kill(tmp_path, teacher, dataset, monkeypatch):
    monkeypatch.setattr(teacher_outputs, "_ROWS_AT_ONCE", 8)
    in_memory = TeacherOutputs(teacher.config, dataset)
    in_memory.fill_memory(module_of(teacher), teacher.params)
    every = np.arange(len(dataset))

    # First a run that needs logits alone, then one that needs everything, killed in its third batch.
    logits = TeacherOutputs(teacher.config, dataset, ("logits",))
    logits.fill_files(tmp_path / "kept", module_of(teacher), teacher.params)
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"logits.bin", ".lock"}
    before = (tmp_path / "kept" / "logits.bin").read_bytes()
    TeacherOutputs(teacher.config, dataset).fill_files(tmp_path / "kept", module_of(teacher), teacher.params)
    assert (tmp_path / "kept" / "logits.bin").read_bytes() == before
    whole = {name: (tmp_path / "kept" / name).read_bytes() for name in FILES}
    for name, share in (("hidden_states.bin", 0.55), ("attention_scores.bin", 0.6)):
        os.truncate(tmp_path / "kept" / name, int(len(whole[name]) * share))

    forwards = 0
    original = dataset.collate

    def counted(*args):
        nonlocal forwards
        forwards += 1
        return original(*args)

    watched = dataclasses.replace(dataset)
    object.__setattr__(watched, "collate", counted)
    again = TeacherOutputs(teacher.config, watched)
    again.fill_files(tmp_path / "kept", module_of(teacher), teacher.params)
    assert 0 < forwards < 5  # of five batches
    assert {name: (tmp_path / "kept" / name).read_bytes() for name in FILES} == whole
    ours, theirs = (kept.collate(every, 24, 40)["teacher"] for kept in (again, in_memory))
    for name, values in theirs.items():
        np.testing.assert_array_equal(ours[name], values)


def test_auto_decides_by_what_it_saves_and_by_room(config, teacher, dataset, monkeypatch):
    def place(**changes):
        changed = config.replace(**changes)
        rows = TaskRows(dataset, BatchSchedule(dataset.lengths, (24,), 8, seed=0))
        return rows_with_teacher(changed, rows, dataset, teacher, module_of(teacher), None)[1]

    assert place() == "off"  # so small a teacher is computed in no time
    monkeypatch.setattr(teacher_cache, "_LEAST_FLOPS_SAVED", 1.0)
    assert place() == "memory"
    assert place(num_train_epochs=1) == "off"  # every row is needed once
    assert place(max_steps=4) == "off"
    assert place(padding="include") == "off"
    monkeypatch.setattr(teacher_cache, "_SHARE_OF_MEMORY", 0.0)
    assert place() == "disk"
    monkeypatch.setattr(teacher_cache, "_SHARE_OF_DISK", 0.0)
    assert place() == "off"
    with pytest.raises(UserError, match="--teacher_cache disk: with --padding include"):
        place(teacher_cache="disk", padding="include")

    usage = namedtuple("usage", "total used free")(10**12, 10**12 - 1000, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"need 0\.0 GB in .*cache, where 0\.0 GB are free"):
        place(teacher_cache="disk")
    monkeypatch.setattr(teacher_cache, "_memory_bytes", lambda: 1000)
    with pytest.raises(UserError, match="--teacher_cache memory: the teacher's outputs are"):
        place(teacher_cache="memory")
    monkeypatch.setattr(teacher_cache, "device_memory", lambda: 1000)
    with pytest.raises(UserError, match="--teacher_cache device: the teacher's outputs are"):
        place(teacher_cache="device")

    # A GPU keeps them itself or not at all, a TPU never.
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(teacher_cache, "device_memory", lambda: 10**9)
    assert place() == "off"
    monkeypatch.setattr(teacher_cache, "_LEAST_FLOPS_SAVED_ON_GPUS", 1.0)
    assert place() == "device"
    assert place(num_train_epochs=1) == "off"
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert place() == "off"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(teacher_cache, "device_memory", lambda: 1000)
    assert place() == "off"


def test_an_unwritable_cache_is_one_line(config, teacher, dataset, tmp_path):
    (tmp_path / "cache").write_text("a file")
    outputs = TeacherOutputs(teacher.config, dataset)
    with pytest.raises(UserError, match=r"--teacher_cache: .*cache.* cannot be written"):
        outputs.fill_files(tmp_path / "cache" / "x", module_of(teacher), teacher.params)


def test_the_key_follows_everything_that_the_outputs_follow_from(teacher, dataset):
    def key(dtype=jnp.float32, teacher=teacher, dataset=dataset):
        module = SequenceClassifier(teacher.config, dtype)
        return teacher_cache._content_hash(module, teacher, dataset)

    kernel = {"kernel": teacher.params["classifier"]["kernel"] + 1e-3}
    params = teacher.params | {"classifier": teacher.params["classifier"] | kernel}
    ids = dataset.token_ids.copy()
    ids[-2] += 1
    changed = {
        key(),
        key(dtype=jnp.bfloat16),
        key(teacher=dataclasses.replace(teacher, params=params)),
        key(dataset=dataclasses.replace(dataset, token_ids=ids)),
    }
    assert len(changed) == 4
    assert key(dtype=np.float32) == key()


def make_run(config, name: str, *more: str, exit_code: int = 0) -> Path:
    output = config.program.output_dir.with_name(name)
    flags = ["--teacher_model", str(config.pair.teacher_model[0]), "--student_init_layers", "1,3"]
    flags += ["--data_dir", str(config.task.data_dir), "--task_name", "custom", "--max_seq_length", "24"]
    flags += ["--train_batch_size", "8", "--num_train_epochs", "2", "--output_dir", str(output)]
    flags += ["--learning_rate", "1e-3", "--beta", "1", "--log_steps", "1"]
    assert distill.main([*flags, "--cache_dir", str(config.task.cache_dir), *more]) == exit_code
    return output


def losses(output: Path) -> np.ndarray:
    rows = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
    names = ("loss", "attention_loss", "hidden_loss", "prediction_loss")
    return np.array([[row[name] for name in names] for row in rows if row["kind"] == "train"])


def test_a_run_stopped_while_the_teacher_is_computed_ends_as_another(
    tmp_path, config, teacher, dataset, monkeypatch, capsys
):
    run = functools.partial(make_run, config)

    def leaves(output: Path) -> list:
        return jax.tree.leaves(load_model(output).params)

    kept = run("kept", "--teacher_cache", "disk")
    (entry,) = (tmp_path / "cache").glob("teacher-*")
    assert {path.name for path in entry.iterdir()} == FILES | {".lock"}

    capsys.readouterr()
    on_devices = run("device", "--teacher_cache", "device")
    assert "are computed once and kept in the memory of every device" in capsys.readouterr().out
    assert json.loads((on_devices / "run_config.json").read_text())["teacher_cache"] == "device"
    np.testing.assert_allclose(losses(on_devices), losses(kept), rtol=2e-5)

    # "auto": a signal comes while the teacher is computed; the resumed run ends like the other and tidies up.
    monkeypatch.setattr(teacher_cache, "_LEAST_FLOPS_SAVED", 1.0)
    monkeypatch.setattr(teacher_cache, "_SHARE_OF_MEMORY", 0.0)
    with monkeypatch.context() as patched:
        fill = TeacherOutputs.fill_files

        def stopped(*args):
            fill(*args)
            os.kill(os.getpid(), signal.SIGTERM)

        patched.setattr(TeacherOutputs, "fill_files", stopped)
        auto = run("auto", exit_code=143)
    assert "before the first step" in capsys.readouterr().err
    assert len(list((auto / "teacher_outputs").glob("*/logits.bin"))) == 1
    run("auto", "--resume", "--teacher_cache", "off", exit_code=2)
    assert "the run began with --teacher_cache disk" in capsys.readouterr().err
    run("auto", "--resume")
    assert not (auto / "teacher_outputs").exists()
    np.testing.assert_array_equal(losses(auto), losses(kept))
    for ours, theirs in zip(leaves(auto), leaves(kept), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_batch_that_brings_the_outputs_is_a_batch_with_the_teacher(teacher, dataset):
    """`given_output` and `kept_outputs` are each other's inverse, and kinds that are not kept are None."""
    batch = dataset.collate(np.arange(4), 24)
    output = forward(module_of(teacher), teacher.params, batch)
    brought = teacher_outputs.given_output(batch | {"teacher": teacher_outputs.kept_outputs(output, KINDS)})
    for kind in KINDS:
        exact = getattr(output, kind)
        np.testing.assert_array_equal(getattr(brought, kind), exact.astype(getattr(brought, kind).dtype))
    logits = teacher_outputs.given_output(batch | {"teacher": {"logits": jnp.zeros((4, 2))}})
    assert logits.layer_outputs is None
    assert teacher_outputs.given_output(batch) is None
