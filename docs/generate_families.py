"""A hook of the site's build: `<!-- families -->` becomes the table of the families of encoders."""

from typing import Any

from bert_emd_jax.models.families import FAMILIES, Family

_MARKER = "<!-- families -->"
_HEADS = {
    "none": "encoder",
    "classifier": "texts",
    "token": "tokens",
    "answer": "answers",
    "masked_lm": "masked words",
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for every page."""
    return markdown.replace(_MARKER, family_table())


def family_table() -> str:
    """The families as Markdown: their classes in transformers, and what they compute otherwise than BERT."""
    lines = ["| `model_type` | classes of transformers | other than BERT |", "| --- | --- | --- |"]
    for model_type, family in FAMILIES.items():
        classes = ", ".join(f"`{family.classes[head]}` ({what})" for head, what in _HEADS.items())
        lines.append(f"| `{model_type}` | {classes} | {_differences(family)} |")
    return "\n".join(lines)


def _differences(family: Family) -> str:
    dense = family.classifier_dense
    found = {
        "positions count from behind the padding's id": family.positions_after_padding,
        "no segments": not family.has_segments,
        "no pooler": not family.has_pooler,
        "embeddings may be narrower": family.has_embedding_size,
        f"a dense layer with {dense.activation if dense else ''} before the classifier of texts": dense,
    }
    return "; ".join(text for text, is_so in found.items() if is_so)
