"""The Python API: what a notebook calls, against transformers and the programs' own files."""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pytest

import bert_emd_jax
from bert_emd_jax import UserError

TEXTS = ["the film is good", "a very very long and dull movie !" * 4, "fine", "never bad , always great"]
PAIRS = ["so funny", "love this plot", "it was sad and so long", "good"]


@pytest.mark.parametrize("with_pairs", [False, True])
def test_a_loaded_model_says_what_transformers_says(tiny_model_dir, with_pairs):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    path = tiny_model_dir("model", num_hidden_layers=2)
    pairs = PAIRS if with_pairs else None
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(path / "pytorch").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path / "pytorch")
    inputs = tokenizer(TEXTS, pairs, padding=True, truncation=True, max_length=64, return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**inputs).logits.softmax(-1).numpy()

    model = bert_emd_jax.load(path, batch_size=3)
    np.testing.assert_allclose(model.predict(TEXTS, pairs), expected, atol=2e-6)
    names = theirs.config.id2label
    classified = model.classify(TEXTS, pairs)
    assert [one.label for one in classified] == [names[int(index)] for index in expected.argmax(1)]
    np.testing.assert_allclose([one.probability for one in classified], expected.max(1), atol=2e-6)


def test_what_gives_one_text_after_the_other_is_a_list(tiny_model_dir):
    model = bert_emd_jax.load(tiny_model_dir("model", num_hidden_layers=1))
    texts = ["good film", "bad"]
    expected = model.predict(texts, texts)
    for form in (tuple, iter, np.array, lambda texts: (text for text in texts)):
        np.testing.assert_array_equal(model.predict(form(texts), form(texts)), expected)
    assert model.predict([]).shape == (0, 2)
    assert model.classify(iter(())) == []


def test_an_index_beyond_a_table_is_refused(tiny_model_dir):
    """JAX would read the last embedding instead; transformers raises an IndexError."""
    model = bert_emd_jax.load(tiny_model_dir("model", num_hidden_layers=1, type_vocab_size=1))
    assert model.predict(["good film"]).shape == (1, 2)
    with pytest.raises(UserError, match="the model: has one segment"):
        model.predict(["good"], ["bad"])


def test_a_compute_type_that_no_flag_offers_is_refused(tiny_model_dir):
    with pytest.raises(UserError, match="dtype float64: is none of auto, float32, bfloat16, float16"):
        bert_emd_jax.load(tiny_model_dir("model", num_hidden_layers=1), dtype="float64")


def test_a_home_directory_may_be_a_tilde(tiny_model_dir, monkeypatch):
    path = tiny_model_dir("model", num_hidden_layers=1)
    monkeypatch.setenv("HOME", str(path.parent))
    assert bert_emd_jax.load("~/model").labels == ("bad", "good")


def test_a_regressor_gives_values(tiny_model_dir):
    model = bert_emd_jax.load(str(tiny_model_dir("model", num_hidden_layers=1, num_labels=1, id2label=None)))
    assert model.labels is None
    assert model.predict(["good"]).shape == (1,)
    with pytest.raises(UserError, match="classify: is for models of kind classification or multi_label"):
        model.classify(["good"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("good",), "give a list"),
        ((5,), "give a list"),
        (({"a": "b"},), "give a list"),
        ((["good"], ["a", "b"]), "1 texts and 2 pairs"),
        ((["good", None],), "texts, row 1: 'None' is NoneType, no text"),
        ((["good", float("nan")],), "texts, row 1: 'nan' is float"),
        (([3],), "texts, row 0: '3' is int"),
        (({"good", "bad"},), "a list of texts or one column of a table, not set"),
        ((pyarrow.table({"text": ["good", "bad"]}),), "give a list of texts"),
        (([("a", "b")],), "row 0: .* is tuple, no text; pairs go into two lists"),
        ((["good"], [None]), "pairs, row 0: 'None'"),
        ((["fine", "half \ud83d"],), "texts, row 1: holds half of a surrogate pair"),
    ],
)
def test_what_are_no_texts(tiny_model_dir, arguments, message):
    model = bert_emd_jax.load(tiny_model_dir("model", num_hidden_layers=1))
    with pytest.raises(UserError, match=message):
        model.classify(*arguments)


@pytest.mark.parametrize(
    ("name", "program", "model"),
    [
        ("finetune", "training.finetune:FinetuneTrainer.from_config", "bert_model"),
        ("evaluate", "evaluation.evaluate:evaluate", "student_model"),
        ("distill", "distillation.task_trainers:task_trainer", "teacher_model"),
    ],
)
def test_flags_reach_the_program(monkeypatch, name, program, model):
    flags = {model: "m", "data_dir": "d", "output_dir": "o", "task_name": "cola", "max_seq_length": 77}
    if name == "distill":  # the preset gives way to flags
        flags |= {"student_init_layers": [1], "preset": "bert_emd_4", "learning_rate": 0.1}
    seen = []

    def see(config):
        seen.append(config)
        raise UserError("seen")

    module, _, attribute = program.partition(":")
    owner = importlib.import_module(f"bert_emd_jax.{module}")
    if "." in attribute:
        owner, attribute = getattr(owner, attribute.partition(".")[0]), attribute.partition(".")[2]
    monkeypatch.setattr(owner, attribute, see)
    with pytest.raises(UserError, match="seen"):
        getattr(bert_emd_jax, name)(**flags)
    with pytest.raises(UserError, match="seen"):
        getattr(bert_emd_jax, name)(seen[0])
    assert seen[0] is seen[1]
    given = seen[0].flags()
    assert (given["max_seq_length"], given[model]) == (77, (Path("m"),) if name == "distill" else Path("m"))
    if name == "distill":
        assert (seen[0].prediction.beta, seen[0].optimizer.learning_rate) == (0.001, 0.1)


def test_flags_become_a_config():
    flags = {"teacher_model": "t", "student_init_layers": [1, 3], "data_dir": "d", "output_dir": "o"}
    config = bert_emd_jax.DistillConfig(**flags, task_name="sst-2")
    assert (config.pair.teacher_model[0].name, config.pair.student_init_layers) == ("t", (1, 3))
    with pytest.raises(UserError, match="DistillConfig needs task_name"):
        bert_emd_jax.DistillConfig(**flags)
    with pytest.raises(
        UserError, match="bert_modle: no such setting of FinetuneConfig; did you mean bert_model"
    ):
        bert_emd_jax.FinetuneConfig(bert_modle="x")


def test_the_names_cost_no_jax():
    code = (
        "import sys, bert_emd_jax as b; assert set(b.__all__) <= set(dir(b));"
        "[getattr(b, name) for name in b.__all__];"
        "assert 'jax' not in sys.modules and 'flax' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
