"""Files of a bucket on this machine; fsspec's file system in memory stands for the bucket."""

import io
import json
import threading
from pathlib import Path

import pytest

fsspec = pytest.importorskip("fsspec")
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from bert_emd_jax import buckets
from bert_emd_jax.buckets import is_bucket, local_copy, url_of
from bert_emd_jax.errors import UserError


class Bucket(MemoryFileSystem):
    protocol = ("gs", "gcs")
    store: dict = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    opened: list = []  # noqa: RUF012
    breaks_after: int | None = None

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(str(path).removeprefix("gs://"))

    def _open(self, path, mode="rb", **kwargs):
        file = super()._open(path, mode, **kwargs)
        if mode != "rb":
            return file
        self.opened.append(path)
        return Breaking(file.getvalue(), self.breaks_after)


class Breaking(io.BytesIO):
    """A file of which `reads` blocks of three bytes can be read, all of it if that is None."""

    def __init__(self, content: bytes, reads: int | None):
        super().__init__(content)
        self.reads = reads

    def read(self, size=-1):
        if self.reads is None:
            return super().read(size)
        if not self.reads:
            raise OSError("the connection broke off")
        self.reads -= 1
        return super().read(3)


@pytest.fixture(autouse=True)
def bucket(tmp_path, monkeypatch):
    monkeypatch.setenv("BERT_EMD_JAX_CACHE", str(tmp_path / "cache"))
    for name in ("gs", "gcs"):
        monkeypatch.setitem(_registry, name, Bucket)
    Bucket.store.clear()
    Bucket.pseudo_dirs[:] = [""]
    Bucket.opened.clear()
    Bucket.breaks_after = None
    buckets._fetched.cache_clear()
    yield Bucket()
    buckets._fetched.cache_clear()


def fetch(url: str) -> Path:
    """As another process would."""
    buckets._fetched.cache_clear()
    return local_copy(Path(url))


def contents(directory: Path) -> dict[str, str]:
    files = [path for path in directory.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {path.relative_to(directory).as_posix(): path.read_text() for path in files}


def test_a_directory_is_fetched_once(bucket):
    bucket.pipe({"/b/data/train.tsv": b"one", "/b/data/more/dev.tsv": b"two", "/b/database/x": b"not this"})
    here = fetch("gs://b/data")
    assert contents(here) == {"train.tsv": "one", "more/dev.tsv": "two"}
    assert sorted(bucket.opened) == ["/b/data/more/dev.tsv", "/b/data/train.tsv"]
    assert fetch("gs://b/data/") == here == local_copy("gs://b/data")
    assert len(bucket.opened) == 2


def test_what_has_changed_is_fetched_anew(bucket):
    bucket.pipe({"/b/data/a": b"old", "/b/data/b": b"same", "/b/data/c": b"goes"})
    here = fetch("gs://b/data")
    bucket.opened.clear()
    bucket.pipe("/b/data/a", b"new")  # as long as before
    bucket.rm("/b/data/c")
    assert contents(fetch("gs://b/data")) == {"a": "new", "b": "same"}
    assert bucket.opened == ["/b/data/a"]
    (here / "b").write_text("damaged")  # of another size
    assert contents(fetch("gs://b/data"))["b"] == "same"


def test_a_file_alone_keeps_its_name(bucket):
    bucket.pipe("/b/models/student.safetensors", b"weights")
    here = fetch("gs://b/models/student.safetensors")
    assert (here.name, here.read_text()) == ("student.safetensors", "weights")
    bucket.pipe("/b/one/only.txt", b"text")
    assert contents(fetch("gs://b/one")) == {"only.txt": "text"}  # a directory of one file is a directory


def test_what_broke_off_goes_on(bucket):
    bucket.pipe("/b/data/large", b"0123456789" * 3)
    Bucket.breaks_after = 4
    with pytest.raises(
        UserError, match=r"gs://b/data: cannot be fetched \(the connection broke off\); start again"
    ):
        fetch("gs://b/data")
    Bucket.breaks_after = None
    part = next((buckets.place_on_disk("gs://b/data", "fetched")).glob("large.part"))
    assert part.read_text() == "012345678901"
    part.write_text("x" * 12)  # kept: what follows is read from there on
    assert contents(fetch("gs://b/data")) == {"large": "x" * 12 + "234567890123456789"[:18]}


def test_names_that_are_no_files_here(bucket):
    bucket.pipe("/b/data/a", b"x")
    bucket.store["/b/data/"] = bucket.store["/b/data/a"]  # what some stores have for a directory
    assert contents(fetch("gs://b/data")) == {"a": "x"}
    bucket.store["/b/evil/../../x"] = bucket.store["/b/data/a"]
    with pytest.raises(UserError, match="which would be written elsewhere"):
        fetch("gs://b/evil")


def test_a_part_of_something_else_is_not_kept(bucket):
    bucket.pipe("/b/data/large", b"0123456789")
    Bucket.breaks_after = 2
    with pytest.raises(UserError):
        fetch("gs://b/data")
    Bucket.breaks_after = None
    bucket.pipe("/b/data/large", b"9876543210")
    assert contents(fetch("gs://b/data")) == {"large": "9876543210"}


def test_threads_of_one_machine_share(bucket):
    bucket.pipe({f"/b/data/{number}": b"x" * 1000 for number in range(20)})
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(buckets._fetched.__wrapped__("gs://b/data")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(bucket.opened) == 20


def test_what_cannot_be_fetched(bucket, monkeypatch):
    with pytest.raises(UserError, match="gs://b/nothing: no such file or directory in the bucket"):
        fetch("gs://b/nothing")

    def missing(url):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(UserError, match=r"pip install 'bert_emd_jax\[gcs\]' brings what that needs"):
        fetch("gs://b/data")


def test_paths_on_a_disk_are_as_they_are(tmp_path):
    assert local_copy(tmp_path) == tmp_path
    assert local_copy("org/model") == Path("org/model")
    assert url_of(Path("s3://b/x")) == "s3://b/x"
    assert (is_bucket("s3://b/x"), is_bucket("https://host/x")) == (True, False)


def test_a_run_from_bucket_to_bucket(bucket, tmp_path, task_dir, tiny_model_dir, capsys, monkeypatch):
    """Data, model and results are in buckets; another machine, with nothing of it, goes on and evaluates."""
    from etils.epath import backend

    from bert_emd_jax.commands import evaluate, finetune

    backend.fsspec_backend._get_filesystem.cache_clear()
    model = tiny_model_dir("model", num_hidden_layers=1)
    for name, directory in (("data", task_dir), ("model", model)):
        bucket.pipe(
            {
                f"/b/{name}/{path.relative_to(directory)}": path.read_bytes()
                for path in directory.rglob("*")
                if path.is_file()
            }
        )
    flags = ["--bert_model", "gs://b/model", "--data_dir", "gs://b/data", "--task_name", "custom"]
    flags += ["--output_dir", "gs://b/run", "--max_seq_length", "16", "--max_steps", "2", "--resume"]
    assert finetune.main(flags) == 0
    assert "a copy of all: gs://b/run" in capsys.readouterr().out
    written = {path.removeprefix("/b/run/") for path in bucket.find("/b/run")}
    assert {"config.json", "eval_results.json", "report.html", "run_config.json"} <= written
    results = json.loads(bucket.cat("/b/run/eval_results.json"))

    # Another machine: the finished run is fetched, and nothing is left to do.
    monkeypatch.setenv("BERT_EMD_JAX_CACHE", str(tmp_path / "other"))
    buckets._fetched.cache_clear()
    assert finetune.main(flags) == 0
    assert json.loads(bucket.cat("/b/run/eval_results.json")) == results
    before = len(Bucket.opened)
    flags = ["--student_model", "gs://b/run", "--data_dir", "gs://b/data", "--task_name", "custom"]
    assert evaluate.main([*flags, "--output_dir", str(tmp_path / "scores"), "--max_seq_length", "16"]) == 0
    opened = {path.split("/")[3] for path in Bucket.opened[before:] if path.startswith("/b/run/")}
    assert "params" in opened  # and nothing of a run that a model does not need
    assert not {"checkpoints", "pytorch", "tensorboard"} & opened
    accuracy = results["student"]["metrics"]["accuracy"]
    assert f"accuracy: {accuracy:.4f}" in capsys.readouterr().out
    backend.fsspec_backend._get_filesystem.cache_clear()
