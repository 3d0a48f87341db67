"""The authors' values behind --preset, and what run_config.json says of each flag's origin."""

import pytest

from bert_emd_jax.commands.flags import parse_flags
from bert_emd_jax.configs import all_flags
from bert_emd_jax.distillation.distill_config import DistillConfig
from bert_emd_jax.distillation.presets import preset_values, with_preset_flags
from bert_emd_jax.errors import UserError

REQUIRED = "--teacher_model t --student_config s --data_dir d --output_dir o"


def parsed(text: str) -> DistillConfig:
    args = with_preset_flags(f"{REQUIRED} {text}".split())
    return parse_flags(DistillConfig, args, "run_distill.py", "")


@pytest.mark.parametrize("spelling", ["mrpc", "MRPC"])
def test_a_preset_sets_five_flags_and_a_flag_given_by_hand_wins(spelling):
    config = parsed(f"--temperature 3 --preset bert_emd_4 --task-name={spelling}")
    # Not the defaults: 0.001, 10 and 2e-5 are the authors' values for a student of 4 layers on MRPC.
    assert (config.prediction.beta, config.layers.emd_temperature) == (0.001, 10)
    assert config.optimizer.learning_rate == 2e-5
    assert (config.prediction.alpha, config.prediction.temperature) == (1, 3)
    sources = config.sources()
    assert sources["beta"] == sources["alpha"] == "preset bert_emd_4"
    assert sources["temperature"] == sources["task_name"] == "given"
    assert sources["seed"] == "default"
    assert sources.keys() == {flag.name for flag in all_flags(DistillConfig)} == config.flags().keys()


def test_by_hand_means_by_hand_also_at_the_usual_default():
    config = parsed("--preset bert_emd_6 --task_name sst-2 --beta 0.01")
    assert config.prediction.beta == 0.01
    assert config.sources()["beta"] == "given"


def test_without_a_preset_nothing_changes():
    config = parsed("--task_name mrpc")
    assert (config.prediction.beta, config.optimizer.learning_rate) == (0.01, 3e-5)
    assert config.sources()["beta"] == "default"


def test_the_same_values_in_python():
    values = preset_values("bert_emd_6", "Sts_B")
    expected = {"alpha": 1, "beta": 0.005, "emd_temperature": 1, "temperature": 1, "learning_rate": 3e-5}
    assert values == expected


def test_tasks_without_values_are_refused():
    with pytest.raises(UserError, match="has no values for wnli, only for CoLA, MNLI"):
        parsed("--preset bert_emd_4 --task_name wnli")
    with pytest.raises(UserError, match="bert_emd_5: unknown; choose one of bert_emd_4, bert_emd_6"):
        preset_values("bert_emd_5", "mrpc")
