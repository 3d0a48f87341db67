"""Whether two tokenizers give texts the same token ids, by what they do: files of one say it in many ways."""

from bert_emd_jax.tokenization.tokenizer import Tokenizer

_TOKENS_TRIED = 2000
# What the rules of tokenizers differ in: case, accents, width, spaces, control characters, numbers, scripts.
_PROBES = (
    "",
    " leading, trailing \t\n",
    "The CAT sat; un-affable RUNNING!",
    "Café naïve ÀÉÎ e\u0301 İstanbul ß ﬁ ½ Ａｆｕｌｌ",
    "don't we'll I'M they've 's",
    "1,000.50 $ 3x7=21 2026-11-28 www.example.org a_b@c.de #tag",
    "``quoted'' “curly” – — … « »",
    "中文字 mixed日 한국어 カナ ひらがな ไทย العربية हिन्दी",
    "🙂 👩‍👩‍👧‍👦 \ue000",
    "a\x00b\x01c\u200b\ufeff\u00a0\u3000\u2028d",
    "x" * 120 + " " + "y" * 90,
)


def reads_the_same(one: Tokenizer, other: Tokenizer) -> bool:
    """Whether two tokenizers have the same tokens and special tokens, and give texts the same ids.

    The texts are some with what tokenizers treat differently, and many of their own tokens.
    """
    if one.fingerprint == other.fingerprint:
        return True
    specials = [
        (each.unk_id, each.sep_id, each.pad_id, each.cls_id, each.mask_id, each.pairs)
        for each in (one, other)
    ]
    tokens = one.tokens()
    if specials[0] != specials[1] or tokens != other.tokens():
        return False
    tried = tokens[:: max(len(tokens) // _TOKENS_TRIED, 1)]
    probes = [*_PROBES, *map(str.swapcase, _PROBES), *tried, " ".join(tried)]
    return one.encode(probes) == other.encode(probes)
