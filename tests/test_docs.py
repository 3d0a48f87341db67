"""The documentation against the code: flags, paths, names, messages and links that it mentions exist."""

import ast
import importlib
import importlib.util
import re
import sys
from collections.abc import Collection
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from bert_emd_jax.commands.config_file import CONFIG_FLAG
from bert_emd_jax.commands.flags import flag_groups, is_positional
from bert_emd_jax.commands.programs import config_class
from bert_emd_jax.distillation.layer_costs import LAYER_COSTS
from bert_emd_jax.models.families import FAMILIES
from bert_emd_jax.transport.mappings import MAPPINGS
from bert_emd_jax.transport.weight_rules import WEIGHT_RULES

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bert_emd_jax"
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
COMMANDS = {
    "run_finetune.py": ("finetune", []),
    "run_distill.py": ("distill", []),
    "run_distill.py --pregenerated_data": ("distill", ["--pregenerated_data", "x"]),
    "run_eval.py": ("evaluate", []),
    "run_eval.py --compare": ("evaluate", ["--compare"]),
    "run_pretrain_data.py": ("pretrain_data", []),
    "run_augment.py": ("augment", []),
    "convert_pytorch_checkpoints.py": ("convert", []),
    "python -m bert_emd_jax.commands.demo": ("demo", []),
    "python -m bert_emd_jax.commands.demo_embeddings": ("demo_embeddings", []),
    "python -m bert_emd_jax.commands.fetch_data": ("fetch_data", []),
    "python -m bert_emd_jax.commands.push": ("push", []),
    "python -m bert_emd_jax.commands.list_choices": ("list_choices", []),
    "python -m bert_emd_jax.commands.completion": ("completion", []),
}
# Flags of other programs, and of ours in benchmarks/, that the pages mention.
FOREIGN_FLAGS = re.compile(
    r"--(location|project|build|spot|guaranteed|xla_|out_file|logdir|constraint|inplace|quiet|delete|help)"
)


@cache
def generator(name: str = "generate_flags") -> ModuleType:
    path = ROOT / "docs" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its dataclass looks for its own module
    spec.loader.exec_module(module)
    return module


def test_the_table_of_families_names_classes_that_there_are():
    transformers = pytest.importorskip("transformers")
    _, _, *rows = generator("generate_families").family_table().splitlines()
    assert [re.match(r"\| `(.+?)`", row)[1] for row in rows] == list(FAMILIES)
    for row in rows:
        classes = re.findall(r"`(\w+)` \(", row)
        assert len(classes) == 5
        assert all(hasattr(transformers, name) for name in classes), classes
    assert "no segments; no pooler; a dense layer with relu before the classifier" in rows[4]
    assert "<!-- families -->" in (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8")


@cache
def documented_flags(program: str) -> frozenset[str]:
    """The flags and their other names in the generated tables."""
    rows = [
        line.split("|") for line in generator().flag_tables(program).split("\n") if line.startswith("| <")
    ]
    return frozenset(flag for row in rows for flag in re.findall(r">--(\w+)<", row[1] + row[2]))


@pytest.mark.parametrize("program", COMMANDS)
def test_the_generated_flags_are_those_of_help(program: str, capsys):
    name, arguments = COMMANDS[program]
    main = importlib.import_module(f"bert_emd_jax.commands.{name}").main
    with pytest.raises(SystemExit):
        main([*arguments, "--help"])
    # A line of the panel that begins with flags lists them all, other names included.
    listed = " ".join(re.findall(r"^[│ ]*(--?[a-zA-Z].*)$", capsys.readouterr().out, flags=re.M))
    shown = set(re.findall(r"--(\w+)", listed)) - {"help", CONFIG_FLAG}
    documented = documented_flags(program)
    assert {flag for flag in documented if flag not in shown} == set()
    flags = [described.flag for group in flag_groups(config_of(program)) for described in group.flags]
    ours = {flag.name for flag in flags if not is_positional(flag.hint)}
    assert ours <= documented
    assert {flag.removeprefix("no_") for flag in shown if flag.removeprefix("no_") not in documented} == set()


def config_of(program: str) -> type:
    return config_class(generator().CONFIGS[program])


def test_every_program_is_on_the_page_of_flags():
    page = (ROOT / "docs" / "flags.md").read_text(encoding="utf-8")
    assert set(re.findall(r"<!-- flags: (.+?) -->", page)) == set(generator().CONFIGS) == set(COMMANDS)
    assert "| required |" in generator().on_page_markdown(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_mentions_exists(page: Path):
    text = page.read_text(encoding="utf-8")
    known = {CONFIG_FLAG, *(flag for program in COMMANDS for flag in documented_flags(program))}
    for flag in re.findall(r"(?<![\w-])--([a-zA-Z]\w*)(?![\w…])", text):
        plain = flag.removeprefix("no_")
        assert plain in known or FOREIGN_FLAGS.match(f"--{flag}") or in_benchmarks(flag), f"--{flag}"
    for path in re.findall(r"`((?:bert_emd_jax|tests|benchmarks|docs)/[\w./]+\.(?:py|md|html))", text):
        assert (ROOT / path).is_file(), path
    for name in re.findall(r"\b(test_\w+\.py)\b", text):
        assert any((ROOT / "tests").rglob(name)), name
    for path, name in re.findall(r"`(\w+/\w+\.py):([\w.]+)`", text):
        assert name in names_in(path), f"{path}:{name}"
    for target in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (page.parent / target).exists(), target


@cache
def names_in(path: str) -> frozenset[str]:
    """Functions, classes with their methods, and constants of a module, as `Class.method`."""
    names: set[str] = set()
    for node in ast.parse((PACKAGE / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return frozenset(names)


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("`--mapping`", MAPPINGS),
        ("`--layer_weight_rule`", WEIGHT_RULES),
        ("cost", [cost.name for cost in LAYER_COSTS]),
    ],
    ids=["mappings", "rules", "costs"],
)
def test_the_page_of_the_method_lists_every_entry_and_no_other(header: str, names: Collection[str]):
    page = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    (table,) = re.findall(rf"^\| {header} \|.*\n\|[ -|]*\n((?:\|.*\n)+)", page, flags=re.M)
    listed = [name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(listed) == sorted(names)


@cache
def benchmark_sources() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py"))


def in_benchmarks(flag: str) -> bool:
    return (
        f"--{flag}" in benchmark_sources()
        or re.search(rf"^    {flag}: ", benchmark_sources(), re.M) is not None
    )


def messages() -> str:
    """Every text of the package, `…` for what is put in."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                # The log's own way of putting in.
                found.append(re.sub(r"%(\.\d)?[sdg]", "…", node.value))
    return "\n".join(found)


def test_the_error_messages_explained_are_those_of_the_code():
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    explained = re.findall(r"^\| `([^`]+)`(?! \(from JAX\))", text, flags=re.M)
    assert len(explained) > 30
    source = messages().replace("`", "")
    for message in explained:
        assert message in source, message
