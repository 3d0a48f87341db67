"""What notebooks and programs call: train, evaluate, look. Imports JAX when needed."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bert_emd_jax.configs import takes_flags_of
from bert_emd_jax.data.given_rows import written_splits
from bert_emd_jax.distillation.distill_config import DistillConfig, GeneralDistillConfig
from bert_emd_jax.distillation.presets import preset_values
from bert_emd_jax.errors import UserError
from bert_emd_jax.evaluation.evaluation_config import EvaluationConfig
from bert_emd_jax.files import cache_directory, content_hash, new_directory
from bert_emd_jax.layout import LAYER_MAPPING
from bert_emd_jax.model import Model
from bert_emd_jax.runs.run_config import on_disk
from bert_emd_jax.training.training_config import FinetuneConfig, TrainingConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bert_emd_jax.runs.layer_mapping import LayerMapping

Results = dict[str, Any]
OnLog = Callable[[int, dict[str, Any]], None]
AnyConfig = TypeVar("AnyConfig")


@takes_flags_of(FinetuneConfig)
def finetune(
    config: FinetuneConfig | None = None,
    /,
    *,
    train: Any = None,
    dev: Any = None,
    test: Any = None,
    on_log: OnLog | None = None,
    **flags: Any,
) -> Results:
    """Fine-tunes a BERT on a task, as `bert-emd finetune` does: `finetune(bert_model=…, task_name=…, …)`.

    Takes a config or the program's flags. Returns what `eval_results.json` in `output_dir` holds; the
    model, its checkpoints and `report.html` are there too. With `dry_run=True` it trains nothing and returns
    what it found: rows, steps, memory, an estimate of the time.

    Args:
      train: rows in place of `data_dir`: (texts, labels), where a text may be a pair, a list of dictionaries,
        a pandas DataFrame or a `datasets.Dataset`.
      dev: the same for the dev set.
      test: the same for a test set, which chooses nothing.
      on_log: called with the step and every row of `metrics.jsonl`, whose "kind" is train, eval or check.
      **flags: models may be paths or `Model` objects.

    Raises:
      UserError: a flag, file or row that the user can put right.
      Interrupted: a signal came; `resume` continues.
    """
    from bert_emd_jax.training.dry_run import describe_run
    from bert_emd_jax.training.finetune import FinetuneTrainer

    config = on_disk(_config_of(FinetuneConfig, config, {"train": train, "dev": dev, "test": test}, flags))
    with _run_of(config):
        trainer = FinetuneTrainer.from_config(config)
        trainer.on_log = on_log
        return describe_run(trainer) if config.run.dry_run else trainer.train()


@takes_flags_of(DistillConfig)
def distill(
    config: DistillConfig | None = None,
    /,
    *,
    train: Any = None,
    dev: Any = None,
    test: Any = None,
    on_log: OnLog | None = None,
    **flags: Any,
) -> Results:
    """Distils a teacher into a student, as `bert-emd distill` does: `distill(teacher_model=…, …)`.

    Takes a config or the program's flags; with `preset=…` among the flags, its values are those that no other
    flag names. Returns what `eval_results.json` in `output_dir` holds, for student and teacher; with
    `dry_run=True` what `finetune` returns then.

    Args:
      train: as for `finetune`. Texts of kind "embedding" have no labels: a list of them, as `unlabelled`
        among the flags may be.
      dev: as for `finetune`.
      test: as for `finetune`.
      on_log: as for `finetune`.

    Raises:
      UserError: a flag, file or row that the user can put right, or models that do not go together.
      Interrupted: a signal came; `resume` continues.
    """
    from bert_emd_jax.distillation.task_trainers import task_trainer
    from bert_emd_jax.training.dry_run import describe_run

    if flags.get("preset"):
        flags = preset_values(flags["preset"], flags.get("task_name", "")) | flags
    config = on_disk(_config_of(DistillConfig, config, {"train": train, "dev": dev, "test": test}, flags))
    with _run_of(config):
        trainer = task_trainer(config)
        trainer.on_log = on_log
        return describe_run(trainer) if config.run.dry_run else trainer.train()


@takes_flags_of(GeneralDistillConfig)
def general_distill(
    config: GeneralDistillConfig | None = None, /, *, on_log: OnLog | None = None, **flags: Any
) -> Results:
    """Distils over a corpus, without a task, as `bert-emd distill --pregenerated_data` does.

    Takes a config or the program's flags. Returns what `eval_results.json` in `output_dir` holds; with
    `dry_run=True` what `finetune` returns then.

    Args:
      on_log: see `finetune`.

    Raises:
      UserError: a flag, file or row that the user can put right, or models that do not go together.
      Interrupted: a signal came; `resume` continues.
    """
    from bert_emd_jax.distillation.general import GeneralDistillTrainer
    from bert_emd_jax.training.dry_run import describe_run

    config = on_disk(_config_of(GeneralDistillConfig, config, {}, flags))
    with _run_of(config):
        trainer = GeneralDistillTrainer.from_config(config)
        trainer.on_log = on_log
        return describe_run(trainer) if config.run.dry_run else trainer.train()


@takes_flags_of(EvaluationConfig)
def evaluate(
    config: EvaluationConfig | None = None, /, *, dev: Any = None, test: Any = None, **flags: Any
) -> Results:
    """Scores a model on a split, as `bert-emd eval` does; returns what `eval_results.json` holds.

    Args:
      dev: rows in place of `data_dir`, as for `finetune`.
      test: the same for a test set.

    Raises:
      UserError: a flag, file or row that the user can put right.
    """
    from bert_emd_jax.evaluation.evaluate import evaluate as score

    _show_log()
    if dev is None and test is not None:
        flags = {"split": "test"} | flags
    return score(_config_of(EvaluationConfig, config, {"dev": dev, "test": test}, flags))


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


def _config_of(
    cls: Callable[..., AnyConfig], given: AnyConfig | None, splits: dict[str, Any], flags: dict[str, Any]
) -> AnyConfig:
    """The config that is given, or that of flags, whose models may be objects, and rows."""
    if given is None:
        return cls(**written_splits(splits, {name: _on_disk(value) for name, value in flags.items()}))
    if flags or any(rows is not None for rows in splits.values()):
        raise UserError("give a config, or flags and rows, not both")
    return given


def _on_disk(value: Any) -> Any:
    """A flag's value, with directories in place of models that are given as objects, also within a list."""
    if isinstance(value, list) and any(isinstance(item, Model) for item in value):
        return [_on_disk(item) for item in value]
    return _saved(value) if isinstance(value, Model) else value


def _saved(model: Model) -> Path:
    """The directory of a model that is given as an object: in the cache, named after its content."""
    from bert_emd_jax.models.params import flatten

    loaded = model.loaded
    digest = content_hash([loaded.config.values(), loaded.tokenizer.fingerprint], flatten(loaded.params))
    directory = cache_directory() / f"model-{digest[:32]}"
    with new_directory(directory) as written:
        if written is not None:
            model.save(written)
    return directory


def _recorded(run_dir: str | Path) -> "LayerMapping":
    recorded = mapping(run_dir)
    if not len(recorded.steps) or not recorded.flow:
        raise UserError(f"{run_dir}: no plan is recorded yet; --log_steps says how often one is")
    return recorded


@contextlib.contextmanager
def _run_of(config: TrainingConfig) -> Iterator[None]:
    """Around a training run: a copy of it if `--mirror_dir` asks for one; report and card at its end."""
    from bert_emd_jax.devices.hosts import is_main
    from bert_emd_jax.publishing.model_card import write_model_card
    from bert_emd_jax.report.html import write_report
    from bert_emd_jax.runs.mirror import mirrored

    _show_log()
    output_dir = config.program.output_dir
    with mirrored(output_dir, config.run, config.hosts):
        yield
        if is_main() and not config.run.dry_run:
            write_report(output_dir)
            write_model_card(output_dir)


def _show_log() -> None:
    """In a notebook, what the programs say: nobody has set up a log there."""
    from bert_emd_jax.runs.progress_bar import in_notebook
    from bert_emd_jax.screen_log import log_to_screen

    if in_notebook() and not logging.getLogger("bert_emd_jax").handlers:
        log_to_screen()
