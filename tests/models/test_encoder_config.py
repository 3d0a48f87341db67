import json

import pytest

from bert_emd_jax.errors import UserError
from bert_emd_jax.models.encoder_config import EncoderConfig, load_config

GOOGLE_CONFIG = {  # the keys of the released uncased_L-12_H-768_A-12/bert_config.json
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "type_vocab_size": 2,
    "vocab_size": 30522,
}


def test_reads_googles_bert_config(tmp_path):
    (tmp_path / "bert_config.json").write_text(json.dumps(GOOGLE_CONFIG), encoding="utf-8")
    config = load_config(tmp_path)
    assert config == EncoderConfig()  # BERT-base is the default
    assert config.head_dim == 64


def test_what_we_write_transformers_reads_alike(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = EncoderConfig(
        hidden_size=48,
        num_attention_heads=4,
        hidden_act="relu",
        layer_norm_eps=1e-6,
        classifier_dropout=0.3,
        num_labels=3,
        id2label=("no", "maybe", "yes"),
    )
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert type(theirs).__name__ == "BertConfig"
    for name in ("hidden_size", "hidden_act", "layer_norm_eps", "classifier_dropout", "num_labels"):
        assert getattr(theirs, name) == getattr(config, name)
    assert theirs.id2label == {0: "no", 1: "maybe", 2: "yes"}
    theirs.save_pretrained(tmp_path)
    assert load_config(tmp_path) == config


def test_unnamed_labels_stay_unnamed():
    config = EncoderConfig(num_labels=3)
    assert EncoderConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "albert"}, "albert.*share one set of weights"),
        ({"model_type": "roberta", "embedding_size": 128}, "embeddings of width 128: those of RoBERTa"),
        ({"model_type": "roberta", "max_position_embeddings": 2}, "RoBERTa's positions begin at 2"),
        ({"model_type": "electra", "classifier_activation": "relu"}, "for BERT alone, not ELECTRA"),
        ({"model_type": "something-new"}, "something-new"),
        ({"model_type": "mobilebert"}, "mobilebert.*bottlenecks"),
        ({"architectures": ["DebertaV2Model"]}, "deberta-v2"),
        ({"type_vocab_size": 1, "max_position_embeddings": 514}, "RoBERTa's sizes"),
        ({"pruned_heads": {"0": [1, 2]}}, "pruned_heads"),
        ({"quantization_config": {"bits": 8}}, "quantization_config"),
        ({"auto_map": {"AutoModel": "modeling_own.OwnModel"}}, "auto_map"),
        ({"embedding_size": 128}, "embeddings of width 128"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"is_decoder": True}, "is_decoder"),
        ({"hidden_act": "quick_gelu"}, "quick_gelu"),
        ({"hidden_size": 770}, "num_attention_heads"),
        ({"hidden_size": "big"}, "hidden_size"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob"),
        ({"layer_norm_eps": "tiny"}, "layer_norm_eps"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label"),
    ],
)
def test_refuses_by_name(changes, named):
    with pytest.raises(UserError, match=named) as raised:
        EncoderConfig.from_dict(GOOGLE_CONFIG | changes, source="dir/config.json")
    assert str(raised.value).startswith("dir/config.json: ")
    assert "\n" not in str(raised.value)


def test_harmless_keys_are_no_reason_to_refuse():
    harmless = {
        "model_type": "bert",
        "architectures": ["BertForMaskedLM"],
        "pruned_heads": {},
        "position_embedding_type": "absolute",
        "is_decoder": False,
        "auto_map": {"AutoTokenizer": "tokenization_own.OwnTokenizer"},
        "embedding_size": 768,
        "use_cache": True,
    }
    assert EncoderConfig.from_dict(GOOGLE_CONFIG | harmless) == EncoderConfig()


def test_missing_sizes_and_damaged_files_are_named(tmp_path):
    with pytest.raises(UserError, match="no vocab_size, intermediate_size"):
        EncoderConfig.from_dict({"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1})
    with pytest.raises(UserError, match=r"no config\.json"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text('{"hidden_size": ', encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.json: not valid JSON"):
        load_config(tmp_path)
