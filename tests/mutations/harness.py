"""Reads thousands of damaged files: each must give a result or one line, soon and in little memory."""

import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType

from mutations.mutators import Mutator

from bert_emd_jax.errors import UserError

MEMORY = 300 << 20
"""What reading one of the tiny files may take, in bytes."""
SECONDS = 10.0
"""Of a clock on the wall: tests share the machine."""


class _TooLongError(BaseException):
    """No Exception, so that no reader takes it for its own."""


def refusal(read: Callable[[], object], allowed: Path | None = None) -> str | None:
    """The line with which something is refused, None where it gives a result; fails on anything else."""
    _forget_peak()
    before = _peak()
    with _time_limit(), _watched(allowed) as actions:
        message = None
        try:
            read()
        except UserError as error:
            message = str(error)
        except OSError as error:
            if error.filename is None:  # else the file system's own words with the file, as programs print it
                raise
            message = str(error)
    assert not actions, actions
    if message is not None:
        assert message.isprintable(), f"not one line: {message[:200]!r}"
        assert len(message) < 11_000, f"endless: {message[:200]!r}"
    grown = _peak() - before
    assert grown < MEMORY, f"took {grown >> 20} MB"
    return message


def survives(
    directory: Path,
    files: Mapping[str, bytes],
    name: str,
    read: Callable[[Path], object],
    mutate: Mutator,
    count: int,
    allowed: Path | None = None,
    refuses: bool | None = True,
) -> None:
    """Checks `read(directory)` where `files[name]` is as it should be, damaged in `count` ways, and no file.

    It may write below `allowed`, or else nothing but temporary files. `refuses` says whether some versions
    are refused, or none; None where that may be either.
    """
    pristine = {path: content for path, content in files.items() if path != name}
    path = directory / name
    write_files(directory, files)
    read(directory)
    failures: dict[str, str] = {}
    outcomes: Counter[bool] = Counter()

    def attempt(title: str) -> None:
        try:
            outcomes[refusal(lambda: read(directory), allowed) is None] += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            frames = [
                frame
                for frame in traceback.extract_tb(error.__traceback__)
                if "bert_emd_jax" in frame.filename
            ]
            where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
            failures.setdefault(f"{type(error).__name__} in {where}", f"{str(error)[:200]!r}; {title}")

    for number in range(count):
        content = mutate(files[name], random.Random(f"{name} {number}"))
        _clear(path)
        path.write_bytes(content)
        attempt(f"version {number}: {content[:200]!r}")
    for title, make in _NO_FILES.items():
        _clear(path)
        make(path)
        attempt(title)
    _clear(path)
    assert not failures, "\n".join(f"{kind}: {example}" for kind, example in failures.items())
    assert refuses is None or bool(outcomes[False]) == refuses, outcomes
    assert read_files(directory) == pristine


def write_files(directory: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        _clear(directory / name)
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)


def read_files(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, by its path there."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def _clear(path: Path) -> None:
    """Removes what is there; a file that is mapped is never written over."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


_NO_FILES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "a directory": lambda path: path.mkdir(),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
}


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def stop(signal_number: int, frame: FrameType | None) -> None:
        raise _TooLongError(f"longer than {SECONDS:.0f} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


# Python tells what is opened, started and connected; a hook cannot be taken away again, so it stands by.
_actions: list[str] | None = None
_allowed: tuple[str, ...] = ()
_FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.Popen",
    "socket.connect",
    "socket.getaddrinfo",
)
_CHANGING = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree")


def _note(event: str, arguments: tuple) -> None:
    if _actions is None:
        return
    if event in _FORBIDDEN:
        _actions.append(f"{event} {arguments[:2]}")
    if event.startswith("os.") and arguments[-1] != -1:
        return  # below a directory that shutil.rmtree was told to remove
    changes = event in _CHANGING or (
        event == "open"
        and isinstance(arguments[2], int)
        and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    )
    if changes and isinstance(arguments[0], str | bytes | os.PathLike):
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if not path.startswith(_allowed):
            _actions.append(f"{event} {path}")


sys.addaudithook(_note)


@contextlib.contextmanager
def _watched(allowed: Path | None) -> Iterator[list[str]]:
    """The list grows by everything that is started, connected, or written elsewhere than in `allowed`."""
    global _actions, _allowed
    places = [tempfile.gettempdir(), "/dev/null"] if allowed is None else [str(allowed), "/dev/null"]
    _actions, _allowed = [], tuple(places)
    try:
        yield _actions
    finally:
        _actions = None


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """The most memory of this process since it was last forgotten, in bytes; 0 where nobody knows."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return int(status.split("VmHWM:")[1].split()[0]) << 10
