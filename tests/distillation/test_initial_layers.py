"""Layers of the teacher that a student begins with, by number and by name."""

import json
import re

import numpy as np
import pytest
from commands.test_programs import distill_flags

from bert_emd_jax.checkpoints.model_directory import load_model
from bert_emd_jax.commands import distill
from bert_emd_jax.distillation.initial_layers import INITIAL_LAYERS, initial_layers
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.params import flatten


@pytest.mark.parametrize(
    ("name", "count", "depth", "layers"),
    [
        ("uniform", 4, 12, [2, 5, 8, 11]),
        ("uniform", 3, 6, [1, 3, 5]),
        ("lower", 4, 12, [0, 1, 2, 3]),
        ("upper", 4, 12, [8, 9, 10, 11]),
        ("alternate", 6, 12, [0, 2, 4, 6, 8, 10]),
        ("alternate", 3, 6, [0, 2, 4]),
        ("alternate", 4, 6, [0, 1, 3, 4]),
        ("uniform", None, 12, [1, 3, 5, 7, 9, 11]),
        ("upper", None, 1, [0]),
    ],
)
def test_names(name, count, depth, layers):
    assert initial_layers((name,), count, depth) == tuple(layers)


def test_every_name_takes_different_layers_of_any_teacher():
    for name in INITIAL_LAYERS:
        for depth in range(1, 30):
            for count in range(1, depth + 1):
                layers = initial_layers((name,), count, depth)
                assert len(set(layers)) == count
                assert list(layers) == sorted(layers)
                assert 0 <= layers[0] <= layers[-1] < depth


@pytest.mark.parametrize(
    ("given", "count", "message"),
    [
        ((1, 6), None, "--student_init_layers 1,6: the teacher has layers 0 to 5; choose among them"),
        ((-1,), None, "the teacher has layers 0 to 5"),
        ((1, 3), 3, "--student_layers 3: --student_init_layers 1,3 are 2"),
        (("uniform",), 7, "--student_layers 7: the teacher has 6"),
        (
            ("unifrom",),
            None,
            "give numbers, or one of uniform, lower, upper, alternate; did you mean uniform",
        ),
        (("upper", "lower"), None, "give numbers, or one of"),
        ((1, "upper"), None, "give numbers, or one of"),
    ],
)
def test_mistakes(given, count, message):
    with pytest.raises(UserError, match=message):
        initial_layers(given, count, 6)


def test_from_the_command_line(tmp_path, task_dir, tiny_model_dir, capsys):
    teacher, run = tiny_model_dir("teacher"), tmp_path / "run"
    more = (
        "--student_init_layers",
        "upper",
        "--student_layers",
        3,
        "--max_steps",
        1,
        "--learning_rate",
        1e-12,
    )
    assert distill.main(distill_flags(teacher, task_dir, run, *more)) == 0
    ours, theirs = load_model(run), load_model(teacher)
    assert ours.config.num_hidden_layers == 3
    kept, whole = (flatten(model.params["bert"]) for model in (ours, theirs))
    for name, values in kept.items():
        layer = re.match(r"layer_(\d)/", name)
        source = name if layer is None else name.replace(layer[0], f"layer_{int(layer[1]) + 1}/")
        np.testing.assert_allclose(values, whole[source], atol=1e-6)
    assert json.loads((run / "run_config.json").read_text())["flags"]["student_init_layers"] == ["upper"]
    capsys.readouterr()
    wrong = distill_flags(teacher, task_dir, tmp_path / "o", "--student_init_layers", "1,x")
    assert distill.main(wrong) == 2
    assert "--student_init_layers 1,x: give numbers, or one of uniform" in capsys.readouterr().err
