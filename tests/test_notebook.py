"""The example notebook: its forms filled in for a tiny model and task, every cell run by a real kernel."""

import ast
import importlib.util
import json
import re
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
from IPython.core.inputtransformer2 import TransformerManager

import bert_emd_jax
from bert_emd_jax.data.kinds import KINDS
from bert_emd_jax.data.tasks import TASK_NAMES

NOTEBOOK = Path(__file__).parents[1] / "examples" / "bert_emd_colab.ipynb"
FIELD = re.compile(r"^(?P<name>[A-Z_]+) = (?P<value>.+?)  # @param (?P<form>.+)$", re.M)


def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_of(cell_id: str) -> str:
    return next(cell.source for cell in notebook().cells if cell.id == cell_id)


def filled_in(source: str, **fields: Any) -> str:
    """What Colab's form does to a cell: other values in the lines of its fields."""
    return FIELD.sub(
        lambda field: f"{field['name']} = {fields.get(field['name'], ast.literal_eval(field['value']))!r}",
        source,
    )


def run(source: str, names: dict[str, Any]) -> None:
    exec(TransformerManager().transform_cell(source), names)


def test_it_is_a_notebook_whose_forms_offer_what_there_is():
    nbformat.validate(notebook())
    fields = {field["name"]: field for cell in notebook().cells for field in FIELD.finditer(cell.source)}
    assert ast.literal_eval(fields["SOURCE"]["value"]) == ""  # never a name that pip would look for
    for field in fields.values():
        form, value = field["form"], ast.literal_eval(field["value"])
        if form.startswith("["):
            assert value in json.loads(form)
        else:
            assert {"string": str, "integer": int, "boolean": bool}[form.split('"')[1]] is type(value)
    tasks = json.loads(fields["TASK"]["form"])
    assert sorted(name.upper() for name in tasks[2:]) == sorted(
        name.upper() for name in TASK_NAMES if name not in ("custom", "AX")
    )
    of_labels = sorted(name for name, kind in KINDS.items() if kind.head == "classifier")
    assert json.loads(fields["KIND"]["form"]) == of_labels


def test_it_shows_what_a_run_of_the_demo_found():
    """`make notebook` leaves that, for readers on the web who run nothing."""
    outputs = {cell.id: cell.outputs for cell in notebook().cells if cell.cell_type == "code"}
    for name in ("mapping-end", "mapping-first", "weights"):
        assert any("image/png" in output.get("data", {}) for output in outputs[name]), name
    scores = outputs["scores"][0].text
    both = re.search(r"^accuracy, 1,000 test rows +(0\.\d+) .*? (0\.\d+) \(", scores, re.M)
    assert both, scores
    assert min(float(score) for score in both.groups()) > 0.8
    assert outputs["install"] == outputs["report"] == []
    assert not any(output.get("name") == "stderr" for cell in outputs.values() for output in cell)
    assert NOTEBOOK.stat().st_size < 400_000


def test_it_runs_and_running_it_again_trains_nothing(tmp_path, tiny_model_dir, task_dir):
    fields = {
        **{"TASK": "my files", "FILES": str(task_dir), "MODEL": str(tiny_model_dir("start") / "pytorch")},
        **{"STUDENT_EPOCHS": 1, "MAX_SEQ_LENGTH": 16, "RUN": "run", "TEXT": "the film is good"},
    }
    executed = notebook()
    for cell in executed.cells:
        if cell.cell_type == "code":
            cell.source = filled_in(cell.source, **fields)
            cell.outputs = []
    # Without the long cells in between, "Run all" after a disconnect.
    last = next(index for index, cell in enumerate(executed.cells) if cell.id == "distil")
    client = nbclient.NotebookClient(
        executed, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    with client.setup_kernel():
        for index, cell in enumerate(executed.cells):
            client.execute_cell(cell, index)
        outputs = {cell.id: cell.outputs for cell in executed.cells if cell.cell_type == "code"}
        student = tmp_path / "run" / "student"
        results = json.loads((student / "eval_results.json").read_text())
        logged = (student / "metrics.jsonl").read_bytes()
        again = nbformat.from_dict(executed)
        for index, cell in enumerate(again.cells[: last + 1]):
            client.execute_cell(cell, index)

    assert (student / "metrics.jsonl").read_bytes() == logged
    assert json.loads((student / "eval_results.json").read_text()) == results
    assert (results["teacher"]["layers"], results["student"]["layers"]) == (4, 2)
    assert f"{results['test']['student']['metrics']['accuracy']:.3f}" in outputs["scores"][0].text
    for name in ("mapping-end", "mapping-first", "weights"):
        assert any("image/png" in output.get("data", {}) for output in outputs[name]), name
    assert outputs["arrays"][0].text.count("of its mass goes to teacher layer") == 2
    assert "srcdoc" in outputs["report"][-1].data["text/html"]
    model = bert_emd_jax.load(student)
    assert outputs["use"][-1].data["text/plain"] == repr(model.classify(["the film is good"])[0])
    with zipfile.ZipFile(tmp_path / "run" / "student.zip") as archive:
        assert {"config.json", "model.safetensors", "vocab.txt"} <= set(archive.namelist())
    if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
        said = "".join(output.text for output in outputs["torch"] if output.get("name") == "stdout")
        assert float(said.rpartition(":")[2]) < 1e-5


class Shell:
    """Stands for IPython, which would install."""

    def __init__(self):
        self.lines = []

    def run_line_magic(self, name, line):
        self.lines.append(f"{name} {line}")


def test_an_empty_source_is_said_and_a_given_one_installed_beside_the_jax_there_is(tmp_path, monkeypatch):
    shell, real = Shell(), importlib.util.find_spec
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "bert_emd_jax" else real(name)
    )
    source = code_of("install")
    with pytest.raises(SystemExit, match="SOURCE is empty"):
        run(source, {"get_ipython": lambda: shell})
    assert shell.lines == []
    run(filled_in(source, SOURCE="git+https://host/repository"), {"get_ipython": lambda: shell})
    assert shell.lines == ["pip install --quiet $SOURCE --constraint kept.txt"]  # IPython puts SOURCE in
    kept = (tmp_path / "kept.txt").read_text()
    assert f"jax=={importlib.metadata.version('jax')}\n" in kept
    assert "orbax-checkpoint==" in kept


def test_work_is_on_drive_if_that_is_ticked(tmp_path, task_dir, monkeypatch):
    mounted = []
    drive = types.SimpleNamespace(mount=mounted.append)
    monkeypatch.setitem(sys.modules, "google.colab", types.SimpleNamespace(drive=drive))
    names: dict[str, Any] = {"Path": Path}
    run(filled_in(code_of("choose"), DRIVE=True, TASK="my files", PAIR_COLUMN="other", RUN="mine"), names)
    run(code_of("prepare"), names)
    assert mounted == ["/content/drive"]
    assert names["work"] == Path("/content/drive/MyDrive/mine")
    assert names["task"]["text_pair_column"] == "other"
