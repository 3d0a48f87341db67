"""The settings of the training programs. No JAX here: flags are parsed before it is imported.

Each class holds the flags of one subject: its name and the first line of its docstring head them in `--help`.
"""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Annotated, Literal

import tyro

from bert_emd_jax.errors import UserError
from bert_emd_jax.local_paths import require_local_paths
from bert_emd_jax.transport.names import LAYER_WEIGHT_RULES, MAPPINGS, uses_layer_weights


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
class _Checked:
    """A config whose values are checked when it is made."""

    def __post_init__(self) -> None:
        require_local_paths(self)

    def _require(self, name: str, fulfilled: bool, what: str) -> None:
        if not fulfilled:
            raise UserError(f"--{name} {getattr(self, name)}: must be {what}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CustomTaskConfig(_Checked):
    """What files of your own look like, with --task_name custom."""

    text_column: str | None = None
    """Column of the (first) text; not given: text or sentence."""
    text_pair_column: str | None = None
    """Column of the second text, for pairs."""
    label_column: str = "label"
    """Column of the label."""
    labels: Names = ()
    """The labels in order; not given: those of the training file, sorted."""
    regression: bool = False
    """Labels are numbers to predict, not classes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig(CustomTaskConfig):
    """Which texts, and how they become tokens."""

    data_dir: Path
    """Directory of the task's files: train.tsv, dev.tsv, … in GLUE's form, or a custom task's files; tfds:
    TensorFlow Datasets."""
    tfds_data_dir: Path | None = None
    """Where TensorFlow Datasets are kept, for --data_dir tfds; not given: the library's usual place."""
    task_name: str
    """GLUE task in any spelling (sst-2, MRPC, cola …), or custom for files of your own."""
    max_seq_length: int = 128
    """Longest input in tokens, with [CLS] and [SEP]; longer ones are cut."""
    cache_dir: Path | None = None
    """Where tokenised splits of many rows are kept for the next run; not given: ~/.cache/bert_emd_jax."""
    token_cache: bool = True
    """Keep tokenised splits."""
    do_lower_case: OptionalBool = None
    """Lower-case the text. Not given: what the model's tokenizer_config.json says, else yes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("max_seq_length", self.max_seq_length >= 8, "at least 8")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgramConfig(_Checked):
    """What every program has."""

    output_dir: Path
    """Where results go."""
    dtype: Dtype = "float32"
    """Compute type; parameters are float32 always."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig(_Checked):
    """How long and how fast the model learns."""

    train_batch_size: int = 32
    """Examples per optimizer step, over all devices and hosts."""
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
    seed: int = 42
    """Seed of the data order, dropout and new weights."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(_Checked):
    """What a run measures and keeps, and how it starts, goes on and ends."""

    dry_run: bool = False
    """Print what would happen (rows, steps, memory, an estimate of the time), and write nothing."""
    eval_batch_size: int = 64
    """Examples per evaluation batch, over all devices."""
    eval_steps: int = 0
    """Evaluate every N steps; 0: after every epoch."""
    save_steps: int = 0
    """Checkpoint every N steps beside those of evaluations; 0: only those."""
    log_steps: int = 10
    """Write a row of metrics.jsonl every N steps."""
    wandb: Annotated[str | None, tyro.conf.arg(metavar="PROJECT")] = None
    """Log to this project of Weights & Biases too, with the key and mode of its own environment variables."""
    mirror_dir: Annotated[str | None, tyro.conf.arg(metavar="URL")] = None
    """Keep a copy of --output_dir there, as gs://bucket/run; --resume fetches it if --output_dir is gone."""
    max_bad_steps: int = 20
    """End the run after so many steps in a row whose loss or gradient is not finite (they are skipped)."""
    overwrite: bool = False
    """Replace what an earlier run of this program wrote to --output_dir (and nothing else there)."""
    resume: bool = False
    """Go on from the last checkpoint in --output_dir."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeedConfig(_Checked):
    """Memory, compilation and profiling."""

    remat: bool = False
    """Compute what is inside a layer again in the backward pass: less memory, more time."""
    compilation_cache_dir: Path | None = None
    """Keep compiled programs there: the next run with the same shapes starts at once."""
    trace_steps: int = 0
    """Write a profiler trace of N steps, after the first ten, to --output_dir/trace (for XProf, Perfetto)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiHostConfig(_Checked):
    """Several processes that train one model."""

    distributed: bool = False
    """Join the other processes of a TPU pod, a Slurm or an MPI job: each runs this same command line."""
    coordinator_address: str | None = None
    """Or join them by hand: host:port of process 0, the same for all."""
    num_processes: int | None = None
    """With --coordinator_address: how many processes there are."""
    process_id: int | None = None
    """With --coordinator_address: which of them this is, from 0."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig(OptimizerConfig, RunConfig, SpeedConfig, MultiHostConfig, ProgramConfig):
    """What the training programs share."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("train_batch_size", "eval_batch_size", "num_train_epochs", "log_steps", "max_bad_steps"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("max_steps", "eval_steps", "save_steps", "trace_steps", "seed", "weight_decay"):
            self._require(name, getattr(self, name) >= 0, "at least 0")
        self._require("learning_rate", self.learning_rate > 0, "above 0")
        self._require("max_grad_norm", self.max_grad_norm > 0, "above 0")
        self._require("warmup_proportion", 0 <= self.warmup_proportion < 1, "in [0, 1)")
        self._require(
            "gradient_accumulation_steps",
            self.gradient_accumulation_steps >= 1
            and self.train_batch_size % self.gradient_accumulation_steps == 0,
            f"a divisor of --train_batch_size {self.train_batch_size}",
        )
        if self.resume and self.overwrite:
            raise UserError("--resume and --overwrite: choose one")
        if self.wandb is not None and not _is_installed("wandb"):
            raise UserError(
                "--wandb: Weights & Biases is not installed; pip install 'bert_emd_jax[wandb]' brings it"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskTrainingConfig(TaskConfig, TrainingConfig):
    """Training on a task's rows."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TaskTrainingConfig):
    """What is fine-tuned."""

    bert_model: Path
    """The model to fine-tune: a model directory or a Hugging Face directory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherAndStudentConfig(_Checked):
    """The teacher, and where the student starts."""

    teacher_model: Path
    """The teacher: a model directory, a Hugging Face directory, or a hub id."""
    student_model: Path | None = None
    """The student to start from: a model directory or a Hugging Face directory."""
    student_init_layers: Integers = ()
    """Instead: cut the student out of the teacher's encoder layers, 0-based, as 1,3,5."""
    student_config: Path | None = None
    """Instead: start from random weights, sizes from this config.json."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MappingConfig(TeacherAndStudentConfig, TrainingConfig):
    """What a student learns from a teacher's layers."""

    theta: float = 1.0
    """Of what is learned from layers: weight of attention and hidden losses, beside the embedding loss."""
    mapping: Literal[MAPPINGS] = "emd"  # pyright: ignore[reportInvalidTypeForm]
    """How teacher layers are assigned to student layers."""
    layer_weight_rule: Literal[LAYER_WEIGHT_RULES] = "normalize"  # pyright: ignore[reportInvalidTypeForm]
    """Cost attention: how layer weights follow from unit costs."""
    emd_temperature: float = 1.0
    """Temperature of the softmax rules of cost attention."""
    layer_weight_entropy: float = 1.0
    """Rule learned: price of leaving equal weights, per nat of divergence, as a share of the plan's cost."""
    layer_weight_learning_rate: float = 1e-2
    """Rule learned: peak learning rate of the layer weights' logits."""
    separate_layer_weights: bool = False
    """Keep the weights of attention and hidden layers apart instead of averaging them."""
    padding: Literal["mask", "include"] = "mask"
    """Layer costs over real tokens only, or over padding too as the authors' code does."""
    epsilon: float = 2e-3
    """Final regularisation of Sinkhorn, relative to the scale of the costs."""
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
        for name in ("theta", "layer_weight_entropy", "check_every", "check_tolerance"):
            self._require(name, getattr(self, name) >= 0, "at least 0")
        for name in ("emd_temperature", "layer_weight_learning_rate"):
            self._require(name, getattr(self, name) > 0, "above 0")
        self._require("epsilon", 1e-6 <= self.epsilon <= 1, "in [1e-6, 1]")

    @property
    def learns_layers(self) -> bool:
        """Whether anything is learned from the teacher's layers."""
        return self.mapping != "none"

    @property
    def learns_attention(self) -> bool:
        return self.learns_layers and self.use_attention

    @property
    def learns_hidden(self) -> bool:
        return self.learns_layers and self.use_hidden

    @property
    def learns_embedding(self) -> bool:
        return self.learns_layers and self.use_embedding

    @property
    def transports(self) -> bool:
        """Whether transport plans between layer weights are solved."""
        return uses_layer_weights(self.mapping) and (self.learns_attention or self.learns_hidden)

    @property
    def trains_layer_weights(self) -> bool:
        """Whether the optimizer moves the layer weights."""
        return self.transports and self.layer_weight_rule == "learned"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillConfig(MappingConfig, TaskTrainingConfig):
    """What is distilled, and how much each part weighs."""

    aug_train: bool = False
    """Train on train_aug.tsv (augmented rows in the columns of train.tsv) in place of train.tsv."""
    num_train_epochs: int = 10
    """Passes over the training data."""

    teacher_cache: Literal["auto", "memory", "disk", "off"] = "auto"
    """Compute the teacher's outputs for the training rows once, and keep them in bfloat16: in memory, on disk
    in --cache_dir for other runs too, or where there is room for as long as the run lasts (auto, on CPUs)."""
    preset: Literal["bert_emd_4", "bert_emd_6"] | None = None
    """The authors' best alpha, beta, temperatures and learning rate of the task; flags given by hand win."""
    alpha: float = 1.0
    """Prediction loss: weight of the teacher's soft labels; 1 - alpha is that of the true labels."""
    beta: float = 0.01
    """Weight of everything learned from the teacher's layers."""
    temperature: float = 1.0
    """Temperature of the soft labels."""
    objective: Literal["joint", "intermediate", "prediction"] = "joint"
    """Learn from layers and predictions together, or from one of them alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("alpha", 0 <= self.alpha <= 1, "in [0, 1]")
        self._require("beta", self.beta >= 0, "at least 0")
        self._require("temperature", self.temperature > 0, "above 0")

    @property
    def learns_layers(self) -> bool:
        return super().learns_layers and self.objective != "prediction" and self.beta > 0

    @property
    def learns_predictions(self) -> bool:
        return self.objective != "intermediate"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneralDistillConfig(MappingConfig):
    """What general distillation reads, and what it measures itself on."""

    pregenerated_data: Path
    """Directory that run_pretrain_data.py wrote; epoch k reads its file k, over and over."""
    masked_lm_weight: float = 0.0
    """Weight of the student's own masked-LM loss beside the layers' losses; 0: it gets no such head."""
    held_out_rows: int = 1000
    """The last rows of the corpus that are not learned from, but measured on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("masked_lm_weight", self.masked_lm_weight >= 0, "at least 0")
        self._require("held_out_rows", self.held_out_rows >= 1, "at least 1")
        if not self.learns_layers and not self.masked_lm_weight:
            raise UserError("--mapping none with --masked_lm_weight 0: nothing to learn; change one of them")


def _is_installed(package: str) -> bool:
    """Whether a package can be imported; a directory of its name is none."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


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
