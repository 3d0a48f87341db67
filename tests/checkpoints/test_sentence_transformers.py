"""Directories of sentence-transformers, read and written, with two of its releases as oracles."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bert_emd_jax
from bert_emd_jax.checkpoints.hub import _needed_files
from bert_emd_jax.checkpoints.inspection import inspect_model
from bert_emd_jax.checkpoints.model_directory import (
    load_model,
    load_whole_model,
    save_huggingface,
    save_model,
)
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.embedding_config import NORMALIZE, DenseModule, EmbeddingConfig

OLD_RELEASE = Path(sys.prefix) / "sentence-transformers-3.0"
"""`make test` installs it there: it is no dependency, and only one release fits into an environment."""

TEXTS = [
    "the film is good",
    "a",
    "",
    "never bad , always great and it is a very long film of a good actor in that dull plot and so on " * 3,
    "THE FILM is Bad !",
]
TANH = "torch.nn.modules.activation.Tanh"


def their_model(encoder: Path, pooling: str | list[str], *behind: str, **options):
    """A model of the installed release: `behind` names modules as "normalize" and "dense ACTIVATION"."""
    st = pytest.importorskip("sentence_transformers")
    torch = pytest.importorskip("torch")
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    torch.manual_seed(0)
    transformer = Transformer(str(encoder))
    modules = [transformer, Pooling(24, pooling)]
    size = 24 * (1 if isinstance(pooling, str) else len(pooling))
    for name in behind:
        if name == NORMALIZE:
            modules.append(Normalize())
            continue
        _, activation, *bias = name.split()
        layer = {"tanh": torch.nn.Tanh(), "identity": torch.nn.Identity(), "gelu": torch.nn.GELU()}[
            activation
        ]
        dense = Dense(size, 10, bias=not bias, activation_function=layer)
        torch.nn.init.normal_(dense.linear.weight, std=0.5)
        modules.append(dense)
        size = 10
    return st.SentenceTransformer(modules=modules, device="cpu", **options)


def by_old_release(directory: Path, texts: list[str]) -> np.ndarray:
    if not OLD_RELEASE.is_dir():
        pytest.skip(f"no {OLD_RELEASE}")
    program = (
        "import sys, json, numpy as np, sentence_transformers as s\n"
        "assert s.__version__.startswith('3.0'), s.__version__\n"
        "model = s.SentenceTransformer(sys.argv[1], device='cpu')\n"
        "np.save(sys.argv[2], model.encode(json.loads(sys.argv[3])))\n"
    )
    target = directory.parent / "vectors.npy"
    environment = os.environ | {"PYTHONPATH": str(OLD_RELEASE)}
    command = [sys.executable, "-c", program, str(directory), str(target), json.dumps(texts)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.load(target)


def assert_same_vectors(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    cosines = np.sum(ours * theirs, axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    np.testing.assert_allclose(cosines, 1, atol=1e-5)


MODELS = {
    "mean": ("mean",),
    "MiniLM": ("mean", NORMALIZE),
    "bge": ("cls", NORMALIZE),
    "max": ("max",),
    "square root": ("mean_sqrt_len_tokens", NORMALIZE),
    "several": (["cls", "max", "mean"], NORMALIZE),
    "dense": ("mean", "dense tanh"),
    "LaBSE": ("cls", "dense tanh", NORMALIZE),
    "two": ("mean", NORMALIZE, "dense identity nobias", "dense gelu", NORMALIZE),
}


@pytest.mark.parametrize("name", MODELS)
def test_vectors_are_those_of_sentence_transformers_both_ways(tmp_path, encoder_dir, name):
    pooling, *behind = MODELS[name]
    theirs = their_model(encoder_dir, pooling, *behind)
    theirs.save(str(tmp_path / "theirs"))
    expected = theirs.encode(TEXTS)

    model = bert_emd_jax.load(tmp_path / "theirs")
    assert model.kind == "embedding"
    assert_same_vectors(model.embed(TEXTS), expected)
    save_model(tmp_path / "ours", model.loaded)
    again = bert_emd_jax.load(tmp_path / "ours")
    assert again.loaded.config == model.loaded.config
    np.testing.assert_array_equal(again.embed(TEXTS), model.embed(TEXTS))

    pytorch = tmp_path / "ours" / "pytorch"
    import sentence_transformers

    written = sentence_transformers.SentenceTransformer(str(pytorch), device="cpu")
    assert_same_vectors(written.encode(TEXTS), expected)
    assert written.max_seq_length == theirs.max_seq_length
    assert load_model(pytorch, head=None).config == model.loaded.config
    if name == "two":
        assert_same_vectors(by_old_release(pytorch, TEXTS), expected)


@pytest.mark.parametrize("family", ["roberta", "distilbert", "electra"])
def test_embedders_of_other_families_both_ways(tmp_path, vocabulary_dir, family):
    from family_models import their_model as encoder_of
    from family_models import write_merges

    directory = tmp_path / "encoder"
    if family == "roberta":
        size, more = write_merges(directory, "\n".join(TEXTS * 5)), {"pad_token_id": 1}
        settings = {"tokenizer_class": "RobertaTokenizer"}
    else:
        shutil.copytree(vocabulary_dir, directory)
        size, more = len((directory / "vocab.txt").read_text().splitlines()), {}
        settings = {"tokenizer_class": {"distilbert": "DistilBertTokenizer"}.get(family, "ElectraTokenizer")}
    encoder_of(family, "none", vocab_size=size, **more).save_pretrained(directory)
    (directory / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": 32}))
    theirs = their_model(directory, "mean", NORMALIZE)
    theirs.save(str(tmp_path / "theirs"))
    model = bert_emd_jax.load(tmp_path / "theirs")
    assert_same_vectors(model.embed(TEXTS), theirs.encode(TEXTS))
    save_huggingface(tmp_path / "ours", model.loaded)
    import sentence_transformers

    written = sentence_transformers.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    assert_same_vectors(written.encode(TEXTS), theirs.encode(TEXTS))


def test_a_directory_of_the_first_releases(tmp_path, encoder_dir):
    """The encoder in a folder, as `0_BERT`, its weights a pickle, and a dense module's too."""
    import torch

    theirs = their_model(encoder_dir, "mean", "dense tanh")
    theirs.save(str(tmp_path / "new"))
    old = tmp_path / "old"
    shutil.copytree(encoder_dir, old / "0_BERT")
    torch.save(theirs[0].model.state_dict(), old / "0_BERT" / "pytorch_model.bin")
    (old / "0_BERT" / "model.safetensors").unlink()
    settings = {"max_seq_length": 12, "do_lower_case": False}
    (old / "0_BERT" / "sentence_bert_config.json").write_text(json.dumps(settings))
    (old / "1_Pooling").mkdir()
    flags = {
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
    }
    (old / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 24, **flags}))
    (old / "2_Dense").mkdir()
    values = {"in_features": 24, "out_features": 10, "bias": True, "activation_function": TANH}
    (old / "2_Dense" / "config.json").write_text(json.dumps(values))
    torch.save(theirs[2].state_dict(), old / "2_Dense" / "pytorch_model.bin")
    folders = {"0_BERT": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense"}
    entries = [
        {"idx": k, "name": str(k), "path": folder, "type": f"sentence_transformers.models.{name}"}
        for k, (folder, name) in enumerate(folders.items())
    ]
    (old / "modules.json").write_text(json.dumps(entries))

    model = bert_emd_jax.load(old)
    assert model.loaded.config.embedding == EmbeddingConfig(("mean",), (DenseModule(10, "tanh"),), 12)
    assert_same_vectors(model.embed(TEXTS), by_old_release(old, TEXTS))


def test_prompts_and_similarity_are_kept_and_honoured(tmp_path, encoder_dir):
    prompts = {"query": "the film : ", "passage": "a plot "}
    options = {"prompts": prompts, "default_prompt_name": "passage", "similarity_fn_name": "dot"}
    theirs = their_model(encoder_dir, "mean", **options)
    theirs.save(str(tmp_path / "theirs"))
    loaded = load_model(tmp_path / "theirs", head=None)
    save_huggingface(tmp_path / "again", loaded)
    import sentence_transformers

    again = sentence_transformers.SentenceTransformer(str(tmp_path / "again"), device="cpu")
    assert {name: text for name, text in again.prompts.items() if text} == prompts
    assert again.default_prompt_name == "passage"

    for path in ("theirs", "again"):
        model = bert_emd_jax.load(tmp_path / path)
        assert_same_vectors(model.embed(TEXTS), theirs.encode(TEXTS))
        assert_same_vectors(
            model.embed(TEXTS, prompt_name="query"), theirs.encode(TEXTS, prompt_name="query")
        )
        assert_same_vectors(model.embed(TEXTS, prompt="so "), theirs.encode(TEXTS, prompt="so "))
        with pytest.raises(UserError, match=r"no such prompt; it has .*query"):
            model.embed(TEXTS, prompt_name="other")
        vectors = theirs.encode(TEXTS)
        expected = theirs.similarity(vectors, vectors[:2]).numpy()
        np.testing.assert_allclose(model.similarity(TEXTS, TEXTS[:2]), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarity_is_theirs(tmp_path, encoder_dir, name):
    theirs = their_model(encoder_dir, "mean", similarity_fn_name=name)
    theirs.save(str(tmp_path / "theirs"))
    vectors = theirs.encode(TEXTS)
    ours = bert_emd_jax.load(tmp_path / "theirs").similarity(vectors, vectors[1:])
    np.testing.assert_allclose(ours, theirs.similarity(vectors, vectors[1:]).numpy(), rtol=1e-4, atol=1e-4)


def test_lower_casing_of_a_tokenizer_that_does_not(tmp_path, encoder_dir):
    settings = encoder_dir / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace('"do_lower_case": true', '"do_lower_case": false'))
    theirs = their_model(encoder_dir, "mean")
    theirs.save(str(tmp_path / "theirs"))
    plain = bert_emd_jax.load(tmp_path / "theirs").embed(TEXTS)
    path = tmp_path / "theirs" / "sentence_bert_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_lower_case": True}))
    model = bert_emd_jax.load(tmp_path / "theirs")
    lowered = model.embed(TEXTS)
    assert np.abs(lowered[-1] - plain[-1]).max() > 0.01
    save_huggingface(tmp_path / "again", model.loaded)
    assert_same_vectors(lowered, by_old_release(tmp_path / "again", TEXTS))


def test_an_encoder_without_modules_has_the_mean(tmp_path, encoder_dir, said):
    theirs = their_model(encoder_dir, "mean")
    model = bert_emd_jax.load(encoder_dir)
    assert "says nothing of its pooling: the mean" in said.text
    assert_same_vectors(model.embed(TEXTS), theirs.encode(TEXTS))
    for pooling in ("cls", "max"):
        assert_same_vectors(model.embed(TEXTS, pooling), their_model(encoder_dir, pooling).encode(TEXTS))
    tokens = theirs.encode(TEXTS, output_value="token_embeddings")
    for ours, expected in zip(model.embed(TEXTS, "tokens"), tokens, strict=True):
        np.testing.assert_allclose(ours, expected.numpy(), atol=1e-4)


def test_a_classifier_has_vectors_too(tiny_model_dir):
    model = bert_emd_jax.load(tiny_model_dir("classifier"))
    assert model.kind == "classification"
    states = model.embed(TEXTS, "tokens")
    np.testing.assert_allclose(model.embed(TEXTS), [of_text.mean(axis=0) for of_text in states], atol=1e-5)
    assert model.similarity(TEXTS, TEXTS[:1]).shape == (5, 1)


def test_a_converted_embedder_stays_one(tmp_path, encoder_dir):
    their_model(encoder_dir, "cls", "dense tanh").save(str(tmp_path / "theirs"))
    whole = load_whole_model(tmp_path / "theirs")
    assert whole.config.embedding is not None
    assert {"bert", "dense_0"} == set(whole.params)
    assert load_model(tmp_path / "theirs", head="none").config.embedding is None


def test_the_hub_is_asked_for_all_modules():
    import fnmatch

    def fetched(files: list[str]) -> set[str]:
        patterns = _needed_files("org/model", files)
        return {file for file in files if any(fnmatch.fnmatch(file, pattern) for pattern in patterns)}

    new = ["config.json", "model.safetensors", "modules.json", "sentence_bert_config.json", "vocab.txt"]
    new += ["config_sentence_transformers.json", "1_Pooling/config.json", "2_Dense/config.json"]
    new += ["2_Dense/model.safetensors"]
    assert fetched([*new, "onnx/model.onnx", "README.md", "pytorch_model.bin"]) == set(new)
    old = ["modules.json", "0_BERT/config.json", "0_BERT/pytorch_model.bin", "0_BERT/vocab.txt"]
    old += ["0_BERT/sentence_bert_config.json", "1_Pooling/config.json"]
    assert fetched([*old, "README.md"]) == set(old)


def test_inspection_names_the_modules(tmp_path, encoder_dir):
    their_model(encoder_dir, "mean", "dense tanh").save(str(tmp_path / "theirs"))
    table, problems = inspect_model(tmp_path / "theirs", None)
    assert not problems
    assert "BERT with the modules of a sentence embedder" in table
    assert "behind_pooling.0.linear.weight" in table
    assert "dense_0/kernel (transposed)" in table


def test_what_is_no_list_of_texts_is_refused(tmp_path, encoder_dir):
    model = bert_emd_jax.load(encoder_dir)
    for wrong in ("a text", {"a": 1}, {"a"}, [1]):
        with pytest.raises(UserError, match="texts"):
            model.embed(wrong)
    assert model.embed([]).shape == (0, 24)
    assert model.embed([], "tokens") == []
