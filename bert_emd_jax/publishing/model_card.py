"""The model card of a finished run: `README.md` with the hub's front matter, beside the files for PyTorch."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert_emd_jax import layout
from bert_emd_jax.checkpoints.hub import is_hub_id
from bert_emd_jax.data.kinds import EMBEDDING
from bert_emd_jax.errors import UserError
from bert_emd_jax.files import read_json, write_text
from bert_emd_jax.report import tables
from bert_emd_jax.report.results_reader import Results, TestResults
from bert_emd_jax.report.run_reader import RunFiles, read_run
from bert_emd_jax.report.table_formats import as_markdown

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

CARD = "README.md"
_GLUE = "nyu-mll/glue"
# Flags that say nothing about the model: where it was written, and where its rows were.
_OF_THE_MACHINE = frozenset(
    ("output_dir", "data_dir", "tfds_data_dir", "cache_dir", "overwrite", "resume", "mirror_dir", "wandb")
)
_SENTENCE_TRANSFORMERS = """```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("MODEL")  # this directory, or its id on the hub
vectors = model.encode(["a sentence", "another one"])
```"""
_TRANSFORMERS = """```python
from transformers import pipeline

model = pipeline("{pipeline}", model="MODEL")  # this directory, or its id on the hub
```"""


def write_model_card(run_dir: Path) -> Path | None:
    """Writes the card of a finished run into its `pytorch/` and returns its path; None without results.

    Raises:
      UserError: a file of the run is damaged; the message names it.
    """
    directory = Path(run_dir) / layout.PYTORCH
    files = read_run(directory.parent)
    if files.results is None or files.results.student is None or not directory.is_dir():
        return None
    write_text(directory / CARD, model_card(files, name=directory.parent.resolve().name))
    return directory / CARD


def model_card(files: RunFiles, name: str) -> str:
    """Returns the card of a run as text; `name` is what it is called without `--run_name`."""
    flags = files.config.get("flags") or {}
    title = str(flags.get("run_name") or name)
    results = files.results
    assert results is not None
    parts = [
        f"---\n{_front_matter(files, title).to_yaml()}\n---",
        f"# {title}",
        _introduction(flags, results),
        tables.headline(results, files.primary_metric),
        _table(results, files.primary_metric),
        "## Use",
        _SENTENCE_TRANSFORMERS
        if results.kind is EMBEDDING
        else _TRANSFORMERS.format(pipeline="fill-mask" if results.kind is None else results.kind.pipeline),
        "## How it was made",
        _making(files),
        "## Licence",
        "Not stated yet: set `license` at the head of this file. A student inherits the terms of its teacher"
        " and of the data that it learned from.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(files: RunFiles, title: str) -> "ModelCardData":
    from huggingface_hub import ModelCardData

    results, flags = files.results, files.config.get("flags") or {}
    assert results is not None
    is_embedder = results.kind is EMBEDDING
    scores = _eval_results(results, _dataset_name(flags, results))
    return ModelCardData(
        license="unknown",
        library_name="sentence-transformers" if is_embedder else "transformers",
        pipeline_tag=None if results.kind is None else results.kind.pipeline,
        base_model=_base_models(files.config) or None,
        datasets=[_GLUE] if _is_glue(results) else None,
        tags=["bert_emd_jax", "distillation" if results.teacher is not None else "fine-tuning"],
        model_name=title if scores else None,
        eval_results=scores or None,
    )


def _dataset_name(flags: Mapping[str, Any], results: Results) -> str:
    """Returns the name of the task; of files of one's own that of their directory."""
    return str(results.task) if _is_glue(results) else Path(str(flags.get("data_dir") or "custom")).name


def _eval_results(results: Results, dataset: str) -> "list[EvalResult]":
    """Returns the deciding score on each split, with its rows and interval."""
    from huggingface_hub import EvalResult

    metric, found = results.primary_metric, []
    splits: tuple[tuple[str, Results | TestResults | None], ...] = (
        ("test", results.test),
        (results.split or "dev", results),
    )
    for split, scored in splits:
        if scored is None or scored.student is None or metric not in scored.student.metrics:
            continue
        interval = scored.student.interval
        rounded = None if interval is None else [round(end, 4) for end in interval]
        facts = {"rows": scored.rows, "interval_95": rounded}
        found.append(
            EvalResult(
                task_type="fill-mask" if results.kind is None else results.kind.pipeline,
                dataset_type="glue" if _is_glue(results) else "custom",
                dataset_name=dataset,
                dataset_split="validation" if split == "dev" else split,
                metric_type=str(metric),
                metric_name=str(metric).replace("_", " "),
                metric_value=round(scored.student.metrics[str(metric)], 4),
                metric_args={name: value for name, value in facts.items() if value is not None},
            )
        )
    return found


def _is_glue(results: Results) -> bool:
    return results.task not in (None, "custom", "general")


def _base_models(config: Mapping[str, Any]) -> list[str]:
    """Returns the hub's names of what a run was made from, those of a local teacher's own start too."""
    flags = config.get("flags")
    found: list[str] = []
    for flag in ("bert_model", "student_model", "teacher_model"):
        for name in _as_list(flags.get(flag) if isinstance(flags, Mapping) else None):
            path = _local_path(config, name)
            if path is not None:
                found += _base_models(_config_of_run(path))
            elif is_hub_id(name):
                found.append(name.partition("@")[0])
    return [*dict.fromkeys(found)]


def _local_path(config: Mapping[str, Any], name: str) -> Path | None:
    """Returns where a model was on the machine of a run; None if its name was none of a file there.

    The command line of a run has the paths that existed when it began in full.
    """
    words = config.get("command_line")
    given = [part for word in words for part in str(word).split(",")] if isinstance(words, list) else []
    path = Path(str(config.get("working_directory", "."))) / name
    return path if str(path) in given or path.exists() or Path(name).is_absolute() else None


def _config_of_run(directory: Path) -> Mapping[str, Any]:
    """Returns the `run_config.json` of the run that wrote a directory; nothing if no run did."""
    try:
        config = read_json(directory / layout.RUN_CONFIG)
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, Mapping) else {}


def _introduction(flags: Mapping[str, Any], results: Results) -> str:
    student = results.student
    assert student is not None
    shape = f"{student.layers} layers of width {student.hidden_size}"
    given = flags.get("teacher_model") or flags.get("bert_model")
    names = [Path(name).name if Path(name).exists() else name for name in _as_list(given)]
    tool = "bert_emd_jax, BERT distillation in JAX ([BERT-EMD](https://arxiv.org/abs/2010.06133))"
    if results.teacher is None:
        return f"A BERT of {shape}, fine-tuned from {' and '.join(names)} with {tool}."
    return f"A student of {shape}, distilled from {' and '.join(names)} with {tool}."


def _as_list(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [] if value is None else [str(value)]


def _table(results: Results, metric: str | None) -> str:
    rows = tables.comparison_rows(results, metric)
    if results.teacher is None:
        table = as_markdown([["", "this model"], *([row.label, row.student] for row in rows)])
    else:
        head = ["", "teacher", "this student", ""]
        table = as_markdown([head, *([row.label, row.teacher, row.student, row.comparison] for row in rows)])
    notes = ["In brackets: 95 % intervals of the score over other rows.", tables.timing_note(results)]
    return "\n\n".join([table, " ".join(note for note in notes if note)])


def _making(files: RunFiles) -> str:
    """Returns the flags that were given, without places on the machine, and versions."""
    flags, sources = files.config.get("flags") or {}, files.config.get("flag_sources") or {}
    lines = [
        f"- `--{name}` {_without_directories(value)}"
        for name, value in flags.items()
        if sources.get(name, "given") != "default" and name not in _OF_THE_MACHINE
    ]
    versions = files.config.get("versions") or {}
    named = ", ".join(f"{name} {versions[name]}" for name in ("jax", "flax", "optax") if name in versions)
    return "\n".join([f"`{files.config.get('program', 'a run')}` with {named}:", "", *lines])


def _without_directories(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_without_directories, value))
    text = tables.setting_text(value)
    return Path(text).name if isinstance(value, str) and Path(text).is_absolute() else text


def read_card(directory: Path) -> Any:
    """Reads the card of a directory by the hub's own library.

    Raises:
      UserError: there is none, or its front matter is not what the hub takes.
    """
    from huggingface_hub import ModelCard

    path = directory / CARD
    if not path.is_file():
        raise UserError(f"{path}: no such file; a finished run writes it into its {layout.PYTORCH}/")
    try:
        return ModelCard.load(path)
    except Exception as error:  # of YAML, or the library's own
        raise UserError(f"{path}: not a model card ({error}); correct what stands between the ---") from error
