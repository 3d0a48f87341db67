"""The configs of distillation on a task and over a corpus. No JAX here."""

import dataclasses
import math
from pathlib import Path
from typing import Literal

from bert_emd_jax.configs import Config, IntegersOrNames, Paths, ReadAnywhere, SameResult
from bert_emd_jax.data.task_config import TaskConfig
from bert_emd_jax.distillation.layer_costs import LAYER_COSTS, LayerCost
from bert_emd_jax.distillation.presets import preset_values
from bert_emd_jax.errors import UserError
from bert_emd_jax.training.training_config import (
    DecisionConfig,
    LabelLossConfig,
    OptimizerConfig,
    TrainingConfig,
)
from bert_emd_jax.transport.hidden_forms import HIDDEN_FORMS
from bert_emd_jax.transport.mappings import MAPPINGS, Mapping, MappingOptions
from bert_emd_jax.transport.weight_rules import WEIGHT_RULES


@dataclasses.dataclass(frozen=True, init=False)
class TeacherAndStudentConfig(Config):
    """The teacher, and how the student is initialised."""

    teacher_model: ReadAnywhere[Paths]
    """Teacher: a model directory, a Hugging Face directory or a hub id. With several (A,B) the student learns
    the mean of their probabilities, and the layers of the first."""
    student_model: ReadAnywhere[Path | None] = None
    """Student to start from: a model directory or a Hugging Face directory."""
    student_init_layers: IntegersOrNames = ()
    """Alternative: copy these teacher encoder layers, 0-based, e.g. 1,3,5; or uniform, lower, upper or
    alternate."""
    student_layers: int | None = None
    """Number of layers if --student_init_layers is a name; default: half of the teacher's."""
    student_config: ReadAnywhere[Path | None] = None
    """Alternative: start from random weights, with the sizes in this config.json."""
    student_width: int | None = None
    """Keep only this many dimensions of the --student_init_layers, and heads and neurons in proportion: those
    that matter most on some training rows. Must be a multiple of the heads' width."""
    student_dropout: float | None = None
    """Dropout of the student; overrides its config; 0 is also faster."""

    def check(self) -> None:
        self.require("teacher_model", bool(self.teacher_model), "a path")
        starts = {
            "--student_model": self.student_model is not None,
            "--student_init_layers": bool(self.student_init_layers),
            "--student_config": self.student_config is not None,
        }
        if sum(starts.values()) != 1:
            given = " and ".join(flag for flag, is_given in starts.items() if is_given) or "none"
            raise UserError(f"one of {', '.join(starts)} says where the student starts; given: {given}")
        if self.student_layers is not None:
            self.require("student_layers", self.student_layers >= 1, "at least 1")
        for flag, value in (("student_layers", self.student_layers), ("student_width", self.student_width)):
            if value is not None and not self.student_init_layers:
                raise UserError(f"--{flag}: is for --student_init_layers; leave it out")
        if self.student_dropout is not None:
            self.require("student_dropout", 0 <= self.student_dropout < 1, "in [0, 1)")


@dataclasses.dataclass(frozen=True, init=False)
class MappingConfig(Config):
    """Learning from the teacher's layers."""

    theta: float = 1.0
    """Weight of the attention and hidden losses among the layer losses, relative to the embedding loss."""
    mapping: Literal[tuple(MAPPINGS)] = "emd"  # pyright: ignore[reportInvalidTypeForm]
    """Assignment of teacher layers to student layers."""
    teacher_capacity: float | None = None
    """With --mapping capped: maximum that a teacher layer takes, as a multiple of its share; 1 is emd, a
    large value is nearest; default: teacher layers / student layers, which pairs layers one to one."""
    mapping_layer: int | None = None
    """With --mapping all_to_one: teacher layer for all student layers, 0-based; default: the last one."""
    layer_weight_rule: Literal[tuple(WEIGHT_RULES)] = "normalize"  # pyright: ignore[reportInvalidTypeForm]
    """Cost attention: rule for computing layer weights from unit costs."""
    emd_temperature: float = 1.0
    """Cost attention: temperature of the softmax rules."""
    layer_weight_entropy: float = 1.0
    """With --layer_weight_rule learned: penalty for unequal weights, per nat of divergence, as a share of the
    plan's cost."""
    layer_weight_learning_rate: float = 1e-2
    """With --layer_weight_rule learned: peak learning rate of the layer weights' logits."""
    separate_layer_weights: bool = False
    """Keep separate weights for attention and hidden layers instead of averaging them."""
    show_mapping: SameResult[bool] = False
    """Print the plans as text graphics at every evaluation and every twentieth row of the log."""
    padding: Literal["mask", "include"] = "mask"
    """Compute layer costs over real tokens only, or include padding as the authors' code does."""
    epsilon: SameResult[float] = 0.05
    """Regularisation of the Sinkhorn plan from which the exact plan is made, relative to the scale of the
    costs."""
    attention: SameResult[Literal["auto", "direct", "fused"]] = "auto"
    """How models compute attention while training. fused, with --dtype bfloat16 or float16: by one kernel
    where nothing is dropped (on NVIDIA GPUs cuDNN's); costs come from queries and keys, and no attention
    map of the teacher is ever stored. auto: direct."""
    use_attention: bool = True
    """Learn from attention scores."""
    use_hidden: bool = True
    """Learn from hidden states."""
    use_relation: bool = False
    """Learn from MiniLMv2's relations: similarities of the tokens' queries, keys and values."""
    relation_heads: int | None = None
    """Number of heads into which relations split both models' vectors; default: the largest number that
    divides both models' heads."""
    hidden_cost: Literal[tuple(HIDDEN_FORMS)] = "mse"  # pyright: ignore[reportInvalidTypeForm]
    """How hidden states are compared: as they are, by cosine, or with mean 0 and variance 1."""
    balance: Literal["none", "costs"] = "none"
    """costs: divide each kind of layer loss by its value at the first step, so that all weigh the same at
    that step."""
    use_embedding: bool = True
    """Learn from the embedding output."""
    check_every: SameResult[int] = 100
    """Compare the transport plans with the exact network simplex on the host every N steps; 0: never."""
    check_tolerance: SameResult[float] = 1e-2
    """Warn if a plan's cost exceeds the exact one by more than this share."""

    def check(self) -> None:
        for name in ("theta", "layer_weight_entropy", "check_every", "check_tolerance"):
            self.require(name, getattr(self, name) >= 0, "at least 0")
        for name in ("emd_temperature", "layer_weight_learning_rate"):
            self.require(name, getattr(self, name) > 0, "above 0")
        self.require("epsilon", 1e-6 <= self.epsilon <= 1, "in [1e-6, 1]")
        capacity = self.teacher_capacity
        self.require(
            "teacher_capacity", capacity is None or 1 <= capacity < math.inf, "from 1 on, and finite"
        )
        if self.relation_heads is not None:
            self.require("relation_heads", self.relation_heads >= 1, "at least 1")
        if self.use_relation and self.padding == "include":
            raise UserError("--use_relation: relations are those of real tokens; leave --padding include out")
        for flag, value, mapping in (
            ("teacher_capacity", capacity, "capped"),
            ("mapping_layer", self.mapping_layer, "all_to_one"),
        ):
            if value is not None and self.mapping not in (mapping, "none"):
                raise UserError(f"--{flag} {value}: is for --mapping {mapping}; leave it out")

    @property
    def how(self) -> Mapping:
        """The entry of `--mapping`."""
        return MAPPINGS[self.mapping]

    @property
    def options(self) -> MappingOptions:
        return MappingOptions(self.mapping_layer, self.teacher_capacity)

    @property
    def costs(self) -> tuple[LayerCost, ...]:
        """The costs that are learned from, in the order of their table."""
        if not self.how.learns:
            return ()
        return tuple(cost for cost in LAYER_COSTS if getattr(self, f"use_{cost.name}"))

    @property
    def mapped_costs(self) -> tuple[LayerCost, ...]:
        """Those of `costs` that the mapping has a plan for."""
        return tuple(cost for cost in self.costs if cost.is_mapped)

    @property
    def transports(self) -> bool:
        """Whether transport plans between layer weights are solved."""
        return self.how.transports and bool(self.mapped_costs)

    @property
    def trains_layer_weights(self) -> bool:
        """Whether the optimizer moves the layer weights."""
        return self.transports and WEIGHT_RULES[self.layer_weight_rule].is_trained


@dataclasses.dataclass(frozen=True, init=False)
class PredictionConfig(Config):
    """Weights of the teacher's predictions and layers."""

    alpha: float = 1.0
    """Weight of the teacher's soft labels in the prediction loss; the true labels get 1 - alpha."""
    beta: float = 0.01
    """Weight of everything learned from the teacher's layers."""
    temperature: float = 1.0
    """Temperature of the soft labels."""
    objective: Literal["joint", "intermediate", "prediction"] = "joint"
    """Learn from layers and predictions together, or from only one of them."""

    def check(self) -> None:
        self.require("alpha", 0 <= self.alpha <= 1, "in [0, 1]")
        self.require("beta", self.beta >= 0, "at least 0")
        self.require("temperature", self.temperature > 0, "above 0")

    @property
    def learns_predictions(self) -> bool:
        return self.objective != "intermediate"

    @property
    def needs_no_labels(self) -> bool:
        """Whether the teacher alone is learned from."""
        return self.alpha == 1 or not self.learns_predictions


@dataclasses.dataclass(frozen=True, init=False)
class VectorConfig(Config):
    """Learning of text vectors, with --kind embedding."""

    embedding_loss: Literal["mse", "cosine"] = "mse"
    """Loss between a text's vector and the teacher's: mean squared error, or 1 - cosine."""
    similarity_weight: float = 0.0
    """Weight of the squared differences between the student's and the teacher's cosines of a batch's
    texts."""
    keep_projection: bool = False
    """Keep the trained projection to the teacher's width in the student, if its vectors have another
    width."""

    def check(self) -> None:
        self.require("similarity_weight", self.similarity_weight >= 0, "at least 0")


@dataclasses.dataclass(frozen=True, init=False)
class DistillConfig(TrainingConfig):
    """Distillation on a task."""

    pair: TeacherAndStudentConfig
    task: TaskConfig
    labels_in_order: bool = False
    """Treat the teacher's labels as the task's, in the same order, although their names differ."""
    aug_train: bool = False
    """Train on train_aug.tsv (augmented rows with the columns of train.tsv) instead of train.tsv."""
    unlabelled: ReadAnywhere[Path | None] = None
    """File of additional training rows without labels, on which the student learns only from the teacher: a
    .txt with one text per line, or a file with the columns of the task's own files."""
    teacher_cache: SameResult[Literal["auto", "memory", "device", "disk", "off"]] = "auto"
    """Compute the teacher's outputs for the training rows once and keep them in bfloat16: in memory; in the
    memory of every GPU or TPU (device); on disk in --cache_dir, also for other runs; auto: where it saves
    time and there is room, for the duration of the run."""
    preset: Literal["bert_emd_4", "bert_emd_6"] | None = None
    """The authors' best alpha, beta, temperatures and learning rate for the task; explicit flags take
    precedence."""
    prediction: PredictionConfig = PredictionConfig()
    label_loss: LabelLossConfig = LabelLossConfig()
    decision: DecisionConfig = DecisionConfig()
    vectors: VectorConfig = VectorConfig()
    layers: MappingConfig = MappingConfig()
    optimizer: OptimizerConfig = OptimizerConfig(num_train_epochs=10)

    @property
    def learned_layers(self) -> MappingConfig:
        """`layers`, with the mapping none if the objective leaves nothing to learn from them."""
        if self.prediction.objective == "prediction" or self.prediction.beta == 0:
            return self.layers.replace(mapping="none")
        return self.layers

    def sources(self) -> dict[str, str]:
        """As for all configs, and "preset NAME" for what a preset has set."""
        of_preset = preset_values(self.preset, self.task.task_name) if self.preset else {}
        flags = self.flags()
        return super().sources() | {
            name: f"preset {self.preset}" if value == flags[name] else "given"
            for name, value in of_preset.items()
        }


@dataclasses.dataclass(frozen=True, init=False)
class GeneralDistillConfig(TrainingConfig):
    """Data and evaluation of general distillation."""

    pair: TeacherAndStudentConfig
    pregenerated_data: ReadAnywhere[Path]
    """Directory written by bert-emd pretrain-data; epoch k reads file k, starting over after the last."""
    masked_lm_weight: float = 0.0
    """Weight of the student's own masked-LM loss beside the layer losses; 0: no masked-LM head."""
    held_out_rows: int = 1000
    """Number of rows at the end of the corpus to hold out for evaluation."""
    layers: MappingConfig = MappingConfig()

    def check(self) -> None:
        self.require("masked_lm_weight", self.masked_lm_weight >= 0, "at least 0")
        self.require("held_out_rows", self.held_out_rows >= 1, "at least 1")
        if not self.layers.how.learns and not self.masked_lm_weight:
            raise UserError("--mapping none with --masked_lm_weight 0: nothing to learn; change one of them")
