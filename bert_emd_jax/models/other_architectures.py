"""Architectures that share names with BERT: those that compute something else are refused."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from bert_emd_jax.models.families import FAMILIES


class Architecture(NamedTuple):
    """An architecture other than BERT, and how its files show it.

    Attributes:
      name: with its article, for messages about a weights file.
      tensor_names: a pattern that matches only names in this architecture's weights files; None if they have
        BERT's names.
      model_types: `model_type` in config.json.
      difference: what it computes otherwise, for messages about a config; None of those that are supported.
    """

    name: str
    tensor_names: str | None
    model_types: tuple[str, ...] = ()
    difference: str | None = None


# In a weights file the first pattern that matches counts, so the more special come first.
OTHER_ARCHITECTURES = (
    Architecture(
        "a DistilBERT",
        r"^distilbert\.|(^|\.)transformer\.layer\.\d+\.attention\.q_lin\.",
        ("distilbert",),
    ),
    Architecture(
        "a Longformer",
        r"^longformer\.|\.query_global\.",
        ("longformer",),
        "its attention is a sliding window",
    ),
    Architecture("an X-MOD", r"\.adapter_modules\."),
    Architecture(
        "a RoBERTa, XLM-R or CamemBERT",
        r"^(roberta|camembert)\.|^lm_head\.(dense|layer_norm)\.",
        ("roberta", "xlm-roberta", "camembert"),
    ),
    Architecture(
        "a RoBERTa with normalisation before the layers",
        None,
        ("roberta-prelayernorm", "xlm-roberta-xl"),
        "its normalisations stand before the layers",
    ),
    Architecture(
        "an ALBERT",
        r"^albert\.|\.albert_layer_groups\.",
        ("albert",),
        "its layers share one set of weights and its embeddings are factorised",
    ),
    Architecture(
        "an MPNet", r"^mpnet\.|\.attention\.attn\.q\.", ("mpnet",), "it has relative position buckets"
    ),
    Architecture(
        "a MobileBERT",
        r"^mobilebert\.|(^|\.)embedding_transformation\.|\.bottleneck\.",
        ("mobilebert",),
        "its layers have bottlenecks and stacked feed-forwards",
    ),
    Architecture(
        "a ConvBERT",
        r"^convbert\.|\.key_conv_attn_layer\.",
        ("convbert",),
        "its attention is mixed with convolutions",
    ),
    Architecture(
        "an ELECTRA",
        r"^(electra|generator|discriminator)\b.*\.|^discriminator_predictions\.",
        ("electra",),
    ),
    Architecture(
        "a DeBERTa",
        r"^deberta\.|\.attention\.self\.(in_proj|query_proj|pos_proj)\b",
        ("deberta", "deberta-v2"),
        "its attention is disentangled",
    ),
    Architecture(
        "a SqueezeBERT",
        r"(^|\.)(encoder\.)?layers\.\d+\.attention\.query\.",
        ("squeezebert",),
        "its layers are grouped convolutions",
    ),
    Architecture(
        "a ModernBERT",
        r"^(model\.)?layers\.\d+\.(attn\.Wqkv|mlp\.Wi)\.",
        ("modernbert",),
        "it has rotary positions and no biases",
    ),
    Architecture("a Nomic BERT or another with fused attention weights", r"\.Wqkv\.|^emb_ln\."),
    Architecture(
        "a Nomic BERT",
        r"^nomic_bert\.|(^|\.)layers\.\d+\.post_mlp_layernorm\.",
        ("nomic_bert",),
        "it has rotary positions",
    ),
    Architecture(
        "a Megatron BERT",
        r"(^|\.)encoder\.(layer\.\d+\.)?ln\.",
        ("megatron-bert",),
        "its normalisations stand before the layers",
    ),
    Architecture("a BigBird", r"^(bert\.)?pooler\.(weight|bias)$", ("big_bird",), "its attention is sparse"),
    Architecture("a RoFormer", None, ("roformer",), "it has rotary positions"),
    Architecture("a BERT with relative position embeddings", r"\.attention\.self\.distance_embedding\."),
    Architecture("a BERT decoder with cross attention", r"\.crossattention\."),
    Architecture("a T5", r"(^|\.)(encoder|decoder)\.block\.\d+\.layer\."),
    Architecture("a GPT", r"(^|\.)h\.\d+\.(attn\.c_attn|ln_1)\."),
    Architecture("a decoder or a sequence-to-sequence model", r"(^|\.)embed_tokens\.weight$"),
    Architecture(
        "an ELECTRA or another with embeddings of their own width",
        r"(^|\.)embeddings_project\.",
        ("electra",),
    ),
    Architecture("a LoRA adapter, which must be merged into its model first", r"\.lora_[AB]\."),
    Architecture("a quantised model", r"\.(qweight|SCB|weight_integer|scales)$"),
)

DIFFERENCES = {
    model_type: architecture.difference
    for architecture in OTHER_ARCHITECTURES
    for model_type in architecture.model_types
    if model_type not in FAMILIES
}
"""`model_type` → what an architecture that is refused computes otherwise."""


def architecture_of_tensors(names: Iterable[str], model_type: str) -> str | None:
    """Returns what a weights file with these tensors holds, as "a DistilBERT".

    None if it may be a BERT, or what its config says.
    """
    names = list(names)
    for architecture in OTHER_ARCHITECTURES:
        pattern = architecture.tensor_names
        if pattern is None or model_type in architecture.model_types:
            continue
        if any(re.search(pattern, name) for name in names):
            return architecture.name
    return None


def model_type_of_class(class_name: str) -> str | None:
    """Returns the model type of a class such as RobertaForMaskedLM; None if it is not known."""
    for model_type in sorted([*DIFFERENCES, *FAMILIES], key=len, reverse=True):
        if class_name.lower().startswith(model_type.replace("-", "").replace("_", "")):
            return model_type
    return None
