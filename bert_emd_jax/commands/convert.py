"""convert_pytorch_checkpoints.py: BERT checkpoints to model directories, back, and out."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bert_emd_jax.commands.cli import run_program
from bert_emd_jax.configs import Config, Paths, ReadAnywhere
from bert_emd_jax.errors import UserError

if TYPE_CHECKING:
    from bert_emd_jax.checkpoints.model_directory import LoadedModel
    from bert_emd_jax.models.families import Head


@dataclasses.dataclass(frozen=True, init=False)
class ConvertConfig(Config):
    """What to convert, and to what."""

    input: ReadAnywhere[Path]
    """A Hugging Face or model directory, a weights file, or a hub id such as
    google-bert/bert-base-uncased."""
    output_dir: Path | None = None
    """Directory for the result; must be empty or new. Required, except for --inspect and --verify."""
    to_pytorch: bool = False
    """Write a Hugging Face directory (config.json, model.safetensors, tokenizer) instead."""
    to_stablehlo: bool = False
    """Write a classifier or an embedder as a jax.export artefact for cpu, cuda and tpu instead."""
    to_onnx: bool = False
    """Write model.onnx and the tokenizer instead, checked with onnxruntime (needs torch, transformers, onnx,
    onnxscript, onnxruntime)."""
    int8: bool = False
    """With --to_onnx, also write model_int8.onnx, with weights of 8 bits."""
    measure: ReadAnywhere[Path | None] = None
    """With --to_onnx, score and time JAX, PyTorch and every file on the task whose flags this file has: the
    run_config.json of a run, or YAML or JSON as for --config."""
    split: Literal["dev", "test"] = "dev"
    """Split for --measure."""
    head: Literal["auto", "classifier", "masked_lm", "none"] = "auto"
    """Head to keep; auto: the one present, preferring a classifier to a masked-LM head."""
    classifier_activation: Literal["auto", "none", "relu"] = "auto"
    """Activation before the classifier; auto: as in config.json, else relu for TinyBERT's task models."""
    half: bool = False
    """With --to_pytorch, write float16 weights: half the size."""
    trim_vocabulary: ReadAnywhere[Paths] = ()
    """Drop the embeddings of tokens that these files never use (.txt with a text a line, or all columns of a
    table); other words are split into shorter tokens."""
    inspect: bool = False
    """Print every tensor and what becomes of it, and write nothing."""
    verify: bool = False
    """Run the result and the transformers model on the same random inputs (needs torch and transformers)."""
    debug: bool = False
    """Show the traceback of an error."""

    def check(self) -> None:
        forms = [name for name in ("to_pytorch", "to_stablehlo", "to_onnx") if getattr(self, name)]
        if len(forms) > 1:
            raise UserError(f"{' and '.join(f'--{name}' for name in forms)}: choose one")
        if (self.int8 or self.measure is not None) and not self.to_onnx:
            raise UserError(f"{'--int8' if self.int8 else '--measure'} goes with --to_onnx")
        if self.to_onnx and self.verify:
            raise UserError("--to_onnx checks its file by itself; leave --verify out")
        if self.half and not self.to_pytorch:
            raise UserError("--half goes with --to_pytorch: model directories hold float32")
        if self.inspect and self.verify:
            raise UserError("--inspect and --verify: choose one")
        writes = bool(forms) or not self.verify
        if self.output_dir is None and writes and not self.inspect:
            raise UserError("--output_dir is needed, except for --inspect and --verify alone")


def run(config: ConvertConfig) -> None:
    """Converts, and prints where the result is."""
    from bert_emd_jax.checkpoints.hub import resolve_model

    path = resolve_model(config.input)
    if config.inspect:
        _inspect(config, path)
        return
    output_dir = config.output_dir
    if output_dir is not None and not _is_new(output_dir):
        raise UserError(f"--output_dir {output_dir} is not empty: choose another")
    if config.verify:
        from bert_emd_jax.checkpoints.verification import require_torch

        require_torch()
    from bert_emd_jax.checkpoints.model_directory import load_whole_model

    activation = None if config.classifier_activation == "auto" else config.classifier_activation
    model = load_whole_model(path, head=_head(config), classifier_activation=activation)
    if config.trim_vocabulary:
        model = _trimmed(config, model)
    if output_dir is not None:
        _write(config, output_dir, model)
    if config.verify:
        _verify(config, path, model)


def _head(config: ConvertConfig) -> "Head | None":
    return None if config.head == "auto" else config.head


def _trimmed(config: ConvertConfig, model: "LoadedModel") -> "LoadedModel":
    """Drops the tokens that no text uses, and prints how many are left."""
    from bert_emd_jax.buckets import local_copy
    from bert_emd_jax.checkpoints.vocabulary import trim_vocabulary
    from bert_emd_jax.tables.rows import all_texts

    texts = (text for path in config.trim_vocabulary for text in all_texts(local_copy(path)))
    trimmed = trim_vocabulary(model, texts)
    smaller, before = trimmed.model.config, trimmed.before
    width = smaller.embedding_size or smaller.hidden_size
    print(
        f"{smaller.vocab_size:,} of {before:,} tokens are kept: {trimmed.used:,} of the texts, special tokens"
        f" and single characters; {(before - smaller.vocab_size) * width:,} parameters fewer"
    )
    return trimmed.model


def _is_new(directory: Path) -> bool:
    return not directory.exists() or (directory.is_dir() and not any(directory.iterdir()))


def _inspect(config: ConvertConfig, path: Path) -> None:
    from bert_emd_jax.checkpoints.inspection import inspect_model

    table, problems = inspect_model(path, _head(config))
    print(table)
    if problems:
        raise UserError(f"{path} cannot be converted; {'; '.join(problems)}")


def _write(config: ConvertConfig, output_dir: Path, model: "LoadedModel") -> None:
    from bert_emd_jax.checkpoints.model_directory import save_huggingface, save_model

    if config.to_pytorch:
        save_huggingface(output_dir, model, half=config.half)
        print(f"for transformers: {output_dir}")
    elif config.to_stablehlo:
        from bert_emd_jax.checkpoints.stablehlo import ARTEFACT, write_stablehlo

        write_stablehlo(output_dir, model)
        print(f"for jax.export: {output_dir / ARTEFACT}")
    elif config.to_onnx:
        from bert_emd_jax.checkpoints.onnx_file import write_onnx

        files = write_onnx(output_dir, model, int8=config.int8)
        print("\n".join(f"for onnxruntime: {file}" for file in files))
        if config.measure is not None:
            print(_measured(config, config.measure, model, files))
    else:
        save_model(output_dir, model, with_pytorch=False)
        print(f"model directory: {output_dir}")


def _measured(config: ConvertConfig, flags: Path, model: "LoadedModel", files: Sequence[Path]) -> str:
    """Returns a table of score, size and milliseconds of the model by JAX, PyTorch and each exported file."""
    from bert_emd_jax.buckets import local_copy
    from bert_emd_jax.checkpoints.onnx_file import jax_model, onnx_model, torch_model
    from bert_emd_jax.commands.config_file import part_of_file
    from bert_emd_jax.data.task_config import TaskConfig
    from bert_emd_jax.evaluation.model_cost import size_of
    from bert_emd_jax.evaluation.runtimes import measure_runtimes
    from bert_emd_jax.report.tables import aligned, bytes_text

    texts = part_of_file(TaskConfig, local_copy(flags))
    in_memory = {"JAX": jax_model(model), "PyTorch": torch_model(model)}
    runtimes = in_memory | {file.name: onnx_model(file) for file in files}
    found = measure_runtimes(model, runtimes, texts, config.split, f"--input {config.input}")
    whole = size_of(model.config, model.params)["file_bytes"]
    sizes = [*(whole for _ in in_memory), *(file.stat().st_size for file in files)]
    head = ["", f"{found.metric}, {found.rows:,} {config.split} {found.unit}", "file"]
    batches = list(next(iter(found.milliseconds.values())))
    lines = [
        [
            name,
            f"{found.scores[name]:.4f}",
            bytes_text(size),
            *(f"{found.milliseconds[name][rows]:.3g}" for rows in batches),
        ]
        for name, size in zip(runtimes, sizes, strict=True)
    ]
    return aligned([[*head, *(f"ms per sentence, batch {rows}" for rows in batches)], *lines])


def _verify(config: ConvertConfig, path: Path, model: "LoadedModel") -> None:
    """Compares what was written, as it is read back, or the model in memory if nothing was written."""
    from bert_emd_jax.checkpoints.model_directory import load_whole_model
    from bert_emd_jax.checkpoints.verification import TOLERANCE, differences_from_torch

    torch_source, artefact = path, None
    if config.to_pytorch and config.output_dir is not None:
        torch_source = config.output_dir
    elif config.to_stablehlo:
        artefact = config.output_dir
    elif config.output_dir is not None:
        model = load_whole_model(config.output_dir)
    differences = differences_from_torch(model.config, model.params, torch_source, artefact)
    print(f"{'':12}{'difference':>12}{'largest value':>15}{'relative':>11}")
    for row in differences:
        relative = row.largest / row.scale if row.scale else row.largest
        print(f"{row.name:12}{row.largest:12.2e}{row.scale:15.4g}{relative:11.1e}")
    if model.config.classifier_activation == "relu" and "classifier" in model.params:
        print("the relu before the classifier was put into transformers' model, which has none of its own")
    failed = [row.name for row in differences if not row.passes]
    if failed:
        raise UserError(f"FAIL: differs from transformers by more than {TOLERANCE:g}: {', '.join(failed)}")
    print(f"PASS: every layer equals transformers' within {TOLERANCE:g} of its largest value")


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    return run_program(
        ConvertConfig,
        run,
        prog="convert_pytorch_checkpoints.py",
        description="Converts a checkpoint to a model directory, a Hugging Face directory or StableHLO.",
        examples=(
            "--input google-bert/bert-base-uncased --output_dir bert",
            "--input student --to_pytorch --output_dir student_pytorch --verify",
            "--input pytorch_model.bin --inspect",
        ),
        argv=argv,
    )


if __name__ == "__main__":
    sys.exit(main())
