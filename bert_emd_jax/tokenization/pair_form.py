"""How a tokenizer puts two texts together: what stands between them, and which segment the second one is."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import tokenizers
from tokenizers import pre_tokenizers, processors

# transformers' classes that put pairs together as RoBERTa does, whatever their files say.
_ROBERTA_CLASSES = ("Roberta", "XLMRoberta", "Camembert")


class PairForm(NamedTuple):
    """`[CLS] a [SEP] b [SEP]`, with `separators` of [SEP] between the texts.

    has_segments: whether the second text is segment 1; all is segment 0 otherwise.
    """

    separators: int = 1
    has_segments: bool = True

    @property
    def odd_goes_to_longer(self) -> bool:
        """See `truncated_lengths`: BERT-EMD's code truncates BERT's pairs, the library those of others."""
        return not self.has_segments

    @property
    def specials(self) -> int:
        """The special tokens of a pair."""
        return 2 + self.separators


BERT_PAIRS = PairForm()
ROBERTA_PAIRS = PairForm(separators=2, has_segments=False)


def declared_pairs(
    settings: Mapping[str, Any], description: Mapping[str, Any] | None = None
) -> PairForm | None:
    """Returns the form that a tokenizer's files declare, BERT's if they do not; None for any other.

    Args:
      settings: of `tokenizer_config.json`.
      description: `tokenizer.json`, if there is one.
    """
    name = str(settings.get("tokenizer_class") or "").removesuffix("Fast").removesuffix("Tokenizer")
    processor = (description or {}).get("post_processor")
    if processor is not None and processor.get("type") == "Sequence":
        parts = [part for part in processor["processors"] if part.get("type") != "ByteLevel"]
        processor = parts[0] if len(parts) == 1 else processor
    if processor is None or processor.get("type") == "ByteLevel":
        return ROBERTA_PAIRS if name in _ROBERTA_CLASSES else BERT_PAIRS
    if processor.get("type") == "RobertaProcessing":
        return ROBERTA_PAIRS
    if processor.get("type") == "BertProcessing":
        return BERT_PAIRS
    return _of_template(processor.get("pair", ()))


def _of_template(pair: Any) -> PairForm | None:
    """Returns the form of a template's parts, {"SpecialToken" or "Sequence": {"id", "type_id"}} each."""
    parts = [(kind, part["id"], part["type_id"]) for item in pair for kind, part in item.items()]
    if len(parts) < 5:
        return None
    (_, _, of_start), first, *between, second, last = parts
    separator, of_second = last[1], second[2]
    is_known = (
        [part[0] for part in parts]
        == ["SpecialToken", "Sequence", *["SpecialToken"] * len(between), "Sequence", "SpecialToken"]
        and (first[1], second[1]) == ("A", "B")
        and [part[1:] for part in between] == [(separator, 0)] * len(between)
        and (of_start, first[2], last[2]) == (0, 0, of_second)
        and of_second in (0, 1)
    )
    return PairForm(len(between), of_second == 1) if is_known else None


def assembling(
    backend: tokenizers.Tokenizer, pairs: PairForm, cls: tuple[str, int], sep: tuple[str, int]
) -> processors.PostProcessor:
    """Returns what assembles inputs in this form, for a saved tokenizer.

    Args:
      cls, sep: text and id of the special tokens.
    """
    second = int(pairs.has_segments)
    between = [f"{sep[0]}:0"] * pairs.separators
    template = processors.TemplateProcessing(
        single=[f"{cls[0]}:0", "$A:0", f"{sep[0]}:0"],
        pair=[f"{cls[0]}:0", "$A:0", *between, f"$B:{second}", f"{sep[0]}:{second}"],
        special_tokens=[cls, sep],
    )
    if not is_byte_level(backend):
        return template
    # Spans of tokens leave out the space that belongs to their first byte.
    adds_space = bool(getattr(backend.pre_tokenizer, "add_prefix_space", False))
    spans = processors.ByteLevel(add_prefix_space=adds_space, trim_offsets=True)
    return processors.Sequence([spans, template])


def is_byte_level(backend: tokenizers.Tokenizer) -> bool:
    """Whether a tokenizer spells texts in bytes, as GPT-2's and RoBERTa's do."""
    splitter = backend.pre_tokenizer
    if isinstance(splitter, pre_tokenizers.Sequence):
        return "ByteLevel(" in str(splitter)
    return isinstance(splitter, pre_tokenizers.ByteLevel)
