"""Every family with every head against transformers: outputs, names of tensors, both ways."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from bert_emd_jax.checkpoints.checkpoint_files import read_checkpoint
from bert_emd_jax.checkpoints.huggingface import torch_tensors, write_huggingface_weights
from bert_emd_jax.checkpoints.inspection import inspect_model
from bert_emd_jax.checkpoints.loading import load_params, plan_loading
from bert_emd_jax.checkpoints.model_directory import read_stored
from bert_emd_jax.checkpoints.verification import differences_from_torch
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.families import FAMILIES, Head
from bert_emd_jax.models.heads import MODULES, OUTSIDE, forward
from bert_emd_jax.models.initialization import initial_params
from bert_emd_jax.models.params import flatten

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from family_models import OTHER_FAMILIES, OTHERS, SIZES, their_model

HEADS: tuple[Head, ...] = ("classifier", "token", "answer", "masked_lm", "none")


def batch_for(config: EncoderConfig) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    mask = (np.arange(17) < np.array([17, 9, 5])[:, None]).astype(np.int32)
    ids = rng.integers(6, config.vocab_size, mask.shape).astype(np.int32)  # behind every padding's id
    segments = rng.integers(0, config.type_vocab_size, mask.shape, np.int32) * mask
    return {
        "input_ids": np.where(mask > 0, ids, config.pad_token_id).astype(np.int32),
        "attention_mask": mask,
        "token_type_ids": segments,
    }


def their_outputs(model: Any, batch: dict[str, np.ndarray], with_segments: bool) -> dict[str, np.ndarray]:
    inputs = {name: torch.tensor(values, dtype=torch.long) for name, values in batch.items()}
    if not with_segments:
        del inputs["token_type_ids"]
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    found = {"hidden_states": torch.stack(output.hidden_states)}
    if "start_logits" in output:
        found["logits"] = torch.stack([output.start_logits, output.end_logits], -1)
    elif "logits" in output:
        found["logits"] = output.logits
    elif output.get("pooler_output") is not None:
        found["pooled"] = output.pooler_output
    return {name: values.numpy() for name, values in found.items()}


def loaded(directory: Path, head: Head | None = None) -> tuple[EncoderConfig, Any, Head]:
    stored = read_stored(directory)
    plan = plan_loading(stored, head, as_stored=True)
    return plan.config, load_params(stored, plan), plan.head


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", OTHER_FAMILIES)
def test_outputs_and_tensors_are_transformers(family: str, head: Head, tmp_path: Path):
    model = their_model(family, head)
    model.save_pretrained(tmp_path / "theirs")
    config, params, found_head = loaded(tmp_path / "theirs")
    assert found_head == head
    batch = batch_for(config)
    ours = jax.device_get(forward(MODULES[head](config), params, batch))
    theirs = their_outputs(model, batch, with_segments=FAMILIES[family].has_segments)
    real = batch["attention_mask"] > 0
    np.testing.assert_allclose(
        ours.hidden_states[:, real], theirs["hidden_states"][:, real], atol=2e-5, rtol=1e-5
    )
    if "pooled" in theirs:
        np.testing.assert_allclose(ours.pooled, theirs["pooled"], atol=1e-5)
    if "logits" in theirs:
        rows = slice(None) if head == "classifier" else real
        np.testing.assert_allclose(ours.logits[rows], theirs["logits"][rows], atol=2e-5, rtol=1e-5)
    if head == "answer":
        assert np.all(ours.logits[~real] == OUTSIDE)

    write_huggingface_weights(tmp_path / "ours", params, config)
    again, report = type(model).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    their_values, our_values = model.config.to_dict(), again.config.to_dict()
    shared = {FAMILIES[family].keys.get(name, name) for name in SIZES | OTHERS.get(family, {})}
    shared -= {"num_labels", *FAMILIES[family].fixed, "sinusoidal_pos_embds"}
    assert {name: our_values[name] for name in shared} == {name: their_values[name] for name in shared}
    assert our_values["id2label"] == their_values["id2label"]


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("roberta", {"pad_token_id": 0, "type_vocab_size": 2}),
        ("camembert", {"pad_token_id": 5, "hidden_act": "gelu"}),
        ("electra", {"embedding_size": 24}),
        ("electra", {"embedding_size": 40, "hidden_act": "relu"}),
        ("distilbert", {"sinusoidal_pos_embds": False, "hidden_act": "gelu"}),
        ("distilbert", {"pad_token_id": 2, "num_attention_heads": 2}),
    ],
)
def test_outputs_with_other_values(family: str, changes: dict[str, Any], tmp_path: Path):
    model = their_model(family, "classifier", **changes)
    model.save_pretrained(tmp_path)
    config, params, _ = loaded(tmp_path)
    batch = batch_for(config)
    ours = forward(MODULES["classifier"](config), params, batch).logits
    theirs = their_outputs(model, batch, with_segments=FAMILIES[family].has_segments)["logits"]
    np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=1e-5)
    write_huggingface_weights(tmp_path / "ours", params, config)
    again, report = type(model).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"] | report["unexpected_keys"]
    again_theirs = their_outputs(again.eval(), batch, with_segments=FAMILIES[family].has_segments)
    np.testing.assert_array_equal(again_theirs["logits"], theirs)


@pytest.mark.parametrize("family", OTHER_FAMILIES)
def test_what_a_config_leaves_out_is_transformers_default(family: str):
    keys = FAMILIES[family].keys
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    given = {keys.get(name, name): SIZES[name] for name in sizes}
    ours = EncoderConfig.from_dict({"model_type": family, **given}).to_dict()
    theirs = transformers.AutoConfig.for_model(family, **given).to_dict()
    shared = ours.keys() & theirs.keys() - {"problem_type"}
    assert len(shared) > 12
    assert {name: ours[name] for name in shared - {"id2label", "label2id"}} == {
        name: theirs[name] for name in shared - {"id2label", "label2id"}
    }


@pytest.mark.parametrize("family", OTHER_FAMILIES)
def test_no_key_of_a_config_is_forgotten(family: str):
    """What BERT's config has, another test turns; of the rest every key is ours or changes no output."""
    inert = {"sinusoidal_pos_embds"}  # the table is in the file
    inert |= {f"summary_{name}" for name in ("type", "use_proj", "activation", "last_dropout")}  # of choices
    names = (field.name for field in dataclasses.fields(EncoderConfig))
    ours = {FAMILIES[family].keys.get(name, name) for name in names}
    theirs = set(transformers.AutoConfig.for_model(family).to_dict())
    assert theirs <= ours | inert | set(transformers.BertConfig().to_dict())


@pytest.mark.parametrize("family", OTHER_FAMILIES)
def test_a_pickled_file_under_old_names_gives_the_same(family: str, tmp_path: Path):
    """`.bin`, gamma and beta, no class named, a buffer of positions."""
    model = their_model(family, "classifier")
    model.save_pretrained(tmp_path)
    tensors = read_checkpoint(tmp_path).tensors
    (tmp_path / "model.safetensors").unlink()
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): torch.tensor(np.array(tensor))
        for name, tensor in tensors.items()
    }
    old[f"{model.base_model_prefix}.embeddings.position_ids"] = torch.arange(32)[None]
    torch.save(old, tmp_path / "pytorch_model.bin")
    config, params, head = loaded(tmp_path)
    assert head == "classifier"
    for name, tensor in torch_tensors(params, config).items():
        np.testing.assert_array_equal(tensor, tensors[name])


@pytest.mark.parametrize("family", OTHER_FAMILIES)
def test_inspection_and_verification_know_it(family: str, tmp_path: Path):
    their_model(family, "classifier").save_pretrained(tmp_path)
    table, problems = inspect_model(tmp_path, None)
    assert not problems
    assert f"{FAMILIES[family].title} with a classifier, 3 layers of width 24" in table
    assert "0 ignored, 0 left over" in table
    config, params, _ = loaded(tmp_path)
    differences = differences_from_torch(config, params, tmp_path)
    assert [one.name for one in differences][-1] == "logits"
    assert all(one.passes for one in differences), differences


@pytest.mark.parametrize("head", ["classifier", "token", "answer"])
@pytest.mark.parametrize("family", OTHER_FAMILIES)
def test_a_head_drops_where_transformers_does(family: str, head: Head, tmp_path: Path):
    """Standard deviations of the logits over 4,000 draws, with nothing dropped in the encoder."""
    off = {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}
    rates = {"classifier_dropout": 0.5, "answer_dropout": 0.5}
    rates = {name: rate for name, rate in rates.items() if name != "answer_dropout" or family == "distilbert"}
    model = their_model(family, head, **off, **rates).train()
    model.save_pretrained(tmp_path)
    config, params, _ = loaded(tmp_path)
    batch = {name: np.repeat(values[2:, :5], 4000, axis=0) for name, values in batch_for(config).items()}
    theirs = their_outputs(model, batch, FAMILIES[family].has_segments)["logits"]
    ours = forward(MODULES[head](config), params, batch, jax.random.key(0)).logits
    expected = theirs.std(axis=0)
    np.testing.assert_allclose(np.std(ours, axis=0), expected, rtol=0.1, atol=1e-4)
    drops = {"classifier": True, "token": family != "distilbert", "answer": family == "distilbert"}
    assert bool(np.all(expected > 0.01)) == drops[head]


def test_a_model_under_another_familys_config_is_refused(tmp_path: Path):
    their_model("distilbert", "classifier").save_pretrained(tmp_path)
    transformers.BertConfig(**{**SIZES, "num_labels": 3}).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="these are the tensors of a DistilBERT"):
        loaded(tmp_path)


def test_all_parameters_of_a_model_have_a_name():
    """What a head has must be in the table, or it would be lost on the way out."""
    for family in FAMILIES:
        more = {"embedding_size": 16} if FAMILIES[family].has_embedding_size else {}
        config = EncoderConfig.from_dict(
            {"model_type": family, **{FAMILIES[family].keys.get(k, k): v for k, v in (SIZES | more).items()}}
        )
        for head in HEADS:
            params = initial_params(config.with_head(head), head, 0)
            assert len(torch_tensors(params, config)) == len(flatten(params)), (family, head)
