"""The exported classifier, run by the example in the documentation, against the model it was made from."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

pytest.importorskip("flatbuffers")
from jax import export

from bert_emd_jax.checkpoints.model_directory import load_model, load_whole_model, save_model
from bert_emd_jax.checkpoints.stablehlo import ARTEFACT, stablehlo_logits, write_stablehlo
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.embedding_config import NORMALIZE
from bert_emd_jax.models.heads import AnswerFinder, SentenceEmbedder, SequenceClassifier, forward
from bert_emd_jax.models.initialization import NewHead

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "checkpoints.md"


@pytest.fixture
def exported(tmp_path, tiny_model_dir):
    """A model with a relu before its classifier, and the directory it was exported to."""
    model = load_model(tiny_model_dir("model", num_hidden_layers=2, classifier_activation="relu"))
    write_stablehlo(tmp_path / "exported", model)
    return model, tmp_path / "exported"


def batch_of(rows: int, length: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows)
    lengths = rng.integers(1, length + 1, size=rows)
    mask = (np.arange(length) < lengths[:, None]).astype(np.int32)
    ids, segments = rng.integers(0, 40, (rows, length)), rng.integers(0, 2, (rows, length))
    return {
        "input_ids": ids.astype(np.int32),
        "attention_mask": mask,
        "token_type_ids": segments.astype(np.int32),
    }


def test_any_batch_and_any_length_up_to_the_positions(exported):
    model, directory = exported
    for rows, length in ((1, 1), (3, 17), (2, 64)):
        batch = batch_of(rows, length)
        expected = forward(SequenceClassifier(model.config), model.params, batch).logits
        np.testing.assert_allclose(stablehlo_logits(directory, batch), expected, atol=1e-5)
    with pytest.raises(ValueError, match="shapes"):
        stablehlo_logits(directory, batch_of(2, 65))


def test_an_embedder(tmp_path, embedder_dir):
    """Vectors of any batch are those of the model."""
    path = embedder_dir("embedder", NORMALIZE)
    model = load_whole_model(path)
    write_stablehlo(tmp_path / "exported", model)
    for rows, length in ((1, 3), (3, 17)):
        batch = batch_of(rows, length)
        expected = forward(SentenceEmbedder(model.config), model.params, batch).logits
        vectors = stablehlo_logits(tmp_path / "exported", batch)
        np.testing.assert_allclose(vectors, expected, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_a_finder_of_answers(tmp_path, tiny_model_dir):
    model = load_model(tiny_model_dir("base"), head="answer", new_head=NewHead(2, seed=1))
    write_stablehlo(tmp_path / "exported", model)
    batch = batch_of(2, 9)
    expected = forward(AnswerFinder(model.config), model.params, batch).logits
    np.testing.assert_allclose(stablehlo_logits(tmp_path / "exported", batch), expected, atol=1e-5)


def test_it_is_for_every_platform(exported):
    _, directory = exported
    artefact = export.deserialize(bytearray((directory / ARTEFACT).read_bytes()))
    assert set(artefact.platforms) == {"cpu", "cuda", "tpu"}
    assert len(artefact.in_avals) == len(jax.tree.leaves(exported[0].params)) + 3


def test_the_example_of_the_documentation(exported, monkeypatch, capsys):
    model, directory = exported
    example = re.search(
        r"```python\n(.*?export\.deserialize.*?)```", DOCUMENTATION.read_text(encoding="utf-8"), re.DOTALL
    )
    assert example is not None
    assert len(example[1].splitlines()) <= 12
    monkeypatch.chdir(directory.parent)
    scope: dict = {}
    exec(example[1], scope)
    batch = {name: scope[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    expected = forward(SequenceClassifier(model.config), model.params, batch).logits
    np.testing.assert_allclose(scope["logits"], expected, atol=1e-5)


def test_only_a_classifier_is_exported(tmp_path, tiny_model_dir):
    source = tiny_model_dir("model", num_hidden_layers=1)
    encoder = load_whole_model(source, head="none")
    save_model(tmp_path / "encoder", encoder, with_pytorch=False)
    with pytest.raises(UserError, match="exports a classifier"):
        write_stablehlo(tmp_path / "exported", encoder)
    assert not (tmp_path / "exported").exists()
