"""The worked examples of CONTRIBUTING.md: their edits fit the package as it is, and do what is said."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def sections() -> dict[str, str]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    titles_and_bodies = re.split(r"^## (.*)$", text, flags=re.M)
    return dict(zip(titles_and_bodies[1::2], titles_and_bodies[2::2], strict=True))


def block(section: str, language: str) -> str:
    return re.findall(rf"^```{language}\n(.*?)^```$", section, flags=re.M | re.S)[0]


def apply(diff: str, directory: Path) -> None:
    """Applies a diff without line numbers: the old lines of each hunk must stand in the file exactly once."""
    for part in re.split(r"^--- a/", diff, flags=re.M)[1:]:
        name, _, hunks = part.partition("\n")
        path = directory / name
        for hunk in hunks.split("@@\n")[1:]:
            lines = hunk.splitlines(keepends=True)
            old = "".join(line[1:] for line in lines if line[0] in " -")
            new = "".join(line[1:] for line in lines if line[0] in " +")
            source = path.read_text(encoding="utf-8")
            assert source.count(old) == 1, f"{name} does not have these lines once:\n{old}"
            path.write_text(source.replace(old, new), encoding="utf-8")


EXAMPLES = {
    "A new mapping": 1,
    "A new layer cost": 3,
    "A new task": 1,
    "A new kind of task": 2,
    "A new family of encoders": 2,
}
"""Title → how many places are edited, a file or a hunk of it."""


@pytest.mark.parametrize("title", EXAMPLES)
def test_a_worked_example(tmp_path: Path, title: str):
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "bert_emd_jax", tmp_path / "bert_emd_jax", ignore=ignored)
    section = sections()[title]
    check = block(section, "python")
    run = [
        sys.executable,
        "-c",
        f"import bert_emd_jax; assert {str(tmp_path)!r} in bert_emd_jax.__file__\n{check}",
    ]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}

    def outcome() -> subprocess.CompletedProcess[str]:
        return subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert outcome().returncode != 0  # the example is about something that is not there yet
    diff = block(section, "diff")
    assert diff.count("\n@@") == EXAMPLES[title]
    apply(diff, tmp_path)
    done = outcome()
    assert done.returncode == 0, done.stderr


def test_the_places_named_are_there():
    named = re.findall(r"`((?:checkpoints|models|tests)/[\w/]+\.py)", sections()["A new head"])
    assert len(named) >= 4
    for path in named:
        assert (ROOT / path if path.startswith("tests/") else ROOT / "bert_emd_jax" / path).is_file(), path
    for path, names in {
        "checkpoints/names.py": ("NAME_MAPS:", "heads:", "def head_of("),
        "models/families.py": ("Head = Literal", "FAMILIES:", "classes:"),
        "models/heads.py": ("MODULES:", "class ModelOutput(", "class MaskedLanguageModel("),
    }.items():
        text = (ROOT / "bert_emd_jax" / path).read_text(encoding="utf-8")
        assert all(name in text for name in names), path
