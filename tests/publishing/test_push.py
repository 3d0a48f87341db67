"""bert-emd push, against a hub on this machine that keeps what it is given."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bert_emd_jax.commands import push


class Hub:
    """Answers what `HfApi` asks to create a repository and commit files, or only with the code `refusal`."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.created: list[dict[str, Any]] = []
        self.messages: list[str] = []
        self.refusal: int | None = None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.path == "/api/validate-yaml":
                    text = json.loads(body)["content"]
                    wrong = [{"message": "license: no such licence"}] if "license: none" in text else []
                    self.answer(200 if not wrong else 400, {"errors": wrong, "warnings": []})
                elif hub.refusal is not None:
                    self.answer(hub.refusal, {"error": "refused"})
                elif self.path == "/api/repos/create":
                    hub.created.append(json.loads(body))
                    owner, name = (hub.created[-1].get("organization") or "me"), hub.created[-1]["name"]
                    self.answer(200, {"url": f"{hub.endpoint}/{owner}/{name}", "id": f"{owner}/{name}"})
                elif "/preupload/" in self.path:
                    names = [one["path"] for one in json.loads(body)["files"]]
                    modes = {"uploadMode": "regular", "shouldIgnore": False}
                    self.answer(200, {"files": [{"path": name, **modes} for name in names]})
                elif "/commit/" in self.path:
                    for line in map(json.loads, body.splitlines()):
                        value = line["value"]
                        if line["key"] == "header":
                            hub.messages.append(value["summary"])
                        else:
                            hub.files[value["path"]] = base64.b64decode(value["content"])
                    self.answer(200, {"commitUrl": f"{hub.endpoint}/me/small/commit/1", "commitOid": "1"})
                else:
                    self.answer(200, {})

            def do_GET(self) -> None:
                self.answer(404 if "/api/models/" in self.path else 200, {"siblings": []})

            def answer(self, status: int, content: dict[str, Any]) -> None:
                text = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants, hf_api

    one = Hub()
    for module in (constants, hf_api.constants):
        monkeypatch.setattr(module, "ENDPOINT", one.endpoint)
    monkeypatch.setattr(hf_api.api, "endpoint", one.endpoint)
    monkeypatch.setenv("HF_TOKEN", "hf_local")
    yield one
    one.server.shutdown()


def test_what_is_shown_is_what_arrives(hub: Hub, tiny_model_dir, capsys):
    model = tiny_model_dir("small")
    assert push.main([str(model), "me/small", "--dry_run"]) == 0
    shown = capsys.readouterr().out
    assert "me/small: 5 files" in shown
    assert "without a model card" in shown
    assert hub.created == []

    (model / "pytorch" / "README.md").write_text("---\nlicense: mit\n---\n# Small\n")
    (model / "pytorch" / "training.log").write_text("not for the hub")
    assert push.main([str(model), "me/small", "--private", "--yes", "--message", "First"]) == 0
    assert "/me/small" in capsys.readouterr().out
    expected = {path.name: path.read_bytes() for path in (model / "pytorch").iterdir()}
    expected.pop("training.log")
    assert hub.files == expected
    assert set(expected) == {
        *("config.json", "model.safetensors", "README.md"),
        *("tokenizer.json", "tokenizer_config.json", "vocab.txt"),
    }
    assert hub.messages == ["First"]
    assert "private" in (hub.created[0].get("visibility"), *hub.created[0])  # by its newer name, or its older


def test_nothing_happens_unasked(hub: Hub, tiny_model_dir, monkeypatch, capsys):
    model = tiny_model_dir("small")
    assert push.main([str(model), "me/small"]) == 2
    assert "--yes uploads without asking" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert push.main([str(model), "me/small"]) == 0
    assert "nothing was uploaded" in capsys.readouterr().out
    assert hub.created == []


def test_the_hub_looks_at_the_card_first(hub: Hub, tiny_model_dir, capsys):
    model = tiny_model_dir("small")
    (model / "pytorch" / "README.md").write_text("---\nlicense: none\n---\n# Small\n")
    assert push.main([str(model), "me/small", "--yes"]) == 2
    assert "README.md: " in (error := capsys.readouterr().err)
    assert "no such licence" in error
    assert hub.created == []


@pytest.mark.parametrize(
    ("status", "reason"),
    [(401, "the hub does not know you"), (403, "you may not write there"), (500, "500")],
)
def test_refusals_are_one_line(hub: Hub, tiny_model_dir, capsys, status: int, reason: str):
    hub.refusal = status
    assert push.main([str(tiny_model_dir("small")), "me/small", "--yes"]) == 2
    error = capsys.readouterr().err.strip()
    assert reason in error
    assert "\n" not in error


def test_wrong_names_and_directories(tiny_model_dir, tmp_path: Path, capsys):
    model = tiny_model_dir("small")
    (model / "pytorch" / "README.md").write_text("---\nlicense: [\n---\n")
    for directory, name, reason in (
        (model, "me/sma ll", "not a name on the hub"),
        (tmp_path, "me/small", "no model for PyTorch is there"),
        (model / "params", "me/small", "no model for PyTorch is there"),
        (model, "me/small", "not a model card"),
    ):
        assert push.main([str(directory), name, "--yes"]) == 2
        assert reason in capsys.readouterr().err
