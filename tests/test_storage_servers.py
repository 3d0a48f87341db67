"""Buckets through the real packages and protocols: gcsfs and s3fs, and servers of both on this machine."""

import json
from pathlib import Path

import fsspec
import pytest
from storage_servers import amazon_s3, google_storage

from bert_emd_jax import buckets
from bert_emd_jax.buckets import local_copy
from bert_emd_jax.errors import UserError
from bert_emd_jax.runs.mirror import Mirror


@pytest.fixture(params=["gs", "s3"])
def bucket(request, tmp_path, monkeypatch):
    """The URL of an empty bucket, and the file system in which it is."""
    monkeypatch.setenv("BERT_EMD_JAX_CACHE", str(tmp_path / "cache"))
    with {"gs": google_storage, "s3": amazon_s3}[request.param]() as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        # fsspec reads its part of the environment when it is imported.
        fsspec.config.set_conf_env(fsspec.config.conf)
        system_type = fsspec.get_filesystem_class(request.param)
        system_type.clear_instance_cache()
        yield f"{request.param}://bucket", fsspec.filesystem(request.param)
        system_type.clear_instance_cache()
        fsspec.config.conf.pop("gcs", None)


def fetched(url: str) -> Path:
    """As another process would."""
    buckets._fetched.cache_clear()
    fsspec.get_filesystem_class(url.partition(":")[0]).clear_instance_cache()
    return local_copy(url)


def contents(directory: Path) -> dict[str, str]:
    files = [path for path in directory.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {path.relative_to(directory).as_posix(): path.read_text() for path in files}


def test_what_is_read_is_fetched_and_followed(bucket):
    url, system = bucket
    for name, text in {"train.tsv": "one", "more/dev.tsv": "two", "gone.tsv": "three"}.items():
        system.pipe(f"bucket/data/{name}", text.encode())
    assert contents(fetched(f"{url}/data")) == {
        "train.tsv": "one",
        "more/dev.tsv": "two",
        "gone.tsv": "three",
    }
    system.pipe("bucket/data/train.tsv", b"eno")  # as long as before
    system.rm("bucket/data/gone.tsv")
    assert contents(fetched(f"{url}/data")) == {"train.tsv": "eno", "more/dev.tsv": "two"}
    assert fetched(f"{url}/data/more/dev.tsv").read_text() == "two"
    with pytest.raises(UserError, match=f"{url}/nothing: no such file or directory"):
        fetched(f"{url}/nothing")
    with pytest.raises(UserError, match="/none/x: "):
        fetched(f"{url.partition(':')[0]}://none/x")


def test_a_run_is_kept_and_comes_back(bucket, tmp_path):
    url, system = bucket
    run = tmp_path / "run"
    for path, text in {
        "run_config.json": "{}",
        "metrics.jsonl": "1\n",
        "checkpoints/5/state": "five",
        "checkpoints/5/nested/part": "of five",
    }.items():
        (run / path).parent.mkdir(parents=True, exist_ok=True)
        (run / path).write_text(text)
    copies = Mirror(run, f"{url}/run")
    copies.prepare(resume=True, overwrite=False)
    copies.copy()
    (run / "metrics.jsonl").write_text("1\n2\n")
    (run / "checkpoints" / "9").mkdir()
    (run / "checkpoints" / "9" / "state").write_text("nine")
    (run / "checkpoints" / "5" / "state").unlink()
    copies.copy()
    system.invalidate_cache()
    assert not system.exists("bucket/run/checkpoints/5/state")

    elsewhere = tmp_path / "elsewhere"
    with pytest.raises(UserError, match="holds a run; --resume continues it"):
        Mirror(elsewhere, f"{url}/run").prepare(resume=False, overwrite=False)
    Mirror(elsewhere, f"{url}/run").prepare(resume=True, overwrite=False)
    assert contents(elsewhere) == contents(run)
    assert json.loads(system.cat("bucket/run/run_config.json")) == {}
