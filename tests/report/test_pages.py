"""Reports and comparisons in a browser: nothing is cut at any width or on paper, and the controls work."""

import csv
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import PAPER, chromium, cut_content
from report import synthetic_run

from bert_emd_jax.commands import evaluate
from bert_emd_jax.report import write_report


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The addresses of a report of a deep teacher with long texts, and of a comparison of many columns."""
    root = tmp_path_factory.mktemp("pages")
    small = synthetic_run.write_run(root / "small")
    rows = 3 * [{**row, "teacher": row["teacher"][::-1]} for row in synthetic_run.predictions()]
    synthetic_run.write_rows(small / "dev_predictions.jsonl", rows)
    deep = synthetic_run.write_run(root / "deep")
    np.savez(deep / "layer_mapping.npz", **synthetic_run.mapping(6, 24))
    write_report(small), write_report(deep)
    assert evaluate.main(["--compare", str(small), str(deep), "--output_dir", str(root / "page")]) == 0
    files = {
        "report": small / "report.html",
        "deep": deep / "report.html",
        "comparison": root / "page" / "comparison.html",
    }
    return {name: path.as_uri() for name, path in files.items()}


def test_the_check_finds_what_is_cut(browser: Any, tmp_path: Path):
    path = tmp_path / "page.html"
    path.write_text(
        "<body><div style='width: 2000px'>wide</div><p style='overflow: hidden; width: 9px'>unbreakable</p>"
        "<svg width='50' height='9'><text y='9'>a label of many letters</text></svg>"
        "<div style='overflow-x: auto'><b style='display: block; width: 2000px'>scrolls</b></div>"
    )
    page = browser.new_page()
    page.goto(path.as_uri())
    assert [line.split(":")[1].strip() for line in cut_content(page, [390])] == [
        *("the whole page scrolls sideways", "outside the page", "cut", "outside its figure")
    ]
    page.emulate_media(media="print")
    assert any("scrolls" in line for line in cut_content(page, [PAPER]))
    page.close()


@pytest.mark.parametrize("name", ["report", "deep", "comparison"])
def test_nothing_is_cut(browser: Any, pages: dict[str, str], name: str):
    for scheme, scripts in itertools.product(("light", "dark"), (True, False)):
        page = browser.new_page(color_scheme=scheme, java_script_enabled=scripts)
        page.on("pageerror", lambda error: pytest.fail(str(error)))
        page.goto(pages[name])
        assert cut_content(page) == [], (scheme, scripts)
        page.emulate_media(media="print")
        assert cut_content(page, [PAPER]) == []
        page.close()


def test_controls_of_a_report(browser: Any, pages: dict[str, str]):
    page = browser.new_page()
    page.goto(pages["report"])
    rows = page.locator("#examples tbody tr:visible")
    everything = page.locator("#examples tbody tr").count()
    assert rows.count() == 12 < everything
    page.get_by_role("button", name=f"show all {everything}").click()
    assert rows.count() == everything
    page.locator("select").select_option("the teacher alone is right")
    texts = rows.all_inner_texts()
    assert texts
    assert all("right" in text and "wrong" in text for text in texts)
    with page.expect_download() as downloading:
        page.get_by_role("link", name="plans.csv").click()
    lines = list(csv.reader(io.StringIO(Path(downloading.value.path()).read_text())))
    shown = page.locator("table[data-plan=hidden] tbody tr").first.locator("td:not(.sum)").all_inner_texts()
    saved = [float(line[3]) for line in lines if line[:2] == ["hidden", "1"]]
    assert len(saved) == len(shown)
    largest = saved.index(max(saved))
    assert shown[largest] == f"{100 * saved[largest]:.1f}" != "0.0"
    page.get_by_role("button", name="copy").click()
    page.get_by_role("button", name="copied").wait_for()
    page.close()
    without = browser.new_page(java_script_enabled=False)
    without.goto(pages["report"])
    assert without.locator("#examples tbody tr:visible").count() == everything
    assert without.locator("button:visible").count() == 0


def test_a_comparison_sorts(browser: Any, pages: dict[str, str]):
    page = browser.new_page()
    page.goto(pages["comparison"])
    table = page.locator("table.sortable").last
    names = table.locator("tbody th").all_inner_texts()
    heading = table.locator("thead th").first
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert table.locator("tbody th").all_inner_texts() == sorted(names, reverse=True)
    heading.locator("button").click()
    assert table.locator("tbody th").all_inner_texts() == sorted(names)

    # Numbers by their values, whatever stands behind them, and empty cells last in both directions.
    column = table.locator("thead th").all_inner_texts().index("score")
    table.evaluate(
        """(table, column) => ["9.5", "–", "10.5 ± 2", "1,000"].forEach(text => {
             const row = table.tBodies[0].rows[0].cloneNode(true);
             row.cells[column].textContent = text;
             table.tBodies[0].append(row);
           })""",
        column,
    )
    for _ in names:
        table.evaluate("table => table.tBodies[0].deleteRow(0)")
    for expected in (["1,000", "10.5 ± 2", "9.5", "–"], ["9.5", "10.5 ± 2", "1,000", "–"]):
        table.locator("thead th").nth(column).locator("button").click()
        assert table.locator(f"tbody td:nth-child({column + 1})").all_inner_texts() == expected
    page.close()
