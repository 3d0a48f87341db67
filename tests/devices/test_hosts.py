"""Two processes with two devices each, joined over loopback, against one process with one device."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands.test_answers import write_questions
from commands.test_tokens import write_sentences
from conftest import xla_flags
from texts import write_texts

from bert_emd_jax.checkpoints.model_directory import load_model, save_model
from bert_emd_jax.devices import hosts
from bert_emd_jax.devices.device_config import MultiHostConfig
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.initialization import NewHead
from bert_emd_jax.models.params import flatten

LONGEST_RUN = 300.0
TAGS = ("B-OTHER", "B-THING", "I-THING", "O")


class Job:
    """A distillation of some fifteen steps, without dropout, in one or more processes."""

    def __init__(self, directory: Path, teacher: Path | str, data: Path, *more: str) -> None:
        self.directory = directory
        self.flags = [
            *("--teacher_model", str(teacher), "--student_init_layers", "1,3", "--student_dropout", "0"),
            *("--data_dir", str(data), "--task_name", "custom", "--max_seq_length", "24"),
            *("--learning_rate", "1e-3", "--warmup_proportion", "0", "--log_steps", "1", *more),
        ]

    def start(self, name: str, devices: int, *more: str, processes: int = 1) -> list[subprocess.Popen]:
        code = "import sys; from bert_emd_jax.commands.distill import main; sys.exit(main(sys.argv[1:]))"
        settings = {"XLA_FLAGS": xla_flags(devices)}
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        started = []
        for index in range(processes):
            # Process 1 has an output directory of its own, to see that it writes nothing.
            flags = [*self.flags, "--output_dir", str(self.directory / (name + "_other" * index)), *more]
            if processes > 1:
                flags += ["--coordinator_address", f"localhost:{port}"]
                flags += ["--num_processes", str(processes), "--process_id", str(index)]
            log = self.log(name, index).open("a")
            started.append(
                subprocess.Popen(
                    [sys.executable, "-c", code, *flags], env=os.environ | settings, stdout=log, stderr=log
                )
            )
        return started

    def log(self, name: str, index: int = 0) -> Path:
        return self.directory / f"{name}_{index}.log"

    def finish(self, name: str, devices: int, *more: str, processes: int = 1) -> Path:
        for index, process in enumerate(self.start(name, devices, *more, processes=processes)):
            assert process.wait(LONGEST_RUN) == 0, self.log(name, index).read_text()
        return self.directory / name


@pytest.fixture
def job(tmp_path, task_dir, tiny_model_dir) -> Job:
    learning = ["--train_batch_size", "8", "--num_train_epochs", "3", "--alpha", "0.5"]
    return Job(tmp_path, tiny_model_dir("teacher"), task_dir, *learning)


@pytest.fixture
def embedder_job(tmp_path, embedder_dir) -> Job:
    learning = [
        "--kind",
        "embedding",
        "--train_batch_size",
        "16",
        "--num_train_epochs",
        "2",
        "--similarity_weight",
        "1",
    ]
    columns = ["--text_column", "sentence1", "--text_pair_column", "sentence2", "--label_column", "score"]
    return Job(tmp_path, embedder_dir("teacher"), write_texts(tmp_path / "texts"), *learning, *columns)


def rows(run: Path, kind: str) -> list[dict]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row for row in lines if row["kind"] == kind]


def assert_equal_runs(ours: Path, theirs: Path) -> None:
    """Within 1e-5: losses and scores of every step, and the weights."""
    for kind in ("train", "eval"):
        pairs = list(zip(rows(ours, kind), rows(theirs, kind), strict=True))
        assert len(pairs) >= {"train": 12, "eval": 2}[kind]
        for a, b in pairs:
            for name in a.keys() - {"examples_per_second", "kind", "primary", "best"}:
                assert a[name] == pytest.approx(b[name], rel=1e-5, abs=1e-5), (kind, a["step"], name)
    mine, other = (load_model(run, head=None) for run in (ours, theirs))
    assert rows(ours, "eval")[-1]["epoch"] >= 2
    theirs_by_name = flatten(other.params)
    for name, values in flatten(mine.params).items():
        # No answer depends on this bias: its gradient is rounding alone, which Adam makes as large as others.
        if name != "qa_outputs/bias":
            np.testing.assert_allclose(values, theirs_by_name[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_two_processes_equal_one_and_either_continues_the_other(job):
    one = job.finish("one", devices=1)
    assert_equal_runs(job.finish("two", devices=2, processes=2), one)
    assert not (job.directory / "two_other").exists()

    # A machine is preempted: SIGTERM to one process stops both, with a checkpoint for any number of devices.
    processes = job.start("stopped", 2, "--save_steps", "1", processes=2)
    while len(list((job.directory / "stopped" / "checkpoints").glob("[0-9]*"))) < 2:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)
    assert [process.wait(LONGEST_RUN) for process in processes] == [143, 143]
    assert "SIGTERM at step" in job.log("stopped").read_text()
    assert not (job.directory / "stopped" / "eval_results.json").exists()
    assert_equal_runs(job.finish("stopped", 1, "--resume", "--save_steps", "1"), one)
    assert "resuming at step" in job.log("stopped").read_text()


@pytest.mark.skipif("KILLS" not in os.environ, reason="takes a minute: `make kills`")
def test_an_embedder_by_two_processes_equals_that_of_one(embedder_job):
    one = embedder_job.finish("one", devices=1)
    assert_equal_runs(embedder_job.finish("two", devices=2, processes=2), one)
    scores = [
        json.loads((embedder_job.directory / run / "eval_results.json").read_text()) for run in ("one", "two")
    ]
    for a, b in zip(*(result["test"]["student"]["metrics"].values() for result in scores), strict=True):
        assert a == pytest.approx(b, abs=1e-4)


@pytest.mark.skipif("KILLS" not in os.environ, reason="takes a minute each: `make kills`")
@pytest.mark.parametrize("kind", ["token", "answer"])
def test_words_and_questions_by_two_processes_equal_those_of_one(tmp_path, tiny_model_dir, kind):
    """With two teachers, and some rows without labels, which lie unevenly on the devices."""
    data = {"token": write_sentences, "answer": write_questions}[kind](tmp_path / "data")
    teachers = []
    for seed in (1, 2):
        head = NewHead(2, seed) if kind == "answer" else NewHead(4, seed, TAGS, "token_classification")
        base = tiny_model_dir(f"base{seed}", seed=seed)
        save_model(tmp_path / f"teacher{seed}", load_model(base, head=kind, new_head=head))
        teachers.append(str(tmp_path / f"teacher{seed}"))
    suffix = {"token": "conll", "answer": "json"}[kind]
    flags = ["--kind", kind, "--unlabelled", str(data / f"test.{suffix}"), "--alpha", "0.5"]
    flags += ["--train_batch_size", "16", "--num_train_epochs", "4", "--max_query_length", "6"]
    job = Job(tmp_path, ",".join(teachers), data, *flags)
    one = job.finish("one", devices=1)
    assert_equal_runs(job.finish("two", devices=2, processes=2), one)


@pytest.mark.skipif("KILLS" not in os.environ, reason="in make kills: the others wait half a minute for it")
def test_a_process_that_dies_takes_the_run_down_with_a_message(job):
    processes = job.start("run", 2, "--num_train_epochs", "2000", processes=2)
    while not (job.directory / "run" / "metrics.jsonl").exists():
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    time.sleep(2)
    processes[1].kill()
    died = time.monotonic()
    assert processes[0].wait(LONGEST_RUN) != 0
    assert time.monotonic() - died < 60
    assert "error" in job.log("run").read_text().lower()


def test_a_main_process_that_cannot_start_stops_the_others(job):
    (job.directory / "run").mkdir()
    (job.directory / "run" / "notes.txt").write_text("mine")
    processes = job.start("run", 1, processes=2)
    assert [process.wait(LONGEST_RUN) for process in processes] == [2, 2]
    assert "run is not empty" in job.log("run", 0).read_text()
    assert "the main process cannot go on" in job.log("run", 1).read_text()


def test_half_of_the_flags_are_refused():
    for flags in ({"num_processes": 2}, {"distributed": True, "process_id": 0}):
        with pytest.raises(UserError, match="--coordinator_address, --num_processes and --process_id"):
            hosts.initialize(MultiHostConfig(**flags))
    hosts.initialize(MultiHostConfig())
    assert hosts.is_main()
    assert hosts.on_main(lambda: {"a": 1}) == {"a": 1}
