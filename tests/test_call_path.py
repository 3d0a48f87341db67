"""From `run_distill.py` to the function that is differentiated it is a short way."""

import os
import subprocess
import sys
from pathlib import Path

import bert_emd_jax

ROOT = Path(bert_emd_jax.__file__).parents[1]
# Runs the program with a loss that raises, and prints the package's frames between the program and the loss.
RAISES_IN_THE_LOSS = """
import runpy, sys, traceback
from pathlib import Path
import bert_emd_jax
from bert_emd_jax.distillation.trainer import DistillTrainer, LayerTrainer

class Reached(Exception):
    pass

def own_loss(self, *_):
    raise Reached

DistillTrainer.own_loss = own_loss
try:
    runpy.run_path(sys.argv.pop(1), run_name="__main__")
except Reached as error:
    package = Path(bert_emd_jax.__file__).parent
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename).is_relative_to(package):
            print("frame", Path(frame.filename).relative_to(package).as_posix(), frame.name)
"""


def test_six_frames_in_four_files(tmp_path, tiny_model_dir, task_dir):
    flags = ["--teacher_model", str(tiny_model_dir("teacher")), "--student_init_layers", "1,3"]
    flags += ["--data_dir", str(task_dir), "--task_name", "custom", "--max_seq_length", "24"]
    flags += ["--output_dir", str(tmp_path / "student")]
    done = subprocess.run(
        [sys.executable, "-c", RAISES_IN_THE_LOSS, str(ROOT / "run_distill.py"), *flags],
        env=os.environ | {"JAX_TRACEBACK_FILTERING": "off"},
        capture_output=True,
        text=True,
    )
    frames = [tuple(line.split()[1:]) for line in done.stdout.splitlines() if line.startswith("frame ")]
    assert frames, done.stderr
    assert frames[0] == ("commands/distill.py", "main")
    assert frames[-1] == ("distillation/trainer.py", "loss")
    assert len(frames) <= 6, frames
    assert len({file for file, _ in frames}) <= 4, frames
