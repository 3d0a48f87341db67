"""A table as text for other programs: CSV, Markdown, LaTeX."""

import csv
import io
import re
from collections.abc import Callable, Sequence

Table = Sequence[Sequence[str]]
"""The lines of a table, its head first."""

_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "…": r"\dots{}",
}


def as_csv(table: Table) -> str:
    """Returns lines of cells between commas, quoted where they need it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    return text.getvalue().rstrip("\n")


def as_markdown(table: Table) -> str:
    """Returns a table of GitHub's Markdown."""
    head, *lines = [[" ".join(cell.replace("|", r"\|").split()) for cell in line] for line in table]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def as_latex(table: Table) -> str:
    """Returns a `tabular` with the rules of booktabs; numbers stand to the right."""
    head, *lines = [[_escaped(cell) for cell in line] for line in table]
    columns = "".join(_alignment([line[column] for line in table[1:]]) for column in range(len(head)))
    rows = [" & ".join(line) + r" \\" for line in (head, *lines)]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            rows[0],
            r"\midrule",
            *rows[1:],
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def _escaped(cell: str) -> str:
    return "".join(_LATEX.get(character, character) for character in cell)


def _alignment(cells: Sequence[str]) -> str:
    return "r" if cells and all(re.match(r"[-+–]?[\d.]*", cell)[0] for cell in cells if cell) else "l"  # pyright: ignore[reportOptionalSubscript]


FORMATS: dict[str, Callable[[Table], str]] = {"csv": as_csv, "markdown": as_markdown, "latex": as_latex}
"""The formats by name, of `bert-emd eval --compare --format`."""
