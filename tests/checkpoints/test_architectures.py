"""Files of other architectures under a config that calls them BERT: refused with what they look like."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch_reference import tiny_torch_model

from bert_emd_jax.checkpoints.checkpoint_files import Checkpoint
from bert_emd_jax.checkpoints.huggingface import stored_model
from bert_emd_jax.checkpoints.loading import load_params, plan_loading
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.initialization import NewHead
from bert_emd_jax.models.other_architectures import architecture_of_tensors

SIZES = {
    **{"vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"intermediate_size": 40, "max_position_embeddings": 32},
}
FOREIGN = {
    "Roberta": "RoBERTa",
    "XLMRoberta": "RoBERTa",
    "Camembert": "RoBERTa",
    "DistilBert": "DistilBERT",
    "Albert": "ALBERT",
    "MPNet": "MPNet",
    "ModernBert": "ModernBERT",
    "Electra": "ELECTRA",
    "Deberta": "DeBERTa",
    "DebertaV2": "DeBERTa",
    "MobileBert": "MobileBERT",
    "SqueezeBert": "SqueezeBERT",
    "ConvBert": "ConvBERT",
    "BigBird": "BigBird",
    "Longformer": "Longformer",
    "MegatronBert": "Megatron",
    "NomicBert": "Nomic",
    "Xmod": "X-MOD",
    "T5": "T5",
    "GPT2": "GPT",
    "Bart": "sequence-to-sequence",
}
# Bare, they have BERT's names; their configs tell them apart (below).
SAME_NAMES_WITHOUT_A_HEAD = ("Roberta", "XLMRoberta", "Camembert")
OWN_SIZES = {"SqueezeBert": SIZES | {"embedding_size": 24}, "Bart": {"d_model": 64}, "T5": {}, "GPT2": {}}


def names_of(family: str, suffix: str) -> list[str]:
    """The tensor names of a transformers model, made without memory for its parameters."""
    values = OWN_SIZES.get(family, SIZES)
    special = dict.fromkeys(
        ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 1
    )
    with torch.device("meta"):
        config = getattr(transformers, f"{family}Config")(**values | special)
        if not hasattr(transformers, family + suffix):
            pytest.skip(f"this transformers has no {family}{suffix}")
        return list(getattr(transformers, family + suffix)(config).state_dict())


@pytest.mark.parametrize(
    ("family", "suffix"),
    [
        *((family, "ForSequenceClassification") for family in FOREIGN),
        *((family, "Model") for family in FOREIGN if family not in SAME_NAMES_WITHOUT_A_HEAD),
    ],
)
def test_tensors_of_another_architecture_are_named(family, suffix):
    tensors = {name: np.zeros(1, np.float32) for name in names_of(family, suffix)}
    values = {"model_type": "bert", **SIZES}
    stored = stored_model(Checkpoint(tensors, "model.bin"), EncoderConfig.from_dict(values), values)
    for new_head in (None, NewHead(2, seed=0)):
        with pytest.raises(UserError, match=FOREIGN[family]) as raised:
            load_params(stored, plan_loading(stored, "classifier", new_head=new_head))
        assert str(raised.value).startswith("model.bin: ")
        assert len(str(raised.value)) < 200


@pytest.mark.parametrize("kind", ["classifier", "masked_lm", "encoder", "pretraining", "token_classifier"])
def test_no_bert_looks_foreign(tmp_path, kind):
    names = tiny_torch_model(tmp_path, kind=kind).state_dict()
    assert architecture_of_tensors(names, "bert") is None
    assert (
        architecture_of_tensors([*names, "fit_denses.0.weight", "cls.seq_relationship.weight"], "bert")
        is None
    )


@pytest.mark.parametrize(
    ("family", "model_type"),
    [
        ("DebertaV2", "deberta-v2"),
        ("BigBird", "big_bird"),
        ("XLMRobertaXL", "xlm-roberta-xl"),
        ("RobertaPreLayerNorm", "roberta-prelayernorm"),
    ],
)
def test_a_config_without_model_type_is_known_by_its_class(tmp_path, family, model_type):
    config = getattr(transformers, f"{family}Config")(architectures=[f"{family}Model"])
    config.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    for changed in (values, values | {"model_type": None}, values | {"model_type": "bert"}):
        with pytest.raises(UserError, match=f"'{model_type}', which is none of BERT, RoBERTa"):
            EncoderConfig.from_dict(changed)


@pytest.mark.parametrize("family", ["Roberta", "XLMRoberta", "Camembert", "DistilBert", "Electra", "Bert"])
def test_a_family_is_known_by_its_class(tmp_path, family):
    config = getattr(transformers, f"{family}Config")(architectures=[f"{family}ForMaskedLM"])
    config.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    expected = EncoderConfig.from_dict(values)
    assert expected.model_type == config.model_type
    assert EncoderConfig.from_dict(values | {"model_type": None}) == expected
    other = "electra" if family == "Roberta" else "roberta"
    if family in ("XLMRoberta", "Camembert"):  # RoBERTas by other names
        assert EncoderConfig.from_dict(values | {"model_type": other}).model_type == other
    else:
        with pytest.raises(UserError, match=f"model_type says '{other}', but architectures"):
            EncoderConfig.from_dict(values | {"model_type": other})


def test_robertas_sizes_are_known_without_any_name():
    config = transformers.RobertaConfig(max_position_embeddings=514, type_vocab_size=1).to_dict()
    values = {key: value for key, value in config.items() if key not in ("model_type", "architectures")}
    with pytest.raises(UserError, match="RoBERTa's sizes"):
        EncoderConfig.from_dict(values)
    EncoderConfig.from_dict(values | {"model_type": "bert"})
