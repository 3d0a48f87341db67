"""What is wrong with an accelerator, said once: one that JAX does not use, or that its version makes slow."""

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

import jax
import jaxlib.version

_SLOW_SCATTERS = ("0.10.2", "0.11.0")
# The second: Linux under Windows. Not proc/driver/nvidia, which containers show that were given no GPU.
_NVIDIA_DEVICES = ("dev/nvidia[0-9]*", "usr/lib/wsl/lib/nvidia-smi")
_GOOGLE = "0x1ae0"
# PCI device ids of v2 to 7x, those of jax/_src/hardware_utils.py; Google's network cards have others.
_TPU_CHIPS = ("0x0027", "0x0056", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076")


def unused_accelerator(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> str | None:
    """A line for the log where JAX has nothing but the CPU of a machine that has a GPU or TPU; else None.

    None too where the user has told JAX to leave it alone. Starts JAX's devices. `root` is where `dev` and
    `sys` are.
    """
    told = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
    if told or jax.default_backend() != "cpu":
        return None
    if _has_tpu(root):
        return _advice("a TPU", "tpu", ("libtpu",))
    hidden = environment.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")
    if not hidden and any(any(root.glob(pattern)) for pattern in _NVIDIA_DEVICES):
        return _advice("an NVIDIA GPU", "cuda", ("jax_cuda12_plugin", "jax_cuda13_plugin"))
    return None


def slow_version(version: str | None = None) -> str | None:
    """A line for the log where a GPU meets a jaxlib that is known to be slow on it; else None."""
    version = version or jaxlib.version.__version__
    if jax.default_backend() != "gpu" or version not in _SLOW_SCATTERS:
        return None
    return (
        f"jaxlib {version} adds rows on a GPU hundreds of times more slowly than others (openxla/xla issue"
        " 46225); training does without, but pip install -U 'jax[cuda]' is worth it"
    )


def _has_tpu(root: Path) -> bool:
    if any(root.glob("dev/accel[0-9]*")):
        return True
    return any(
        _first_line(device / "vendor") == _GOOGLE and _first_line(device / "device") in _TPU_CHIPS
        for device in root.glob("sys/bus/pci/devices/*")
    )


def _first_line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _advice(what: str, extra: str, plugins: tuple[str, ...]) -> str:
    found = next((plugin for plugin in plugins if importlib.util.find_spec(plugin)), None)
    if found is not None:
        return (
            f"{what} is here, but JAX uses the CPU, although {found} is installed;"
            f" python -c \"import jax; jax.devices('{extra}')\" says why"
        )
    return (
        f"{what} is here, but JAX uses the CPU: pip install 'jax[{extra}]' adds what the installed JAX lacks"
        " (JAX_PLATFORMS=cpu where the CPU is meant)"
    )
