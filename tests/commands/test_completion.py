"""bert-emd completion: what bash, zsh and fish complete, asked in the shells themselves."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bert_emd_jax.commands.completion import script
from bert_emd_jax.transport.mappings import MAPPINGS


def completed_by_bash(words: list[str], source: Path, shell: str = "bash") -> set[str]:
    listed = " ".join(map(shlex.quote, words))
    asked = f"COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}; _bert_emd; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(
        [shell, "-c", f"source {source}; {asked}"], capture_output=True, text=True, check=True
    )
    assert not done.stderr
    return set(done.stdout.split())


def test_bash(tmp_path: Path):
    source = tmp_path / "bert-emd.bash"
    source.write_text(script("bash"))
    assert completed_by_bash(["bert-emd", "d"], source) == {"distill", "data", "demo", "demo-embeddings"}
    assert completed_by_bash(["bert-emd", "distill", "--mapping", ""], source) == set(MAPPINGS)
    assert completed_by_bash(["bert-emd", "eval", "--form"], source) == {"--format"}
    assert completed_by_bash(["bert-emd", "list", "mapp"], source) == {"mappings"}
    flags = completed_by_bash(["bert-emd", "distill", "--"], source)
    assert {"--teacher_model", "--pregenerated_data", "--no_use_hidden", "--config"} <= flags
    assert completed_by_bash(["bert-emd", "distill", "--teacher_model", ""], source) == set()  # files


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_take_the_script(tmp_path: Path, shell: str):
    source = tmp_path / "completions"
    source.write_text(script(shell))
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    subprocess.run([shell, "-n", str(source)], check=True)
    if shell == "fish":
        command = f"source {source}; complete -C 'bert-emd distill --mapping cap'"
        done = subprocess.run([shell, "-c", command], capture_output=True, text=True, check=True)
        assert "capped" in done.stdout


def test_it_needs_no_jax():
    code = (
        "import sys; from bert_emd_jax.commands.completion import script; script('bash');"
        " sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
