"""The report's comparison of texts: what is read, drawn and escaped."""

import json

import numpy as np
import pytest
from report import synthetic_run
from report.test_report import HOSTILE, report

from bert_emd_jax.errors import UserError
from bert_emd_jax.report.figures import draw_density
from bert_emd_jax.report.similarities_reader import read_similarities

CONTENT = {
    "cosines": {"teacher": [0.1, 0.5, 0.9, -0.2], "student": [0.2, 0.4, 0.8, -0.1]},
    "apart": [{"text": HOSTILE, "text_pair": "b", "teacher": 0.9, "student": 0.1}],
    "neighbours": [
        {
            "text": "a film",
            "teacher": [{"text": HOSTILE, "cosine": 0.75}],
            "student": [{"text": "a plot", "cosine": 0.5}],
        }
    ],
}


def write(directory, content):
    path = directory / "dev_similarities.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_the_page_shows_them(tmp_path):
    run = synthetic_run.write_run(tmp_path / "run")
    write(run, CONTENT)
    page = report(run)
    assert "How both compare texts" in page.headings()
    assert page.table("nearest texts")[1] == ["a film", f"0.75 {HOSTILE}", "0.50 a plot"]
    assert page.table("furthest apart")[1] == [f"{HOSTILE}b", "0.900", "0.100"]
    assert "<script>alert" not in page.source
    correlation = np.corrcoef(CONTENT["cosines"]["teacher"], CONTENT["cosines"]["student"])[0, 1]
    assert f"correlation {correlation:.3f}" in page.text


def test_a_density_has_a_mark_for_every_cell_with_points():
    values = np.repeat([0.0, 0.5, 1.0], [100, 1, 10])
    svg = draw_density("name", values, values, ("x", "y"), "what it shows")
    assert svg.count("<use") >= 3
    assert "what it shows" in svg


BROKEN = {
    "no object": [],
    "no cosines": {"apart": [], "neighbours": []},
    "one model": CONTENT | {"cosines": {"teacher": [0.1]}},
    "other numbers": CONTENT | {"cosines": {"teacher": [0.1], "student": [0.1, 0.2]}},
    "text for a number": CONTENT | {"cosines": {"teacher": ["a"], "student": [0.1]}},
    "not finite": CONTENT | {"cosines": {"teacher": [float("nan")], "student": [0.1]}},
    "no list": CONTENT | {"neighbours": 3},
    "no neighbours": CONTENT | {"neighbours": [{"text": "a", "teacher": [{}], "student": []}]},
    "half a pair": CONTENT | {"apart": [{"text": "a", "teacher": 0, "student": 1.5}]},
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_file_is_named(tmp_path, name):
    path = write(tmp_path, BROKEN[name])
    with pytest.raises(UserError, match=r"dev_similarities\.json") as refused:
        read_similarities(path)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)
