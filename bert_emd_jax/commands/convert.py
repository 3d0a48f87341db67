"""convert_pytorch_checkpoints.py: PyTorch BERT checkpoints to model directories, and back."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from bert_emd_jax.commands.cli import run_program


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """One conversion."""

    input: Path
    """A Hugging Face directory with model.safetensors, or a model directory."""
    output_dir: Path
    """Where the result goes; must be empty or new."""
    to_pytorch: bool = False
    """Write a Hugging Face directory (config.json, model.safetensors, tokenizer) instead."""
    debug: bool = False
    """Show the traceback of an error."""


def run(config: ConvertConfig) -> None:
    """Converts and prints where the result is."""
    from bert_emd_jax.errors import UserError
    from bert_emd_jax.weights.model_directory import PYTORCH, load_model, save_huggingface, save_model

    if config.output_dir.exists() and (not config.output_dir.is_dir() or any(config.output_dir.iterdir())):
        raise UserError(f"--output_dir {config.output_dir} is not empty: choose another")
    model = load_model(config.input)
    if config.to_pytorch:
        save_huggingface(config.output_dir, model)
        print(f"for transformers: {config.output_dir}")
        return
    save_model(config.output_dir, model)
    print(f"model directory: {config.output_dir}")
    print(f"for transformers: {config.output_dir / PYTORCH}")


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    return run_program(
        ConvertConfig,
        run,
        prog="convert_pytorch_checkpoints.py",
        description="Converts a fine-tuned PyTorch BERT (Hugging Face form) to a model directory, or back.",
        argv=argv,
    )
