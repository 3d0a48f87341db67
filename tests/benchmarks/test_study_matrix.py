"""Which runs a study has, in which order, and the command lines that it starts."""

import dataclasses
import json
import shlex
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from comparison.commands import Study, command_line
from comparison.matrix import FULL, SMOKE, Plan, Run, resumed_plan, runs_of, teacher_names
from comparison.methods import METHODS, STUDENTS
from comparison.records import Record
from study import StudyConfig, plan_of

from bert_emd_jax.commands import augment, distill, finetune, pretrain_data
from bert_emd_jax.errors import UserError

PLAN = Plan(tasks=("rotten_tomatoes", "snli"), tuning_task="rotten_tomatoes")
PLANS = [
    PLAN,
    Plan(tasks=("mrpc", "cola", "sst-2"), **FULL),
    Plan(tasks=("rotten_tomatoes",), **SMOKE),
    dataclasses.replace(PLAN, betas=(0.1,), learning_rate_factors=(1.0,)),
]


@pytest.mark.parametrize("plan", PLANS)
def test_runs_come_after_what_they_wait_for(plan: Plan):
    runs = runs_of(plan)
    assert len({run.name for run in runs}) == len(runs)
    seen: set[str] = set()
    for run in runs:
        assert {*run.requires, *run.chosen_from} <= seen
        without_setting = ("corpus", "student", "masked_lm", "augmentation")
        assert (run.setting is None) == bool(run.chosen_from) or run.kind in without_setting
        seen.add(run.name)


def test_a_seed_is_tried_on_everything_before_the_next():
    finals = [run for run in runs_of(PLAN) if run.kind == "final"]
    assert [run.seed for run in finals] == sorted(run.seed for run in finals)
    first = [(run.task, run.student, run.method) for run in finals if run.seed == 1]
    cells = len(PLAN.tasks) * len(PLAN.students) * len(PLAN.methods)
    assert len(set(first)) == len(first) == cells
    assert len(finals) == 3 * cells
    # The first pair is complete before the second begins.
    assert {cell[:2] for cell in first[: len(PLAN.methods)]} == {("rotten_tomatoes", "narrow4")}


@pytest.mark.parametrize("plan", PLANS[:2])
def test_every_method_has_as_many_trials_on_a_seed_of_their_own(plan: Plan):
    trials = [run for run in runs_of(plan) if run.kind == "tuning"]
    counts = Counter((run.task, run.student, run.method) for run in trials)
    assert set(counts.values()) == {len(plan.betas)} == {len(plan.learning_rate_factors)}
    assert {run.method for run in trials} == {
        name for name in plan.methods if METHODS[name].like is None and METHODS[name].beta is None
    }
    assert {run.task for run in trials} == ({plan.tuning_task} if plan.tuning_task else set(plan.tasks))
    assert not {run.seed for run in trials} & set(plan.seeds)


def test_an_ablation_takes_the_trials_of_its_method_although_that_is_not_run():
    plan = dataclasses.replace(PLAN, methods=("emd_no_hidden",))
    names = [run.name for run in runs_of(plan) if run.kind == "tuning"]
    assert len(names) == len(plan.betas) * len(plan.students)
    assert all("/emd/beta" in name for name in names)


def test_augmented_rows_are_made_once_for_a_task_and_before_they_are_read():
    plan = dataclasses.replace(PLAN, methods=("logits_aug", "emd_aug"))
    runs = runs_of(plan)
    made = [run.name for run in runs if run.kind == "augmentation"]
    assert made == ["augmentation/rotten_tomatoes", "augmentation/snli"]
    finals = [run for run in runs if run.kind == "final"]
    assert all(f"augmentation/{run.task}" in run.requires for run in finals)
    assert {run.method for run in runs if run.kind == "tuning"} == {"logits", "emd"}
    assert {"masked_corpus", "masked_lm"} <= {run.name for run in runs}
    given = runs_of(dataclasses.replace(plan, masked_lm_steps=0))
    assert {run.name for run in runs} - {run.name for run in given} == {"masked_corpus", "masked_lm"}


@pytest.mark.parametrize(
    ("flags", "made"),
    [("", True), ("--glove_embs bert_model.txt", True), ("--bert_model=b", False), ("--bert_model b", False)],
)
def test_a_given_masked_language_model_is_taken(parsed, tmp_path: Path, flags: str, made: bool):
    config = StudyConfig(methods=("emd_aug",), tasks=("rotten_tomatoes",), augmentation_flags=flags)
    plan = plan_of(config)
    runs = {run.name: run for run in runs_of(plan)}
    assert ("masked_lm" in runs) == made
    study = Study(tmp_path, plan, augmentation_flags=shlex.split(flags))
    parsed_flags = parsed(command_line(runs["augmentation/rotten_tomatoes"], study, {}))
    assert parsed_flags.bert_model == (tmp_path / "masked_lm" if made else Path("b"))


def test_the_teachers_of_other_seeds_wait_for_the_learning_rate():
    plan = Plan(tasks=("cola",), teacher_seeds=(1, 2, 3), teacher_learning_rates=(2e-5, 5e-5))
    teachers = {run.name: run for run in runs_of(plan) if run.kind == "teacher"}
    grid = [run.name for run in teachers.values() if run.seed == 1]
    assert len(grid) == 2
    assert [run.chosen_from for run in teachers.values() if run.seed > 1] == [tuple(grid)] * 2
    assert set(teacher_names(plan, "cola")) == set(teachers)


def test_a_task_without_trials_needs_no_teacher_of_another():
    plan = dataclasses.replace(PLAN, tasks=("snli",), betas=(0.1,), learning_rate_factors=(1.0,))
    assert {run.task for run in runs_of(plan)} == {None, "snli"}


def test_a_study_goes_on_with_more_of_the_same_only():
    more = dataclasses.replace(
        PLAN, tasks=("snli",), seeds=(4,), methods=("emd",), teacher_seeds=(1, 2), tuning_task="snli"
    )
    assert resumed_plan(PLAN, more, "study") == dataclasses.replace(more, tuning_task="rotten_tomatoes")
    with pytest.raises(UserError, match=r"\(epochs was 6, is 4\): new --output_dir"):
        resumed_plan(PLAN, dataclasses.replace(PLAN, epochs=4), "study")
    with pytest.raises(UserError, match=r"\(tuning_task was rotten_tomatoes, is None\)"):
        resumed_plan(PLAN, dataclasses.replace(PLAN, tuning_task=None), "study")


def as_if_done(runs: list[Run]) -> dict[str, Record]:
    """Records in which the second trial of everything, and the last teacher, are the best."""
    scores = {"beta0.1": 0.9, "learning_rate0.0003": 0.9, "learning_rate0.0001": 0.9}
    return {
        run.name: Record(
            run.name, run.kind, "", "", 1.0, seed=run.seed, setting=run.setting, score=scores.get(last, 0.5)
        )
        for run in runs
        if (last := run.name.rpartition("/")[2])
    }


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch):
    """The flags that the programs read from command lines, instead of running."""
    configs: list = []
    for program, names in ((distill, ("distill", "general_distill")), (finetune, ("finetune",))):
        for name in names:
            monkeypatch.setattr(program, name, configs.append)
        monkeypatch.setattr(program, "print_training", lambda config, results: None)
    monkeypatch.setattr(pretrain_data, "pretrain_data", configs.append)
    monkeypatch.setattr(augment, "run", configs.append)
    mains = {
        "run_augment.py": augment.main,
        "run_distill.py": distill.main,
        "run_finetune.py": finetune.main,
        "run_pretrain_data.py": pretrain_data.main,
    }

    def parse(command: list[str]):
        assert mains[command[0]](command[1:]) == 0
        return SimpleNamespace(**configs.pop().flags())

    return parse


def test_the_command_lines_are_those_of_the_programs(parsed, tmp_path: Path):
    plan = Plan(
        tasks=("snli",), students=tuple(STUDENTS), methods=tuple(METHODS), seeds=(7,), teacher_seeds=(1, 2)
    )
    runs = runs_of(plan)
    records = as_if_done(runs)
    best_teacher = "teachers/snli/learning_rate5e-05-seed1"
    records[best_teacher] = dataclasses.replace(records[best_teacher], score=0.95)
    augmentation = ("--samples", "3")
    study = Study(tmp_path, plan, ("--dtype", "bfloat16"), ("--temperature", "2"), augmentation)
    pairs = [{"sentence1": "a", "sentence2": "b", "gold_label": "ab"[row % 2]} for row in range(33)]
    study.data("snli").mkdir(parents=True)
    (study.data("snli") / "train.jsonl").write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs))
    # Every student, and every method of one of them.
    chosen = [run for run in runs if run.student == "cut3" or run.method in (None, "emd")]
    for run in chosen:
        config = parsed(command_line(run, study, records))
        if run.kind == "augmentation":
            assert (config.data_dir, config.output_dir, config.samples) == (study.data("snli"), None, 3)
            assert config.bert_model == tmp_path / "masked_lm"
            continue
        assert config.output_dir == tmp_path / run.name
        if run.kind == "corpus":
            assert config.masked_lm_prob == (0.15 if run.name == "masked_corpus" else 0)
            continue
        assert (config.seed, config.dtype) == (run.seed, "bfloat16")
        if run.kind in ("student", "masked_lm"):
            assert config.masked_lm_weight == (run.kind == "masked_lm")
            assert config.teacher_model == (tmp_path / "body",)
            corpora = {"student": "corpus", "masked_lm": "masked_corpus"}
            assert config.pregenerated_data == tmp_path / corpora[run.kind]
        if run.kind in ("tuning", "final"):
            assert run.student is not None
            assert run.method is not None
            student, method = STUDENTS[run.student], METHODS[run.method]
            assert config.teacher_model == (tmp_path / best_teacher,)
            assert config.student_init_layers == student.cut
            assert config.student_width == student.width
            assert (config.student_model is not None) == bool(student.pretraining)
            assert config.temperature == 2
            assert (config.data_dir, config.num_train_epochs) == (
                tmp_path / "data" / "snli",
                plan.epochs * student.epochs,
            )
            assert config.alpha == (0 if run.method == "finetune" else 1)
            if run.kind == "final" and method.tuned == "beta":
                assert config.beta == (method.beta or 0.1)
            if method.tuned == "beta":
                assert config.learning_rate == student.learning_rate
            # Two batches an epoch, of the rows as they are.
            assert config.aug_train == method.augmented
            assert config.max_steps == (2 * plan.epochs if method.augmented else 0)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("emd_learned", {"mapping": "emd", "layer_weight_rule": "learned", "use_hidden": True}),
        ("emd_no_hidden", {"mapping": "emd", "layer_weight_rule": "normalize", "use_hidden": False}),
        (
            "emd_fixed_no_attention",
            {"layer_weight_rule": "fixed", "use_attention": False, "use_hidden": True},
        ),
        ("finetune", {"mapping": "none", "alpha": 0.0, "learning_rate": 2e-4}),
        ("top", {"mapping": "top", "beta": 0.1}),
    ],
)
def test_what_a_method_is(parsed, tmp_path: Path, method: str, expected: dict):
    plan = dataclasses.replace(PLAN, methods=(method,), students=("cut3",))
    runs = runs_of(plan)
    records = as_if_done(runs)
    for name in records:
        if name.endswith("learning_rate0.0002"):  # twice the student's own
            records[name] = dataclasses.replace(records[name], score=0.99)
    config = parsed(command_line(runs[-1], Study(tmp_path, plan), records))
    assert {name: getattr(config, name) for name in expected} == expected
