"""The command lines of runs, and the layout of a study's directory. No jax."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from bert_emd_jax.files import write_json
from comparison.matrix import CORPUS, MASKED_CORPUS, MASKED_LM, Plan, Run, teacher_names
from comparison.methods import LEARNING_RATE, METHODS, STUDENTS
from comparison.models import config_of
from comparison.records import Record
from comparison.tasks import TASKS, training_rows

_BATCH_SIZE = 32  # the default of the programs
_NEVER = 1 << 30  # steps between evaluations: only the last one counts


@dataclasses.dataclass(frozen=True)
class Study:
    """The directory of a study with its plan, and more flags and variables for its programs."""

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
    """Returns the run with the highest score, the first of equals."""
    return max((records[name] for name in names), key=lambda record: record.standing)


def setting_of(run: Run, records: Mapping[str, Record]) -> tuple[str, float] | None:
    """Returns the tuned flag of a run and its value: its own, or that of the best trial."""
    return best(records, run.chosen_from).setting if run.chosen_from else run.setting


def is_done(run: Run, records: Mapping[str, Record]) -> bool:
    """Returns whether a run has a record, with the best teacher and the best setting of all candidates."""
    teachers = [name for name in run.requires if name.startswith(f"teachers/{run.task}/")]
    if run.name not in records or not all(name in records for name in (*run.chosen_from, *teachers)):
        return False
    record = records[run.name]
    if run.kind in ("tuning", "final"):
        teacher = f"study/{best(records, teachers).name}"
        if teacher not in record.command.split():
            return False
    return record.setting == setting_of(run, records)


def command_line(run: Run, study: Study, records: Mapping[str, Record]) -> list[str]:
    """Returns the program and the flags of a run; `records` must have what it is chosen from."""
    plan = study.plan
    if run.kind == "corpus":
        sizes = ["--max_seq_len", "64", "--epochs_to_generate", "1", "--format", "arrays"]
        sizes += ["--masked_lm_prob", "0.15"] if run.name == MASKED_CORPUS else []
        source = ["--train_corpus", str(study.corpus_text), "--bert_model", str(study.body)]
        return ["run_pretrain_data.py", *source, "--output_dir", str(study.path(run)), *sizes]
    flags = ["--output_dir", str(study.path(run)), "--seed", str(run.seed), *study.training_flags]
    if run.kind in ("student", "masked_lm"):
        return ["run_distill.py", *_general_flags(run, study), *flags]
    assert run.task is not None
    task = TASKS[run.task]
    if run.kind == "augmentation":
        rows = ["--data_dir", str(study.data(run.task)), *task.flags, "--seed", str(run.seed), "--overwrite"]
        model = ["--bert_model", str(study.root / MASKED_LM)] if plan.masked_lm_steps else []
        return ["run_augment.py", *rows, *model, *study.augmentation_flags]
    flags += ["--data_dir", str(study.data(run.task)), *task.flags]
    flags += ["--max_seq_length", str(task.max_seq_length), "--eval_steps", str(_NEVER)]
    tuned = setting_of(run, records)
    setting = dict([tuned]) if tuned else {}
    if run.kind == "teacher":
        flags += ["--num_train_epochs", str(plan.teacher_epochs), *_as_flags(setting)]
        return ["run_finetune.py", "--bert_model", str(study.body), *flags]
    assert run.student is not None
    assert run.method is not None
    student = STUDENTS[run.student]
    teacher = best(records, teacher_names(plan, run.task)).name
    setting = {LEARNING_RATE: student.learning_rate} | setting
    epochs = plan.epochs * student.epochs
    flags += ["--num_train_epochs", f"{epochs:g}", *_as_flags(setting), *METHODS[run.method].flags]
    if METHODS[run.method].augmented:
        rows = training_rows(run.task, study.data(run.task))
        steps = math.ceil(epochs * math.ceil(rows / _BATCH_SIZE))
        flags += ["--max_steps", str(steps)]
    flags += study.distill_flags
    if student.cut:
        start = ["--student_init_layers", ",".join(map(str, student.cut))]
        start += ["--student_width", str(student.width)] if student.width else []
    elif student.pretraining:
        start = ["--student_model", str(study.root / "students" / run.student)]
    else:
        start = ["--student_config", str(study.student_config(run.student))]
    return ["run_distill.py", "--teacher_model", str(study.path(teacher)), *start, *flags]


def _general_flags(run: Run, study: Study) -> list[str]:
    """Returns flags of training on the corpus: a student by the body, or the body to predict masked words."""
    plan = study.plan
    if run.kind == "masked_lm":
        corpus, steps, rate = MASKED_CORPUS, plan.masked_lm_steps, "3e-4"
        start = ["--student_model", str(study.body), "--mapping", "none", "--masked_lm_weight", "1"]
    else:
        assert run.student is not None
        corpus, steps, rate = CORPUS, plan.general_steps, "1e-3"
        config = study.student_config(run.student)
        start = ["--student_config", str(config), *STUDENTS[run.student].pretraining]
    models = ["--pregenerated_data", str(study.root / corpus), "--teacher_model", str(study.body), *start]
    held_out = ["--held_out_rows", "50" if plan.tiny else "1000"]
    length = ["--max_steps", str(steps), "--num_train_epochs", str(steps)]
    return [*models, *held_out, *length, "--learning_rate", rate]


def _as_flags(values: Mapping[str, float]) -> list[str]:
    return [part for name, value in values.items() for part in (f"--{name}", f"{value:g}")]


def write_student_configs(study: Study) -> None:
    """Writes the config.json of every student that is not cut out of its teacher."""
    for name, student in STUDENTS.items():
        if student.layers:
            path = study.student_config(name)
            path.parent.mkdir(exist_ok=True)
            write_json(path, config_of(student, study.body))
