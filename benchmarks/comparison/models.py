"""Where teachers and students start: the body of all teachers, and sizes. Run as a program, a tiny body."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from bert_emd_jax import layout
from bert_emd_jax.commands import demo_assets
from bert_emd_jax.files import read_json
from comparison.methods import Student


def write_body(directory: Path, *, tiny: bool, half: bool = False) -> None:
    """Writes all-MiniLM-L6-v2, or a narrow model of random weights, if it is not there yet.

    Args:
      half: rounds its weights to float16.
    """
    if directory.is_dir():
        return
    temporary = directory.with_name(f".{directory.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    demo_assets.unpack_minilm(temporary)
    if tiny:
        # In another process: this one must leave the accelerator to the runs.
        root = Path(__file__).parents[2]
        paths = os.pathsep.join((str(root), str(root / "benchmarks")))
        command = [sys.executable, "-m", "comparison.models", str(temporary)]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": paths})
    elif half:
        path = temporary / "model.safetensors"
        weights = load_file(path)
        floats = {
            name: value.astype(np.float16) for name, value in weights.items() if value.dtype == np.float32
        }
        save_file(weights | floats, path)
    temporary.replace(directory)


def config_of(student: Student, body: Path) -> dict[str, Any]:
    """Returns the config.json of a student that is half as wide as the body."""
    config = read_json(body / layout.CONFIG)
    half = {key: config[key] // 2 for key in ("hidden_size", "intermediate_size")}
    return {**config, **half, "num_hidden_layers": student.layers}


def shrink(directory: Path) -> None:
    """Replaces the weights of a directory by random ones of hidden size 48."""
    from bert_emd_jax.checkpoints.model_directory import LoadedModel, save_model
    from bert_emd_jax.models.encoder_config import EncoderConfig
    from bert_emd_jax.models.initialization import initial_params
    from bert_emd_jax.tokenization.tokenizer import Tokenizer

    config = EncoderConfig(hidden_size=48, num_hidden_layers=6, num_attention_heads=12, intermediate_size=96)
    model = LoadedModel(config, initial_params(config, "none", 0), Tokenizer.from_directory(directory))
    (directory / "model.safetensors").unlink()
    save_model(directory, model, with_pytorch=False)


if __name__ == "__main__":
    shrink(Path(sys.argv[1]))
