"""Names of the Hugging Face hub: resolved by a stand-in for the hub, or from a cache in the hub's layout."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bert_emd_jax.checkpoints import hub
from bert_emd_jax.checkpoints.hub import resolve_model
from bert_emd_jax.errors import UserError

pytest.importorskip("huggingface_hub")
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def content(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def refusal(name) -> str:
    with pytest.raises(UserError) as caught:
        resolve_model(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Hub:
    """A hub on this machine with a few models: repository → file → content, or the error code it answers."""

    def __init__(self):
        self.models: dict[str, Mapping[str, str | bytes] | str] = {}
        self.fetched: list[str] = []
        self.delay = 0.0
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                self.do_GET()

            def do_GET(self):
                time.sleep(hub.delay)
                path = self.path.partition("?")[0].strip("/")
                repo = next((repo for repo in hub.models if f"/{repo}/" in f"/{path}/"), None)
                model = hub.models.get(repo or "", "RepoNotFound")
                if isinstance(model, str):
                    return self.answer(403 if model == "GatedRepo" else 404, b"", {"X-Error-Code": model})
                if "/resolve/" in path:
                    name = path.split("/resolve/")[1].partition("/")[2]
                    if self.command == "GET":
                        hub.fetched.append(name)
                    return self.answer(
                        200, content(model[name]), {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT}
                    )
                files = [{"rfilename": name} for name in model]
                listing = {
                    "id": repo,
                    "sha": COMMIT,
                    "siblings": files,
                    "private": False,
                    "downloads": 0,
                    "tags": [],
                }
                tree = [
                    {"type": "file", "path": name, "size": len(content), "oid": name}
                    for name, content in model.items()
                ]
                return self.answer(200, json.dumps(tree if "/tree/" in path else listing).encode(), {})

            def answer(self, status, content, headers):
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def local_hub(tmp_path, monkeypatch):
    """A reachable hub and an empty cache."""
    running = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", running.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield running
    running.server.shutdown()
    running.server.server_close()


def test_local_paths_stay_as_they_are(tmp_path, monkeypatch, local_hub):
    local_hub.models["google/bert"] = "RepoNotFound"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "google" / "bert").mkdir(parents=True)
    (tmp_path / "model.bin").touch()
    (tmp_path / "bert_model.ckpt.index").touch()
    for name in ("google/bert", Path("google/bert"), str(tmp_path), "model.bin", "bert_model.ckpt"):
        assert resolve_model(name) == Path(name)


@pytest.mark.parametrize(
    "name",
    ["/absent", "./absent", "../absent", "a/b/c", "absent.bin", "a/model.safetensors", "a b", "a@b@c", "~/a"],
)
def test_what_is_no_hub_id_is_a_missing_path(name):
    assert refusal(name) == f"{name}: no such file or directory"


def test_only_the_needed_files_are_fetched(local_hub, monkeypatch):
    some = {
        name: name for name in ("README.md", "config.json", "vocab.txt", "tf_model.h5", "onnx/model.onnx")
    }
    local_hub.models = {
        "google-bert/both": some | {"model.safetensors": "s", "pytorch_model.bin": "b"},
        "plain": some | {"pytorch_model.bin": "b", "spiece.model": "m"},
        "some/shards": some
        | {f"pytorch_model-0000{shard}-of-00002.bin": "b" for shard in (1, 2)}
        | {"pytorch_model.bin.index.json": "{}"},
        "google-bert/none": some,
        "a/roberta": {
            name: name for name in ("config.json", "vocab.json", "merges.txt", "model.safetensors")
        },
    }
    directory = resolve_model(Path("google-bert/both"))
    assert sorted(local_hub.fetched) == ["config.json", "model.safetensors", "vocab.txt"]
    assert (directory / "config.json").read_text(encoding="utf-8") == "config.json"

    local_hub.fetched.clear()
    assert (resolve_model("plain@main") / "pytorch_model.bin").is_file()
    assert sorted(local_hub.fetched) == ["config.json", "pytorch_model.bin", "spiece.model", "vocab.txt"]

    local_hub.fetched.clear()
    resolve_model("a/roberta")
    assert sorted(local_hub.fetched) == ["config.json", "merges.txt", "model.safetensors", "vocab.json"]

    local_hub.fetched.clear()
    resolve_model("some/shards")
    assert len(local_hub.fetched) == 5
    assert "holds none of model.safetensors" in refusal("google-bert/none")

    # The next time without a connection: from the cache.
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert resolve_model("google-bert/both") == directory
    assert "not reachable" in refusal("google-bert/other")


def test_what_the_hub_refuses(local_hub):
    local_hub.models = {"some/gated": "GatedRepo", "some/model": "RevisionNotFound"}
    assert "no such model on the Hugging Face hub" in refusal("no/model")
    assert "no such model on the Hugging Face hub" in refusal("teacher")
    assert "permission" in refusal("some/gated")
    assert "no such revision" in refusal("some/model@v7")


def test_a_hub_that_does_not_answer(local_hub, monkeypatch):
    assert hub._TIMEOUT <= 10
    monkeypatch.setattr(hub, "_TIMEOUT", 0.3)
    local_hub.delay = 5
    started = time.monotonic()
    assert "not reachable" in refusal("google-bert/bert-base-uncased")
    assert time.monotonic() - started < 4


def test_offline_with_a_cache(tmp_path):
    """HF_HUB_OFFLINE=1 and a cache as the hub's library lays it out: links into `blobs`."""
    folder = tmp_path / "cache" / "models--google-bert--tiny"
    snapshot = folder / "snapshots" / COMMIT
    for directory in (folder / "refs", folder / "blobs", snapshot):
        directory.mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    for number, name in enumerate(("config.json", "pytorch_model.bin")):
        (folder / "blobs" / str(number)).write_text(name, encoding="utf-8")
        (snapshot / name).symlink_to(Path("../../blobs") / str(number))
    code = """
from bert_emd_jax.errors import UserError
from bert_emd_jax.checkpoints.hub import resolve_model
print(resolve_model("google-bert/tiny"))
for name in ("google-bert/absent", "google-bert/tiny@other"):
    try:
        print(resolve_model(name))
    except UserError as error:
        print(error)
"""
    environment = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "cache"), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    found, absent, revision = done.stdout.splitlines()
    assert found == str(snapshot)
    assert absent.startswith("google-bert/absent: no such file or directory, and the Hugging Face hub")
    assert revision.startswith("google-bert/tiny@other: no such file or directory, and the Hugging Face hub")


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install huggingface_hub" in refusal("google-bert/bert-base-uncased")
