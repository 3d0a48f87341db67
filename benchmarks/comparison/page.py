"""The page of a study's results, docs/results.md: what a reader takes in, before the tables of all runs.

Its title, a summary and a discussion are written by hand, and kept.
"""

import math
import re
from collections.abc import Iterable
from pathlib import Path

from bert_emd_jax.files import write_text
from comparison.appendix import appendix_sections
from comparison.cells import ABSENT, count_text, interval_text, markdown_table
from comparison.findings import Findings
from comparison.intervals import holm
from comparison.methods import BASELINE, METHODS
from comparison.plots import draw
from comparison.primary import primary_tests
from comparison.records import LOG, write_log

_BY_HAND = ("summary", "discussion")


def write_page(findings: Findings, page: Path) -> None:
    """Writes the page; beside it its tables, as a page, and a directory with the pictures and the raw log.

    The title, and what the comments about summary and discussion enclose, stay as they are there.
    """
    folder, tables = page.with_suffix(""), page.with_stem(f"{page.stem}_tables")
    pictures = draw(findings, folder)
    write_log(folder / LOG, findings.plan, findings.records)
    before = page.read_text(encoding="utf-8") if page.is_file() else ""
    known = re.match(r"# (.*)\n", before)
    title = known[1] if known else f"Results: {count_text(findings.plan.epochs, 'epoch')}"
    _write(page, [f"# {title}", *_sections(findings, pictures, folder.name, before)])
    back = f"The tables behind [{title}]({page.name}), made by `python benchmarks/study.py`."
    _write(tables, [f"# {title}, all tables", back, *appendix_sections(findings, pictures, folder.name)])


def _write(path: Path, sections: Iterable[str]) -> None:
    write_text(path, "\n\n".join(filter(None, sections)) + "\n")


def _sections(findings: Findings, pictures: dict[str, str], folder: str, before: str) -> Iterable[str]:
    summary, discussion = (_by_hand(name, before) for name in _BY_HAND)
    if findings.plan.tiny:
        yield "**A trial run on a tiny random teacher: it shows that the study works, and nothing else.**"
    yield summary
    figure = "primary" if "primary" in pictures else "differences"
    if figure in pictures:
        yield f"![{pictures[figure]}]({folder}/{figure}.svg)"
    yield _primary(findings) if findings.plan.dev_halves else _above_baseline(findings)
    yield discussion
    yield "## The numbers behind it"
    yield (
        f"[All tables]({folder}_tables.md), and the raw log [{folder}/{LOG}]({folder}/{LOG}): a line for each"
        " run, with its command, seconds, scores and predictions. From it alone, `python benchmarks/study.py"
        f" report --output_dir docs/{folder} --page docs/{folder}.md` writes these pages again."
    )


def _by_hand(name: str, before: str) -> str:
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    found = re.search(rf"{begin}\n(.*?){end}", before, re.S)
    return f"{begin}\n{found[1] if found else ''}{end}"


def _primary(findings: Findings) -> str:
    """Returns the table of the comparisons that were decided before the runs."""
    rows = []
    tests = primary_tests(findings)
    for test, corrected in zip(tests, holm([test.result.p_value for test in tests]), strict=True):
        result = test.result
        signs = f"{result.above} above, {result.below} below"
        p_value = ABSENT if math.isnan(corrected) else f"{corrected:.3f}"
        units = str(result.interval.count)
        rows.append([test.title, interval_text(result.interval), units, signs, p_value])
    return (
        "Decided before the runs, in [Protocol](protocol.md). A unit is a pair of task and student, with the"
        " mean of its differences by seed; the interval (95 %, t) is over units, p-values are corrected by"
        f" Holm for {len(tests)} tests.\n\n"
        + markdown_table(["difference", "points", "units", "signs", "p"], rows)
    )


def _above_baseline(findings: Findings) -> str:
    """Returns the table of the picture: every method against the one that all are compared with."""
    rows = []
    for method in findings.methods:
        difference = findings.pooled(method)
        if method != BASELINE and difference.count:
            rows.append([METHODS[method].title, interval_text(difference), str(difference.count)])
    if not rows:
        return f"No method has a seed in common with {METHODS[BASELINE].title} yet."
    return (
        f"Points above {METHODS[BASELINE].title}, paired by seed, every pair of task and student weighing the"
        " same, and their 95 % interval over new seeds.\n\n"
        + markdown_table(["method", "points", "paired runs"], rows)
    )
