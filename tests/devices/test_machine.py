"""What is said of the machine that something was timed on."""

import json
import os
from dataclasses import replace

import pytest

from bert_emd_jax.devices.machine import Machine, load_average, machine, processor_name

QUIET = Machine("cpu", "Some Processor", 2, 2, load_before=0.2, load_after=0.9)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "Some Processor, 2 cores; load 0.2 before, 0.9 after"),
        ({"load_after": 1.1}, "load 0.2 before, 1.1 after: busy"),
        ({"load_before": 1.1}, "load 1.1 before, 0.9 after: busy"),
        ({"machine_cores": 8, "load_after": 3.9}, "2 of 8 cores; load 0.2 before, 3.9 after"),
        ({"cores": 1, "machine_cores": 1, "load_after": 0.4}, "1 core; load 0.2 before, 0.4 after"),
        ({"device": "TPU v4"}, "TPU v4, beside Some Processor, 2 cores;"),
        ({"load_before": None}, "load unknown"),
    ],
)
def test_words(changes: dict, words: str):
    described = replace(QUIET, **changes)
    assert words in str(described)
    assert ("busy" in str(described)) == ("busy" in words)
    assert Machine.from_json(json.loads(json.dumps(described.as_json()))) == described


def test_this_machine():
    described = machine("cpu", load_average())
    assert described.machine_cores == os.cpu_count()
    assert 1 <= described.cores <= described.machine_cores
    assert described.processor == processor_name() != ""
    assert described.load_after == pytest.approx(os.getloadavg()[0], abs=0.5)


def test_a_system_without_loads(monkeypatch):
    monkeypatch.delattr(os, "getloadavg")
    assert machine("cpu", load_average()).load_text == "load unknown"
