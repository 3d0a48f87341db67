"""The losses of a whole step against the authors' own (tests/transport/fixtures/README.md)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_emd_jax.devices.parallel import DEVICES
from bert_emd_jax.distillation.distill_config import MappingConfig
from bert_emd_jax.distillation.layer_losses import (
    TransportState,
    initial_transport_state,
    layer_losses,
    updated_weights,
)
from bert_emd_jax.models.heads import ModelOutput
from bert_emd_jax.models.initialization import initial_projection
from bert_emd_jax.models.losses import hard_cross_entropy, soft_cross_entropy

TESTS = Path(__file__).parents[1]
LAYERS = np.load(TESTS / "transport" / "fixtures" / "reference_losses.npz")
PREDICTION = np.load(TESTS / "training" / "fixtures" / "reference_prediction.npz")


@pytest.mark.parametrize(
    ("mapping", "rule", "weights"),
    [
        ("emd", "normalize", "shared"),
        *(("emd_exact", rule, "shared") for rule in ("normalize", "softmax", "double_softmax")),
        *(("emd_exact", rule, "separate") for rule in ("normalize", "softmax", "double_softmax")),
    ],
)
def test_four_steps_of_layer_losses_and_cost_attention(mapping, rule, weights):
    config = MappingConfig(
        mapping=mapping,
        padding="include",
        layer_weight_rule=rule,
        emd_temperature=5.0,
        separate_layer_weights=weights == "separate",
        use_embedding=False,
    )
    students, teachers, width = 4, 12, LAYERS["student_hidden_states"].shape[-1]

    def one_device(_, layer_weights, student, teacher, micro):
        projection = initial_projection(width, width, 0)  # the identity: equal widths
        start = TransportState(layer_weights)
        _, terms, plans = layer_losses(projection, student, teacher, micro, start, None, config)
        stacked = jax.tree.map(lambda leaf: leaf[None], plans)
        updated = updated_weights(layer_weights, stacked, jnp.ones(1), config)
        return terms, updated

    step = jax.pmap(one_device, axis_name=DEVICES, in_axes=(0, None, None, None, None), out_axes=None)
    one = np.zeros(1)
    layer_weights = initial_transport_state(config, students, teachers).weights
    mask = LAYERS["attention_mask"]
    micro = {"attention_mask": mask, "weights": np.ones(len(mask), np.float32)}
    key = f"{rule}/T5/{weights}"
    for index in range(4):
        student, teacher = (
            ModelOutput(
                LAYERS[f"{side}_hidden_states"][index][0],
                LAYERS[f"{side}_hidden_states"][index][1:],
                LAYERS[f"{side}_attention_scores"][index],
                np.zeros((len(mask), 1), np.float32),
                np.zeros((len(mask), 1), np.float32),
            )
            for side in ("student", "teacher")
        )
        terms, layer_weights = jax.device_get(step(one, layer_weights, student, teacher, micro))
        for kind in ("attention", "hidden"):
            expected = LAYERS[f"{key}/{kind}_loss"][index]
            np.testing.assert_allclose(terms[f"{kind}_loss"], expected, rtol=1e-4)
        np.testing.assert_allclose(
            np.concatenate(jax.tree.leaves(layer_weights)),
            LAYERS[f"{key}/layer_weights"][index],
            atol=1e-5,
        )


@pytest.mark.parametrize("temperature", [1, 3])
@pytest.mark.parametrize("alpha", [1, 0.7])
def test_prediction_loss(temperature, alpha):
    total, _, hard = PREDICTION[f"prediction/T{temperature}/alpha{alpha}"]
    ours_soft = soft_cross_entropy(
        PREDICTION["student_logits"], PREDICTION["teacher_logits"], temperature
    ).mean()
    ours_hard = hard_cross_entropy(PREDICTION["student_logits"], PREDICTION["labels"]).mean()
    np.testing.assert_allclose(ours_hard, hard, rtol=1e-5)
    np.testing.assert_allclose(alpha * ours_soft + (1 - alpha) * ours_hard, total, rtol=1e-5)
