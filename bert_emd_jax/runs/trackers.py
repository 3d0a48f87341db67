"""Where a run can be watched beside its own files: TensorBoard, Weights & Biases."""

import contextlib
import functools
import secrets
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8

from bert_emd_jax import layout
from bert_emd_jax.errors import UserError, one_line

Picture = UInt8[np.ndarray, "height width rgb"]


class Tracker(Protocol):
    """Takes numbers and pictures of a run as they come; steps never fall."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

    def picture(self, step: int, name: str, pixels: Picture) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """TensorBoard's event files, written without TensorFlow."""

    def __init__(self, directory: Path, resume_step: int) -> None:
        self._directory, self._resume_step = directory, resume_step

    @functools.cached_property
    def _events(self) -> Any:
        """Opened with the first number, not before the first step."""
        with _hidden("torch"):  # which tensorboardX imports if it can: seconds and 200 MB for nothing
            from tensorboardX import SummaryWriter

        return SummaryWriter(str(self._directory / layout.TENSORBOARD), purge_step=self._resume_step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def picture(self, step: int, name: str, pixels: Picture) -> None:
        self._events.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        if "_events" in vars(self):
            self._events.close()


@contextlib.contextmanager
def _hidden(name: str) -> Iterator[None]:
    """A module that is not imported yet cannot be, for a while."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        del sys.modules[name]


class WeightsAndBiases:
    """A run of a Weights & Biases project; a resumed run continues the one that it began."""

    def __init__(self, directory: Path, project: str, settings: Mapping[str, Any]) -> None:
        """Raises UserError where the library is missing or does not let us in."""
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise UserError("--wandb: not installed; pip install 'bert_emd_jax[wandb]' brings it") from None
        files = directory / layout.WANDB
        files.mkdir(exist_ok=True)
        id_file = files / "run_id"
        run_id = id_file.read_text(encoding="utf-8") if id_file.is_file() else secrets.token_hex(4)
        try:
            self._run = wandb.init(
                project=project,
                dir=directory,
                id=run_id,
                resume="allow",
                name=settings.get("run_name") or directory.resolve().name,
                config=dict(settings),
            )
        except wandb.Error as error:
            raise UserError(
                f"--wandb {project}: {one_line(error)}; run `wandb login`, or set WANDB_MODE=offline"
            ) from None
        id_file.write_text(run_id, encoding="utf-8")
        self._image = wandb.Image
        # Its own count of calls would drop the steps that a resumed run does again.
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def picture(self, step: int, name: str, pixels: Picture) -> None:
        self._run.log({"step": step, name: self._image(pixels)})

    def close(self) -> None:
        self._run.finish()
