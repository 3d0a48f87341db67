"""General distillation: a student learns a teacher's layers over a corpus, and can learn any task later."""

import dataclasses
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from bert_emd_jax.checkpoints.model_directory import Model, load_model
from bert_emd_jax.corpus.dataset import PregeneratedData
from bert_emd_jax.data.batching import choose_bucket_lengths
from bert_emd_jax.devices import hosts
from bert_emd_jax.distillation.distill_step import MaskedLMLoss, make_distill_step
from bert_emd_jax.distillation.mapping_run import check_pair, initial_student, mapping_method
from bert_emd_jax.distillation.validation_loss import HeldOutLoss
from bert_emd_jax.errors import UserError
from bert_emd_jax.evaluation.model_cost import size_of
from bert_emd_jax.models.bert_config import BertConfig
from bert_emd_jax.models.heads import BertForMaskedLM, BertWithoutHead
from bert_emd_jax.runs.run_directory import facts_before, prepare_run_directory
from bert_emd_jax.training.config import GeneralDistillConfig
from bert_emd_jax.training.dry_run import describe_run
from bert_emd_jax.training.row_source import CorpusRows
from bert_emd_jax.training.run import Target, finished_results, run_training

PROGRAM = "run_distill"
MOST_BUCKETS = 3


def general_distill(config: GeneralDistillConfig) -> dict[str, Any]:
    """Trains a student on pregenerated data and returns the content of `eval_results.json`.

    The student is a bare encoder, or has a masked-LM head where `masked_lm_weight` is above 0. It is measured
    by its loss on rows that are held out, before the first step too, and the best one is kept.

    With `dry_run`, nothing is trained: returns what `describe_run` says.

    Raises:
      UserError: a flag, file or row that the user can put right, or models that do not go together.
      Interrupted: a signal came; `resume` goes on.
    """
    hosts.initialize(config)
    teacher = load_model(Path(config.teacher_model), head="none")
    student = initial_student(config, teacher, "masked_lm" if config.masked_lm_weight else "none")
    data = PregeneratedData.open(config.pregenerated_data, teacher.tokenizer)
    check_pair(config, teacher, student, data.max_seq_len, "run_pretrain_data.py --max_seq_len")
    if config.held_out_rows >= min(data.example_count(epoch) for epoch in range(data.epochs)):
        raise UserError(
            f"--held_out_rows {config.held_out_rows}: an epoch of {config.pregenerated_data} has no more"
            " rows; hold out fewer"
        )
    modules = _module(student.config, config), _teacher_module(teacher.config, config)
    target = _target(config, data, modules, teacher)
    if not config.dry_run:
        hosts.on_main(lambda: prepare_run_directory(config, PROGRAM))
        if (results := finished_results(config)) is not None:
            return results
    facts = {"pregenerated_epochs": data.epochs}
    before = (facts_before(config) or {}).get("pregenerated_epochs", data.epochs)
    if before != data.epochs:
        raise UserError(
            f"--resume: the run began with {before} epochs in {config.pregenerated_data}, there are"
            f" {data.epochs} now: its rows would not be the same; keep only these {before}, or start anew"
        )
    method = mapping_method(
        config,
        teacher,
        student,
        lambda optimizer: make_distill_step(
            *modules, optimizer, config, MaskedLMLoss(config.masked_lm_weight)
        ),
    )
    if config.dry_run:
        lengths = data.epoch(0).lengths[: -config.held_out_rows]
        models = {"student": student, "teacher": teacher}
        return describe_run(config, PROGRAM, models, target, method, lengths)
    return run_training(config, PROGRAM, student, target, dataclasses.replace(method, facts=facts))


def _module(model: BertConfig, config: GeneralDistillConfig) -> nn.Module:
    kind = BertForMaskedLM if config.masked_lm_weight else BertWithoutHead
    return kind(model, jnp.dtype(config.dtype), config.remat)


def _teacher_module(model: BertConfig, config: GeneralDistillConfig) -> nn.Module:
    return BertWithoutHead(model, jnp.dtype(config.dtype))


def _target(
    config: GeneralDistillConfig, data: PregeneratedData, modules: tuple[nn.Module, nn.Module], teacher: Model
) -> Target:
    first_epoch = data.epoch(0)
    if config.masked_lm_weight and not first_epoch.masked_tokens:
        raise UserError(
            f"--masked_lm_weight: no token of {config.pregenerated_data} is masked; make the data with"
            " run_pretrain_data.py --masked_lm_prob 0.15"
        )
    lengths = first_epoch.lengths
    buckets = choose_bucket_lengths(lengths, data.max_seq_len, MOST_BUCKETS)
    # An epoch whose longest row is longer than the first one's needs room too.
    buckets = (*(length for length in buckets if length < data.max_seq_len), data.max_seq_len)
    rows = CorpusRows(data, buckets, config.train_batch_size, config.seed, config.held_out_rows)
    held_out = np.arange(len(first_epoch))[-config.held_out_rows :]
    evaluate = HeldOutLoss(config, *modules, teacher, first_epoch, held_out, buckets)

    def results(model: Model) -> dict[str, Any]:
        return {
            "task": "general distillation",
            "split": "held out",
            "student": {"metrics": evaluate.of_model(model), **size_of(model.config, model.params)},
        }

    return Target(rows, evaluate, "held_out_loss", results, lower_is_better=True, measured_at_start=True)
