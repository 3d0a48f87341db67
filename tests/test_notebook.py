"""Every cell of the example notebook, in order, on a tiny model and some rows."""

import ast
import json
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "bert_emd_colab.ipynb"


def code_cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def run_cell(source: str, names: dict) -> object:
    """Runs a cell as a notebook does; returns the value of the expression that it ends with, if it does."""
    statements = ast.parse(source).body
    last = statements.pop() if isinstance(statements[-1], ast.Expr) else None
    exec(compile(ast.Module(statements, []), NOTEBOOK.name, "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), NOTEBOOK.name, "eval"), names)


def test_it_is_a_clean_notebook():
    """What nbformat's schema asks for, and no bulky outputs."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        expected = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            expected |= {"execution_count", "outputs"}
        assert set(cell) == expected
    assert NOTEBOOK.stat().st_size < 150_000


def test_it_runs(tmp_path, tiny_model_dir, monkeypatch, capsys):
    from bert_emd_jax.commands import demo_assets
    from bert_emd_jax.devices.machine import machine
    from bert_emd_jax.evaluation.model_cost import Latency
    from bert_emd_jax.training import dry_run, task_evaluation

    model = tiny_model_dir("start", num_hidden_layers=2, id2label=None)
    words = {"negative": ["dull", "bad", "sad", "long"], "positive": ["good", "great", "funny", "fine"]}
    rng = random.Random(0)
    rows = [
        (f"the {' '.join(rng.choices(words[label], k=rng.randint(1, 6)))} film", label)
        for label in ("negative", "positive")
        for _ in range(130)
    ]
    rng.shuffle(rows)
    monkeypatch.setattr(
        demo_assets, "unpack_minilm", lambda directory: shutil.copytree(model / "pytorch", directory)
    )
    monkeypatch.setattr(demo_assets, "rotten_tomatoes", lambda: rows)
    # Half of the time would go into compiling what is measured; the tests of both do so.
    monkeypatch.setattr(dry_run, "_measured", lambda *_: {"memory": 10**9, "seconds_per_step": {32: 1.0}})
    monkeypatch.setattr(
        task_evaluation,
        "measure_latency",
        lambda models, _: Latency({name: {"1": 1.0} for name in models}, 8, machine("cpu", None)),
    )
    monkeypatch.setenv("BERT_EMD_SMOKE", "1")
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    monkeypatch.chdir(tmp_path)

    names: dict = {"__name__": "__main__"}
    shown = [value for source in code_cells() if (value := run_cell(source, names)) is not None]
    said = capsys.readouterr().out

    run = tmp_path / "bert_emd_run" / "student"
    results = json.loads((run / "eval_results.json").read_text())
    assert json.loads(json.dumps(names["results"])) == results
    assert (results["teacher"]["layers"], results["student"]["layers"]) == (2, 1)
    steps = -(-60 // 32)  # 260 rows, of which 200 are held out
    assert names["plan"]["steps"] == results["best_step"] == steps
    assert (run / "report.html").is_file()
    command = json.loads((run / "run_config.json").read_text())["command_line"]
    assert command[:3] == ["run_distill.py", "--output_dir", "bert_emd_run/student"]

    # The predictions that the run left are those of the model that it left.
    rows_left = [json.loads(line) for line in (run / "dev_predictions.jsonl").read_text().splitlines()]
    predicted = names["student"].predict([row["text"] for row in rows_left])
    np.testing.assert_allclose([row["student"] for row in rows_left], predicted, atol=2e-6)
    found = [results["labels"][int(row.argmax())] for row in predicted]
    accuracy = np.mean([label == row["label"] for label, row in zip(found, rows_left, strict=True)])
    assert accuracy == pytest.approx(results["student"]["metrics"]["accuracy"])

    last, first, weights = shown
    with np.load(run / "layer_mapping.npz") as mapping:
        for figure, moment in ((last, -1), (first, 0)):
            images = [axes.images[0].get_array() for axes in figure.axes]
            for side, image in zip(("attention", "hidden"), images, strict=True):
                np.testing.assert_allclose(image, mapping[f"{side}_flow"][moment], atol=1e-7)
        lines = [line.get_ydata()[-1] for axes in weights.axes for line in axes.lines]
        ends = [
            mapping[f"{side}_{owner}_weights"][-1]
            for side in ("attention", "hidden")
            for owner in ("student", "teacher")
        ]
        np.testing.assert_allclose(lines, np.concatenate(ends), atol=1e-7)
    assert last._repr_png_().startswith(b"\x89PNG")
    assert said.count("of its mass goes to teacher layer") == 1
    assert all(sentence in said for sentence in names["sentences"])
    if names["difference"] is not None:
        assert names["difference"] < 1e-5


@pytest.mark.parametrize("parts", ["pypi", "hub"])
def test_the_choice_is_one_line(parts):
    choices = [line for cell in code_cells() for line in cell.splitlines() if line.startswith("PARTS")]
    assert len(choices) == 1
    assert f'"{parts}"' in choices[0]
