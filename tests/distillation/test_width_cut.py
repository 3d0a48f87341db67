"""A narrower student out of its teacher: what is kept, and that nothing else is changed."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from commands.test_programs import distill_flags, rows
from scipy.special import ndtr
from texts import write_texts

import bert_emd_jax
from bert_emd_jax.checkpoints.model_directory import load_model
from bert_emd_jax.commands import distill
from bert_emd_jax.data.examples import Examples
from bert_emd_jax.distillation.width_cut import Kept, cut, importance
from bert_emd_jax.encoding.dataset import encode_examples
from bert_emd_jax.models.heads import SequenceClassifier, forward


@pytest.fixture
def teacher(tiny_model_dir):
    return load_model(tiny_model_dir("wide", hidden_size=32, num_attention_heads=4, intermediate_size=40))


@pytest.fixture
def dataset(teacher):
    texts = ["the film was good", "a dull plot", "so funny , it is never sad !", "the"] * 10
    return encode_examples(teacher.tokenizer, Examples.from_texts(texts), 24)


def test_what_adds_nothing_is_left_out_and_outputs_stay(teacher, dataset):
    """Heads and neurons whose outputs no state receives."""
    config, params = teacher.config, jax.tree.map(np.array, teacher.params)
    rng = np.random.default_rng(0)
    alive_heads = np.stack([np.sort(rng.choice(4, 2, replace=False)) for _ in range(4)])
    alive_neurons = np.stack([np.sort(rng.choice(40, 25, replace=False)) for _ in range(4)])
    for number in range(4):
        layer = params["bert"][f"layer_{number}"]
        for head in set(range(4)) - set(alive_heads[number].tolist()):
            layer["attention"]["output"]["kernel"][head * 8 : head * 8 + 8] = 0
        dead = np.setdiff1d(np.arange(40), alive_neurons[number])
        layer["output"]["kernel"][dead] = 0
    found = importance(config, params["bert"], dataset)
    for number in range(4):
        assert np.flatnonzero(found.heads[number]).tolist() == alive_heads[number].tolist()
        assert np.flatnonzero(found.neurons[number]).tolist() == alive_neurons[number].tolist()
    kept = Kept(np.arange(32), alive_heads, alive_neurons)
    narrow = cut(config, params["bert"], kept)
    # Half of the heads, at the width of four: queries, keys and values have 16 columns.
    assert narrow["layer_0"]["attention"]["query"]["kernel"].shape == (32, 16)
    batch = dataset.collate(np.arange(4), 24)
    whole = forward(SequenceClassifier(config), params, batch)
    # No config has heads of another width than its own: the heads left out are zeros instead.
    padded = jax.tree.map(np.array, params)
    for number in range(4):
        target, source = padded["bert"][f"layer_{number}"], narrow[f"layer_{number}"]
        columns = (alive_heads[number][:, None] * 8 + np.arange(8)).ravel()
        for name in ("query", "key", "value"):
            target["attention"][name]["kernel"][:] = 0
            target["attention"][name]["kernel"][:, columns] = source["attention"][name]["kernel"]
        target["attention"]["output"]["kernel"][columns] = source["attention"]["output"]["kernel"]
    smaller = dataclasses.replace(config, intermediate_size=25)
    for number in range(4):
        padded["bert"][f"layer_{number}"] |= {
            name: narrow[f"layer_{number}"][name] for name in ("intermediate", "output")
        }
    again = forward(SequenceClassifier(smaller), padded, batch)
    np.testing.assert_allclose(again.logits, whole.logits, atol=1e-5)


def test_importance_is_measured_over_real_tokens_in_numpy(teacher, dataset):
    config, params = teacher.config, teacher.params
    output = forward(SequenceClassifier(config), params, dataset.collate(np.arange(40), 24))
    states = np.concatenate([np.asarray(output.embeddings)[None], np.asarray(output.layer_outputs)])
    real = dataset.collate(np.arange(40), 24)["attention_mask"] > 0
    found = importance(config, params["bert"], dataset)
    np.testing.assert_allclose(found.dimensions, np.square(states[:, real]).sum(axis=(0, 1)), rtol=1e-4)
    layer = params["bert"]["layer_2"]
    scores = np.asarray(output.attention_scores)[2]
    weights = np.where(real[:, None, None], np.exp(scores - scores.max(axis=-1, keepdims=True)), 0)
    weights /= weights.sum(axis=-1, keepdims=True)
    value = states[2] @ layer["attention"]["value"]["kernel"] + layer["attention"]["value"]["bias"]
    attended = states[2] + layer["attention"]["output"]["bias"]
    for head in range(4):
        part = slice(8 * head, 8 * head + 8)
        added = weights[:, head] @ value[..., part] @ layer["attention"]["output"]["kernel"][part]
        attended = attended + added
        expected = np.linalg.norm(added, axis=-1)[real].sum()
        assert found.heads[2, head] == pytest.approx(expected, rel=1e-4)
    centred = attended - attended.mean(axis=-1, keepdims=True)
    norm = layer["attention_layer_norm"]
    normed = centred / attended.std(axis=-1, keepdims=True) * norm["scale"] + norm["bias"]
    inner = normed @ layer["intermediate"]["kernel"] + layer["intermediate"]["bias"]
    sizes = np.abs(inner * ndtr(inner))[real].sum(axis=0)  # gelu
    expected = sizes * np.linalg.norm(layer["output"]["kernel"], axis=1)
    # float32's gelu ends in 1 + erf, which loses the digits of neurons that are hardly ever on.
    np.testing.assert_allclose(found.neurons[2], expected, rtol=1e-4, atol=1e-7 * expected.max())


def test_from_the_command_line(tmp_path, task_dir, tiny_model_dir, capsys):
    teacher_dir = tiny_model_dir("teacher", hidden_size=32, num_attention_heads=4, intermediate_size=40)
    run = tmp_path / "run"
    flags = ("--student_init_layers", "uniform", "--student_width", 16, "--max_steps", 2)
    assert distill.main(distill_flags(teacher_dir, task_dir, run, *flags, "--learning_rate", 1e-9)) == 0
    assert "keeps 16 of 32 dimensions" in capsys.readouterr().out
    config = json.loads((run / "pytorch" / "config.json").read_text())
    sizes = ("hidden_size", "num_attention_heads", "intermediate_size", "num_hidden_layers")
    assert [config[name] for name in sizes] == [16, 2, 20, 2]
    student, teacher = load_model(run), load_model(teacher_dir)
    kernel = student.projection["kernel"]
    kept = kernel.argmax(axis=1)
    assert sorted(set(kept.tolist())) == kept.tolist()
    np.testing.assert_allclose(kernel, np.eye(32)[kept], atol=1e-6)
    words = (
        model.params["bert"]["embeddings"]["word_embeddings"]["embedding"] for model in (student, teacher)
    )
    np.testing.assert_allclose(next(words), next(words)[:, kept], atol=1e-6)
    assert all(np.isfinite(row["hidden_loss"]) for row in rows(run, "train"))
    for width, message in ((12, "must be a multiple of the heads' width 8, below 32"), (32, "below 32")):
        wrong = distill_flags(teacher_dir, task_dir, tmp_path / "o", *flags, "--student_width", width)
        assert distill.main(wrong) == 2
        error = capsys.readouterr().err
        assert f"--student_width {width}: must be" in error
        assert message in error
    alone = ["--student_model", str(teacher_dir), "--student_width", "16"]
    assert distill.main(distill_flags(teacher_dir, task_dir, tmp_path / "o", *alone)) == 2
    assert "--student_width: is for --student_init_layers" in capsys.readouterr().err


def test_of_an_embedder(tmp_path, embedder_dir):
    """Its vectors begin with the kept dimensions of the teacher's, by the projection that compares both."""
    teacher = embedder_dir("teacher")
    width = load_model(teacher, head="embedding").config.hidden_size
    flags = ("--kind", "embedding", "--student_init_layers", "lower", "--student_width", width // 2)
    flags += ("--max_steps", 2, "--beta", 0)
    texts = write_texts(tmp_path / "texts")
    columns = ("--text_column", "sentence1", "--text_pair_column", "sentence2", "--label_column", "score")
    assert distill.main(distill_flags(teacher, texts, tmp_path / "run", *flags, *columns)) == 0
    assert bert_emd_jax.load(tmp_path / "run").embed(["a film"]).shape == (1, width // 2)
