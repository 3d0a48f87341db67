"""What task and general distillation share: the student's start, its fit to the teacher, the plans."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bert_emd_jax.checkpoints.model_directory import Model, load_model
from bert_emd_jax.data.task_data import check_length
from bert_emd_jax.devices.parallel import replicate
from bert_emd_jax.distillation.distill_step import LAYER_WEIGHT_LOGITS
from bert_emd_jax.distillation.plan_check import LayerObserver
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.bert_config import Head, load_bert_config
from bert_emd_jax.models.initialization import (
    NewHead,
    initial_params,
    initial_projection,
    student_from_layers,
)
from bert_emd_jax.runs.layer_mapping import LayerMappingWriter
from bert_emd_jax.training.config import MappingConfig
from bert_emd_jax.training.run import Method
from bert_emd_jax.transport.layer_weights import initial_layer_weight_logits, uniform_layer_weights
from bert_emd_jax.transport.mappings import fixed_plan
from bert_emd_jax.transport.names import FIXED_MAPPINGS, validate_mapping

logger = logging.getLogger(__name__)


def initial_student(
    config: MappingConfig, teacher: Model, head: Head, do_lower_case: bool | None = None
) -> Model:
    """The student before training, with the projection to the teacher's width, as the flags say."""
    new_head = NewHead(teacher.config.num_labels, config.seed, teacher.config.id2label)
    if config.student_model is not None:
        student = load_model(
            Path(config.student_model), head=head, new_head=new_head, do_lower_case=do_lower_case
        )
    elif config.student_init_layers:
        student_config, params = student_from_layers(
            teacher.config, teacher.params, config.student_init_layers, head, config.seed
        )
        student = Model(student_config, params, teacher.tokenizer)
    else:
        assert config.student_config is not None  # one of the three is given: MappingConfig checks
        student_config = dataclasses.replace(
            load_bert_config(Path(config.student_config)),
            num_labels=new_head.num_labels,
            id2label=new_head.id2label,
            classifier_activation="none",
        )
        params = initial_params(student_config, head, config.seed)
        student = Model(student_config, params, teacher.tokenizer)

    widths = student.config.hidden_size, teacher.config.hidden_size
    if student.projection is None or student.projection["kernel"].shape != widths:
        student = dataclasses.replace(student, projection=initial_projection(*widths, config.seed))
    return student


def check_pair(
    config: MappingConfig, teacher: Model, student: Model, longest: int, flag: str = "--max_seq_length"
) -> None:
    """Raises UserError where the student cannot learn from this teacher, and says once what is adapted.

    Args:
      longest: tokens of the longest input, which `flag` has set.
    """
    if student.config.vocab_size != teacher.config.vocab_size:
        raise UserError(
            f"the student has {student.config.vocab_size} word embeddings, the teacher"
            f" {teacher.config.vocab_size}: both must read the same token ids;"
            " give a student of the same vocabulary"
        )
    if student.tokenizer.fingerprint != teacher.tokenizer.fingerprint:
        raise UserError(
            "student and teacher have different tokenizers (vocabulary or lower-casing):"
            " both must read the same token ids; give a student of the same vocabulary, or"
            " --do_lower_case for both"
        )
    for model, source in ((teacher, "the teacher"), (student, "the student")):
        check_length(longest, model.config.max_position_embeddings, source, flag)
    validate_mapping(config.mapping, student.config.num_hidden_layers, teacher.config.num_hidden_layers)
    heads = student.config.num_attention_heads, teacher.config.num_attention_heads
    if heads[0] != heads[1]:
        logger.info("%d student and %d teacher heads: attention scores are averaged over heads", *heads)


def mapping_method(
    config: MappingConfig,
    teacher: Model,
    student: Model,
    make_step: Callable[..., Any],
    *,
    teacher_runs: bool = True,
) -> Method:
    """The method of a step made by `make_distill_step`, with its history and its exact checks.

    Args:
      teacher_runs: the step computes the teacher's outputs; otherwise its batches bring them along.
    """
    history = LayerMappingWriter(config.output_dir)
    observer = LayerObserver(history, config.check_tolerance)
    layers = student.config.num_hidden_layers, teacher.config.num_hidden_layers
    extra_params, learning_rates = {}, {}
    if config.trains_layer_weights:
        extra_params[LAYER_WEIGHT_LOGITS] = initial_layer_weight_logits(*layers)
        learning_rates[LAYER_WEIGHT_LOGITS] = config.layer_weight_learning_rate
    return Method(
        make_step=make_step,
        frozen=_frozen_by_epoch(config, teacher.params if teacher_runs else None, *layers),
        layer_weights=uniform_layer_weights(*layers),
        extra_params=extra_params,
        learning_rates=learning_rates,
        observe=observer.observe,
        check=observer.check,
        check_every=config.check_every if config.transports else 0,
        one_at_a_time=config.mapping == "emd_exact",
        resume=history.resume,
        before_checkpoint=history.write,
    )


def _frozen_by_epoch(
    config: MappingConfig, teacher_params: Any, student_layers: int, teacher_layers: int
) -> Callable[[int], dict[str, Any]]:
    """What the step needs and nobody differentiates, by epoch: the teacher, and a fixed mapping's plan."""
    replicated = replicate(teacher_params)

    def frozen(epoch: int) -> dict[str, Any]:
        flow = None
        if config.mapping in FIXED_MAPPINGS:
            flow = replicate(fixed_plan(config.mapping, student_layers, teacher_layers, config.seed, epoch))
        return {"teacher": replicated, "flow": flow}

    return frozen
