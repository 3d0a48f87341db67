"""General distillation: a student learns a teacher's layers over a corpus, and can learn any task later."""

from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bert_emd_jax.buckets import local_copy
from bert_emd_jax.checkpoints.model_directory import LoadedModel, load_model
from bert_emd_jax.corpus.dataset import PregeneratedData
from bert_emd_jax.devices import hosts
from bert_emd_jax.devices.device_needs import device_needs
from bert_emd_jax.devices.parallel import DEVICES, replicate
from bert_emd_jax.distillation.distill_config import GeneralDistillConfig
from bert_emd_jax.distillation.students import check_pair, initial_student
from bert_emd_jax.distillation.trainer import LayerTrainer
from bert_emd_jax.distillation.validation_loss import VALIDATION_LOSS, ValidationLoss
from bert_emd_jax.distillation.width_cut import with_width
from bert_emd_jax.encoding.batching import choose_bucket_lengths
from bert_emd_jax.encoding.dataset import check_rows
from bert_emd_jax.encoding.task_data import bucket_count
from bert_emd_jax.errors import UserError
from bert_emd_jax.evaluation.model_cost import size_of
from bert_emd_jax.models.batch import Batch
from bert_emd_jax.models.heads import EncoderWithoutHead, MaskedLanguageModel, ModelOutput
from bert_emd_jax.models.initialization import PROJECTION
from bert_emd_jax.models.losses import masked_lm_sums
from bert_emd_jax.training.row_source import CorpusRows
from bert_emd_jax.training.run import compute_dtype, directory_of
from bert_emd_jax.training.trainer import Measurements, MicroStep

_MOST_BUCKETS = 3


class GeneralDistillTrainer(LayerTrainer):
    """Trains a student on pregenerated data.

    The student is a bare encoder, or has a masked-LM head if `masked_lm_weight` is above 0. It is measured
    by its loss on rows that it does not learn from, before the first step too, and the best one is kept.
    """

    config: GeneralDistillConfig
    primary_metric = VALIDATION_LOSS
    lower_is_better = True
    evaluates_at_start = True

    def __init__(
        self, config: GeneralDistillConfig, student: LoadedModel, teacher: LoadedModel, data: PregeneratedData
    ) -> None:
        """Takes a teacher without a head, and a student with the head that the config asks for."""
        first_epoch = data.epoch(0)
        if config.masked_lm_weight and not first_epoch.masked_tokens:
            raise UserError(
                f"--masked_lm_weight: no token of {config.pregenerated_data} is masked; make the data with"
                " bert-emd pretrain-data --masked_lm_prob 0.15"
            )
        dtype = jnp.dtype(compute_dtype(config, self.program))
        head = MaskedLanguageModel if config.masked_lm_weight else EncoderWithoutHead
        modules = head(student.config, dtype, config.speed.remat), EncoderWithoutHead(teacher.config, dtype)
        steps = config.optimizer.steps(-(-len(first_epoch) // config.optimizer.train_batch_size))
        count = min(_MOST_BUCKETS, bucket_count(steps, device_needs().steps_for_another_length))
        buckets = choose_bucket_lengths(first_epoch.lengths, data.max_seq_len, count)
        # An epoch whose longest row is longer than the first one's needs room too.
        buckets = (*(length for length in buckets if length < data.max_seq_len), data.max_seq_len)
        optimizer, validation_rows = config.optimizer, config.held_out_rows
        rows = CorpusRows(data, buckets, optimizer.train_batch_size, optimizer.seed, validation_rows)
        super().__init__(config, config.layers, student, teacher, modules, rows)
        self._epochs = data.epochs
        self._validation = ValidationLoss(
            self.layers,
            config.masked_lm_weight,
            modules,
            teacher,
            first_epoch,
            np.arange(len(first_epoch))[-validation_rows:],
            buckets,
            batch_size=config.run.eval_batch_size,
            seed=optimizer.seed,
        )

    @classmethod
    def from_config(cls, config: GeneralDistillConfig) -> Self:
        """The trainer of `bert-emd distill --pregenerated_data`.

        Raises:
          UserError: a flag, file or row that the user can put right, or models that do not go together.
        """
        hosts.initialize(config.hosts)
        path, *others = config.pair.teacher_model
        if others:
            raise UserError("--teacher_model: over a corpus layers alone are learned, those of one teacher")
        teacher = load_model(path, head="none")
        head = "masked_lm" if config.masked_lm_weight else "none"
        student = initial_student(config.pair, teacher, head, config.optimizer.seed)
        data = PregeneratedData.open(local_copy(config.pregenerated_data), teacher.tokenizer)
        flag = "bert-emd pretrain-data --max_seq_len"
        check_pair(config.layers, teacher, student, data.max_seq_len, flag)
        if config.held_out_rows >= min(data.example_count(epoch) for epoch in range(data.epochs)):
            raise UserError(
                f"--held_out_rows {config.held_out_rows}: an epoch of {config.pregenerated_data} has no more"
                " rows; hold out fewer"
            )
        check_rows(data.epoch(0), teacher.config, f"--teacher_model {path}")
        student = with_width(student, config.pair, head, config.optimizer.seed, data.epoch(0))
        check_rows(data.epoch(0), student.config, "the student")
        return cls(config, student, teacher, data)

    def own_loss(
        self, params: Any, student: ModelOutput, teacher: ModelOutput, batch: Batch, step: MicroStep
    ) -> tuple[Float[Array, ""], Measurements]:
        """The student's own masked-LM loss: the mean over all masked tokens of a micro-batch."""
        weight = self.config.masked_lm_weight
        if not weight:
            return jnp.zeros(()), {}
        total, count = masked_lm_sums(student.logits, batch["masked_labels"], batch["weights"])
        loss = total / jnp.maximum(jax.lax.psum(count, DEVICES), 1)
        return weight * loss, {"masked_lm_loss": loss}

    def prepare(self) -> dict[str, Any]:
        """Refuses to resume a run whose corpus has another number of epochs now."""
        before = directory_of(self.config, self.program).facts_before() or {}
        if (epochs := before.get("pregenerated_epochs", self._epochs)) != self._epochs:
            raise UserError(
                f"--resume: the run began with {epochs} epochs in {self.config.pregenerated_data}, there"
                f" are {self._epochs} now: its rows would not be the same; keep only these {epochs}, or start"
                " anew"
            )
        return {"pregenerated_epochs": self._epochs}

    def evaluate(self) -> dict[str, float]:
        return self._validation(self.state.params, self._scales)

    @property
    def _scales(self) -> Any:
        method = self.state.method
        return None if method is None else jax.device_get(method.scales)

    def results(self, model: LoadedModel) -> dict[str, Any]:
        params = replicate(dict(model.params) | {PROJECTION: model.projection})
        metrics = self._validation(params, self._scales)
        return {
            "task": "general distillation",
            "split": "held out",
            "rows": self.config.held_out_rows,
            "chose_step": True,
            "student": {"metrics": metrics, **size_of(model.config, model.params)},
        }
