"""What is said where JAX leaves a GPU or TPU alone; a directory stands for the machine's root."""

from pathlib import Path

import jax
import pytest

from bert_emd_jax.devices import hosts
from bert_emd_jax.devices.accelerators import slow_version, unused_accelerator
from bert_emd_jax.devices.device_config import MultiHostConfig


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with a disk, a null device and one of Google's network cards."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "null").touch()
    (tmp_path / "dev" / "nvidia-caps").mkdir()
    add_pci(tmp_path, "0000:00:04.0", "0x1ae0", "0x0042")
    return tmp_path


def add_pci(root: Path, place: str, vendor: str, device: str) -> None:
    directory = root / "sys" / "bus" / "pci" / "devices" / place
    directory.mkdir(parents=True)
    (directory / "vendor").write_text(f"{vendor}\n")
    (directory / "device").write_text(f"{device}\n")


@pytest.fixture
def jax_may_choose():
    """As if nobody had told JAX to take the CPU, which is all that it has found."""
    told = jax.config.jax_platforms
    assert jax.default_backend() == "cpu"
    jax.config.update("jax_platforms", None)
    yield
    jax.config.update("jax_platforms", told)


@pytest.mark.usefixtures("jax_may_choose")
class TestJaxHasTheCpuAlone:
    def test_a_machine_without_any(self, root):
        assert unused_accelerator(root, {}) is None

    @pytest.mark.parametrize("path", ["dev/nvidia0", "usr/lib/wsl/lib/nvidia-smi"])
    def test_an_nvidia_gpu(self, root, path):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
        message = unused_accelerator(root, {}) or ""
        assert message.startswith("an NVIDIA GPU is here")
        assert "pip install 'jax[cuda]'" in message
        assert "\n" not in message
        for hidden in ("", "-1"):
            assert unused_accelerator(root, {"CUDA_VISIBLE_DEVICES": hidden}) is None
        assert unused_accelerator(root, {"CUDA_VISIBLE_DEVICES": "0"}) == message

    def test_a_tpu(self, root):
        assert unused_accelerator(root, {}) is None
        add_pci(root, "0000:00:05.0", "0x1ae0", "0x0063")
        message = unused_accelerator(root, {}) or ""
        assert message.startswith("a TPU is here")
        assert "pip install 'jax[tpu]'" in message

    def test_a_tpu_by_its_device_file(self, root):
        (root / "dev" / "accel0").touch()
        assert "jax[tpu]" in (unused_accelerator(root, {}) or "")

    def test_a_plugin_that_is_there_is_not_to_be_installed(self, root, tmp_path, monkeypatch):
        (root / "dev" / "accel0").touch()
        (tmp_path / "packages" / "libtpu").mkdir(parents=True)
        (tmp_path / "packages" / "libtpu" / "__init__.py").touch()
        monkeypatch.syspath_prepend(tmp_path / "packages")
        message = unused_accelerator(root, {}) or ""
        assert "pip" not in message
        assert "although libtpu is installed" in message
        assert "jax.devices('tpu')" in message


def test_who_asked_for_the_cpu_is_left_alone(root):
    assert jax.config.jax_platforms  # conftest.py
    (root / "dev" / "nvidia0").touch()
    assert unused_accelerator(root, {}) is None


def test_training_says_it_at_its_start(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(hosts, "unused_accelerator", lambda: "a TPU is here")
    config = MultiHostConfig()
    hosts.logger.addHandler(caplog.handler)
    try:
        hosts.initialize(config)
    finally:
        hosts.logger.removeHandler(caplog.handler)
    assert "a TPU is here" in caplog.messages


def test_a_version_that_is_slow_on_gpus_is_named(monkeypatch):
    assert slow_version("0.10.2") is None  # on this CPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "jaxlib 0.10.2" in (slow_version("0.10.2") or "")
    assert slow_version("0.11.2") is None
