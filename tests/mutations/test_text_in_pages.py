"""Text from data, flags and file names in the pages: it is shown, and it is never markup."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from mutations.harness import refusal
from report import synthetic_run

from bert_emd_jax.commands import compare
from bert_emd_jax.report import write_report

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    "</title></textarea></svg><svg onload=alert(1)>",
    '" onmouseover="alert(1)" x=\'',
    "' onfocus='alert(1)' autofocus='",
    "&lt;script&gt;&#60;b&#62;",
    "<!-- --!> ]]> <![CDATA[",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "https://example.org/x.js",
    "$\\frac{1}{0}$ $",
    "\u202egnp.exe\u202c \u2066x\u2069",
    "\ufeff\u2028\u2029\x0bx",
]


class Tags(HTMLParser):
    """The tags with the names of their attributes, everything that may be loaded, and the texts."""

    def __init__(self, source: str):
        super().__init__()
        self.found: set[tuple[str, tuple[str, ...]]] = set()
        self.loaded: list[str | None] = []
        self.texts: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add((tag, tuple(name for name, _ in attrs)))
        self.loaded += [
            value for name, value in attrs if name in ("src", "href", "xlink:href", "action", "style")
        ]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def write_hostile_run(directory: Path, text: str) -> Path:
    run = synthetic_run.write_run(directory)
    config = synthetic_run.config()
    config |= {
        "command_line": ["x.py", f"--{text}", text],
        "git_revision": text,
        "devices": [text],
        text: text,
    }
    config["flags"] |= {text: text, "task_name": text, "data_dir": f"/data/{text}", "labels": [text]}
    config["flag_sources"] |= {text: text, "beta": text}
    config["versions"] = {text: text}
    (run / "run_config.json").write_text(json.dumps(config))
    results = synthetic_run.results()
    results |= {"task": text, "split": text, "primary_metric": text, "labels": [text, "positive"]}
    for role in ("student", "teacher"):
        results[role]["metrics"] = {text: 0.5}
    (run / "eval_results.json").write_text(json.dumps(results))
    predictions = [row | {"id": text, "text": text, "label": text} for row in synthetic_run.predictions()]
    synthetic_run.write_rows(run / "dev_predictions.jsonl", predictions)
    rows = [row | {text: 0.5, "primary": text} for row in synthetic_run.metric_rows(8)]
    synthetic_run.write_rows(run / "metrics.jsonl", rows)
    return run


def assert_same_markup(page: Path, harmless: Path, text: str) -> None:
    shown, plain = Tags(page.read_text(encoding="utf-8")), Tags(harmless.read_text(encoding="utf-8"))
    assert shown.found == plain.found
    assert not [
        value for value in shown.loaded if value and (":" in value and "var(" not in value) and "//" in value
    ]
    assert any(text in found for found in shown.texts)


# A page takes a second: several texts share one.
@pytest.mark.parametrize("text", [" ".join(HOSTILE[first::4]) for first in range(4)])
def test_a_page_has_the_markup_of_a_harmless_one(tmp_path: Path, text: str, harmless: dict[str, Path]):
    run = write_hostile_run(tmp_path / text.replace("/", "_"), text)
    assert refusal(lambda: write_report(run), allowed=run) is None
    assert_same_markup(run / "report.html", harmless["report"], text)
    output = tmp_path / "output"
    assert compare.main(["--compare", str(run), str(harmless["run"]), "--output_dir", str(output)]) == 0
    assert_same_markup(output / "comparison.html", harmless["comparison"], text)


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("harmless")
    run = write_hostile_run(directory / "run", "plain")
    write_report(run)
    other = synthetic_run.write_run(directory / "other")
    synthetic_run.write_rows(other / "metrics.jsonl", synthetic_run.metric_rows(8))
    assert compare.main(["--compare", str(run), str(other), "--output_dir", str(directory)]) == 0
    return {"run": other, "report": run / "report.html", "comparison": directory / "comparison.html"}
