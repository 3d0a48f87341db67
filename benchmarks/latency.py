"""Milliseconds of a forward pass: our student and teacher, and the same student in transformers on PyTorch.

    python benchmarks/latency.py [--rounds 30] [--smoke]

TinyBERT-4- and bert-base-sized classifiers with random weights; the student in PyTorch has those of ours, and
the logits are compared. Rows without padding, in batches of 1 and 32, from NumPy arrays to logits in NumPy;
all programs take turns and the medians are printed. PyTorch runs transformers' default attention (the fused
one) in inference mode.
"""

import argparse
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import torch
import transformers
from measuring import (
    CLOCKS,
    SMALL_STUDENT,
    SMALL_TEACHER,
    STUDENT,
    TEACHER,
    median_ratio,
    medians,
    seconds_in_turn,
)

from bert_emd_jax.checkpoints.huggingface import write_huggingface_weights
from bert_emd_jax.devices.machine import load_average, machine
from bert_emd_jax.evaluation.model_cost import logits_on_device
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.heads import SequenceClassifier
from bert_emd_jax.models.initialization import initial_params
from bert_emd_jax.models.params import Params

BATCH_SIZES = (1, 32)
LENGTHS = (16, 64, 128)

Logits = Callable[[dict[str, np.ndarray]], np.ndarray]


def torch_logits(config: EncoderConfig, params: Params) -> Logits:
    with tempfile.TemporaryDirectory() as directory:
        write_huggingface_weights(Path(directory), params, config)
        model = transformers.BertForSequenceClassification.from_pretrained(directory).eval()

    @torch.inference_mode()
    def logits(batch: dict[str, np.ndarray]) -> np.ndarray:
        return model(**{name: torch.from_numpy(values) for name, values in batch.items()}).logits.numpy()

    return logits


def random_batch(rows: int, length: int) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(0).integers(1000, 30000, (rows, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: where others use the machine")
    parser.add_argument("--smoke", action="store_true", help="tiny models, few rounds")
    args = parser.parse_args()
    rounds = 3 if args.smoke else args.rounds
    student, teacher = (SMALL_STUDENT, SMALL_TEACHER) if args.smoke else (STUDENT, TEACHER)
    transformers.utils.logging.disable_progress_bar()
    params = initial_params(student, "classifier", 0)
    models = {
        "student": logits_on_device(SequenceClassifier(student), params),
        "teacher": logits_on_device(SequenceClassifier(teacher), initial_params(teacher, "classifier", 1)),
        "student, torch": torch_logits(student, params),
    }
    load_before = load_average()
    versions = f"jax {jax.__version__}, torch {torch.__version__}, transformers {transformers.__version__}"
    print(versions)
    print(f"{'batch':>5}{'length':>8}" + "".join(f"{name + ', ms':>20}" for name in models), end="")
    print(f"{'torch / ours':>15}{'teacher / student':>19}")
    for rows in BATCH_SIZES:
        for length in LENGTHS:
            batch = random_batch(rows, length)
            answers = {name: logits(batch) for name, logits in models.items()}  # compiles
            np.testing.assert_allclose(answers["student"], answers["student, torch"], atol=1e-5)
            calls = {name: functools.partial(logits, batch) for name, logits in models.items()}
            times = seconds_in_turn(calls, rounds, CLOCKS[args.clock])
            shown = "".join(f"{1e3 * value:>20.2f}" for value in medians(times).values())
            torch_ratio = median_ratio(times["student, torch"], times["student"])
            teacher_ratio = median_ratio(times["teacher"], times["student"])
            print(f"{rows:>5}{length:>8}{shown}{torch_ratio:>15.2f}{teacher_ratio:>19.1f}", flush=True)
    print(f"timed on {machine(jax.local_devices()[0].device_kind, load_before)}")


if __name__ == "__main__":
    main()
