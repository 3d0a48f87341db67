"""The runs of a study, their order and their requirements. Imports no jax."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from bert_emd_jax.errors import UserError
from comparison.methods import BETA, CORE_METHODS, LEARNING_RATE, METHODS, STUDENTS

Kind = Literal["corpus", "student", "masked_lm", "augmentation", "teacher", "tuning", "final"]
CORPUS, MASKED_CORPUS, MASKED_LM = "corpus", "masked_corpus", "masked_lm"
TUNING_SEED = 0  # not a seed of the comparison, whose runs must not choose their own settings


@dataclasses.dataclass(frozen=True)
class Plan:
    """The size of a study.

    train_rows: the limit of a task's training rows (some may have a multiple), 0: none. betas: the trials of
    β; methods without it try `learning_rate_factors` of the student's learning rate. tuning_task: the task of
    all trials, None: each task's own. general_steps: optimizer steps of a general distillation on so many
    IMDB `reviews`. masked_lm_steps: of the model that proposes words for augmented rows, learned on the same
    reviews, 0: another model is given. dev_halves: one half of the dev rows chooses settings and teachers,
    the other is reported. tiny: a teacher of random weights, to see that everything works.
    """

    tasks: tuple[str, ...]
    students: tuple[str, ...] = ("narrow4", "cut3")
    methods: tuple[str, ...] = CORE_METHODS
    seeds: tuple[int, ...] = (1, 2, 3)
    train_rows: int = 3000
    epochs: int = 6  # in 3, half of a run passes before the narrow students learn anything of a task
    betas: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0)
    learning_rate_factors: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    tuning_task: str | None = None
    teacher_seeds: tuple[int, ...] = (1,)
    teacher_learning_rates: tuple[float, ...] = (5e-5,)
    teacher_epochs: int = 3
    general_steps: int = 1000
    reviews: int = 25_000
    masked_lm_steps: int = 1000
    dev_halves: bool = False
    tiny: bool = False


FULL = {
    "students": tuple(STUDENTS),
    "methods": tuple(METHODS),
    "train_rows": 0,
    "epochs": 5,
    "teacher_seeds": (1, 2, 3),
    "teacher_learning_rates": (2e-5, 5e-5, 1e-4),
    "general_steps": 10_000,
    "masked_lm_steps": 10_000,
}
SMOKE = {
    "students": ("narrow4",),
    "methods": ("finetune", "uniform", "emd", "emd_aug"),
    "seeds": (1, 2),
    "train_rows": 48,
    "epochs": 1,
    "betas": (0.1, 1.0),
    "learning_rate_factors": (1.0,),
    "teacher_epochs": 1,
    "general_steps": 4,
    "masked_lm_steps": 4,
    "reviews": 200,
    "tiny": True,
}
# What may change when a study is resumed: it adds or leaves out runs. If new trials choose another setting
# for runs that are done, or new teachers another teacher, these runs are performed again.
_EXTENDABLE = (
    *("tasks", "students", "methods", "seeds", "teacher_seeds", "teacher_learning_rates"),
    *("betas", "learning_rate_factors", "masked_lm_steps"),
)


def resumed_plan(before: Plan, now: Plan, source: object) -> Plan:
    """Returns the plan of a resumed study: the tuning task is the earlier one.

    Raises:
      UserError: the earlier plan differs in a field that changes its runs.
    """
    if before.tuning_task and now.tuning_task:
        now = dataclasses.replace(now, tuning_task=before.tuning_task)
    changed = [
        f"{field.name} was {old}, is {new}"
        for field in dataclasses.fields(now)
        if field.name not in _EXTENDABLE
        and (old := getattr(before, field.name)) != (new := getattr(now, field.name))
    ]
    if changed:
        raise UserError(f"{source}: this study was begun otherwise ({'; '.join(changed)}): new --output_dir")
    return now


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a program, with a directory of its own.

    name: the directory, relative to the study's. setting: the flag that is tried and its value. chosen_from:
    runs whose best one gives the setting instead. requires: runs that must be done before.
    """

    name: str
    kind: Kind
    task: str | None = None
    student: str | None = None
    method: str | None = None
    seed: int = 0
    setting: tuple[str, float] | None = None
    chosen_from: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()


def runs_of(plan: Plan) -> list[Run]:
    """Returns all runs, after those that they require: every method on every pair before the next seed."""
    runs: dict[str, Run] = {}
    for seed in plan.seeds:
        for task in plan.tasks:
            for student in plan.students:
                for method in plan.methods:
                    for run in _runs_for(plan, task, student, method, seed):
                        runs.setdefault(run.name, run)
    return list(runs.values())


def teacher_names(plan: Plan, task: str) -> tuple[str, ...]:
    """Returns the candidates for the task's teacher, which is the best of them on the dev set."""
    return tuple(run.name for run in _teachers(plan, task))


def _runs_for(plan: Plan, task: str, student: str, method: str, seed: int) -> list[Run]:
    tuning_task = plan.tuning_task or task
    prepared = [*_teachers(plan, task), *_general_distillation(student)]
    if METHODS[method].augmented:
        prepared += _augmentation(plan, task)
    tuning = _tuning(plan, tuning_task, student, method)
    name = f"runs/{task}/{student}/{method}/seed{seed}"
    trials = tuple(run.name for run in tuning)
    requires = (*(run.name for run in prepared), *trials)
    setting = None if trials else _settings(plan, student, method)[0]
    final = Run(name, "final", task, student, method, seed, setting, trials, requires)
    return [*prepared, *(_teachers(plan, tuning_task) if tuning else ()), *tuning, final]


def _teachers(plan: Plan, task: str) -> list[Run]:
    """Returns a grid of learning rates on the first seed, the best of them on the others."""
    first, *others = plan.teacher_seeds
    settings = {
        f"teachers/{task}/learning_rate{rate:g}-seed{first}": (LEARNING_RATE, rate)
        for rate in plan.teacher_learning_rates
    }
    grid = [Run(name, "teacher", task, seed=first, setting=setting) for name, setting in settings.items()]
    names = tuple(settings)
    return grid + [
        Run(f"teachers/{task}/seed{seed}", "teacher", task, seed=seed, chosen_from=names, requires=names)
        for seed in others
    ]


def _general_distillation(student: str) -> list[Run]:
    if not STUDENTS[student].pretraining:
        return []
    name = f"students/{student}"
    return [Run(CORPUS, "corpus"), Run(name, "student", student=student, seed=1, requires=(CORPUS,))]


def _augmentation(plan: Plan, task: str) -> list[Run]:
    """Returns the run that augments rows; before it, the training of its model if none is given."""
    rows = Run(f"augmentation/{task}", "augmentation", task)
    if not plan.masked_lm_steps:
        return [rows]
    model = Run(MASKED_LM, "masked_lm", seed=1, requires=(MASKED_CORPUS,))
    return [Run(MASKED_CORPUS, "corpus"), model, dataclasses.replace(rows, requires=(MASKED_LM,))]


def _settings(plan: Plan, student: str, method: str) -> list[tuple[str, float]]:
    tuned, given = METHODS[method].tuned, METHODS[method].beta
    if given is not None:
        return [(BETA, given)]
    if tuned == LEARNING_RATE:
        rate = STUDENTS[student].learning_rate
        return [(tuned, factor * rate) for factor in plan.learning_rate_factors]
    return [(tuned, beta) for beta in plan.betas]


def _tuning(plan: Plan, task: str, student: str, method: str) -> list[Run]:
    """Returns the trials of a method, none if there is one setting only."""
    method = METHODS[method].like or method
    settings = _settings(plan, student, method)
    if len(settings) < 2:
        return []
    prepared = (*teacher_names(plan, task), *(run.name for run in _general_distillation(student)))
    trials = {f"tuning/{task}/{student}/{method}/{flag}{value:g}": (flag, value) for flag, value in settings}
    return [
        Run(name, "tuning", task, student, method, TUNING_SEED, setting, requires=prepared)
        for name, setting in trials.items()
    ]


def check_names(kind: str, given: Sequence[str], known: Sequence[str]) -> None:
    """Raises UserError for a name that is not among the known ones."""
    if unknown := [name for name in given if name not in known]:
        raise UserError(f"--{kind} {','.join(unknown)}: unknown; choose among {', '.join(known)}")
