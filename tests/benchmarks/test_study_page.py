"""The page of a study: its numbers by hand, what is kept and what is missing."""

import dataclasses
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from comparison.commands import Study
from comparison.execution import perform_all
from comparison.findings import Findings
from comparison.matrix import Plan, runs_of
from comparison.page import write_page
from comparison.plots import draw
from comparison.primary import primary_tests
from comparison.records import LOG, Record, choosing_rows, read_log
from scipy import stats

from .fake_programs import FakePrograms, write_train_rows

PLAN = Plan(
    tasks=("rotten_tomatoes",),
    students=("cut3",),
    methods=("logits", "uniform", "emd", "top"),
    tuning_task="rotten_tomatoes",
)
SCORES = {"none": (0.5, 0.55, 0.6), "uniform": (0.7, 0.8, 0.75), "emd": (0.75, 0.8, 0.9)}


def score(flags: dict[str, str]) -> float:
    seed = int(flags["--seed"])
    return SCORES[flags["--mapping"]][seed - 1] if "--mapping" in flags and seed else 0.65


@pytest.fixture
def findings(tmp_path: Path) -> Findings:
    study = Study(tmp_path / "study", PLAN)
    write_train_rows(study)
    records = perform_all(runs_of(PLAN), study, start=FakePrograms(score, fails="--mapping top"))
    return Findings(PLAN, list(records.values()))


def row(text: str, section: str, first: str) -> list[str]:
    """The cells of the table row that begins with `first`, in the section."""
    body = text[text.index(f"# {section}") :]
    return [cell.strip() for cell in body[body.index(f"| {first} |") :].split("\n")[0].strip("| ").split("|")]


def written(findings: Findings, directory: Path) -> str:
    """What the page of the results and that of the tables say."""
    write_page(findings, directory / "results.md")
    return "\n".join((directory / name).read_text() for name in ("results.md", "results_tables.md"))


def texts_of(picture: Path) -> list[str]:
    elements = ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(element.itertext()).strip() for element in elements]


def test_the_numbers_are_those_of_the_runs(findings: Findings, tmp_path: Path):
    text = written(findings, tmp_path)
    low, high = stats.ttest_rel(SCORES["emd"], SCORES["uniform"]).confidence_interval(0.95)
    difference = f"+6.7 ({100 * low:+.1f} to {100 * high:+.1f})"
    assert row(text, "Results", "EMD, normalize")[1:] == [difference, "3"]
    assert row(text, "Methods, over all pairs", "EMD, normalize")[1:3] == [difference, "3"]
    emd = row(text, "Rotten Tomatoes, cut3", "EMD, normalize")
    assert emd[1:5] == ["β 0.001", "81.7 ± 7.6", "3", difference]
    # Bootstrap: where the runs differ at all, their rows of dev set do.
    assert re.fullmatch(r"\(\+\d\.\d to \+\d+\.\d\)", emd[5])
    assert row(text, "Rotten Tomatoes, cut3", "uniform (TinyBERT)")[2:6] == ["75.0 ± 5.0", "3", "–", "–"]
    low, high = stats.ttest_rel(SCORES["emd"], SCORES["none"]).confidence_interval(0.95)
    assert emd[6] == f"+26.7 ({100 * low:+.1f} to {100 * high:+.1f})"
    assert row(text, "Methods, over all pairs\n", "uniform (TinyBERT)")[1].startswith("+20.0 (")
    assert row(text, "Tasks", "Rotten Tomatoes")[1:4] == ["accuracy", "3", "40"]
    assert text.endswith("## Not run yet\n\n- Rotten Tomatoes, cut3: top\n")
    runs = len([record for record in findings.records if record.environment])
    assert (
        f"; a device; python 3, jax 1, flax None, optax None: {runs} runs, by git revision abc ({runs})"
        in text
    )
    # Equal masses leave the mean of the costs 0, 0.1, … 1.7.
    assert row(text, "Layer weights and plans", "EMD, normalize")[1:] == ["0.85, 0.85"]
    assert "β 0.01: 65.0" in row(text, "Tuning", "Rotten Tomatoes | cut3 | uniform (TinyBERT)")[3]


def test_augmented_rows_are_named(findings: Findings, tmp_path: Path):
    assert "Augmented rows" not in written(findings, tmp_path)
    made = {"command": "", "started": "2026-11-23T19:56:38+00:00", "seconds": 60}
    rows = Record("augmentation/sst-2", "augmentation", task="sst-2", rows=17_000, **made)
    losses = {"held_out_loss_at_start": 10.82, "held_out_loss": 3.914}
    model = Record("masked_lm", "masked_lm", scores=losses, **made)
    for others, source in (
        ([], "Another masked-language model"),
        ([model], "The body, taught to predict masked words"),
    ):
        text = written(Findings(PLAN, [*findings.records, rows, *others]), tmp_path)
        assert f"17,000 of SST-2, learned from in as many steps. {source}" in text
    assert "(held-out loss 10.8 → 3.91), proposed their words" in text


def test_the_page_is_written_again_from_its_own_log_and_keeps_its_words(findings: Findings, tmp_path: Path):
    page = tmp_path / "results.md"
    write_page(findings, page)
    files = {path.name: path.read_bytes() for path in (tmp_path / "results").iterdir()}
    pictures = {"differences.svg", "scores.svg", "curves.svg", "layer_weights.svg", "plans.svg"}
    assert files.keys() == {LOG, *pictures}
    text, tables = page.read_text(), (tmp_path / "results_tables.md").read_text()
    edited = text
    for name in ("summary", "discussion"):
        words = f"EMD wins, \\1 in the {name}.\n"
        edited = edited.replace(f"<!-- {name} -->\n", f"<!-- {name} -->\n{words}")
        assert words in edited
    page.write_text(edited)
    write_page(Findings(*read_log(tmp_path / "results" / LOG)), page)
    assert page.read_text() == edited
    assert (tmp_path / "results_tables.md").read_text() == tables
    assert {path.name: path.read_bytes() for path in (tmp_path / "results").iterdir()} == files
    for target in re.findall(r"\]\((.+?)\)", text + tables):
        assert (tmp_path / target).is_file(), target


def test_the_pictures_say_what_was_drawn(findings: Findings, tmp_path: Path):
    write_page(findings, tmp_path / "results.md")
    for name, texts in {
        "differences": {"EMD, normalize", "logits only"},
        "scores": {"Rotten Tomatoes, cut3", "uniform (TinyBERT)"},
        "curves": {"Rotten Tomatoes, cut3", "uniform (TinyBERT)", "training step"},
        "plans": {"attention; cut3; Rotten Tomatoes", "6"},  # 1/18 of the mass is 6 percent
    }.items():
        assert texts <= set(texts_of(tmp_path / "results" / f"{name}.svg"))
    # No name is a hash of the layout, whose last bits change from process to process.
    clips = re.findall(
        r'url\(#(\w+)\)|clipPath id="(\w+)"', (tmp_path / "results" / "scores.svg").read_text()
    )
    assert {name for names in clips for name in names if name} == {"clip0"}


def test_an_ablation_is_compared_with_its_method(findings: Findings, tmp_path: Path):
    """Some 2 points below on each seed; of 40 rows one is predicted otherwise; no plan for attention."""

    def without_attention(record: Record) -> Record:
        predictions = record.predictions or ""
        mapping = record.mapping and {
            **record.mapping,
            **{name: {"hidden": record.mapping[name]["hidden"]} for name in ("flow", "cost")},
        }
        return dataclasses.replace(
            record,
            method="emd_no_attention",
            score=(record.score or 0) - 0.02 - record.seed / 1000,
            predictions=str(1 - int(predictions[0])) + predictions[1:],
            mapping=mapping,
        )

    ablations = [without_attention(record) for record in findings.of_kind("final") if record.method == "emd"]
    text = written(Findings(PLAN, [*findings.records, *ablations]), tmp_path)
    low, high = stats.t.interval(0.95, 2, -2.2, 0.1 / 3**0.5)
    assert row(text, "Methods, over all pairs", "EMD without attention | EMD, normalize")[2:] == [
        f"-2.2 ({low:+.1f} to {high:+.1f})",
        "3",
        "2.5 %",
    ]
    assert row(text, "Layer weights and plans", "EMD without attention")[1:] == ["–, 0.85"]


def test_curves_leave_out_what_is_tuned_as_another_method(findings: Findings, tmp_path: Path):
    exact = [
        dataclasses.replace(record, method="emd_exact")
        for record in findings.of_kind("final")
        if record.method == "emd"
    ]
    found = Findings(PLAN, [*findings.records, *exact])
    draw(found, tmp_path)
    assert "EMD by network simplex" in texts_of(tmp_path / "scores.svg")
    assert "EMD by network simplex" not in texts_of(tmp_path / "curves.svg")


def test_the_picture_of_scores_shows_what_was_run(findings: Findings, tmp_path: Path):
    others = [
        dataclasses.replace(record, task="sst-2", student="narrow4")
        for record in findings.of_kind("final")
        if record.method == "emd"
    ]
    draw(Findings(PLAN, [*findings.records, *others]), tmp_path)
    texts = texts_of(tmp_path / "scores.svg")
    assert {"Rotten Tomatoes, cut3", "SST-2, narrow4"} <= set(texts)
    assert texts.count("EMD, normalize") == 2
    assert texts.count("logits only") == 1


def test_many_pairs_have_a_panel_of_curves_each(findings: Findings, tmp_path: Path):
    others = [
        dataclasses.replace(record, student=student)
        for student in ("narrow4", "narrow4_uniform", "random4", "narrow3", "cut4")
        for record in findings.of_kind("final")
    ]
    draw(Findings(PLAN, [*findings.records, *others]), tmp_path)
    texts = texts_of(tmp_path / "curves.svg")
    assert {f"Rotten Tomatoes, {student}" for student in ("cut3", "narrow4", "random4", "cut4")} <= set(texts)
    assert texts.count("training step") == 6


def test_a_study_of_nothing_yet_has_a_page(tmp_path: Path):
    text = written(Findings(PLAN, []), tmp_path)
    assert "- no method at all: Rotten Tomatoes, cut3\n" in text
    assert ".svg" not in text


def test_single_seeds_that_were_not_run_are_named(findings: Findings, tmp_path: Path):
    records = [record for record in findings.records if not (record.method == "emd" and record.seed == 2)]
    text = written(Findings(PLAN, records), tmp_path)
    assert text.endswith("## Not run yet\n\n- Rotten Tomatoes, cut3: emd (seed 2), top\n")


def test_one_half_of_the_dev_rows_chooses_and_the_other_is_reported(tmp_path: Path):
    study = Study(tmp_path / "study", dataclasses.replace(PLAN, dev_halves=True))
    write_train_rows(study)
    # The first rows are right: trials and runs that get more of them right have them in both halves.
    records = perform_all(runs_of(study.plan), study, start=FakePrograms(score))
    chooses = choosing_rows(40)
    assert chooses.sum() == 20
    for record in records.values():
        right = np.arange(40) < round(40 * record.scores["accuracy"])
        assert (record.choice, record.score) == (right[chooses].mean(), right[~chooses].mean())
        assert record.standing == record.choice
        if record.predictions is not None:
            assert len(record.predictions) == 20
    text = written(Findings(study.plan, list(records.values())), tmp_path)
    assert "One half of the dev rows, drawn once, chooses" in text
    assert row(text, "Tasks", "Rotten Tomatoes")[3] == "20"
    primary = row(text, "Results", "uniform (TinyBERT) − logits only")
    assert primary[2:] == ["1", "1 above, 0 below", "–"]
    assert "uniform (TinyBERT) − logits only" in texts_of(tmp_path / "results" / "primary.svg")
    assert "(results/primary.svg)" in text
    assert "(results/differences.svg)" not in text


def finals(student: str, task: str, **scores: tuple[float, ...]) -> list[Record]:
    return [
        Record("", "final", "", "", 1.0, task, student, method, seed, score=score)
        for method, by_seed in scores.items()
        for seed, score in enumerate(by_seed, start=1)
    ]


def test_primary_comparisons_take_pairs_as_units():
    records = [
        *finals("cut2", "sst-2", logits=(0.6, 0.6), uniform=(0.7, 0.8), emd=(0.8, 0.6), capped=(0.75, 0.85)),
        *finals("cut2", "mrpc", logits=(0.5, 0.7), uniform=(0.6, 0.6), emd=(0.5, 0.9), capped=(0.6,)),
        *finals("cut2_lower", "sst-2", logits=(0.9, 0.7), uniform=(0.9, 0.65), relations=(0.1, 0.75)),
    ]
    plan = dataclasses.replace(PLAN, students=("cut2", "cut2_lower"), tasks=("sst-2", "mrpc"), seeds=(1, 2))
    by_logits, last, emd, capped, relations, lower = primary_tests(Findings(plan, records))
    assert by_logits.title == "uniform (TinyBERT) − logits only"
    units = [0.15, 0.0, -0.025]
    expected = stats.ttest_1samp(units, 0)
    assert by_logits.result.interval.mean == pytest.approx(np.mean(units))
    assert by_logits.result.p_value == pytest.approx(expected.pvalue)
    assert last.result.interval.count == 0
    assert relations.result.interval.mean == pytest.approx(0.75 - 0.65)  # the first seed has screened it
    assert emd.result.interval.mean == pytest.approx(np.mean([-0.05, 0.1]))
    # The first seed chooses EMD for SST-2 and is left out; MRPC has no other seed of capped transport.
    assert capped.result.interval.count == 1
    assert capped.result.interval.mean == pytest.approx(0.85 - 0.6)
    assert lower.result.interval.mean == pytest.approx(0.2)
    assert lower.title == "logits only, cut2_lower − logits only, cut2"
