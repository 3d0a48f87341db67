"""The order of the rooms: a lower one imports nothing from a higher one, and none has too many modules."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import bert_emd_jax

PACKAGE = Path(bert_emd_jax.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
# From the lowest up; rooms of one line do not import each other.
ORDER = (
    ("errors", "files", "layout", "buckets", "local_paths", "screen_log", "configs"),
    ("tables",),
    ("devices",),
    ("models",),
    ("tokenization",),
    ("checkpoints",),
    ("data",),
    ("encoding",),
    ("corpus", "augmentation"),
    ("transport",),
    ("evaluation",),
    ("runs",),
    ("training",),
    ("distillation",),
    ("report",),
    ("publishing",),
    ("model",),
    ("api",),
    ("__init__",),
    ("commands",),
    ("__main__",),
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
MOST_MODULES = 20


def imports(source: str) -> Iterator[str]:
    """The rooms of this package that a module imports, also inside functions and for types alone."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they go"
            names = [node.module or ""]
            if node.module == "bert_emd_jax":
                names = [f"bert_emd_jax.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "bert_emd_jax" and rest != "__version__":  # a number, which imports nothing
                room = rest.partition(".")[0]
                yield room if room in LEVEL else "__init__"


def upward(room: str, source: str) -> list[str]:
    """The imports of a module that run up, or beside, the order."""
    base = LEVEL[room]
    beside = {other for other in ORDER[base] if other != room} if base else set()
    return [other for other in imports(source) if LEVEL[other] > base or other in beside]


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_import_runs_up(path: Path):
    assert upward(room_of(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("room", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
def test_rooms_are_known_and_small(room: str):
    assert room in LEVEL
    modules = [path for path in (PACKAGE / room).glob("*.py") if path.name != "__init__.py"]
    assert 1 <= len(modules) <= MOST_MODULES


def test_an_import_that_runs_up_is_seen():
    late = "def later():\n    from bert_emd_jax.training import trainer\n"
    assert upward("transport", late) == ["training"]
    assert upward("corpus", "import bert_emd_jax.augmentation.words") == ["augmentation"]
    assert upward("distillation", late) == []
    assert upward("report", "from bert_emd_jax import distill") == ["__init__"]
