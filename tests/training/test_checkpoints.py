"""Checkpoints on a disk that lies: every damaged file is noticed, named, and an older checkpoint taken."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from bert_emd_jax.errors import UserError
from bert_emd_jax.training.checkpoints import Checkpoints, DamagedCheckpoint, Progress
from bert_emd_jax.training.state import TrainState, create_state

PENDING = [{"loss": 0.1 + 0.2, "soft_loss": None}]


def state_at(step: int) -> TrainState:
    rng = np.random.default_rng(step)
    params = {"dense": {"kernel": rng.normal(size=(40, 30)).astype(np.float32)}}
    state = create_state(params, optax.adamw(1e-3), seed=0)
    return state.replace(step=np.int32(step))


@pytest.fixture
def three_checkpoints(tmp_path: Path) -> Path:
    """Steps 2, 4 (the best) and 6."""
    directory = tmp_path / "checkpoints"
    checkpoints = Checkpoints(directory)
    for step in (2, 4, 6):
        checkpoints.save(state_at(step), Progress(0.5, min(step, 4), PENDING, evaluation_due=step == 6))
    checkpoints.close()
    return directory


def restored_step(directory: Path) -> int:
    checkpoints = Checkpoints(directory)
    try:
        restored = checkpoints.restore_newest(state_at(0))
        return 0 if restored is None else int(restored.state.step)
    finally:
        checkpoints.close()


def test_what_was_saved_comes_back(three_checkpoints):
    checkpoints = Checkpoints(three_checkpoints)
    state, progress = checkpoints.restore_newest(state_at(0))
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, state, state_at(6))
    assert progress == Progress(0.5, 4, PENDING, evaluation_due=True)
    # The last two are kept; 4 is also the best.
    assert sorted(path.name for path in three_checkpoints.iterdir() if path.name.isdigit()) == ["4", "6"]


def test_no_checkpoint_is_no_error(tmp_path):
    assert restored_step(tmp_path / "checkpoints") == 0


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["flipped", "truncated", "empty", "deleted"])
def test_damage_to_any_file_is_noticed_or_harmless(three_checkpoints, tmp_path, how):
    """Whatever file of the newest checkpoint is damaged: its exact content comes back, or the older one's."""
    files = [path.relative_to(three_checkpoints) for path in (three_checkpoints / "6").rglob("*")]
    files = [path for path in files if (three_checkpoints / path).is_file()]
    assert len(files) > 5
    noticed = 0
    for number, file in enumerate(files):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(three_checkpoints, copy)
        damage(copy / file, how)
        checkpoints = Checkpoints(copy)
        state, progress = checkpoints.restore_newest(state_at(0))
        checkpoints.close()
        jax.tree.map(np.testing.assert_array_equal, state, state_at(int(state.step)))
        assert progress.evaluation_due == (state.step == 6)
        noticed += state.step == 4
    assert noticed >= 3  # the arrays and the progress at least


def test_flipped_bits_in_the_arrays_are_noticed(three_checkpoints):
    """Orbax alone restores some of these without a word."""
    data = max((three_checkpoints / "6").rglob("*"), key=lambda path: path.stat().st_size)
    original = data.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(original), 20):
        changed = bytearray(original)
        changed[place] ^= 1 << rng.integers(8)
        data.write_bytes(changed)
        checkpoints = Checkpoints(three_checkpoints)
        try:
            state = checkpoints.restore(6, state_at(0)).state
            jax.tree.map(np.testing.assert_array_equal, state, state_at(6))  # padding between arrays
        except DamagedCheckpoint:
            pass
        checkpoints.close()
    data.write_bytes(original)
    assert restored_step(three_checkpoints) == 6


def test_the_damaged_one_is_named_and_makes_room(three_checkpoints, caplog):
    shutil.rmtree(three_checkpoints / "6" / "state")
    with caplog.at_level(logging.WARNING):
        checkpoints = Checkpoints(three_checkpoints)
        state, progress = checkpoints.restore_newest(state_at(0))
    assert state.step == 4
    assert f"{three_checkpoints / '6'}: damaged checkpoint" in caplog.text
    checkpoints.save(state_at(6), progress)
    checkpoints.close()
    assert restored_step(three_checkpoints) == 6


def test_a_damaged_best_model_gives_way_to_the_newest(three_checkpoints, caplog):
    shutil.rmtree(three_checkpoints / "4" / "state")
    checkpoints = Checkpoints(three_checkpoints)
    with caplog.at_level(logging.WARNING):
        state = checkpoints.best_or_newest(4, state_at(0))
    checkpoints.close()
    assert state.step == 6
    assert "the best model's checkpoint is damaged" in caplog.text


def test_only_damaged_checkpoints_are_an_error(three_checkpoints):
    for step in (4, 6):
        damage(next((three_checkpoints / str(step) / "progress").iterdir()), "truncated")
    with pytest.raises(UserError, match="none of the checkpoints of steps 4, 6 is intact; --overwrite"):
        restored_step(three_checkpoints)


def test_a_full_disk_is_said_before_anything_is_written(three_checkpoints, monkeypatch):
    usage = shutil.disk_usage(three_checkpoints)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    checkpoints = Checkpoints(three_checkpoints)
    with pytest.raises(UserError, match=r"takes 0 MB, the disk has 0 MB left; .* --resume"):
        checkpoints.save(state_at(8), Progress())
    checkpoints.close()
    assert restored_step(three_checkpoints) == 6


def test_a_write_that_fails_halfway_is_named_and_leaves_the_others(three_checkpoints):
    """A limit on the size of files stands for a quota, which no look at the free space foresees."""
    code = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
from pathlib import Path
from test_checkpoints import Checkpoints, Progress, UserError, state_at
checkpoints = Checkpoints(Path({str(three_checkpoints)!r}))
try:
    checkpoints.save(state_at(8), Progress())
    checkpoints.wait()
except UserError as error:
    print("said:", error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    said = [line for line in done.stdout.splitlines() if line.startswith("said:")]
    assert len(said) == 1, done.stderr
    assert "a checkpoint could not be written; complete ones are intact" in said[0]
    assert restored_step(three_checkpoints) == 6
