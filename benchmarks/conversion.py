"""Time and memory of a conversion beside a bare Orbax save of the same parameters.

`python benchmarks/conversion.py [--rounds 3] [--directory DIR]` writes a random BERT-base (110 M parameters)
as safetensors, then takes turns: a bare save, a conversion, each in a process of its own, on the same disk.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MEBIBYTE = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, help="where to work, if not in /tmp")
    parser.add_argument("--measure", choices=[*MEASURED], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measured(args.measure, args.directory)))
        return
    with tempfile.TemporaryDirectory(dir=args.directory) as name:
        directory = Path(name)
        subprocess.check_output([sys.executable, __file__, "--measure", "write", "--directory", name])
        size = (directory / "model" / "model.safetensors").stat().st_size
        print(f"model.safetensors: {size / MEBIBYTE:.0f} MiB")
        runs: dict[str, list[dict]] = {"save": [], "convert": []}
        for _ in range(args.rounds):
            for kind, results in runs.items():
                command = [sys.executable, __file__, "--measure", kind, "--directory", name]
                results.append(json.loads(subprocess.check_output(command).splitlines()[-1]))
    for kind, results in runs.items():
        seconds = [result["seconds"] for result in results]
        print(
            f"{kind:8} median {statistics.median(seconds):.2f} s of {[round(value, 2) for value in seconds]},"
            f" peak memory {max(result['peak'] for result in results) / size:.2f} times the file's size,"
            f" of which {max(result['before'] for result in results) / size:.2f} before it started"
        )
    ratio = statistics.median(
        convert["seconds"] / save["seconds"]
        for save, convert in zip(runs["save"], runs["convert"], strict=True)
    )
    print(f"convert / save: {ratio:.2f} (median of the rounds)")


def write(directory: Path) -> None:
    """A random BERT-base in Hugging Face's form."""
    from bert_emd_jax.checkpoints.huggingface import write_huggingface_weights
    from bert_emd_jax.models.encoder_config import EncoderConfig
    from bert_emd_jax.models.initialization import initial_params

    config = EncoderConfig()
    write_huggingface_weights(directory / "model", initial_params(config, "classifier", seed=0), config)
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    (directory / "model" / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")


def save(directory: Path) -> float:
    """Seconds of a bare Orbax save of parameters that are in memory already."""
    import orbax.checkpoint as ocp

    from bert_emd_jax.models.encoder_config import EncoderConfig
    from bert_emd_jax.models.initialization import initial_params

    params = initial_params(EncoderConfig(), "classifier", seed=0)
    start = time.perf_counter()
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((directory / "saved").absolute(), params)
    seconds = time.perf_counter() - start
    shutil.rmtree(directory / "saved")
    return seconds


def convert(directory: Path) -> float:
    """Seconds of a conversion: reading, checking, transposing, writing a model directory."""
    import orbax.checkpoint  # noqa: F401  (imported above as well, outside the time)

    from bert_emd_jax.checkpoints.model_directory import load_whole_model, save_model

    start = time.perf_counter()
    save_model(directory / "converted", load_whole_model(directory / "model"), with_pytorch=False)
    seconds = time.perf_counter() - start
    shutil.rmtree(directory / "converted")
    return seconds


MEASURED = {"write": write, "save": save, "convert": convert}


def measured(kind: str, directory: Path) -> dict[str, float]:
    """Seconds and peak memory of one measurement, in a process of its own."""
    import bert_emd_jax.checkpoints.model_directory  # noqa: F401

    before = peak_memory()
    os.sync()
    return {"seconds": MEASURED[kind](directory), "peak": peak_memory(), "before": before}


def peak_memory() -> int:
    """Bytes; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
