"""Google's TensorFlow checkpoints: their names, and a written one read back (with TensorFlow only)."""

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from bert_emd_jax.checkpoints.checkpoint_files import read_checkpoint
from bert_emd_jax.checkpoints.tensorflow_checkpoint import torch_name
from bert_emd_jax.errors import UserError

HIDDEN, INTERMEDIATE, VOCABULARY = 4, 6, 11

# TensorFlow's name, its shape, PyTorch's name, whether the axes turn.
VARIABLES = [
    (
        "bert/embeddings/word_embeddings",
        (VOCABULARY, HIDDEN),
        "bert.embeddings.word_embeddings.weight",
        False,
    ),
    (
        "bert/embeddings/token_type_embeddings",
        (2, HIDDEN),
        "bert.embeddings.token_type_embeddings.weight",
        False,
    ),
    ("bert/embeddings/position_embeddings", (8, HIDDEN), "bert.embeddings.position_embeddings.weight", False),
    ("bert/embeddings/LayerNorm/gamma", (HIDDEN,), "bert.embeddings.LayerNorm.weight", False),
    ("bert/embeddings/LayerNorm/beta", (HIDDEN,), "bert.embeddings.LayerNorm.bias", False),
    (
        "bert/encoder/layer_0/attention/self/query/kernel",
        (HIDDEN, HIDDEN),
        "bert.encoder.layer.0.attention.self.query.weight",
        True,
    ),
    (
        "bert/encoder/layer_11/attention/output/dense/bias",
        (HIDDEN,),
        "bert.encoder.layer.11.attention.output.dense.bias",
        False,
    ),
    (
        "bert/encoder/layer_0/attention/output/LayerNorm/gamma",
        (HIDDEN,),
        "bert.encoder.layer.0.attention.output.LayerNorm.weight",
        False,
    ),
    (
        "bert/encoder/layer_0/intermediate/dense/kernel",
        (HIDDEN, INTERMEDIATE),
        "bert.encoder.layer.0.intermediate.dense.weight",
        True,
    ),
    ("bert/pooler/dense/kernel", (HIDDEN, HIDDEN), "bert.pooler.dense.weight", True),
    (
        "cls/predictions/transform/dense/kernel",
        (HIDDEN, HIDDEN),
        "cls.predictions.transform.dense.weight",
        True,
    ),
    (
        "cls/predictions/transform/LayerNorm/beta",
        (HIDDEN,),
        "cls.predictions.transform.LayerNorm.bias",
        False,
    ),
    ("cls/predictions/output_bias", (VOCABULARY,), "cls.predictions.bias", False),
    ("cls/seq_relationship/output_weights", (2, HIDDEN), "cls.seq_relationship.weight", False),
    ("cls/seq_relationship/output_bias", (2,), "cls.seq_relationship.bias", False),
    ("output_weights", (3, HIDDEN), "classifier.weight", False),
    ("output_bias", (3,), "classifier.bias", False),
]


@pytest.mark.parametrize(("variable", "name"), [(row[0], row[2]) for row in VARIABLES])
def test_names(variable, name):
    assert torch_name(variable) == name


def test_without_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    (tmp_path / "bert_model.ckpt.index").touch()
    with pytest.raises(UserError, match="the data file"):
        read_checkpoint(tmp_path)
    (tmp_path / "bert_model.ckpt.data-00000-of-00001").touch()
    with pytest.raises(UserError, match=r"pip install 'bert_emd_jax\[tf\]'"):
        read_checkpoint(tmp_path)


@pytest.fixture
def tensorflow():
    return pytest.importorskip("tensorflow")


def write_checkpoint(tf, prefix: Path, values: Mapping[str, np.ndarray | np.generic]) -> None:
    """A TensorFlow 1 checkpoint, as Google's training program writes it."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [
            tf.compat.v1.get_variable(name, initializer=tf.constant(value)) for name, value in values.items()
        ]
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(variables).save(
            session, str(prefix), write_meta_graph=False, write_state=False
        )


def test_a_written_checkpoint_comes_back(tmp_path, tensorflow):
    rng = np.random.default_rng(0)
    values = {name: rng.standard_normal(shape).astype(np.float32) for name, shape, _, _ in VARIABLES}
    optimizer = {f"{name}/{slot}": value for name, value in values.items() for slot in ("adam_m", "adam_v")}
    write_checkpoint(
        tensorflow, tmp_path / "bert_model.ckpt", values | optimizer | {"global_step": np.int64(7)}
    )
    for path in (tmp_path, tmp_path / "bert_model.ckpt", tmp_path / "bert_model.ckpt.index"):
        read = read_checkpoint(path).tensors
        assert set(read) == {name for _, _, name, _ in VARIABLES}
        for variable, _, name, turned in VARIABLES:
            np.testing.assert_array_equal(read[name], values[variable].T if turned else values[variable])


def test_damaged_checkpoints(tmp_path, tensorflow):
    prefix = tmp_path / "bert_model.ckpt"
    write_checkpoint(tensorflow, prefix, {"bert/pooler/dense/bias": np.ones(4, np.float32)})
    index = Path(f"{prefix}.index")
    index.write_bytes(index.read_bytes()[:-20])
    with pytest.raises(UserError, match="not a readable TensorFlow checkpoint") as caught:
        read_checkpoint(prefix)
    assert "\n" not in str(caught.value)


def test_object_checkpoints_are_refused(tmp_path, tensorflow):
    checkpoint = tensorflow.train.Checkpoint(weight=tensorflow.Variable([1.0, 2.0]))
    prefix = checkpoint.write(str(tmp_path / "model.ckpt"))
    with pytest.raises(UserError, match="TensorFlow 2 objects"):
        read_checkpoint(Path(prefix))
