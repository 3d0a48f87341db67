"""Directories of sentence-transformers that compute what is not supported: refused by name."""

import json
from pathlib import Path

import pytest
from checkpoints.test_sentence_transformers import their_model

from bert_emd_jax.checkpoints.model_directory import load_model
from bert_emd_jax.checkpoints.sentence_transformers import read_modules
from bert_emd_jax.errors import UserError


def change(file: str, **values):
    def edit(directory: Path) -> None:
        path = directory / file
        old = json.loads(path.read_text()) if path.exists() else {}
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(old | values))

    return edit


def modules(*types: str):
    def edit(directory: Path) -> None:
        entries = json.loads((directory / "modules.json").read_text())
        entries = [
            {**entries[min(k, len(entries) - 1)], "type": name, "idx": k} for k, name in enumerate(types)
        ]
        (directory / "modules.json").write_text(json.dumps(entries))

    return edit


T, P = "sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling"
REFUSED = {
    "another module": (
        modules(T, P, "sentence_transformers.models.LSTM"),
        "module 2 is .*LSTM, which is not",
    ),
    "foreign code": (
        modules(T, P, "custom.Normalize"),
        "module 2 is custom.Normalize, which",
    ),
    "no pooling": (modules(T), "the modules are Transformer; supported is"),
    "sparse": (
        change("config_sentence_transformers.json", model_type="SparseEncoder"),
        "'SparseEncoder' is not",
    ),
    "prompts left out": (change("1_Pooling/config.json", include_prompt=False), "include_prompt is off"),
    "last token": (change("1_Pooling/config.json", pooling_mode="lasttoken"), "lasttoken: only cls, max"),
    "weighted mean": (change("1_Pooling/config.json", pooling_mode=["mean", "weightedmean"]), "weightedmean"),
    "another order": (change("1_Pooling/config.json", pooling_mode=["mean", "cls"]), "mean, cls: only"),
    "residual": (change("2_Dense/config.json", use_residual=True), "use_residual is True, which is not"),
    "activation": (
        change("2_Dense/config.json", activation_function="torch.nn.Mish"),
        "'torch.nn.Mish'",
    ),
    "another input": (
        change("2_Dense/config.json", module_input_name="token_embeddings"),
        "module_input_name",
    ),
    "another task": (
        change("sentence_bert_config.json", transformer_task="fill-mask"),
        "transformer_task is set",
    ),
    "of queries": (change("sentence_bert_config.json", query_length=32), "query_length is set"),
    "pooler": (
        change(
            "sentence_bert_config.json",
            modality_config={"text": {"method": "forward", "method_output_name": "pooler_output"}},
        ),
        "takes pooler_output of the encoder",
    ),
    "similarity": (
        change("config_sentence_transformers.json", similarity_fn_name="hamming"),
        "'hamming' is not",
    ),
    "default prompt": (
        change("config_sentence_transformers.json", default_prompt_name="other"),
        "none of the",
    ),
    "cut vectors": (change("config_sentence_transformers.json", truncate_dim=3), "truncate_dim is set"),
    "outside": (
        lambda directory: (directory / "modules.json").write_text(
            json.dumps([{"path": "../x", "type": T}, {"path": "1_Pooling", "type": P}])
        ),
        "names '../x', which is not a folder below it",
    ),
    "no list": (
        lambda directory: (directory / "modules.json").write_text("{}"),
        "a list",
    ),
    "damaged": (lambda directory: (directory / "modules.json").write_text("["), "not valid JSON"),
    "no name": (lambda directory: (directory / "modules.json").write_text("[{}]"), "module 0 has no path"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused_by_name(tmp_path, encoder_dir, name):
    edit, message = REFUSED[name]
    their_model(encoder_dir, "mean", "dense tanh").save(str(tmp_path / "theirs"))
    edit(tmp_path / "theirs")
    with pytest.raises(UserError, match=message) as refused:
        read_modules(tmp_path / "theirs")
    assert str(refused.value).startswith(str(tmp_path / "theirs"))
    assert "\n" not in str(refused.value)


def test_a_dense_module_without_its_weights_is_refused(tmp_path, encoder_dir):
    their_model(encoder_dir, "mean", "dense tanh").save(str(tmp_path / "theirs"))
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "theirs" / "2_Dense" / "model.safetensors"
    tensors = load_file(path)
    save_file({"linear.bias": tensors["linear.bias"]}, path)
    with pytest.raises(UserError, match=r"missing: behind_pooling\.0\.linear\.weight"):
        load_model(tmp_path / "theirs", head=None)
    save_file({**tensors, "residual.weight": tensors["linear.weight"]}, path)
    with pytest.raises(UserError, match=r"left over: behind_pooling\.0\.residual\.weight"):
        load_model(tmp_path / "theirs", head=None)
