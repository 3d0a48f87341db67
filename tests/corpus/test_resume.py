"""Runs that were killed: what they leave is used, and the end is the same."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from corpora import write_corpus

from bert_emd_jax.commands.pretrain_data import main
from bert_emd_jax.corpus import writing

# A run that is killed after so many blocks. Its worker processes read this file too, hence the guard.
KILLED_RUN = """
import os, signal, sys
from bert_emd_jax.commands import pretrain_data
from bert_emd_jax.corpus import writing

if __name__ == "__main__":
    finish_block = writing._UnfinishedEpoch.finish_block
    blocks = int(sys.argv.pop(1))

    def finish_and_die(self, examples):
        global blocks
        finish_block(self, examples)
        blocks -= 1
        if blocks == 0:
            self.append([b"part of a block"] * len(self._files))
            for file in self._files:
                file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    writing._UnfinishedEpoch.finish_block = finish_and_die
    sys.exit(pretrain_data.main())
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Four blocks of sentences."""
    generator = np.random.default_rng(0)
    words = generator.choice(["the", "cat", "sat", "on", "mat", "unaffable"], (4000, 7, 3))
    documents = ["\n".join(" ".join(sentence) for sentence in document) for document in words]
    return write_corpus(tmp_path_factory.mktemp("corpus"), "\n\n".join(documents))


def flags(corpus: Path, model: Path, output: Path, *more: str) -> list[str]:
    given = ["--train_corpus", corpus, "--bert_model", model, "--output_dir", output]
    settings = ["--epochs_to_generate", "2", "--max_seq_len", "32", "--masked_lm_prob", "0.15"]
    return [*map(str, given), *settings, *more]


def tree_of(directory: Path) -> dict[str, bytes]:
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def run_and_kill(tmp_path: Path, blocks: int, arguments: list[str]) -> None:
    program = tmp_path / "killed_run.py"
    program.write_text(KILLED_RUN)
    command = [sys.executable, program, str(blocks), *arguments]
    # Worker processes that stayed behind would keep the pipe open.
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("more", [("--format", "jsonl"), ("--format", "arrays", "--num_workers", "2")])
def test_a_killed_run_goes_on(tmp_path, corpus, vocabulary_directory, more, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(flags(corpus, vocabulary_directory, whole, *more)) == 0
    arguments = flags(corpus, vocabulary_directory, killed, *more)
    run_and_kill(tmp_path, 6, arguments)  # the first epoch is complete, the second half done
    assert (killed / "epoch_0_metrics.json").is_file()
    assert (killed / "epoch_1.partial" / "log.jsonl").read_text().count("\n") == 2
    finished = []
    finish_block = writing._UnfinishedEpoch.finish_block
    monkeypatch.setattr(
        writing._UnfinishedEpoch,
        "finish_block",
        lambda self, examples: finished.append(examples) or finish_block(self, examples),
    )
    assert main([*arguments, "--resume"]) == 0
    assert len(finished) == 2
    assert tree_of(killed) == tree_of(whole)
    assert main([*arguments, "--resume"]) == 0  # nothing is left to do
    assert len(finished) == 2
    assert main([*arguments, "--resume", "--epochs_to_generate", "3"]) == 0
    assert len(finished) == 6
    assert tree_of(whole).items() <= tree_of(killed).items()


def test_files_shorter_than_the_log(tmp_path, corpus, vocabulary_directory):
    """A machine that goes down may lose the end of a file but keep the log."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(flags(corpus, vocabulary_directory, whole)) == 0
    arguments = flags(corpus, vocabulary_directory, killed)
    run_and_kill(tmp_path, 3, arguments)
    partial = killed / "epoch_0.partial"
    sizes = [json.loads(line)[2][0] for line in (partial / "log.jsonl").read_text().splitlines()]
    os.truncate(partial / "examples.json", sizes[1] + 10)
    with (partial / "log.jsonl").open("a") as log:
        log.write("[4, 99")  # and a line of the log may be cut off
    assert main([*arguments, "--resume"]) == 0
    assert tree_of(killed) == tree_of(whole)


def test_a_tokenised_corpus_is_kept(tmp_path, corpus, vocabulary_directory, monkeypatch):
    output = tmp_path / "out"
    arguments = flags(corpus, vocabulary_directory, output, "--reduce_memory")
    run_and_kill(tmp_path, 1, arguments)
    assert (output / ".corpus" / "tokens.bin").is_file()
    monkeypatch.setattr("bert_emd_jax.commands.pretrain_data.tokenize_corpus", None)
    assert main([*arguments, "--resume"]) == 0
    assert not (output / ".corpus").exists()


@pytest.mark.parametrize(
    ("more", "name"),
    [
        (("--seed", "1"), "seed"),
        (("--format", "arrays"), "format"),
        (("--max_seq_len", "64", "--one_seq"), "max_seq_len, one_seq"),
        (("--no_do_lower_case",), "bert_model"),
    ],
)
def test_other_flags_do_not_go_on(tmp_path, corpus, vocabulary_directory, capsys, more, name):
    output = tmp_path / "out"
    small = write_corpus(tmp_path, "the cat\n\nsat\n")
    assert main(flags(small, vocabulary_directory, output)) == 0
    before = tree_of(output)
    assert main(flags(small, vocabulary_directory, output, "--resume", *more)) == 2
    assert f"made with another {name};" in capsys.readouterr().err
    write_corpus(tmp_path, "the cat\n\nsat \n")
    assert main(flags(small, vocabulary_directory, output, "--resume")) == 2
    assert "made with another train_corpus;" in capsys.readouterr().err
    assert tree_of(output) == before


def test_a_full_disk_is_one_line(tmp_path, corpus, vocabulary_directory):
    """A limit on the size of files fails like a full disk; afterwards the run continues."""
    whole, output = tmp_path / "whole", tmp_path / "out"
    assert main(flags(corpus, vocabulary_directory, whole)) == 0
    arguments = flags(corpus, vocabulary_directory, output)
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000)); "
        "from bert_emd_jax.commands.pretrain_data import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("File too large; put that right and go on with --resume")
    assert "Traceback" not in done.stderr
    assert main([*arguments, "--resume"]) == 0
    assert tree_of(output) == tree_of(whole)
