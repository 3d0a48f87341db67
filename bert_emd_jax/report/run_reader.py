"""Reads and checks the files of a run, so that the rest of the report can rely on their content."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bert_emd_jax import layout
from bert_emd_jax.data.kinds import ANSWER, TOKEN
from bert_emd_jax.errors import UserError
from bert_emd_jax.report.answered_questions import AnsweredQuestions, read_answered_questions
from bert_emd_jax.report.json_files import read_object
from bert_emd_jax.report.metrics_reader import MetricsCurves, read_metrics
from bert_emd_jax.report.predictions_reader import Predictions, read_predictions
from bert_emd_jax.report.results_reader import Results, read_results
from bert_emd_jax.report.similarities_reader import Similarities, read_similarities
from bert_emd_jax.report.tagged_sentences import TaggedSentences, read_tagged_sentences
from bert_emd_jax.runs.layer_mapping import LayerMapping, read_mapping


@dataclass(frozen=True)
class RunFiles:
    """Everything that the report shows. A file that the run did not leave is None."""

    config: dict[str, Any]
    command_line: str | None
    metrics: MetricsCurves | None
    mapping: LayerMapping | None
    results: Results | None
    predictions: Predictions | TaggedSentences | AnsweredQuestions | None
    similarities: Similarities | None = None

    @property
    def best_step(self) -> int | None:
        if self.results is not None and self.results.best_step is not None:
            return self.results.best_step
        return None if self.metrics is None else self.metrics.best_step

    @property
    def primary_metric(self) -> str | None:
        if self.results is not None and self.results.primary_metric is not None:
            return self.results.primary_metric
        return None if self.metrics is None else self.metrics.primary


def read_run(run_dir: Path) -> RunFiles:
    """Reads the files of a run; only `run_config.json` must be there.

    Raises:
      UserError: a file is damaged; the message names it.
    """
    config_path = run_dir / layout.RUN_CONFIG
    if not config_path.is_file():
        raise UserError(f"{config_path} is missing: is {run_dir} the --output_dir of a run?")
    config = read_object(config_path)

    def read_if_there(name: str, read: Any, *args: Any) -> Any:
        path = run_dir / name
        return read(path, *args) if path.is_file() else None

    results = read_if_there(layout.RESULTS, read_results)
    predictions = None
    if results is not None and results.kind is not None:
        readers = {TOKEN: read_tagged_sentences, ANSWER: read_answered_questions}
        read = readers.get(results.kind, read_predictions)
        predictions = read_if_there(layout.DEV_PREDICTIONS, read, results.kind, results.labels)
        if isinstance(predictions, Predictions):
            predictions = replace(predictions, thresholds=results.thresholds)
    return RunFiles(
        config=config,
        command_line=_command_line(config.get("command_line")),
        metrics=read_if_there(layout.METRICS, read_metrics),
        mapping=read_if_there(layout.LAYER_MAPPING, read_mapping),
        results=results,
        predictions=predictions,
        similarities=read_if_there(layout.DEV_SIMILARITIES, read_similarities),
    )


def _command_line(command: Any) -> str | None:
    """Returns the command, a string or a list of words, as a shell takes it, one flag per line."""
    if command is None:
        return None
    try:
        words = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
    except (TypeError, ValueError):
        return str(command)
    return "".join(
        (" \\\n  " if word.startswith("--") else " " if position else "") + shlex.quote(word)
        for position, word in enumerate(words)
    )
