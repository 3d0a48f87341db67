"""A study over programs that train nothing: order, resume, failure, what is chosen, what is kept."""

import dataclasses
import shlex
import time
from pathlib import Path

import pytest
from comparison import records
from comparison.commands import Study
from comparison.execution import InThisProcess, Programs, RunFailedError, perform_all
from comparison.matrix import Plan, runs_of
from comparison.records import LOG, RECORD, read_log
from study import StudyConfig, plan_of, run

from bert_emd_jax.commands import distill, finetune
from bert_emd_jax.errors import UserError
from bert_emd_jax.files import alone_in

from .fake_programs import FakePrograms, write_train_rows

PLAN = Plan(
    tasks=("rotten_tomatoes",),
    methods=("logits", "uniform", "emd", "emd_no_hidden"),
    seeds=(1, 2),
    teacher_seeds=(1, 2, 3),
    tuning_task="rotten_tomatoes",
)


def score(flags: dict[str, str]) -> float:
    """Teachers of seed 2 and students of β 1 do best."""
    return 0.5 + 0.2 * (flags["--seed"] == "2") + 0.2 * (flags.get("--beta") == "1")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    study = Study(tmp_path / "study", PLAN)
    write_train_rows(study)
    return study


def test_the_best_teacher_and_the_best_trial_are_taken(study: Study):
    programs = FakePrograms(score)
    records = perform_all(runs_of(PLAN), study, start=programs)
    assert records.keys() == {run.name for run in runs_of(PLAN)}
    finals = [record for record in records.values() if record.kind == "final"]
    assert len(finals) == 2 * 4 * 2
    for record in finals:
        assert "/teachers/rotten_tomatoes/seed2 " in record.command
        beta = record.method != "logits"
        assert record.setting == ("beta", 1) if beta else record.setting is not None
        assert ("--beta 1 " in record.command) == beta


def test_what_a_run_leaves(study: Study):
    records = perform_all(runs_of(PLAN), study, start=FakePrograms(score))
    final = records["runs/rotten_tomatoes/cut3/emd/seed1"]
    assert final.predictions == "01" * 14 + "10" * 6  # .7 of 40 rows are right
    assert final.command.startswith("python run_distill.py --teacher_model study/teachers/rotten_tomatoes/")
    assert final.examples_per_second == 25
    assert final.curve == {"step": [1, 2, 3], "soft_loss": [1, 0.5, 0.3333]}
    assert final.mapping is not None
    assert final.mapping["teacher_weights"][-1] == [0.3, 0.2, 0.2, 0.1, 0.1, 0.1]
    assert len(final.mapping["steps"]) == 25
    assert (final.mapping["steps"][0], final.mapping["steps"][-1]) == (0, 39)
    student = records["students/narrow4"]
    assert student.scores["held_out_loss_at_start"] == 7
    names = {path.name for path in study.path(final.name).iterdir()}
    assert names == {RECORD, "eval_results.json", "metrics.jsonl", "run_config.json", "layer_mapping.npz"}
    assert (study.path("teachers/rotten_tomatoes/seed2") / "params").is_dir()
    # The log says all of it.
    plan, logged = read_log(study.root / LOG)
    assert plan == PLAN
    first_seed = {"runs/rotten_tomatoes/narrow4/emd/seed1", "runs/rotten_tomatoes/cut3/emd/seed1"}
    first_seed |= {name.replace("/emd/", "/emd_no_hidden/") for name in first_seed}
    assert {record.name for record in logged if record.mapping} == first_seed
    assert {record.name: dataclasses.replace(record, mapping=None) for record in logged} == {
        name: dataclasses.replace(record, mapping=None) for name, record in records.items()
    }


def test_augmented_rows_are_counted(study: Study):
    plan = dataclasses.replace(PLAN, methods=("emd_aug",))
    records = perform_all(runs_of(plan), dataclasses.replace(study, plan=plan), start=FakePrograms(score))
    assert records.keys() == {run.name for run in runs_of(plan)}
    assert records["augmentation/rotten_tomatoes"].rows == 6
    assert records["teachers/rotten_tomatoes/seed2"].rows == 3
    assert records["masked_lm"].scores == {"held_out_loss": 0.5, "held_out_loss_at_start": 7}
    assert records["runs/rotten_tomatoes/cut3/emd_aug/seed1"].command.endswith("--max_steps 6")


@pytest.mark.parametrize("limit", [1, 7, 20])
def test_an_interrupted_study_goes_on(study: Study, limit: int):
    first = FakePrograms(score, limit=limit)
    with pytest.raises(KeyboardInterrupt):
        perform_all(runs_of(PLAN), study, start=first)
    second = FakePrograms(score)
    records = perform_all(runs_of(PLAN), study, start=second)
    assert len(records) == len(runs_of(PLAN))
    assert first.commands[:limit] + second.commands == first.commands[: limit + 1] + second.commands[1:]
    assert len(set(first.commands + second.commands)) == len(records)
    third = FakePrograms(score)
    assert perform_all(runs_of(PLAN), study, start=third) == records
    assert third.commands == []


def test_a_run_that_was_killed_is_run_anew(study: Study):
    perform_all(runs_of(PLAN), study, start=FakePrograms(score))
    killed = study.path("runs/rotten_tomatoes/cut3/emd/seed1")
    (killed / RECORD).unlink()
    (killed / "half").mkdir()
    again = FakePrograms(score)
    perform_all(runs_of(PLAN), study, start=again)
    assert len(again.commands) == 1
    assert not (killed / "half").exists()


def test_a_failure_takes_along_what_waits_for_it_and_nothing_else(study: Study, capsys):
    programs = FakePrograms(score, fails="students/narrow4 ")
    records = perform_all(runs_of(PLAN), study, start=programs)
    assert {record.student for record in records.values() if record.kind == "final"} == {"cut3"}
    assert len([record for record in records.values() if record.kind == "final"]) == 8
    waiting = 3 * len(PLAN.betas) + 4 * 2  # the trials of logits, uniform and emd; four methods on two seeds
    assert f"1 failed, {waiting} not begun" in capsys.readouterr().out


def test_what_a_program_left_damaged_is_a_failure_of_this_run_alone(study: Study, capsys):
    class Damaging(FakePrograms):
        def __call__(self, command, log, environment):
            super().__call__(command, log, environment)
            if "runs/rotten_tomatoes/cut3/emd/seed1" in self.commands[-1]:
                (study.path("runs/rotten_tomatoes/cut3/emd/seed1") / "metrics.jsonl").write_text("{")

    records = perform_all(runs_of(PLAN), study, start=Damaging(score))
    assert {run.name for run in runs_of(PLAN)} - records.keys() == {"runs/rotten_tomatoes/cut3/emd/seed1"}
    assert "cut3/emd/seed1 failed: JSONDecodeError" in capsys.readouterr().out


def test_no_run_begins_after_the_deadline(study: Study):
    programs = FakePrograms(score)
    assert perform_all(runs_of(PLAN), study, deadline=time.monotonic() - 1, start=programs) == {}
    assert programs.commands == []


def test_several_jobs_keep_to_what_runs_wait_for(study: Study):
    serial = perform_all(runs_of(PLAN), study, start=FakePrograms(score))
    other = dataclasses.replace(study, root=study.root.with_name("other"))
    write_train_rows(other)
    parallel = perform_all(runs_of(PLAN), other, jobs=4, start=FakePrograms(score))
    assert parallel.keys() == serial.keys()
    for name, record in parallel.items():
        assert record.command == serial[name].command


def test_new_trials_make_again_the_runs_that_they_choose_otherwise_for(study: Study):
    few = dataclasses.replace(PLAN, betas=(0.01, 0.1))
    before = perform_all(runs_of(few), dataclasses.replace(study, plan=few), start=FakePrograms(score))
    assert {run.setting for run in before.values() if run.kind == "final"} >= {("beta", 0.01)}
    again = FakePrograms(score)
    after = perform_all(runs_of(PLAN), study, start=again)
    finals = [name for name, run in after.items() if run.kind == "final"]
    changed = [name for name in finals if after[name].command != before[name].command]
    # Beta 1 is better, but logits have no beta.
    assert sorted(changed) == sorted(name for name in finals if "/logits/" not in name)
    trials = (len(PLAN.betas) - len(few.betas)) * 2 * 2  # of uniform and emd, for two students
    assert len(again.commands) == trials + len(changed)


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_better_teacher_makes_again_what_learned_from_another(study: Study, jobs: int):
    def with_student_seeds(flags: dict[str, str]) -> float:
        """Best is a trial of the smallest beta with the first teacher, of the largest with the second."""
        if "--teacher_model" not in flags:
            return score(flags)
        beta = float(flags.get("--beta", 0)) / 100
        return 0.5 + (beta if flags["--teacher_model"].endswith("seed2") else -beta)

    one = dataclasses.replace(PLAN, teacher_seeds=(1,))
    programs = FakePrograms(with_student_seeds)
    perform_all(runs_of(one), dataclasses.replace(study, plan=one), start=programs)
    again = FakePrograms(with_student_seeds)
    after = perform_all(runs_of(PLAN), study, jobs=jobs, start=again)
    other = dataclasses.replace(study, root=study.root.with_name("other"))
    write_train_rows(other)
    fresh = perform_all(runs_of(PLAN), other, start=FakePrograms(with_student_seeds))
    assert {name: run.command for name, run in after.items()} == {
        name: run.command for name, run in fresh.items()
    }
    assert after["runs/rotten_tomatoes/cut3/emd/seed1"].setting == ("beta", 10)
    # Two teachers and what learns from one; corpus, general distillation and the first teacher stay.
    assert len(again.commands) == len(after) - 3
    assert perform_all(runs_of(PLAN), study, start=FakePrograms(score, limit=0)) == after


def test_a_failed_run_leaves_nothing_of_its_earlier_setting(study: Study):
    few = dataclasses.replace(PLAN, betas=(0.01, 0.1), students=("cut3",))
    perform_all(runs_of(few), dataclasses.replace(study, plan=few), start=FakePrograms(score))
    more = dataclasses.replace(few, betas=(0.01, 0.1, 1.0))
    failing = FakePrograms(score, fails="runs/rotten_tomatoes/cut3/emd/seed1 ")
    records = perform_all(runs_of(more), dataclasses.replace(study, plan=more), start=failing)
    assert {run.name for run in runs_of(more)} - records.keys() == {"runs/rotten_tomatoes/cut3/emd/seed1"}
    assert records.keys() == {record.name for record in read_log(study.root / LOG)[1]}


def test_runs_that_the_plan_has_no_more_stay_in_the_log(study: Study):
    perform_all(runs_of(PLAN), study, start=FakePrograms(score))
    narrower = dataclasses.replace(PLAN, students=("cut3",), seeds=(1, 3))
    perform_all(runs_of(narrower), dataclasses.replace(study, plan=narrower), start=FakePrograms(score))
    seeds = {(r.student, r.seed) for r in read_log(study.root / LOG)[1] if r.kind == "final"}
    assert seeds == {("cut3", 1), ("cut3", 2), ("cut3", 3), ("narrow4", 1), ("narrow4", 2)}


@pytest.mark.parametrize("damage", ["{", "[]", '{"name": "x"}', '{"name": "x", "unknown": 1}'])
def test_a_damaged_log_is_one_line(study: Study, damage: str):
    perform_all(runs_of(PLAN), study, deadline=None, start=FakePrograms(score))
    path = study.root / LOG
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], damage]))
    with pytest.raises(UserError, match=rf"{LOG}.* line 4"):
        read_log(path)


def test_a_real_program_that_fails_says_why(tmp_path: Path):
    flags = shlex.split("--bert_model a --data_dir b --task_name sst-2 --output_dir c --train_batch_size 0")
    with pytest.raises(RunFailedError, match=r"exit code 2: .*must be at least 1 \(see .*a\.log\)"):
        Programs()(["run_finetune.py", *flags], tmp_path / "a.log", {})


CUT = dataclasses.replace(PLAN, students=("cut3",))
"""Without general distillation."""


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> FakePrograms:
    """The programs' `main`, which leaves what the real one does."""
    fake = FakePrograms(score)

    def main_of(name: str):
        def main(argv: list[str]) -> int:
            print(f"{name} prints this")
            if "--mapping none --beta" in shlex.join(argv):
                raise SystemExit(2)
            fake([name, *argv], Path(), {})
            return 0

        return main

    for module, name in ((distill, "run_distill.py"), (finetune, "run_finetune.py")):
        monkeypatch.setattr(module, "main", main_of(name))
    return fake


def test_runs_in_one_process_are_those_of_many(study: Study, in_this_process: FakePrograms, tmp_path: Path):
    records = perform_all(runs_of(CUT), study, start=InThisProcess())
    elsewhere = dataclasses.replace(study, root=tmp_path / "elsewhere")
    write_train_rows(elsewhere)
    expected = perform_all(runs_of(CUT), elsewhere, start=FakePrograms(score))
    assert records.keys() == expected.keys()
    for name, record in records.items():
        assert (record.score, record.command) == (expected[name].score, expected[name].command)
        assert study.path(f"{name}.log").read_text().endswith(" prints this\n")


def test_a_failed_run_in_this_process_names_its_log(study: Study, in_this_process, monkeypatch, capsys):
    monkeypatch.setattr(in_this_process, "fails", "--mapping uniform")
    with pytest.raises(RunFailedError):  # of the fake itself, as an unexpected error of a program
        InThisProcess()(["run_distill.py", "--mapping", "uniform"], study.root / "log", {})
    with pytest.raises(RunFailedError, match=r"exit code 2: run_distill\.py prints this \(see .*log\)"):
        InThisProcess()(["run_distill.py", "--mapping", "none", "--beta", "1"], study.root / "log", {})
    records = perform_all(runs_of(CUT), study, start=InThisProcess())
    assert not any("uniform" in name for name in records)
    assert any("/emd/" in name for name in records)
    assert "not done: " in capsys.readouterr().out


def test_a_signal_ends_a_study_in_one_process(study: Study, in_this_process, monkeypatch):
    monkeypatch.setattr(distill, "main", lambda argv: 143)
    with pytest.raises(KeyboardInterrupt):
        perform_all(runs_of(CUT), study, start=InThisProcess())


def test_a_study_is_made_once_at_a_time(tmp_path: Path):
    config = StudyConfig(command="prepare", output_dir=tmp_path, smoke=True)
    records.write_plan(tmp_path / records.PLAN, plan_of(config))
    with alone_in(tmp_path), pytest.raises(UserError, match="this study is already running"):
        run(config)
