"""Capped transport in training: teacher layers keep their share, so that none is lost for good."""

import jax.numpy as jnp
import numpy as np
import pytest
from distillation.test_distill_step import TEACHER_LAYERS, config, run_steps

from bert_emd_jax.distillation.distill_config import MappingConfig
from bert_emd_jax.distillation.layer_losses import LayerPlans, initial_transport_state, updated_weights
from bert_emd_jax.transport import capped
from bert_emd_jax.transport.capacities import capped_on_host


@pytest.mark.parametrize("rule", ["normalize", "learned"])
def test_fifty_steps(rule):
    """On four devices: the teacher's weights stay equal, the student's move, and every plan is exact."""
    flags = config(mapping="capped", teacher_capacity=1.5, layer_weight_rule=rule)
    _, history = run_steps(flags, devices=4, steps=50)
    moved = set()
    for measurements in history:
        for index, (student, teacher) in enumerate(measurements["layer_weights"]):
            np.testing.assert_allclose(teacher, 1 / TEACHER_LAYERS, rtol=1e-6)
            cost, flow = (getattr(measurements["plans"], name)[0, index] for name in ("cost", "flow"))
            exact = capped_on_host(cost, student, teacher, 1.5)
            assert np.sum(cost * flow) == pytest.approx(exact, rel=1e-5)
            assert (flow.sum(axis=0) <= 1.5 / TEACHER_LAYERS + 1e-6).all()
            moved.add(tuple(np.round(student, 6)))
    assert len(moved) > 10


def test_a_layer_that_nobody_took_is_taken_when_it_becomes_the_best():
    settings = MappingConfig(mapping="capped", teacher_capacity=2.0, separate_layer_weights=True)
    state = initial_transport_state(settings, 3, 6)
    rng = np.random.default_rng(0)
    costs = jnp.asarray(rng.random((2, 3, 6)) + 1, jnp.float32).at[:, :, 5].set(10.0)
    weights = state.weights
    for step in range(50):
        if step == 25:
            costs = costs.at[:, :, 5].set(0.1)
        flow = jnp.stack([capped(cost, *sides, 2.0).flow for cost, sides in zip(costs, weights, strict=True)])
        taken = flow[:, :, 5].sum(axis=1)
        expected = 0 if step < 25 else 2 / 6
        np.testing.assert_allclose(taken, expected, atol=1e-6)
        plans = LayerPlans(costs[None], flow[None], jnp.zeros((1, 2)))
        weights = updated_weights(weights, plans, jnp.ones(1), settings)
        assert all((np.asarray(sides.student) > 0).all() for sides in weights)
