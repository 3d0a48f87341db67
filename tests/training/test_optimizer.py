"""The optimizer against torch's AdamW with clipping and transformers' warmup-linear schedule."""

import jax
import numpy as np
import optax
import pytest

from bert_emd_jax.training.optimizer import (
    _clip_by_global_norm,
    decays,
    global_norm,
    learning_rate_schedule,
    make_optimizer,
    schedule_numbers,
)
from bert_emd_jax.training.training_config import OptimizerConfig


def constant(**flags) -> OptimizerConfig:
    """A learning rate of 0.02 at every step."""
    return OptimizerConfig(learning_rate=0.02, lr_schedule="constant", warmup_proportion=0, **flags)


def test_equals_torch_adamw_with_clipping():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    params = {
        "dense": {"kernel": rng.normal(size=(4, 3)), "bias": rng.normal(size=3)},
        "layer_norm": {"scale": rng.normal(size=3), "bias": rng.normal(size=3)},
        "words": {"embedding": rng.normal(size=(5, 4))},
    }
    params = jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
    settings = OptimizerConfig(
        learning_rate=0.02, weight_decay=0.3, lr_schedule="constant", warmup_proportion=0
    )
    optimizer = make_optimizer(settings, schedule_of(settings, 10))
    state = optimizer.init(params)

    decayed = [params["dense"]["kernel"], params["words"]["embedding"]]
    plain = [params["dense"]["bias"], params["layer_norm"]["scale"], params["layer_norm"]["bias"]]
    theirs = [[torch.tensor(leaf, requires_grad=True) for leaf in group] for group in (decayed, plain)]
    torch_optimizer = torch.optim.AdamW(
        [{"params": theirs[0], "weight_decay": 0.3}, {"params": theirs[1], "weight_decay": 0.0}],
        lr=0.02,
        eps=1e-6,
    )
    # Rates are 0.02, so an absolute 2e-6 is float32 rounding of parameters near 1.
    for step in range(5):
        scale = np.float32(10.0**-step)
        gradients = jax.tree.map(
            lambda leaf, scale=scale: scale * rng.normal(size=leaf.shape).astype(np.float32), params
        )
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        in_order = [gradients["dense"]["kernel"], gradients["words"]["embedding"]]
        in_order += [
            gradients["dense"]["bias"],
            *(gradients["layer_norm"][name] for name in ("scale", "bias")),
        ]
        for tensor, gradient in zip([*theirs[0], *theirs[1]], in_order, strict=True):
            tensor.grad = torch.tensor(gradient)
        torch.nn.utils.clip_grad_norm_([*theirs[0], *theirs[1]], 1.0)
        torch_optimizer.step()
    ours = [params["dense"]["kernel"], params["words"]["embedding"], params["dense"]["bias"]]
    ours += [params["layer_norm"][name] for name in ("scale", "bias")]
    for leaf, tensor in zip(ours, [*theirs[0], *theirs[1]], strict=True):
        np.testing.assert_allclose(leaf, tensor.detach().numpy(), rtol=1e-5, atol=2e-6)


def schedule_of(settings: OptimizerConfig, steps: int):
    return learning_rate_schedule(settings.lr_schedule, schedule_numbers(settings, steps))


def test_only_matrices_decay():
    tree = {"a": {"kernel": 1, "bias": 1}, "b": {"scale": 1, "bias": 1}, "c": {"embedding": 1}, "lm_bias": 1}
    assert decays(tree) == {
        "a": {"kernel": True, "bias": False},
        "b": {"scale": False, "bias": False},
        "c": {"embedding": True},
        "lm_bias": False,
    }


def test_warmup_then_linear_to_zero():
    schedule = schedule_of(OptimizerConfig(learning_rate=1.0, warmup_proportion=0.2), 20)
    rates = [float(schedule(step)) for step in range(21)]
    np.testing.assert_allclose(rates[:4], [0.25, 0.5, 0.75, 1.0], rtol=1e-6)
    np.testing.assert_allclose(np.diff(rates[4:]), -1 / 16, rtol=1e-5)
    assert rates[20] == pytest.approx(0, abs=1e-6)


def test_constant_schedule_stays():
    schedule = schedule_of(
        OptimizerConfig(learning_rate=1.0, lr_schedule="constant", warmup_proportion=0), 20
    )
    assert {float(schedule(step)) for step in range(20)} == {1.0}


def test_a_parameter_may_have_a_learning_rate_of_its_own():
    """Adam's first step has the size of the learning rate, whatever the gradient."""
    settings = OptimizerConfig(
        learning_rate=0.02, weight_decay=0.0, lr_schedule="constant", warmup_proportion=0
    )
    optimizer = make_optimizer(settings, schedule_of(settings, 10), {"logits": 25.0})
    params = {"logits": {"student": np.zeros(3, np.float32)}, "dense": {"bias": np.zeros(3, np.float32)}}
    gradients = {"logits": {"student": np.full(3, 0.1)}, "dense": {"bias": np.full(3, -0.2)}}
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    np.testing.assert_allclose(updates["logits"]["student"], -0.5, rtol=1e-4)
    np.testing.assert_allclose(updates["dense"]["bias"], 0.02, rtol=1e-4)


def test_the_norm_of_all_leaves_and_its_clipping_are_those_of_optax():
    rng = np.random.default_rng(0)
    sizes = {"table": (3000, 800), "kernel": (30, 40), "bias": (40,), "number": ()}
    for scale in (1e-4, 3.0):
        tree = {name: np.float32(scale * rng.standard_normal(size)) for name, size in sizes.items()}
        np.testing.assert_allclose(global_norm(tree), optax.tree.norm(tree), rtol=1e-5)
        ours, theirs = (
            clip.update(tree, clip.init(tree))[0]
            for clip in (_clip_by_global_norm(1.0), optax.clip_by_global_norm(1.0))
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ours, theirs)
