"""The copy of a run in a bucket; fsspec's file system in memory stands for the bucket."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from bert_emd_jax.checkpoints.model_directory import load_model
from bert_emd_jax.commands import finetune
from bert_emd_jax.errors import UserError
from bert_emd_jax.runs import mirror
from bert_emd_jax.runs.mirror import Mirror

fsspec = pytest.importorskip("fsspec")
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry


class Bucket(MemoryFileSystem):
    protocol = ("gs", "gcs")
    store: dict = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(str(path).removeprefix("gs://"))


@pytest.fixture(autouse=True)
def bucket(monkeypatch):
    monkeypatch.setitem(_registry, "gcs", Bucket)
    Bucket.store.clear()
    Bucket.pseudo_dirs[:] = [""]
    backend.fsspec_backend._get_filesystem.cache_clear()
    yield Bucket()
    backend.fsspec_backend._get_filesystem.cache_clear()


def files_in(bucket: Bucket) -> dict[str, bytes]:
    return {path.removeprefix("/b/run/"): bucket.cat(path) for path in bucket.find("/b/run")}


def write(directory: Path, **contents: str) -> None:
    for name, content in contents.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_the_copy_follows_the_directory(tmp_path, bucket):
    run = tmp_path / "run"
    names = {"metrics.jsonl": "1\n", "checkpoints__5__state": "five", "run_config.json": "{}"}
    write(run, **names)
    write(run, **{"notes.txt": "mine", ".metrics.jsonl.writing": "half", "teacher_outputs__x__y.bin": "big"})
    write(run, **{"checkpoints__9.orbax-checkpoint-tmp__state": "half"})
    bucket.pipe("/b/run/checkpoints/1/state", b"of an earlier run")
    bucket.pipe("/b/run/thesis.tex", b"not a run's")
    copies = Mirror(run, "gs://b/run")
    copies.copy()
    expected = {name.replace("__", "/"): content.encode() for name, content in names.items()}
    assert files_in(bucket) == expected | {"thesis.tex": b"not a run's"}

    # What has not changed is not written again; what is gone goes.
    bucket.pipe("/b/run/run_config.json", b"not written again")
    write(run, **{"metrics.jsonl": "1\n2\n", "checkpoints__10__state": "ten"})
    shutil.rmtree(run / "checkpoints" / "5")
    copies.copy()
    after = files_in(bucket)
    assert after["run_config.json"] == b"not written again"
    assert after["metrics.jsonl"] == b"1\n2\n"
    assert {name for name in after if name.startswith("checkpoints")} == {"checkpoints/10/state"}

    with pytest.raises(UserError, match="--mirror_dir gs://b/run: holds a run; --resume"):
        Mirror(tmp_path / "new", "gs://b/run").prepare(resume=False, overwrite=False)
    Mirror(tmp_path / "new", "gs://b/run").prepare(resume=False, overwrite=True)
    assert not (tmp_path / "new").exists()


def test_a_place_out_of_reach_is_a_line_and_no_end(tmp_path, bucket, said, monkeypatch):
    def refuses(*args, **kwargs):
        raise RuntimeError("credentials\nhave expired")

    write(tmp_path / "run", **{"metrics.jsonl": "1\n"})
    with monkeypatch.context() as patched:
        patched.setattr(Bucket, "exists", refuses)
        with pytest.raises(UserError, match=r"--mirror_dir gs://b/run: cannot be read .*have expired"):
            Mirror(tmp_path / "run", "gs://b/run").prepare(resume=True, overwrite=False)
    with monkeypatch.context() as patched:
        patched.setattr(Bucket, "_open", refuses)
        with Mirror(tmp_path / "run", "gs://b/run"):
            pass
    assert "the copy of the run is not up to date (credentials have expired)" in said.text


def test_a_run_goes_on_from_its_copy(tmp_path, task_dir, tiny_model_dir, bucket, monkeypatch, capsys):
    monkeypatch.setattr(mirror, "_SECONDS_BETWEEN_COPIES", 0.01)  # while Orbax writes and deletes
    start, output = tiny_model_dir("start", num_hidden_layers=1), tmp_path / "tuned"
    flags = ["--bert_model", start, "--data_dir", task_dir]
    flags += ["--task_name", "custom", "--max_seq_length", 24, "--train_batch_size", 8, "--max_steps", 5]
    flags = [str(flag) for flag in (*flags, "--save_steps", 1, "--output_dir", output)]
    flags += ["--mirror_dir", "gs://b/run"]
    assert finetune.main(flags) == 0
    here = {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}
    assert files_in(bucket) == here
    assert {"report.html", "params/_METADATA"} <= here.keys()

    # The machine is gone, and was so before the results were written.
    shutil.rmtree(output)
    bucket.rm("/b/run/eval_results.json")
    capsys.readouterr()
    assert finetune.main([*flags, "--resume"]) == 0
    shown = capsys.readouterr().out
    assert "fetching the run from gs://b/run" in shown
    assert "resuming at step 5" in shown
    assert json.loads(bucket.cat("/b/run/eval_results.json"))["best_step"] == 5
    again = tmp_path / "again"
    bucket.get("/b/run/", str(again), recursive=True)
    copied = load_model(again if (again / "config.json").is_file() else again / "run")
    for ours, theirs in zip(
        jax.tree.leaves(copied.params), jax.tree.leaves(load_model(output).params), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("steps_there", [3, 5, 9])
def test_a_copy_that_is_further_replaces_what_is_here(tmp_path, bucket, steps_there):
    """The run has gone on on another machine, or not, since it was on this one."""
    here, there = (
        {"metrics.jsonl": "old", "checkpoints__5__state": "5", "checkpoints__4__state": "4"},
        "b/run",
    )
    write(tmp_path / "run", **here, **{"run_config.json": "{}", "notes.txt": "mine"})
    bucket.pipe({f"/{there}/{name}": b"new" for name in ("run_config.json", "metrics.jsonl")})
    bucket.pipe(f"/{there}/checkpoints/{steps_there}/state", b"new")
    Mirror(tmp_path / "run", f"gs://{there}").prepare(resume=True, overwrite=False)
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    checkpoints = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir() if any(path.iterdir())}
    is_further = steps_there > 5
    assert checkpoints == ({str(steps_there)} if is_further else {"4", "5"})
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == ("new" if is_further else "old")
