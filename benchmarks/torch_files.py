"""Reading a bert-base-sized `pytorch_model.bin`: ours against `torch.load`, in turn in one process.

    python benchmarks/torch_files.py [--repeats 7] [--directory DIR]

Every reader adds up every tensor's bytes, so that a file which is only mapped is read as well. The file is in
the page cache. The peak is the growth of the resident set in a fresh process that reads once; mapped pages
count, although the system can drop them.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from bert_emd_jax.checkpoints.checkpoint_files import read_checkpoint

FORMS = {"zip": True, "legacy": False}
HIDDEN, LAYERS, INTERMEDIATE, VOCABULARY, POSITIONS = 768, 12, 3072, 30522, 512


def bert_base(torch) -> dict:
    """Random tensors of BERT-base's names and shapes, 110 million numbers."""
    shapes = {
        "embeddings.word_embeddings.weight": (VOCABULARY, HIDDEN),
        "embeddings.position_embeddings.weight": (POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": (2, HIDDEN),
        "embeddings.LayerNorm.weight": (HIDDEN,),
        "embeddings.LayerNorm.bias": (HIDDEN,),
        "pooler.dense.weight": (HIDDEN, HIDDEN),
        "pooler.dense.bias": (HIDDEN,),
    }
    for layer in range(LAYERS):
        for name, shape in {
            "attention.self.query": (HIDDEN, HIDDEN),
            "attention.self.key": (HIDDEN, HIDDEN),
            "attention.self.value": (HIDDEN, HIDDEN),
            "attention.output.dense": (HIDDEN, HIDDEN),
            "attention.output.LayerNorm": (HIDDEN,),
            "intermediate.dense": (INTERMEDIATE, HIDDEN),
            "output.dense": (HIDDEN, INTERMEDIATE),
            "output.LayerNorm": (HIDDEN,),
        }.items():
            shapes[f"encoder.layer.{layer}.{name}.weight"] = shape
            shapes[f"encoder.layer.{layer}.{name}.bias"] = shape[:1]
    generator = torch.Generator().manual_seed(0)
    return {f"bert.{name}": torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def touch(arrays: Iterable[np.ndarray]) -> int:
    """Reads every byte."""
    return sum(int(array.view(np.int32).sum(dtype=np.int64)) for array in arrays)


def read_ours(path: Path) -> int:
    return touch(read_checkpoint(path).tensors.values())


def read_torch(path: Path) -> int:
    import torch

    return touch(tensor.numpy() for tensor in torch.load(path).values())


def read_torch_mapped(path: Path) -> int:
    import torch

    return touch(tensor.numpy() for tensor in torch.load(path, mmap=True).values())


READERS: dict[str, Callable[[Path], int]] = {
    "ours": read_ours,
    "torch.load": read_torch,
    "torch.load mmap": read_torch_mapped,
}


def measure_peak(reader: str, path: Path) -> float:
    """Growth of a fresh process's peak resident set, in MB."""
    command = [sys.executable, __file__, "--peak_of", reader, "--file", str(path)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(reader: str, path: Path) -> None:
    if reader != "ours":
        import torch  # noqa: F401  # its import is not part of reading
    before = peak_resident_set()
    READERS[reader](path)
    print(peak_resident_set() - before)


def peak_resident_set() -> float:
    """In MB, from Linux; `resource.getrusage` would count the process that started this one as well."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="Reading a .bin: ours against torch.load")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--directory", type=Path, help="where to write the files (a temporary directory)")
    parser.add_argument("--peak_of", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak_of:
        print_peak(args.peak_of, args.file)
        return
    try:
        import torch
    except ImportError:
        sys.exit("benchmarks/torch_files.py needs PyTorch, to write the files and to compare with")

    with tempfile.TemporaryDirectory(dir=args.directory) as directory:
        paths = {form: Path(directory) / f"{form}.bin" for form in FORMS}
        tensors = bert_base(torch)
        for form, path in paths.items():
            torch.save(tensors, path, _use_new_zipfile_serialization=FORMS[form])
        del tensors
        for form, path in paths.items():
            readers = [name for name in READERS if form == "zip" or "mmap" not in name]  # legacy cannot
            sums = {name: READERS[name](path) for name in readers}
            assert len(set(sums.values())) == 1, sums
            seconds: dict[str, list[float]] = {name: [] for name in readers}
            for _ in range(args.repeats):
                for name in readers:
                    start = time.perf_counter()
                    READERS[name](path)
                    seconds[name].append(time.perf_counter() - start)
            size = path.stat().st_size / 2**20
            print(f"{form} form, {size:.0f} MB, median of {args.repeats}")
            for name in readers:
                median = statistics.median(seconds[name])
                pairs = zip(seconds["ours"], seconds[name], strict=True)
                ratio = statistics.median(ours / other for ours, other in pairs)
                print(
                    f"  {name:16} {median:6.3f} s   ours/this {ratio:5.2f}"
                    f"   peak {measure_peak(name, path) / size:5.2f} x the file"
                )


if __name__ == "__main__":
    main()
