"""Programs that are used again and again agree with such as are used once, wherever their weights lie.

On one CPU device, and from some hundred features on, those of jaxlib 0.7.2 do not by themselves:
`device_needs.KEEPS_OLD_WEIGHTS`.
"""

import subprocess
import sys

import pytest

MODEL = """
import jax
import numpy as np
import optax

from bert_emd_jax.devices.parallel import ShardedForward, pmap_step, replicate
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.heads import SequenceClassifier, forward
from bert_emd_jax.models.initialization import initial_params
from bert_emd_jax.training.optimizer import make_optimizer
from bert_emd_jax.training.state import apply_gradients, create_state
from bert_emd_jax.training.training_config import OptimizerConfig

config = EncoderConfig(
    vocab_size=2000, hidden_size=384, num_hidden_layers=1, num_attention_heads=12, intermediate_size=1536
)
module, params = SequenceClassifier(config), initial_params(config, "classifier", 0)
rng = np.random.default_rng(0)
tokens = rng.integers(1, 2000, (1, 8, 16)).astype(np.int32)
batch = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "token_type_ids": np.zeros_like(tokens)}
"""
STEPS = """
optimizer = make_optimizer(OptimizerConfig(learning_rate=5e-5), lambda step: 5e-5)
batch["labels"] = rng.integers(0, 2, (1, 8))


def step(state, _, batch):
    def loss(params):
        logits = forward(module, params, batch).logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"]).mean()

    value, gradients = jax.value_and_grad(loss)(state.params)
    return apply_gradients(state, gradients, optimizer), value


def losses(program):
    state, found = replicate(create_state(params, optimizer, 0)), []
    for _ in range(6):
        state, loss = program()(state, None, batch)
        found.append(float(loss))
    return found


used_again = pmap_step(step)
ours = losses(lambda: used_again)
theirs = losses(lambda: pmap_step(lambda *args: step(*args)))
assert ours[-1] < ours[0] - 0.1, ours
np.testing.assert_allclose(ours, theirs, rtol=1e-5)
"""
LOGITS = """
def logits(program, scale):
    scaled = replicate(jax.tree.map(lambda leaf: leaf * np.float32(scale), params))
    return np.asarray(program(scaled, batch))


def program():
    return ShardedForward(lambda params, batch: forward(module, params, batch).logits)


used_again = program()
for scale in (1, 1.5, 2, 1, 3):
    np.testing.assert_allclose(logits(used_again, scale), logits(program(), scale), rtol=1e-4, atol=1e-5)
"""


@pytest.mark.parametrize("code", [STEPS, LOGITS], ids=["steps", "logits"])
def test_weights_are_never_those_of_an_earlier_call(code, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=1")
    subprocess.run([sys.executable, "-c", MODEL + code], check=True)
