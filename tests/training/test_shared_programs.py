"""Runs that differ in numbers alone lower to one and the same program, which is compiled once."""

import dataclasses
from typing import Any

import jax
import pytest
from distillation.test_distill_step import config, trainer_of
from training_steps import pmap_on, split, uneven_batch

from bert_emd_jax.training.finetune import FinetuneTrainer
from bert_emd_jax.training.training_config import FinetuneConfig

BATCH = split(uneven_batch(), 1)


def lowered(trainer) -> str:
    step = pmap_on(trainer.update, 1)
    return step.lower(trainer.initial_state(), jax.device_get(trainer.constants(0)), BATCH).as_text()


def distillation(**flags: Any) -> str:
    return lowered(trainer_of(config(**flags)))


@pytest.fixture(scope="module")
def program() -> str:
    return distillation()


NUMBERS = {
    **{"learning_rate": 7e-4, "num_train_epochs": 7, "warmup_proportion": 0.5, "seed": 7},
    **{"beta": 10.0, "alpha": 0.2, "temperature": 5.0},
}


def test_numbers_are_arguments(program):
    assert distillation(**NUMBERS) == program


def test_what_is_computed_otherwise_is_another_program(program):
    assert distillation(mapping="uniform") != program
    assert distillation(weight_decay=0.02) != program


def test_fixed_mappings_are_one_program():
    uniform = distillation(mapping="uniform")
    for mapping in ("last", "random"):
        assert distillation(mapping=mapping) == uniform


def test_learned_layer_weights_have_a_rate_that_is_an_argument():
    flags = {"layer_weight_rule": "learned"}
    assert distillation(**flags, layer_weight_learning_rate=0.5) == distillation(**flags, learning_rate=0.1)


def test_fine_tuning_shares_programs_too():
    of_student = trainer_of(config())
    flags = {"bert_model": "b", "data_dir": "d", "task_name": "sst-2", "output_dir": "o"}

    def program(**more: Any) -> str:
        model = dataclasses.replace(of_student.model, projection=None)
        return lowered(FinetuneTrainer(FinetuneConfig(**flags, **more), model, of_student.data))

    assert program() == program(learning_rate=7e-4, num_train_epochs=9, seed=3)
