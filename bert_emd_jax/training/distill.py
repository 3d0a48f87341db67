"""Distilling a teacher into a student, as the programs and the Python API call it."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bert_emd_jax.bert.config import load_bert_config
from bert_emd_jax.errors import UserError
from bert_emd_jax.training.config import DistillConfig, flags_of
from bert_emd_jax.training.distill_step import Objective, make_distill_step
from bert_emd_jax.training.layer_observer import LayerObserver
from bert_emd_jax.training.parallel import replicate
from bert_emd_jax.training.run import Method, classifier, finished_results, latest_checkpoint, run_training
from bert_emd_jax.training.run_directory import MappingHistory, prepare_run_directory
from bert_emd_jax.training.task_data import check_labels, check_length, load_task_data, task_of
from bert_emd_jax.transport.layer_weights import uniform_layer_weights
from bert_emd_jax.transport.mapping import fixed_plan
from bert_emd_jax.transport.names import FIXED_MAPPINGS, TRANSPORT_MAPPINGS, validate_mapping
from bert_emd_jax.weights.initialization import (
    NewHead,
    initial_params,
    initial_projection,
    student_from_layers,
)
from bert_emd_jax.weights.model_directory import Model, load_model

logger = logging.getLogger(__name__)

PROGRAM = "run_distill"


def distill(config: DistillConfig) -> dict[str, Any]:
    """Trains a student by EMD (or another mapping) and returns the content of `eval_results.json`.

    Raises:
      UserError: a flag, file or row that the user can put right, or models that do not go together.
    """
    task = task_of(config)
    teacher = load_model(Path(config.teacher_model), do_lower_case=config.do_lower_case)
    check_labels(teacher.config, task, f"--teacher_model {config.teacher_model}")
    student = initial_student(config, teacher)
    check_pair(config, teacher, student)
    data = load_task_data(config, task, student.tokenizer, aug_train=config.aug_train)
    prepare_run_directory(
        config.output_dir, PROGRAM, flags_of(config), resume=config.resume, overwrite=config.overwrite
    )
    if (results := finished_results(config)) is not None:
        return results

    resume_step = latest_checkpoint(config)
    objective = Objective(config, task.is_regression)
    history = MappingHistory(config.output_dir, resume_step)
    observer = LayerObserver(history, config.check_tolerance)
    layers = student.config.num_hidden_layers, teacher.config.num_hidden_layers
    exact_check = config.mapping in TRANSPORT_MAPPINGS and (objective.attention or objective.hidden)
    method = Method(
        make_step=lambda optimizer: make_distill_step(
            classifier(student.config, config.dtype),
            classifier(teacher.config, config.dtype),
            optimizer,
            objective,
        ),
        frozen=frozen_by_epoch(config, teacher, *layers),
        layer_weights=uniform_layer_weights(*layers),
        teacher=teacher,
        observe=observer.observe,
        check=observer.check,
        check_every=config.check_every if exact_check else 0,
        one_at_a_time=config.mapping == "emd_exact",
        before_checkpoint=history.write,
    )
    return run_training(config, PROGRAM, student, data, method, resume_step)


def initial_student(config: DistillConfig, teacher: Model) -> Model:
    """The student before training, with the projection to the teacher's width, as the flags say."""
    head = NewHead(teacher.config.num_labels, config.seed, teacher.config.id2label)
    if config.student_model is not None:
        student = load_model(Path(config.student_model), new_head=head, do_lower_case=config.do_lower_case)
    elif config.student_init_layers:
        student_config, params = student_from_layers(
            teacher.config, teacher.params, config.student_init_layers, config.seed
        )
        student = Model(student_config, params, teacher.tokenizer)
    else:
        assert config.student_config is not None  # one of the three is given: DistillConfig checks
        student_config = dataclasses.replace(
            load_bert_config(Path(config.student_config)),
            num_labels=head.num_labels,
            id2label=head.id2label,
            classifier_activation="none",
        )
        params = initial_params(student_config, "classifier", config.seed)
        student = Model(student_config, params, teacher.tokenizer)

    widths = student.config.hidden_size, teacher.config.hidden_size
    if student.projection is None or student.projection["kernel"].shape != widths:
        student = dataclasses.replace(student, projection=initial_projection(*widths, config.seed))
    return student


def check_pair(config: DistillConfig, teacher: Model, student: Model) -> None:
    """Raises UserError where the student cannot learn from this teacher, and says once what is adapted."""
    if student.config.vocab_size != teacher.config.vocab_size:
        raise UserError(
            f"the student has {student.config.vocab_size} word embeddings, the teacher"
            f" {teacher.config.vocab_size}: both must read the same token ids"
        )
    if student.tokenizer.fingerprint != teacher.tokenizer.fingerprint:
        raise UserError(
            "student and teacher have different tokenizers (vocabulary or lower-casing):"
            " both must read the same token ids"
        )
    for model, source in ((teacher, "the teacher"), (student, "the student")):
        check_length(config.max_seq_length, model.config.max_position_embeddings, source)
    validate_mapping(config.mapping, student.config.num_hidden_layers, teacher.config.num_hidden_layers)
    heads = student.config.num_attention_heads, teacher.config.num_attention_heads
    if heads[0] != heads[1]:
        logger.info("%d student and %d teacher heads: attention scores are averaged over heads", *heads)


def frozen_by_epoch(
    config: DistillConfig, teacher: Model, student_layers: int, teacher_layers: int
) -> Callable[[int], dict[str, Any]]:
    """What the step needs and nobody differentiates, by epoch: the teacher, and a fixed mapping's plan."""
    teacher_params = replicate(teacher.params)

    def frozen(epoch: int) -> dict[str, Any]:
        flow = None
        if config.mapping in FIXED_MAPPINGS:
            flow = replicate(fixed_plan(config.mapping, student_layers, teacher_layers, config.seed, epoch))
        return {"teacher": teacher_params, "flow": flow}

    return frozen
