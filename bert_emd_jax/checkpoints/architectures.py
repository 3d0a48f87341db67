"""Which other architecture a weights file comes from, told by the names of its tensors."""

import re
from collections.abc import Iterable

# A name that only this architecture's files hold. The first match counts, so the more special come first.
_SIGNATURES = tuple(
    (re.compile(pattern), architecture)
    for pattern, architecture in (
        (r"^distilbert\.|(^|\.)transformer\.layer\.\d+\.attention\.q_lin\.", "a DistilBERT"),
        (r"^longformer\.|\.query_global\.", "a Longformer"),
        (r"\.adapter_modules\.", "an X-MOD"),
        (r"^(roberta|camembert)\.|^lm_head\.(dense|layer_norm)\.", "a RoBERTa, XLM-R or CamemBERT"),
        (r"^albert\.|\.albert_layer_groups\.", "an ALBERT"),
        (r"^mpnet\.|\.attention\.attn\.q\.", "an MPNet"),
        (r"^mobilebert\.|(^|\.)embedding_transformation\.|\.bottleneck\.", "a MobileBERT"),
        (r"^convbert\.|\.key_conv_attn_layer\.", "a ConvBERT"),
        (r"^(electra|generator|discriminator)\b.*\.|^discriminator_predictions\.", "an ELECTRA"),
        (r"^deberta\.|\.attention\.self\.(in_proj|query_proj|pos_proj)\b", "a DeBERTa"),
        (r"(^|\.)(encoder\.)?layers\.\d+\.attention\.query\.", "a SqueezeBERT"),
        (r"^(model\.)?layers\.\d+\.(attn\.Wqkv|mlp\.Wi)\.", "a ModernBERT"),
        (r"\.Wqkv\.|^emb_ln\.", "a Nomic BERT or another with fused attention weights"),
        (r"^nomic_bert\.|(^|\.)layers\.\d+\.post_mlp_layernorm\.", "a Nomic BERT"),
        (r"(^|\.)encoder\.(layer\.\d+\.)?ln\.", "a Megatron BERT"),
        (r"^(bert\.)?pooler\.(weight|bias)$", "a BigBird"),
        (r"\.attention\.self\.distance_embedding\.", "a BERT with relative position embeddings"),
        (r"\.crossattention\.", "a BERT decoder with cross attention"),
        (r"(^|\.)(encoder|decoder)\.block\.\d+\.layer\.", "a T5"),
        (r"(^|\.)h\.\d+\.(attn\.c_attn|ln_1)\.", "a GPT"),
        (r"(^|\.)embed_tokens\.weight$", "a decoder or a sequence-to-sequence model"),
        (r"(^|\.)embeddings_project\.", "an ELECTRA or another with embeddings of their own width"),
        (r"\.lora_[AB]\.", "a LoRA adapter, which must be merged into its model first"),
        (r"\.(qweight|SCB|weight_integer|scales)$", "a quantised model"),
    )
)


def foreign_architecture(names: Iterable[str]) -> str | None:
    """What the tensors look like, as "a DistilBERT"; None where no architecture is recognised."""
    names = list(names)
    for pattern, architecture in _SIGNATURES:
        if any(pattern.search(name) for name in names):
            return architecture
    return None
