"""The student before training, and whether it can learn from its teacher."""

import dataclasses
import logging
from pathlib import Path

from bert_emd_jax.buckets import local_copy
from bert_emd_jax.checkpoints.model_directory import LoadedModel, load_model
from bert_emd_jax.distillation.distill_config import MappingConfig, TeacherAndStudentConfig
from bert_emd_jax.distillation.initial_layers import initial_layers
from bert_emd_jax.encoding.dataset import check_length
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.encoder_config import load_config
from bert_emd_jax.models.families import Head
from bert_emd_jax.models.initialization import (
    NewHead,
    initial_params,
    initial_projection,
    student_from_layers,
)
from bert_emd_jax.tokenization.comparison import reads_the_same
from bert_emd_jax.transport.mappings import validate_mapping

logger = logging.getLogger(__name__)


def initial_student(
    config: TeacherAndStudentConfig,
    teacher: LoadedModel,
    head: Head,
    seed: int,
    do_lower_case: bool | None = None,
) -> LoadedModel:
    """The student before training, with the projection to the teacher's width, as the flags say."""
    of_teacher = teacher.config
    new_head = NewHead(
        of_teacher.num_labels, seed, of_teacher.id2label, of_teacher.problem_type, of_teacher.embedding
    )
    if config.student_model is not None:
        student = load_model(
            Path(config.student_model), head=head, new_head=new_head, do_lower_case=do_lower_case
        )
    elif config.student_init_layers:
        depth = of_teacher.num_hidden_layers
        layers = initial_layers(config.student_init_layers, config.student_layers, depth)
        student_config, params = student_from_layers(of_teacher, teacher.params, layers, head, seed)
        student = LoadedModel(student_config, params, teacher.tokenizer)
    else:
        assert config.student_config is not None  # one of the three is given: the config checks
        student_config = dataclasses.replace(
            new_head.on(load_config(local_copy(config.student_config))), classifier_activation="none"
        )
        params = initial_params(student_config, head, seed)
        student = LoadedModel(student_config, params, teacher.tokenizer)
    if config.student_dropout is not None:
        student = dataclasses.replace(student, config=student.config.with_dropout(config.student_dropout))

    widths = student.config.hidden_size, teacher.config.hidden_size
    if student.projection is None or student.projection["kernel"].shape != widths:
        student = dataclasses.replace(student, projection=initial_projection(*widths, seed))
    return student


def check_pair(
    layers: MappingConfig,
    teacher: LoadedModel,
    student: LoadedModel,
    longest: int,
    flag: str = "--max_seq_length",
) -> None:
    """Raises UserError if the student cannot learn from this teacher, and says once what is adapted.

    Args:
      longest: tokens of the longest input, which `flag` has set.
    """
    if student.config.vocab_size != teacher.config.vocab_size:
        raise UserError(
            f"the student has {student.config.vocab_size} word embeddings, the teacher"
            f" {teacher.config.vocab_size}: both must read the same token ids;"
            " give a student of the same vocabulary"
        )
    if not reads_the_same(student.tokenizer, teacher.tokenizer):
        raise UserError(
            "student and teacher have different tokenizers (vocabulary or lower-casing):"
            " both must read the same token ids; give a student of the same vocabulary, or"
            " --do_lower_case for both"
        )
    for model, source in ((teacher, "the teacher"), (student, "the student")):
        check_length(longest, model.config.longest_input, source, flag)
    validate_mapping(layers.mapping, student.config.num_hidden_layers, teacher.config.num_hidden_layers)
    widths = student.config.hidden_size, teacher.config.hidden_size
    if layers.relation_heads is not None and any(width % layers.relation_heads for width in widths):
        ours, theirs = widths
        raise UserError(
            f"--relation_heads {layers.relation_heads}: does not divide widths {ours} and {theirs}"
        )
    heads = student.config.num_attention_heads, teacher.config.num_attention_heads
    if heads[0] != heads[1]:
        logger.info("%d student and %d teacher heads: attention scores are averaged over heads", *heads)
