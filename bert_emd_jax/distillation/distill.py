"""Distilling a teacher into a student on a task, as the programs and the Python API call it."""

import dataclasses
from pathlib import Path
from typing import Any

from bert_emd_jax.checkpoints.model_directory import load_model
from bert_emd_jax.data.label_matching import match_labels
from bert_emd_jax.data.task_data import load_task_data, task_of
from bert_emd_jax.devices import hosts
from bert_emd_jax.distillation.distill_step import PredictionLoss, make_distill_step
from bert_emd_jax.distillation.mapping_run import check_pair, initial_student, mapping_method
from bert_emd_jax.distillation.teacher_cache import rows_with_teacher
from bert_emd_jax.runs.run_directory import prepare_run_directory
from bert_emd_jax.training.config import DistillConfig
from bert_emd_jax.training.dry_run import describe_run
from bert_emd_jax.training.run import finished_results, run_training
from bert_emd_jax.training.task_target import classifier, task_target

PROGRAM = "run_distill"


def distill(config: DistillConfig) -> dict[str, Any]:
    """Trains a student by EMD (or another mapping) and returns the content of `eval_results.json`.

    With `dry_run`, nothing is trained: returns what `describe_run` says.

    Raises:
      UserError: a flag, file or row that the user can put right, or models that do not go together.
      Interrupted: a signal came; `resume` goes on.
    """
    hosts.initialize(config)
    task = task_of(config)
    teacher = load_model(Path(config.teacher_model), do_lower_case=config.do_lower_case)
    teacher = match_labels(teacher, task, f"--teacher_model {config.teacher_model}")
    student = initial_student(config, teacher, "classifier", config.do_lower_case)
    check_pair(config, teacher, student, config.max_seq_length)
    data = load_task_data(config, task, student.tokenizer, aug_train=config.aug_train)
    if not config.dry_run:
        hosts.on_main(lambda: prepare_run_directory(config, PROGRAM))
        if (results := finished_results(config)) is not None:
            return results

    module = classifier(student.config, config.dtype, config.remat)
    teacher_module = classifier(teacher.config, config.dtype)
    target = task_target(config, module, data, teacher)
    rows, place = rows_with_teacher(config, target.rows, data.train, teacher, teacher_module)
    method = mapping_method(
        config,
        teacher,
        student,
        lambda optimizer: make_distill_step(
            module,
            teacher_module,
            optimizer,
            config,
            PredictionLoss(config, task.is_regression),
            config.beta,
        ),
        teacher_runs=place == "off" or config.dry_run,
    )
    method = dataclasses.replace(method, facts={"teacher_cache": place})
    if config.dry_run:  # its few steps run the teacher themselves
        models = {"student": student, "teacher": teacher}
        return describe_run(config, PROGRAM, models, target, method, data.train.lengths)
    return run_training(config, PROGRAM, student, dataclasses.replace(target, rows=rows), method)
