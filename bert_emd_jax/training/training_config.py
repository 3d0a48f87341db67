"""The configs of training, whatever is trained, and of fine-tuning. No JAX here."""

import dataclasses
import math
from pathlib import Path
from typing import Literal

from bert_emd_jax.configs import Config, Names, ProgramConfig, ReadAnywhere
from bert_emd_jax.data.task_config import TaskConfig
from bert_emd_jax.devices.device_config import MultiHostConfig, SpeedConfig
from bert_emd_jax.errors import UserError
from bert_emd_jax.runs.run_config import RunConfig


@dataclasses.dataclass(frozen=True, init=False)
class OptimizerConfig(Config):
    """Optimizer and length of training."""

    train_batch_size: int = 32
    """Examples per optimizer step, over all devices and hosts."""
    num_train_epochs: float = 3
    """Passes over the training data; a fraction ends within one."""
    max_steps: int = 0
    """Stop after this many optimizer steps; 0: at the end of the epochs."""
    learning_rate: float = 3e-5
    """Peak learning rate of AdamW."""
    lr_schedule: Literal["linear", "constant"] = "linear"
    """Learning rate after the warmup: linear decay to 0, or constant."""
    warmup_proportion: float = 0.1
    """Share of all steps over which the learning rate rises from 0."""
    weight_decay: float = 0.01
    """Decoupled weight decay of matrices; biases and LayerNorm are not decayed."""
    max_grad_norm: float = 1.0
    """Maximum global norm of the gradients; larger gradients are scaled down."""
    freeze_word_embeddings: bool = False
    """Do not train the word embeddings: two thirds of a small model's parameters need no gradient."""
    gradient_accumulation_steps: int = 1
    """Micro-batches per optimizer step; each holds train_batch_size / N examples."""
    seed: int = 42
    """Random seed of the data order, dropout and new weights."""

    def check(self) -> None:
        self.require("train_batch_size", self.train_batch_size >= 1, "at least 1")
        self.require("num_train_epochs", 0 < self.num_train_epochs < math.inf, "above 0")
        if self.num_train_epochs == int(self.num_train_epochs):  # 3.0 is 3, in files and messages too
            object.__setattr__(self, "num_train_epochs", int(self.num_train_epochs))
        for name in ("max_steps", "seed", "weight_decay"):
            self.require(name, getattr(self, name) >= 0, "at least 0")
        # JAX takes 32 bits of it, and would give other seeds the same numbers.
        self.require("seed", self.seed < 2**32, "below 4294967296")
        self.require("learning_rate", self.learning_rate > 0, "above 0")
        self.require("max_grad_norm", self.max_grad_norm > 0, "above 0")
        self.require("warmup_proportion", 0 <= self.warmup_proportion < 1, "in [0, 1)")
        self.require(
            "gradient_accumulation_steps",
            self.gradient_accumulation_steps >= 1
            and self.train_batch_size % self.gradient_accumulation_steps == 0,
            f"a divisor of --train_batch_size {self.train_batch_size}",
        )

    def steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps of a whole run."""
        steps = math.ceil(self.num_train_epochs * steps_per_epoch)
        return min(steps, self.max_steps or steps)

    def steps_on(self, rows: int) -> int:
        """Optimizer steps of a whole run on so many training rows."""
        return self.steps(-(-rows // self.train_batch_size))


BALANCED = "balanced"
"""Class weights by which all classes count alike: rows / (classes · rows of the class)."""


@dataclasses.dataclass(frozen=True, init=False)
class LabelLossConfig(Config):
    """Loss on the true labels."""

    class_weights: Names = ()
    """Class weights in the loss on true labels, in the order of --labels, e.g. 1,5; or balanced: rarer
    classes weigh more, so that all classes count alike."""
    label_smoothing: float = 0.0
    """Share of the loss on true labels that is spread over all classes."""

    def check(self) -> None:
        self.require("label_smoothing", 0 <= self.label_smoothing < 1, "in [0, 1)")
        if self.class_weights in ((), (BALANCED,)):
            return
        for weight in self.class_weights:
            try:
                is_weight = 0 <= float(weight) < math.inf
            except ValueError:
                is_weight = False
            if not is_weight:
                given = ",".join(self.class_weights)
                raise UserError(
                    f"--class_weights {given}: {weight!r} is neither a number from 0 on nor {BALANCED}"
                )


CHOSEN_ON_DEV, CHOSEN_BY_LABEL = "dev", "dev_by_label"
"""Thresholds with the best score on the dev set, and those with the best F1 of every label."""


@dataclasses.dataclass(frozen=True, init=False)
class DecisionConfig(Config):
    """Decision threshold of a trained model."""

    threshold: str | None = None
    """Probability above which a label is assigned (multi-label, or the second of two classes): a number; dev:
    the one with the best --metric on the dev set; dev_by_label: for each label the one with its best F1.
    Saved in config.json; default: one half."""

    def check(self) -> None:
        if self.threshold in (None, CHOSEN_ON_DEV, CHOSEN_BY_LABEL):
            return
        try:
            is_inside = 0 < float(self.threshold) < 1
        except ValueError:
            is_inside = False
        if not is_inside:
            choices = f"{CHOSEN_ON_DEV} or {CHOSEN_BY_LABEL}"
            raise UserError(f"--threshold {self.threshold}: must be a number between 0 and 1, {choices}")


@dataclasses.dataclass(frozen=True, init=False)
class TrainingConfig(Config):
    """Common to the training programs."""

    program: ProgramConfig
    optimizer: OptimizerConfig = OptimizerConfig()
    run: RunConfig = RunConfig()
    speed: SpeedConfig = SpeedConfig()
    hosts: MultiHostConfig = MultiHostConfig()


@dataclasses.dataclass(frozen=True, init=False)
class FinetuneConfig(TrainingConfig):
    """The model to fine-tune."""

    bert_model: ReadAnywhere[Path]
    """Model to fine-tune: a model directory or a Hugging Face directory."""
    task: TaskConfig
    label_loss: LabelLossConfig = LabelLossConfig()
    decision: DecisionConfig = DecisionConfig()
