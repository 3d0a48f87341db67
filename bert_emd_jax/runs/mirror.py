"""A copy of a run's directory in a bucket, for machines that vanish together with their disks."""

import contextlib
import logging
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

from bert_emd_jax.buckets import what_to_install
from bert_emd_jax.devices import hosts
from bert_emd_jax.devices.device_config import MultiHostConfig
from bert_emd_jax.errors import UserError, one_line
from bert_emd_jax.files import replacing
from bert_emd_jax.layout import CHECKPOINTS, RUN_CONFIG, TEACHER_OUTPUTS, WRITTEN
from bert_emd_jax.runs.run_config import RunConfig

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_COPIES = 30.0
_COPIED = tuple(name for name in WRITTEN if name != TEACHER_OUTPUTS)  # these can be computed again
_UNFINISHED = ".orbax-checkpoint-tmp"


@contextlib.contextmanager
def mirrored(output_dir: Path, config: RunConfig, processes: MultiHostConfig) -> Iterator[None]:
    """During a run, and at its end, the main process copies what is new to `config.mirror_dir`.

    Before it, a run to be resumed is fetched from there if it is not in `output_dir`, or not as far.

    Raises:
      UserError: the place cannot be reached, or holds another run.
    """
    if config.mirror_dir is None or config.dry_run:
        yield
        return
    hosts.join(processes)
    copies: Mirror | None = None
    if hosts.is_main():
        copies = Mirror(output_dir, config.mirror_dir)
        copies.prepare(resume=config.resume, overwrite=config.overwrite)
    with copies or contextlib.nullcontext():
        yield


class Mirror:
    """Copies the files of a run directory to a place that `epath` can write to; entered, in the background.

    Only files that have changed are written, checkpoints only when they are complete, and what is gone from
    the directory goes from the copy. What no run writes is left alone. A failed copy is reported, and tried
    again: the run itself continues.
    """

    def __init__(self, directory: Path, place: str) -> None:
        self._directory = directory
        self._place = epath.Path(place)
        self._copied: dict[str, tuple[int, int]] | None = None  # path → size and time of what is there
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._copy_regularly, name="mirror", daemon=True)

    def prepare(self, *, resume: bool, overwrite: bool) -> None:
        """Fetches the run to be resumed if the copy is further; raises UserError as `mirrored` does."""
        flag = f"--mirror_dir {self._place}"
        try:
            is_there = (self._place / RUN_CONFIG).exists()
            if is_there and resume and self._is_further():
                logger.info("fetching the run from %s", self._place)
                there = self._there()
                for path in there:
                    target = self._directory / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with (
                        replacing(target) as temporary,
                        (self._place / path).open("rb") as source,
                        temporary.open("wb") as file,
                    ):
                        shutil.copyfileobj(source, file)
                for path in self._here().keys() - set(there):  # of an earlier part of the run
                    (self._directory / path).unlink()
        except Exception as error:  # every kind of storage raises its own
            raise UserError(f"{flag}: cannot be read ({one_line(error)}){what_to_install(error)}") from error
        if is_there and not (resume or overwrite):
            raise UserError(f"{flag}: holds a run; --resume continues it, --overwrite replaces it")

    def _is_further(self) -> bool:
        """Whether the run has gone on elsewhere since it was here, if it ever was."""
        if not (self._directory / RUN_CONFIG).is_file():
            return True
        return _newest_step(self._place / CHECKPOINTS) > _newest_step(self._directory / CHECKPOINTS)

    def __enter__(self) -> "Mirror":
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        """Copies what there is at the end, also of a run that failed."""
        self._stop.set()
        self._thread.join()
        self._try_to_copy()

    def copy(self) -> None:
        """Makes the copy what the directory is."""
        if self._copied is None:
            self._copied = dict.fromkeys(self._there(), (-1, -1))
        here = self._here()
        for path, state in here.items():
            if self._copied.get(path) != state:
                target = self._place / path
                target.parent.mkdir(parents=True, exist_ok=True)
                # Orbax may delete an old checkpoint at any moment.
                with contextlib.suppress(FileNotFoundError), (self._directory / path).open("rb") as source:
                    with target.open("wb") as file:
                        shutil.copyfileobj(source, file)
                    self._copied[path] = state
        for path in self._copied.keys() - here.keys():
            (self._place / path).unlink(missing_ok=True)
            del self._copied[path]

    def _copy_regularly(self) -> None:
        while not self._stop.wait(_SECONDS_BETWEEN_COPIES):
            self._try_to_copy()

    def _try_to_copy(self) -> None:
        try:
            self.copy()
        except Exception as error:  # every kind of storage raises its own
            logger.warning("%s: the copy of the run is not up to date (%s)", self._place, one_line(error))

    def _here(self) -> dict[str, tuple[int, int]]:
        """The run's finished files, checkpoints after all else: they refer to it."""
        found = {}
        for path in sorted(self._directory.rglob("*"), key=lambda path: (CHECKPOINTS in path.parts, path)):
            relative = path.relative_to(self._directory)
            if relative.parts[0] in _COPIED and not any(map(_is_unfinished, relative.parts)):
                with contextlib.suppress(FileNotFoundError):
                    state = path.stat()
                    if path.is_file():
                        found[relative.as_posix()] = (state.st_size, state.st_mtime_ns)
        return found

    def _there(self) -> list[str]:
        """The files of the copy that a run has written."""
        return [path for name in _COPIED for path in self._files_of(name)]

    def _files_of(self, path: str) -> Iterator[str]:
        # epath's walk forgets the bucket.
        place = self._place / path
        if place.is_dir():
            for child in place.iterdir():
                yield from self._files_of(f"{path}/{child.name}")
        elif place.exists():
            yield path


def _newest_step(checkpoints: Any) -> int:
    """The step of the newest checkpoint in a directory, -1 without any."""
    if not checkpoints.is_dir():
        return -1
    return max((int(child.name) for child in checkpoints.iterdir() if child.name.isdecimal()), default=-1)


def _is_unfinished(name: str) -> bool:
    return name.startswith(".") or _UNFINISHED in name
