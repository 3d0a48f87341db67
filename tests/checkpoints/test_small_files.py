"""Smaller files of a student: a vocabulary of given texts, float16 weights."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import bert_emd_jax
from bert_emd_jax.checkpoints.model_directory import load_model, save_huggingface
from bert_emd_jax.checkpoints.vocabulary import trim_vocabulary
from bert_emd_jax.commands import convert
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.params import flatten, unflatten

TEXTS = ["the film is good", "a dull movie !", "the plot is so long"]
OTHERS = ["never hate this actor", "great , funny and sad"]


def write_rows(directory: Path) -> Path:
    path = directory / "texts.csv"
    path.write_text("label,text\n" + "".join(f"good,{text}\n" for text in TEXTS))
    return path


def test_outputs_for_the_texts_are_equal(tmp_path: Path, tiny_model_dir, capsys):
    whole = tiny_model_dir("whole")
    small = tmp_path / "small"
    flags = [
        "--input",
        str(whole),
        "--output_dir",
        str(small),
        "--trim_vocabulary",
        str(write_rows(tmp_path)),
    ]
    assert convert.main(flags) == 0
    said = capsys.readouterr().out
    before, after = bert_emd_jax.load(whole), bert_emd_jax.load(small)
    np.testing.assert_array_equal(after.logits(TEXTS), before.logits(TEXTS))
    np.testing.assert_array_equal(after.logits(TEXTS, TEXTS[::-1]), before.logits(TEXTS, TEXTS[::-1]))
    assert np.isfinite(after.logits(OTHERS)).all()
    sizes = [json.loads((path / "config.json").read_text())["vocab_size"] for path in (small, whole)]
    assert sizes[0] < sizes[1]
    assert f"{sizes[0]} of {sizes[1]} tokens are kept" in said
    assert f"{16 * (sizes[1] - sizes[0])} parameters fewer" in said


def test_the_masked_words_head_is_trimmed_too(tiny_model_dir):
    from bert_emd_jax.models.initialization import initial_params

    model = load_model(tiny_model_dir("whole"))
    params = initial_params(model.config, "masked_lm", seed=3)
    flat = flatten(params)
    flat["lm_bias"] = np.arange(model.config.vocab_size, dtype=np.float32)
    model = dataclasses.replace(model, params=unflatten(flat))
    smaller, _, before = trim_vocabulary(model, TEXTS)
    assert before == model.config.vocab_size
    kept = flatten(smaller.params)["lm_bias"].astype(int)
    names = model.tokenizer.tokens()
    assert [names[index] for index in kept] == smaller.tokenizer.tokens()


def test_positions_that_hang_on_the_padding_id(tiny_model_dir):
    model = load_model(tiny_model_dir("whole"))
    pad_id = model.tokenizer.pad_id
    assert trim_vocabulary(model, TEXTS).model.config.pad_token_id == pad_id == 0
    config = dataclasses.replace(model.config, model_type="roberta", pad_token_id=7)
    with pytest.raises(UserError, match=r"roberta counts positions .* padding, 7, which would be 0"):
        trim_vocabulary(dataclasses.replace(model, config=config), TEXTS)


def test_half_the_bytes(tmp_path: Path, tiny_model_dir, capsys):
    model = tiny_model_dir("model", vocab_size=3000)
    sizes = {}
    for name, more in (("whole", []), ("half", ["--half"])):
        flags = ["--input", str(model), "--output_dir", str(tmp_path / name), "--to_pytorch", *more]
        assert convert.main(flags) == 0
        sizes[name] = (tmp_path / name / "model.safetensors").stat().st_size
    assert sizes["half"] < 0.52 * sizes["whole"]
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "float16"
    exact, half = (bert_emd_jax.load(tmp_path / name).logits(TEXTS) for name in ("whole", "half"))
    np.testing.assert_allclose(half, exact, atol=5e-3)
    assert convert.main(["--input", str(model), "--output_dir", str(tmp_path / "x"), "--half"]) == 2
    assert "--half goes with --to_pytorch" in capsys.readouterr().err


def test_weights_too_large_for_half(tmp_path: Path, tiny_model_dir):
    model = load_model(tiny_model_dir("model"))
    flat = flatten(model.params)
    flat["classifier/bias"] = np.array([1e6, 0], np.float32)
    model = dataclasses.replace(model, params=unflatten(flat))
    with pytest.raises(UserError, match=r"classifier\.bias: has values that float16 cannot hold"):
        save_huggingface(tmp_path / "half", model, half=True)


def test_transformers_reads_the_smallest(tmp_path: Path, tiny_model_dir):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    whole, small = tiny_model_dir("whole"), tmp_path / "small"
    flags = ["--input", str(whole), "--output_dir", str(small), "--to_pytorch", "--half"]
    assert convert.main([*flags, "--trim_vocabulary", str(write_rows(tmp_path))]) == 0
    tokenizer = transformers.AutoTokenizer.from_pretrained(small)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(small)
    assert model.dtype == torch.float16
    with torch.no_grad():
        theirs = model.float()(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits.numpy()
    np.testing.assert_allclose(theirs, bert_emd_jax.load(small).logits(TEXTS), atol=1e-5)
    np.testing.assert_allclose(theirs, bert_emd_jax.load(whole).logits(TEXTS), atol=5e-3)
