"""The settings of the training programs. No JAX here: flags are parsed before it is imported."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from bert_emd_jax.errors import UserError
from bert_emd_jax.transport.names import LAYER_WEIGHT_RULES, MAPPINGS


def _comma_list(convert: type, metavar: str) -> tyro.constructors.PrimitiveConstructorSpec[tuple]:
    """One argument `a,b,c` as a tuple."""
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda args: tuple(convert(item) for item in args[0].split(",") if item),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(map(str, value))],
    )


# A bare --flag means yes and --no_flag no, although the default is neither.
OptionalBool = Annotated[bool | None, tyro.conf.arg(constructor=bool)]
Integers = Annotated[tuple[int, ...], _comma_list(int, "INT,INT,…")]
Names = Annotated[tuple[str, ...], _comma_list(str, "NAME,NAME,…")]

Dtype = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """Which texts, and how they become tokens."""

    data_dir: Path
    """Directory of the task's files: train.tsv, dev.tsv, … in GLUE's form, or a custom task's files."""
    task_name: str
    """GLUE task in any spelling (sst-2, MRPC, cola …), or custom for files of your own."""
    max_seq_length: int = 128
    """Longest input in tokens, with [CLS] and [SEP]; longer ones are cut."""
    do_lower_case: OptionalBool = None
    """Lower-case the text. Not given: what the model's tokenizer_config.json says, else yes."""
    text_column: str | None = None
    """Custom task: column of the (first) text; not given: text or sentence."""
    text_pair_column: str | None = None
    """Custom task: column of the second text, for pairs."""
    label_column: str = "label"
    """Custom task: column of the label."""
    labels: Names = ()
    """Custom task: the labels in order; not given: those of the training file, sorted."""
    regression: bool = False
    """Custom task: labels are numbers to predict, not classes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgramConfig:
    """What every program has."""

    output_dir: Path
    """Where results go."""
    dtype: Dtype = "float32"
    """Compute type; parameters are float32 always."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig(TaskConfig, ProgramConfig):
    """What the training programs share."""

    train_batch_size: int = 32
    """Examples per optimizer step, over all devices and hosts."""
    eval_batch_size: int = 64
    """Examples per evaluation batch, over all devices."""
    num_train_epochs: int = 3
    """Passes over the training data."""
    max_steps: int = 0
    """End after this many optimizer steps; 0: when the epochs are done."""
    learning_rate: float = 3e-5
    """Peak learning rate of AdamW."""
    lr_schedule: Literal["linear", "constant"] = "linear"
    """Warm up, then fall linearly to 0, or stay constant after the warmup."""
    warmup_proportion: float = 0.1
    """Share of all steps over which the learning rate rises from 0."""
    weight_decay: float = 0.01
    """Decoupled weight decay of matrices; biases and LayerNorm have none."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this global norm."""
    gradient_accumulation_steps: int = 1
    """Micro-batches per optimizer step; each holds train_batch_size / N examples."""
    eval_steps: int = 0
    """Evaluate every N steps; 0: after every epoch."""
    save_steps: int = 0
    """Checkpoint every N steps beside those of evaluations; 0: only those."""
    log_steps: int = 10
    """Write a row of metrics.jsonl every N steps."""
    seed: int = 42
    """Seed of the data order, dropout and new weights."""
    overwrite: bool = False
    """Replace what an earlier run of this program wrote to --output_dir (and nothing else there)."""
    resume: bool = False
    """Go on from the last checkpoint in --output_dir."""

    def __post_init__(self) -> None:
        for name in ("train_batch_size", "eval_batch_size", "num_train_epochs", "log_steps"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("max_steps", "eval_steps", "save_steps", "seed", "weight_decay"):
            self._require(name, getattr(self, name) >= 0, "at least 0")
        self._require("learning_rate", self.learning_rate > 0, "above 0")
        self._require("max_grad_norm", self.max_grad_norm > 0, "above 0")
        self._require("warmup_proportion", 0 <= self.warmup_proportion < 1, "in [0, 1)")
        self._require("max_seq_length", self.max_seq_length >= 8, "at least 8")
        self._require(
            "gradient_accumulation_steps",
            self.gradient_accumulation_steps >= 1
            and self.train_batch_size % self.gradient_accumulation_steps == 0,
            f"a divisor of --train_batch_size {self.train_batch_size}",
        )
        if self.resume and self.overwrite:
            raise UserError("--resume and --overwrite: choose one")

    def _require(self, name: str, fulfilled: bool, what: str) -> None:
        if not fulfilled:
            raise UserError(f"--{name} {getattr(self, name)}: must be {what}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TrainingConfig):
    """Fine-tuning of one BERT on a task; this makes a teacher."""

    bert_model: Path
    """The model to fine-tune: a model directory or a Hugging Face directory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillConfig(TrainingConfig):
    """Distillation of a fine-tuned teacher into a smaller student."""

    teacher_model: Path
    """The fine-tuned teacher: a model directory or a Hugging Face directory."""
    student_model: Path | None = None
    """The student to start from: a model directory or a Hugging Face directory."""
    student_init_layers: Integers = ()
    """Instead: cut the student out of the teacher's encoder layers, 0-based, as 1,3,5."""
    student_config: Path | None = None
    """Instead: start from random weights, sizes from this config.json."""
    aug_train: bool = False
    """Train on train_aug.tsv (augmented rows in the columns of train.tsv) in place of train.tsv."""
    num_train_epochs: int = 10
    """Passes over the training data."""

    alpha: float = 1.0
    """Prediction loss: weight of the teacher's soft labels; 1 - alpha is that of the true labels."""
    beta: float = 0.01
    """Weight of everything learned from the teacher's layers."""
    theta: float = 1.0
    """Within that: weight of attention and hidden losses, beside the embedding loss."""
    temperature: float = 1.0
    """Temperature of the soft labels."""
    mapping: Literal[MAPPINGS] = "emd"  # pyright: ignore[reportInvalidTypeForm]
    """How teacher layers are assigned to student layers."""
    layer_weight_rule: Literal[LAYER_WEIGHT_RULES] = "normalize"  # pyright: ignore[reportInvalidTypeForm]
    """Cost attention: how layer weights follow from unit costs."""
    emd_temperature: float = 1.0
    """Temperature of the softmax rules of cost attention."""
    separate_layer_weights: bool = False
    """Keep the weights of attention and hidden layers apart instead of averaging them."""
    padding: Literal["mask", "include"] = "mask"
    """Layer costs over real tokens only, or over padding too as the authors' code does."""
    epsilon: float = 2e-3
    """Final regularisation of Sinkhorn, relative to the scale of the costs."""
    objective: Literal["joint", "intermediate", "prediction"] = "joint"
    """Learn from layers and predictions together, or from one of them alone."""
    use_attention: bool = True
    """Learn from attention scores."""
    use_hidden: bool = True
    """Learn from hidden states."""
    use_embedding: bool = True
    """Learn from the embedding output."""
    check_every: int = 100
    """Compare the transport plans with the exact network simplex on the host every N steps; 0: never."""
    check_tolerance: float = 1e-2
    """Warn when a plan's cost exceeds the exact one by more than this share."""

    def __post_init__(self) -> None:
        super().__post_init__()
        starts = {
            "--student_model": self.student_model is not None,
            "--student_init_layers": bool(self.student_init_layers),
            "--student_config": self.student_config is not None,
        }
        if sum(starts.values()) != 1:
            given = " and ".join(flag for flag, is_given in starts.items() if is_given) or "none"
            raise UserError(f"one of {', '.join(starts)} says where the student starts; given: {given}")
        self._require("alpha", 0 <= self.alpha <= 1, "in [0, 1]")
        for name in ("beta", "theta", "check_every", "check_tolerance"):
            self._require(name, getattr(self, name) >= 0, "at least 0")
        for name in ("temperature", "emd_temperature", "epsilon"):
            self._require(name, getattr(self, name) > 0, "above 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig(TaskConfig, ProgramConfig):
    """Evaluation of a model on a split of a task."""

    student_model: Path
    """The model to evaluate: a model directory or a Hugging Face directory."""
    do_eval: bool = True
    """Accepted for the original command line; this program does nothing else."""
    split: Literal["dev", "test", "train"] = "dev"
    """The split to evaluate on."""
    eval_batch_size: int = 64
    """Examples per batch, over all devices."""


def flags_of(config: object) -> dict[str, object]:
    """The flags of a config as JSON-ready values, for `run_config.json`."""

    def plain(value: object) -> object:
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        return value if value is None or isinstance(value, bool | int | float) else str(value)

    return {
        field.name: plain(getattr(config, field.name))
        for field in dataclasses.fields(config)  # pyright: ignore[reportArgumentType]
    }
