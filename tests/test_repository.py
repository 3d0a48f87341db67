"""The files around the package say the same: make targets, versions, pins."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import bert_emd_jax

yaml = pytest.importorskip("yaml")
requirements = pytest.importorskip("packaging.requirements")

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = {
    target for line in re.findall(r"^([a-z][\w -]*):", MAKEFILE, flags=re.M) for target in line.split()
}


def workflow() -> dict[str, Any]:
    return yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_workflow_calls_targets_of_the_makefile():
    jobs = workflow()["jobs"]
    lines = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert len(lines) >= 5
    called = set()
    for line in lines:
        assert line.startswith("make ")
        called.add(line.removeprefix("make "))
    variants = jobs["fast"]["strategy"]["matrix"]["include"]
    called.remove("${{ matrix.target }}")
    called |= {variant["target"] for variant in variants}
    assert called <= TARGETS
    assert {variant["python"] for variant in variants} == {"3.11", "3.12", "3.13"}


@pytest.mark.parametrize("name", [".ci/run", "README.md", "CONTRIBUTING.md", "docs/index.md"])
def test_targets_that_are_mentioned_are_there(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    mentioned = set(re.findall(r"(?:^\s*|`|&& )make ([a-z][\w-]*)", text, flags=re.M))
    assert mentioned
    assert mentioned <= TARGETS


def test_the_targets_make_no_files_of_their_names():
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.M)
    assert phony is not None
    assert set(phony[1].split()) == TARGETS


@pytest.mark.parametrize("name", ["JAX_TESTS", "FAST_TESTS"])
def test_the_tests_of_stacks_are_there(name):
    listed = MAKEFILE.partition(f"{name} := ")[2]
    listed = re.split(r"(?<!\\)\n", listed)[0].replace("$(JAX_TESTS)", "")
    listed = re.sub(
        r"\$\(addprefix ([^,]+),([^)]+)\)",
        lambda group: " ".join(group[1] + name for name in group[2].split()),
        listed.replace("\\\n", " "),
    )
    paths = [path.split("::")[0] for path in listed.split()]
    assert len(paths) >= 8
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == bert_emd_jax.__version__
    assert citation["license"] == pyproject()["project"]["license"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # what the format requires
    assert f"## {bert_emd_jax.__version__} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_hooks_use_a_ruff_that_make_lint_may_use():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0][
        "hooks"
    ]
    pinned = [pin for hook in hooks for pin in hook.get("additional_dependencies", ())]
    allowed = next(
        requirement
        for requirement in map(
            requirements.Requirement, pyproject()["project"]["optional-dependencies"]["lint"]
        )
        if requirement.name == "ruff"
    )
    assert len(pinned) == 2
    for pin in pinned:
        assert allowed.specifier.contains(pin.removeprefix("ruff=="))


def test_no_upper_bound_replaces_a_jax_that_is_there():
    project = pyproject()["project"]
    for text in project["dependencies"]:
        requirement = requirements.Requirement(text)
        assert {bound.operator for bound in requirement.specifier} <= {">="}, text
    for extra in ("cuda", "tpu"):
        assert project["optional-dependencies"][extra] == [f"jax[{extra}]"]


def test_one_setting_says_where_the_project_is(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import repository

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    # What is written is what there is, and nothing is promised while there is none.
    assert repository.with_badges(readme, repository.repository()) == readme
    url = "https://github.com/someone/some-name"
    published = repository.with_badges(readme, url)
    assert published.count("](https://github.com/someone/some-name") == 2
    assert "github/someone/some-name/blob/main/examples/bert_emd_colab.ipynb" in published
    assert repository.with_badges(repository.with_badges(published, None), url) == published
    with_urls = repository.with_urls(text, url)
    assert tomllib.loads(with_urls)["project"]["urls"]["Repository"] == url
    assert tomllib.loads(with_urls)["project"]["name"] == "bert_emd_jax"
    assert repository.with_urls(with_urls, url) == with_urls
    for wrong in ("someone/some-name", "https://github.com/", f"{url}/tree/main"):
        with pytest.raises(SystemExit, match="not an address"):
            repository.main(wrong)


def test_what_pypi_shows_has_no_link_that_leads_nowhere(monkeypatch):
    """Links of README.md into the repository mean nothing there."""
    import setuptools

    given: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **values: given.update(values))
    exec(compile((ROOT / "setup.py").read_text(), ROOT / "setup.py", "exec"), {"__file__": ROOT / "setup.py"})
    links = re.findall(r"\]\(([^)]+)\)", given["long_description"])
    assert links
    assert all(link.startswith("https://") for link in links)
    assert "BERT-EMD" in given["long_description"]
