"""The wheel: what it holds, and that it runs where the checkout is not. And the command that it installs."""

import email
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import bert_emd_jax
from bert_emd_jax.commands import bert_emd
from bert_emd_jax.commands.programs import PROGRAMS

ROOT = Path(bert_emd_jax.__file__).parents[1]
if not (ROOT / "pyproject.toml").is_file():
    pytest.skip("the tests run on an installed package", allow_module_level=True)


def call(*command: object, **options) -> str:
    # What the tests' own process needs stays out: the path of the checkout, eight devices.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "XLA"))
    }
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=environment, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The package as a wheel, built from a copy: a `build` directory in the checkout would get into it."""
    setuptools = pytest.importorskip("setuptools")
    if int(setuptools.__version__.partition(".")[0]) < 77:
        pytest.skip("setuptools is older than pyproject.toml asks for")
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(
        ROOT / "bert_emd_jax", source / "bert_emd_jax", ignore=shutil.ignore_patterns("__pycache__")
    )
    call(sys.executable, "-c", "from setuptools import build_meta; build_meta.build_wheel('.')", cwd=source)
    return next(source.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The `bin` of an environment that has the wheel, and this environment's other packages."""
    environment = tmp_path_factory.mktemp("environment")
    call(sys.executable, "-m", "venv", "--without-pip", environment)
    binaries = environment / "bin"
    pip = (sys.executable, "-m", "pip", "--python", binaries / "python", "--disable-pip-version-check")
    call(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel)
    site = call(binaries / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # Paths of a .pth file come last, and .pth files there are not read: the checkout stays unseen.
    (Path(site) / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return binaries


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = email.message_from_bytes(
            next(archive.read(name) for name in archive.namelist() if name.endswith("/METADATA"))
        )
        entry_points = next(
            archive.read(name).decode() for name in archive.namelist() if name.endswith("/entry_points.txt")
        )
    files = (path for path in (ROOT / "bert_emd_jax").rglob("*") if path.is_file())
    assert held == {str(path.relative_to(ROOT)) for path in files if path.parent.name != "__pycache__"}
    assert {"bert_emd_jax/py.typed", "bert_emd_jax/report/run.html"} <= held
    assert metadata["Version"] == bert_emd_jax.__version__
    assert {"cuda", "tpu", "tfds", "tf", "test"} <= set(metadata.get_all("Provides-Extra") or ())
    requirements = metadata.get_all("Requires-Dist") or []
    # An upper bound would replace the JAX that a TPU VM or Colab comes with.
    assert "jax>=0.7.2" in requirements
    assert "bert-emd = bert_emd_jax.commands.bert_emd:main" in entry_points


def test_it_runs_outside_the_checkout(installed, tmp_path, tiny_model_dir):
    model = tiny_model_dir("model", num_hidden_layers=1)
    python = installed / "python"
    where = call(python, "-c", "import bert_emd_jax; print(bert_emd_jax.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    help_text = call(installed / "bert-emd", "--help", cwd=tmp_path)
    assert help_text == call(python, "-m", "bert_emd_jax", "--help", cwd=tmp_path)
    table = call(installed / "bert-emd", "convert", "--input", model, "--inspect", cwd=tmp_path)
    assert "bert.encoder.layer.0" in table


def test_help_names_every_program_and_needs_no_jax():
    code = (
        "import sys, bert_emd_jax.commands.bert_emd as command\n"
        "assert command.main(['--help']) == 0\n"
        "assert not {'jax', 'flax', 'numpy', 'tyro'} & set(sys.modules), 'slow'\n"
    )
    shown = call(sys.executable, "-c", code, cwd=ROOT)
    for program in PROGRAMS:
        assert f"  {program.name} " in shown


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_every_program_answers(program, capsys):
    with pytest.raises(SystemExit) as ended:
        bert_emd.main([program.name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"bert-emd {program.name}" in shown
    assert f"usage: {program.script}" not in shown


def test_a_subcommand_is_its_script(tmp_path, capsys):
    flags = ["--input", str(tmp_path / "nothing"), "--inspect"]
    assert bert_emd.main(["convert", *flags]) == 2
    by_name = capsys.readouterr().err
    done = subprocess.run(
        [sys.executable, ROOT / "convert_pytorch_checkpoints.py", *flags], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert by_name == done.stderr.replace("convert_pytorch_checkpoints.py:", "bert-emd convert:")


def test_what_is_no_program(capsys):
    assert bert_emd.main(["nonsense"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "'nonsense'" in error
    assert "pretrain-data" in error
    assert bert_emd.main([]) == 2
    assert capsys.readouterr().err.startswith("usage: bert-emd")
    assert bert_emd.main(["--version"]) == 0
    assert capsys.readouterr().out == f"bert-emd {bert_emd_jax.__version__}\n"
