"""What notebooks and programs call: fine-tune, distil, evaluate, look, classify. Imports JAX when needed."""

import contextlib
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from jaxtyping import Float

from bert_emd_jax.configs import Dtype
from bert_emd_jax.data.kind import LabellingKind, Prediction
from bert_emd_jax.data.kinds import KINDS, kind_of
from bert_emd_jax.distillation.distill_config import DistillConfig, GeneralDistillConfig
from bert_emd_jax.distillation.presets import preset_values
from bert_emd_jax.errors import UserError
from bert_emd_jax.evaluation.evaluation_config import EvaluationConfig
from bert_emd_jax.layout import LAYER_MAPPING
from bert_emd_jax.runs.run_config import on_disk
from bert_emd_jax.training.training_config import FinetuneConfig, TrainingConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bert_emd_jax.checkpoints.model_directory import LoadedModel
    from bert_emd_jax.runs.layer_mapping import LayerMapping

Results = dict[str, Any]

_SHORTEST_BUCKET = 16  # tokens


def finetune(config: FinetuneConfig | None = None, /, **flags: Any) -> Results:
    """Fine-tunes a BERT on a task, as `run_finetune.py` does: `finetune(bert_model=…, task_name=…, …)`.

    Takes a config or the program's flags. Returns what `eval_results.json` in `output_dir` holds; the
    model, its checkpoints and `report.html` are there too. With `dry_run=True` it trains nothing and returns
    what it found: rows, steps, memory, an estimate of the time.

    Raises:
      UserError: a flag, file or row that the user can put right.
      Interrupted: a signal came; `resume` goes on.
    """
    from bert_emd_jax.training.dry_run import describe_run
    from bert_emd_jax.training.finetune import FinetuneTrainer

    config = on_disk(config or FinetuneConfig(**flags))
    with _run_of(config):
        trainer = FinetuneTrainer.from_config(config)
        return describe_run(trainer) if config.run.dry_run else trainer.train()


def distill(config: DistillConfig | None = None, /, **flags: Any) -> Results:
    """Distils a teacher into a student, as `run_distill.py` does: `distill(teacher_model=…, …)`.

    Takes a config or the program's flags; with `preset=…` among the flags, its values are those that no other
    flag names. Returns what `eval_results.json` in `output_dir` holds, for student and teacher; with
    `dry_run=True` what `finetune` returns then.

    Raises:
      UserError: a flag, file or row that the user can put right, or models that do not go together.
      Interrupted: a signal came; `resume` goes on.
    """
    from bert_emd_jax.distillation.trainer import DistillTrainer
    from bert_emd_jax.training.dry_run import describe_run

    if config is None and flags.get("preset"):
        flags = preset_values(flags["preset"], flags.get("task_name", "")) | flags
    config = on_disk(config or DistillConfig(**flags))
    with _run_of(config):
        trainer = DistillTrainer.from_config(config)
        return describe_run(trainer) if config.run.dry_run else trainer.train()


def general_distill(config: GeneralDistillConfig | None = None, /, **flags: Any) -> Results:
    """Distils over a corpus, without a task, as `run_distill.py --pregenerated_data` does.

    Takes a config or the program's flags. Returns what `eval_results.json` in `output_dir` holds; with
    `dry_run=True` what `finetune` returns then.

    Raises:
      UserError: a flag, file or row that the user can put right, or models that do not go together.
      Interrupted: a signal came; `resume` goes on.
    """
    from bert_emd_jax.distillation.general import GeneralDistillTrainer
    from bert_emd_jax.training.dry_run import describe_run

    config = on_disk(config or GeneralDistillConfig(**flags))
    with _run_of(config):
        trainer = GeneralDistillTrainer.from_config(config)
        return describe_run(trainer) if config.run.dry_run else trainer.train()


def evaluate(config: EvaluationConfig | None = None, /, **flags: Any) -> Results:
    """Scores a model on a split, as `run_eval.py` does; returns what `eval_results.json` holds.

    Raises:
      UserError: a flag, file or row that the user can put right.
    """
    from bert_emd_jax.evaluation.evaluate import evaluate as score

    _show_log()
    return score(config or EvaluationConfig(**flags))


def mapping(run_dir: str | Path) -> "LayerMapping":
    """The transport plans, costs and layer weights that a distillation run recorded.

    `flow` and `cost` are by side ("attention", "hidden") arrays [moments, student layers, teacher layers];
    `student_weights` and `teacher_weights` [moments, layers]; `steps` [moments] are the training steps.

    Raises:
      UserError: `run_dir` is not the `output_dir` of a distillation, or the file is damaged.
    """
    from bert_emd_jax.runs.layer_mapping import read_mapping

    path = Path(run_dir) / LAYER_MAPPING
    if not path.is_file():
        raise UserError(f"{path}: no such file; is {run_dir} the output_dir of a distillation?")
    return read_mapping(path)


def plot_mapping(run_dir: str | Path, step: int | None = None) -> "Figure":
    """The transport plans of a run as heatmaps, at the recorded moment nearest to `step`, or at its end.

    A Matplotlib figure, which a notebook shows by itself. Raises UserError as `mapping` does.
    """
    from bert_emd_jax.runs.plan_figures import draw_plans_of

    return draw_plans_of(_recorded(run_dir), step)


def plot_layer_weights(run_dir: str | Path) -> "Figure":
    """The layer weights of student and teacher over the training steps of a run.

    A Matplotlib figure, which a notebook shows by itself. Raises UserError as `mapping` does.
    """
    from bert_emd_jax.runs.plan_figures import draw_layer_weights_of

    return draw_layer_weights_of(_recorded(run_dir))


def _recorded(run_dir: str | Path) -> "LayerMapping":
    recorded = mapping(run_dir)
    if not len(recorded.steps) or not recorded.flow:
        raise UserError(f"{run_dir}: no plan is recorded yet; --log_steps says how often one is")
    return recorded


def load(
    path: str | Path, *, max_seq_length: int = 128, batch_size: int = 64, dtype: Dtype = "float32"
) -> "Model":
    """A trained model of any kind, ready for texts.

    Args:
      path: a model directory, a Hugging Face directory, a weights file beside its config, or a hub id.
      max_seq_length: longer texts are cut to so many tokens.
      batch_size: texts per batch, over all devices.

    Raises:
      UserError: nothing loadable there, or a model without a classifier.
    """
    from bert_emd_jax.checkpoints.model_directory import load_model

    return Model(load_model(Path(path).expanduser()), max_seq_length, batch_size, dtype, source=path)


class Model:
    """A model with its tokenizer, of one kind of task. Methods of other kinds raise a UserError.

    Attributes:
      loaded: its config, parameters and tokenizer.
      kind: "classification", "regression" or "multi_label".
      labels: their names in the order of the logits, numbers if the model has no names; None of a regressor.
    """

    def __init__(
        self,
        loaded: "LoadedModel",
        max_seq_length: int = 128,
        batch_size: int = 64,
        dtype: str = "float32",
        *,
        source: object = "the model",
    ):
        import jax.numpy as jnp

        if dtype not in get_args(Dtype):
            raise UserError(f"dtype {dtype}: is none of {', '.join(get_args(Dtype))}")
        from bert_emd_jax.devices.parallel import replicate
        from bert_emd_jax.devices.precision import resolved_dtype
        from bert_emd_jax.evaluation.prediction import Predictor
        from bert_emd_jax.models.heads import SequenceClassifier

        self.loaded = loaded
        self._kind = kind_of(loaded.config, source)
        self._max_length = min(max_seq_length, loaded.config.max_position_embeddings)
        self._batch_size = batch_size
        self._params = replicate(loaded.params)
        module = SequenceClassifier(loaded.config, jnp.dtype(resolved_dtype(dtype)))
        self._predictor = Predictor(module)

    def __repr__(self) -> str:
        from bert_emd_jax.evaluation.model_cost import size_of

        size = size_of(self.loaded.config, self.loaded.params)
        what = f"{size['layers']} layers of width {size['hidden_size']}, {size['parameters']:,} parameters"
        labels = "" if self.labels is None else f"; labels: {', '.join(self.labels)}"
        return f"<Model {self.kind}: {what}{labels}>"

    @property
    def kind(self) -> str:
        return self._kind.name

    @property
    def labels(self) -> tuple[str, ...] | None:
        config = self.loaded.config
        if self._kind.fewest_labels is None:
            return None
        return config.id2label or tuple(str(index) for index in range(config.num_labels))

    def logits(
        self, texts: Iterable[str], pairs: Iterable[str] | None = None
    ) -> Float[np.ndarray, "rows labels"]:
        """The logits of every text, or of every pair (`texts[k]`, `pairs[k]`), float32."""
        from bert_emd_jax.data.encoding import check_rows, encode_examples
        from bert_emd_jax.data.examples import Examples

        examples = Examples.from_texts(texts, pairs)
        if not len(examples):
            return np.zeros((0, self.loaded.config.num_labels), np.float32)
        dataset = encode_examples(self.loaded.tokenizer, examples, self._max_length)
        check_rows(dataset, self.loaded.config, "the model")
        # Few shapes, so that calls with other texts seldom compile anew.
        lengths = _doublings(_SHORTEST_BUCKET, int(dataset.lengths.max()), self._max_length)
        rows = _doublings(1, len(dataset), self._batch_size)[-1]
        return self._predictor.logits(self._params, dataset, lengths, rows)

    def predict(
        self, texts: Iterable[str], pairs: Iterable[str] | None = None
    ) -> Float[np.ndarray, "rows ..."]:
        """Probabilities [rows, labels], each by itself in a multi-label model; values [rows]."""
        self._require("predict")
        return self._kind.predictions(self.logits(texts, pairs)).astype(np.float32)

    def classify(
        self, texts: Iterable[str], pairs: Iterable[str] | None = None
    ) -> list[Prediction] | list[list[Prediction]]:
        """The most probable label of every text; of a multi-label model a list of those above one half.

        Raises:
          UserError: the model is of a kind without classes.
        """
        self._require("classify")
        assert isinstance(self._kind, LabellingKind)
        return [self._kind.decided(row, self.labels) for row in self.predict(texts, pairs)]

    def _require(self, method: str) -> None:
        if method not in self._kind.methods:
            having = " or ".join(kind.name for kind in KINDS.values() if method in kind.methods)
            raise UserError(
                f"{method}: is for models of kind {having}; this one is of kind {self.kind}, and has"
                f" {', '.join(self._kind.methods)}"
            )


@contextlib.contextmanager
def _run_of(config: TrainingConfig) -> Iterator[None]:
    """Around a training run: a copy of it if `--mirror_dir` asks for one, and its report at the end."""
    from bert_emd_jax.devices.hosts import is_main
    from bert_emd_jax.report.html import write_report
    from bert_emd_jax.runs.mirror import mirrored

    _show_log()
    output_dir = config.program.output_dir
    with mirrored(output_dir, config.run, config.hosts):
        yield
        if is_main() and not config.run.dry_run:
            write_report(output_dir)


def _show_log() -> None:
    """In a notebook, what the programs say: nobody has set up a log there."""
    from bert_emd_jax.runs.progress_bar import in_notebook
    from bert_emd_jax.screen_log import log_to_screen

    if in_notebook() and not logging.getLogger("bert_emd_jax").handlers:
        log_to_screen()


def _doublings(first: int, enough: int, most: int) -> tuple[int, ...]:
    """first, 2 first, 4 first … up to the first that is `enough`, none above `most`."""
    sizes = [min(first, most)]
    while sizes[-1] < min(enough, most):
        sizes.append(min(2 * sizes[-1], most))
    return tuple(sizes)
