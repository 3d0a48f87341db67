"""The command line of a run, and where a study keeps its parts. No jax."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from comparison.matrix import CORPUS, MASKED_CORPUS, MASKED_LM, Plan, Run, teacher_names
from comparison.methods import LEARNING_RATE, METHODS, STUDENTS
from comparison.models import config_of
from comparison.records import Record
from comparison.tasks import TASKS, training_rows

_BATCH_SIZE = 32  # what the programs take where no flag says otherwise
_NEVER = 1 << 30  # steps between evaluations: only the last one counts


@dataclasses.dataclass(frozen=True)
class Workplace:
    """Where a study is on disk, and what its programs are given beside their flags."""

    root: Path
    plan: Plan
    training_flags: Sequence[str] = ()
    distill_flags: Sequence[str] = ()
    augmentation_flags: Sequence[str] = ()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def path(self, run: Run | str) -> Path:
        return self.root / (run if isinstance(run, str) else run.name)

    def data(self, task: str) -> Path:
        return self.root / "data" / task

    def student_config(self, student: str) -> Path:
        return self.root / "students" / f"{student}.json"

    @property
    def body(self) -> Path:
        return self.root / "body"

    @property
    def corpus_text(self) -> Path:
        return self.root / "corpus.txt"


def best(records: Mapping[str, Record], names: Sequence[str]) -> Record:
    """The run with the highest score, the first of equals."""
    return max((records[name] for name in names), key=lambda record: record.score or 0.0)


def setting_of(run: Run, records: Mapping[str, Record]) -> tuple[str, float] | None:
    """The tuned flag of a run and its value: its own, or that of the best trial."""
    return best(records, run.chosen_from).setting if run.chosen_from else run.setting


def is_done(run: Run, records: Mapping[str, Record]) -> bool:
    """Whether a run has a record, of the teacher and of the setting that all candidates, done, choose."""
    teachers = [name for name in run.requires if name.startswith(f"teachers/{run.task}/")]
    if run.name not in records or not all(name in records for name in (*run.chosen_from, *teachers)):
        return False
    record = records[run.name]
    if (
        run.kind in ("tuning", "final")
        and f"study/{best(records, teachers).name}" not in record.command.split()
    ):
        return False
    return record.setting == setting_of(run, records)


def command_line(run: Run, place: Workplace, records: Mapping[str, Record]) -> list[str]:
    """The program and the flags of a run; what it is chosen from must be among the records."""
    plan = place.plan
    if run.kind == "corpus":
        sizes = ["--max_seq_len", "64", "--epochs_to_generate", "1", "--format", "arrays"]
        sizes += ["--masked_lm_prob", "0.15"] if run.name == MASKED_CORPUS else []
        source = ["--train_corpus", str(place.corpus_text), "--bert_model", str(place.body)]
        return ["run_pretrain_data.py", *source, "--output_dir", str(place.path(run)), *sizes]
    flags = ["--output_dir", str(place.path(run)), "--seed", str(run.seed), *place.training_flags]
    if run.kind in ("student", "masked_lm"):
        return ["run_distill.py", *_general_flags(run, place), *flags]
    assert run.task is not None
    task = TASKS[run.task]
    if run.kind == "augmentation":
        rows = ["--data_dir", str(place.data(run.task)), *task.flags, "--seed", str(run.seed), "--overwrite"]
        model = ["--bert_model", str(place.root / MASKED_LM)] if plan.masked_lm_steps else []
        return ["run_augment.py", *rows, *model, *place.augmentation_flags]
    flags += ["--data_dir", str(place.data(run.task)), *task.flags]
    flags += ["--max_seq_length", str(task.max_seq_length), "--eval_steps", str(_NEVER)]
    tuned = setting_of(run, records)
    setting = dict([tuned]) if tuned else {}
    if run.kind == "teacher":
        flags += ["--num_train_epochs", str(plan.teacher_epochs), *_as_flags(setting)]
        return ["run_finetune.py", "--bert_model", str(place.body), *flags]
    assert run.student is not None
    assert run.method is not None
    student = STUDENTS[run.student]
    teacher = best(records, teacher_names(plan, run.task)).name
    setting = {LEARNING_RATE: student.learning_rate} | setting
    flags += ["--num_train_epochs", str(plan.epochs), *_as_flags(setting), *METHODS[run.method].flags]
    if METHODS[run.method].augmented:
        rows = training_rows(run.task, place.data(run.task))
        steps = plan.epochs * math.ceil(rows / _BATCH_SIZE)
        flags += ["--max_steps", str(steps)]
    flags += place.distill_flags
    if student.cut:
        start = ["--student_init_layers", ",".join(map(str, student.cut))]
    elif student.pretraining:
        start = ["--student_model", str(place.root / "students" / run.student)]
    else:
        start = ["--student_config", str(place.student_config(run.student))]
    return ["run_distill.py", "--teacher_model", str(place.path(teacher)), *start, *flags]


def _general_flags(run: Run, place: Workplace) -> list[str]:
    """Flags of learning on the corpus: a student from the body, or the body itself to predict words."""
    plan = place.plan
    if run.kind == "masked_lm":
        corpus, steps, rate = MASKED_CORPUS, plan.masked_lm_steps, "3e-4"
        start = ["--student_model", str(place.body), "--mapping", "none", "--masked_lm_weight", "1"]
    else:
        assert run.student is not None
        corpus, steps, rate = CORPUS, plan.general_steps, "1e-3"
        config = place.student_config(run.student)
        start = ["--student_config", str(config), *STUDENTS[run.student].pretraining]
    models = ["--pregenerated_data", str(place.root / corpus), "--teacher_model", str(place.body), *start]
    held_out = ["--held_out_rows", "50" if plan.tiny else "1000"]
    length = ["--max_steps", str(steps), "--num_train_epochs", str(steps)]
    return [*models, *held_out, *length, "--learning_rate", rate]


def _as_flags(values: Mapping[str, float]) -> list[str]:
    return [part for name, value in values.items() for part in (f"--{name}", f"{value:g}")]


def write_student_configs(place: Workplace) -> None:
    """Writes the config.json of every student that does not begin as a part of its teacher."""
    for name, student in STUDENTS.items():
        if student.layers:
            path = place.student_config(name)
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(config_of(student, place.body), indent=2) + "\n")
