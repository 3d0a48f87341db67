"""What a training program says at its end."""

import shlex
from collections.abc import Mapping
from typing import Any

from bert_emd_jax.commands.programs import typed_command, typed_name
from bert_emd_jax.configs import all_flags, plain_values, spelled_flag
from bert_emd_jax.data.kinds import EMBEDDING, KINDS
from bert_emd_jax.data.task_config import TaskConfig
from bert_emd_jax.errors import UserError
from bert_emd_jax.layout import RESULTS
from bert_emd_jax.training.training_config import FinetuneConfig, TrainingConfig


def print_training(config: TrainingConfig, results: dict[str, Any]) -> None:
    """Prints scores and paths in the main process; of a dry run what would happen.

    Raises:
      UserError: the run of which this was the dry one would not start.
    """
    from bert_emd_jax.devices.hosts import is_main
    from bert_emd_jax.report import tables
    from bert_emd_jax.report.results_reader import read_results

    if not is_main():
        return
    if config.run.dry_run:
        print("\n".join(_plan(config, results)))
        if results["refused"] is not None:
            raise UserError(f"the run would stop here: {results['refused']}")
        return
    directory = config.program.output_dir
    metric = results["primary_metric"]
    for name in ("student", "teacher"):
        if name in results:
            print(f"{name if 'teacher' in results else 'model'}: {_scores(results, name, metric)}")
    if headline := tables.headline(read_results(directory / RESULTS), metric):
        print(headline)
    print(f"model directory: {directory}")
    library = "sentence-transformers" if results.get("kind") == EMBEDDING.name else "transformers"
    print(f"for {library}: {directory / 'pytorch'}")
    print(f"report: {directory / 'report.html'}")
    if config.run.mirror_dir is not None:
        print(f"a copy of all: {config.run.mirror_dir}")
    print(f"next: {_next_step(config, results)}")


def _next_step(config: TrainingConfig, results: dict[str, Any]) -> str:
    """Returns a command line that a teacher, or a student without a task, is for; else a call from Python."""
    directory, kind = str(config.program.output_dir), KINDS.get(results.get("kind", ""))
    distil = typed_command(typed_name("run_distill.py")).split()
    if kind is None:  # general distillation
        task = ["--data_dir", "DATA", "--task_name", "TASK", "--output_dir", "STUDENT"]
        return shlex.join([*distil, "--teacher_model", "TEACHER", "--student_model", directory, *task])
    if not isinstance(config, FinetuneConfig):
        method = next(name for name in ("classify", *kind.methods) if name in kind.methods)
        text = '"…", "…"' if method == "answer" else '["…"]'
        return f"in Python, bert_emd_jax.load({directory!r}).{method}({text})"
    layers = max(1, results["student"]["layers"] // 2)
    words = [
        "--teacher_model",
        directory,
        "--student_init_layers",
        "uniform",
        "--student_layers",
        str(layers),
    ]
    sources, flags = config.sources(), plain_values(config.flags())
    for flag in all_flags(TaskConfig):
        if sources[flag.name] == "given":
            words += spelled_flag(flag.name, flags[flag.name])
    return shlex.join([*distil, *words, "--output_dir", "STUDENT"])


def _scores(results: dict[str, Any], name: str, metric: str) -> str:
    """Says what a model scores on each split, that which has chosen nothing first."""
    said = []
    if "test" in results:
        test = results["test"]
        unit = test.get("unit", "rows")
        said.append(f"{test[name]['metrics'][metric]:.4f} on {test['rows']:,} test {unit}")
    unit = results.get("unit", "rows")
    rows = f"{results['rows']:,} {results['split']} {unit}" if "rows" in results else f"{results['split']}"
    chose = ", which chose the step" if results.get("chose_step") and name == "student" else ""
    said.append(f"{results[name]['metrics'][metric]:.4f} on {rows}{chose}")
    return f"{metric} {'; '.join(said)}"


def _plan(config: TrainingConfig, facts: dict[str, Any]) -> list[str]:
    """What a dry run found, a line for each subject."""
    batches = facts["batches_per_epoch"]
    real, padded = facts["tokens_per_epoch"], facts["padded_tokens_per_epoch"]
    per_epoch = facts["steps_per_epoch"]
    epochs = f"{facts['steps'] / per_epoch:.3g}"
    teacher = facts.get("teacher")
    lines = {
        "rows": f"{facts['rows']:,}",
        "tokens": f"{real:,} in an epoch, {padded:,} with padding ({1 - real / padded:.0%} padding)",
        "batches": f"of {facts['rows_per_batch']} rows; padded length × batches in an epoch: "
        + ", ".join(f"{length} × {count:,}" for length, count in batches.items()),
        "steps": f"{facts['steps']:,} = {epochs} epoch{'s' * (epochs != '1')} of {per_epoch:,}",
        "teacher": None if teacher is None else _model(teacher),
        "student" if teacher else "model": _model(facts["student"]),
        "mapping": _mapping(facts["mapping"]),
        "recipe": _recipe(config, facts["recipe"]),
        "memory": _memory(facts),
        "time": _time(facts),
        "output": _output(config, facts),
    }
    return [
        f"dry run of {typed_name(facts['program'] + '.py')}: nothing is trained, nothing is written",
        *(f"  {name:<8} {text}" for name, text in lines.items() if text is not None),
    ]


def _model(size: dict[str, int]) -> str:
    return f"{size['layers']} layers, width {size['hidden_size']}, {size['parameters']:,} parameters"


def _mapping(mapping: dict[str, Any] | None) -> str | None:
    if mapping is None:
        return None
    rule = mapping["layer_weight_rule"]
    layers = f"{mapping['student_layers']} student × {mapping['teacher_layers']} teacher layers"
    return f"{mapping['name']}, {layers}" + (f", layer weights: {rule}" if rule else "")


def _recipe(config: TrainingConfig, recipe: Mapping[str, Any] | None) -> str | None:
    """What was measured for such runs, of the flags that were left at their defaults."""
    if recipe is None:
        return None
    values, sources = config.flags(), config.sources()
    words = [
        word
        for name, value in recipe["flags"].items()
        if values[name] != value and sources[name] == "default"
        for word in spelled_flag(name, value)
    ]
    if not words:
        return None
    return f"for {recipe['title']}, try {shlex.join(words)} (docs/recipes.md says why)"


def _memory(facts: dict[str, Any]) -> str | None:
    if facts["memory"] is None:
        return None
    count, device, room = len(facts["devices"]), facts["devices"][0], facts["device_memory"]
    size = f"{facts['memory'] / 1e9:.2f} GB" + (f" of {room / 1e9:.1f} GB" if room else "")
    where = device if count == 1 else f"each of {count} × {device}"
    return f"{size} on {where} for a step of {max(facts['batches_per_epoch'])} tokens, as compiled"


def _time(facts: dict[str, Any]) -> str:
    timed = facts["seconds_per_step"].items()
    steps = ", ".join(f"{1000 * seconds:,.0f} ms at {length} tokens" for length, seconds in timed)
    is_kept = facts.get("teacher_cache", "off") != "off"
    note = ", less where the teacher's outputs are kept" if is_kept else ""
    return (
        f"about {_duration(facts['seconds'])}{note} (an estimate from a few steps: {steps});"
        " evaluations and compilation come on top"
    )


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _output(config: TrainingConfig, facts: dict[str, Any]) -> str:
    path = config.program.output_dir
    if facts["refused"] is not None:
        return f"{path}: refused"
    if facts["finished"]:
        return f"{path}: this run is finished, nothing would be done"
    if not path.exists() or not any(path.iterdir()):
        return str(path)
    fate = "would be resumed" if config.run.resume else "what an earlier run wrote would be replaced"
    return f"{path}: {fate}"
