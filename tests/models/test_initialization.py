import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.heads import MODULES
from bert_emd_jax.models.initialization import (
    initial_params,
    initial_projection,
    parameter_shapes,
    student_from_layers,
)
from bert_emd_jax.models.params import flatten

CONFIG = EncoderConfig(
    vocab_size=30, hidden_size=8, num_hidden_layers=4, num_attention_heads=2, intermediate_size=12
)


def test_fresh_weights_have_berts_distribution():
    config = EncoderConfig(num_hidden_layers=1, vocab_size=2000, initializer_range=0.02)
    for path, leaf in flatten(initial_params(config, "classifier", seed=0)).items():
        assert leaf.dtype == np.float32
        if path.endswith(("/kernel", "/embedding")):
            assert leaf.std() == pytest.approx(0.02, rel=0.1), path
        else:
            assert np.all(leaf == (1 if path.endswith("/scale") else 0)), path


def test_a_student_is_cut_out_of_its_teacher():
    teacher = initial_params(CONFIG, "classifier", seed=0)
    config, student = student_from_layers(CONFIG, teacher, (3, 0), "classifier", seed=1)
    assert config.num_hidden_layers == 2
    for ours, theirs in (("layer_0", "layer_3"), ("layer_1", "layer_0"), ("embeddings", "embeddings")):
        for path, leaf in flatten(student["bert"][ours]).items():
            np.testing.assert_array_equal(leaf, flatten(teacher["bert"][theirs])[path])
    np.testing.assert_array_equal(student["bert"]["pooler"]["kernel"], teacher["bert"]["pooler"]["kernel"])
    assert not np.array_equal(student["classifier"]["kernel"], teacher["classifier"]["kernel"])


def test_the_projection_starts_as_the_identity_where_the_widths_agree():
    np.testing.assert_array_equal(initial_projection(5, 5, 0)["kernel"], np.eye(5))
    kernel = initial_projection(200, 300, 0)["kernel"]
    assert kernel.shape == (200, 300)
    assert kernel.std() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("head", ["classifier", "masked_lm", "none"])
def test_shapes_are_those_of_the_whole_module(head):
    config = dataclasses.replace(CONFIG, num_hidden_layers=11)
    tokens = jnp.zeros((1, 1), jnp.int32)
    whole = jax.eval_shape(MODULES[head](config).init, jax.random.key(0), tokens, tokens)["params"]
    expected = {path: leaf.shape for path, leaf in sorted(flatten(whole).items())}
    assert list(parameter_shapes(config, head).items()) == list(expected.items())
