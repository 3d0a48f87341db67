"""How a sentence embedder makes one vector of a text, in the terms of sentence-transformers."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from bert_emd_jax.errors import UserError

POOLINGS = ("cls", "max", "mean", "mean_sqrt_len")
"""Ways to make one vector of the states of a text's tokens, in the order in which they are concatenated."""
DENSE_ACTIVATIONS = ("identity", "tanh", "relu", "gelu", "sigmoid")
"""What may stand behind a dense module."""
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
"""How two vectors are compared; distances count negatively."""


@dataclasses.dataclass(frozen=True)
class DenseModule:
    """A dense layer behind the pooling."""

    out_features: int
    activation: str = "identity"
    bias: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.out_features, int) or self.out_features < 1:
            raise UserError(f"out_features of a dense module must be above 0, not {self.out_features!r}")
        if self.activation not in DENSE_ACTIVATIONS:
            raise UserError(
                f"activation {self.activation!r} of a dense module: not one of {', '.join(DENSE_ACTIVATIONS)}"
            )


def dense_module_name(number: int) -> str:
    """Name of the parameters of a dense module behind the pooling, by its place among the modules."""
    return f"dense_{number}"


NORMALIZE = "normalize"
"""The module that scales a vector to length 1."""
VectorModule = DenseModule | Literal["normalize"]


@dataclasses.dataclass(frozen=True)
class EmbeddingConfig:
    """From a text to the states of its tokens, and from these to its vector.

    Attributes:
      pooling: of `POOLINGS`; several are concatenated.
      modules: what follows the pooling, in this order.
      max_seq_length: longer texts are cut to so many tokens; None: to what the encoder takes.
      do_lower_case: texts are lower-cased, whatever the tokenizer does.
      prompts: (name, text that is put before the texts).
      default_prompt_name: the prompt of texts for which none is named.
      similarity: of `SIMILARITIES`.
    """

    pooling: tuple[str, ...] = ("mean",)
    modules: tuple[VectorModule, ...] = ()
    max_seq_length: int | None = None
    do_lower_case: bool = False
    prompts: tuple[tuple[str, str], ...] = ()
    default_prompt_name: str | None = None
    similarity: str = "cosine"

    def __post_init__(self) -> None:
        known = [way for way in POOLINGS if way in self.pooling]
        if not self.pooling or list(self.pooling) != known:
            raise UserError(
                f"pooling {', '.join(map(str, self.pooling)) or 'none'}: only {', '.join(POOLINGS)} are"
                " supported, several of them in this order"
            )
        if self.similarity not in SIMILARITIES:
            raise UserError(f"similarity {self.similarity!r} is not one of {', '.join(SIMILARITIES)}")
        longest = self.max_seq_length
        if longest is not None and (not isinstance(longest, int) or longest < 1):
            raise UserError(f"max_seq_length must be above 0, not {longest!r}")
        if self.default_prompt_name is not None and self.default_prompt_name not in dict(self.prompts):
            raise UserError(f"default_prompt_name {self.default_prompt_name!r} is none of the prompts")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "EmbeddingConfig":
        """Returns what `dataclasses.asdict` made a dict of. Raises UserError for anything else."""
        try:
            values = dict(values)
            modules = values.pop("modules", ())
            values["modules"] = tuple(
                NORMALIZE if module == NORMALIZE else DenseModule(**module) for module in modules
            )
            values["pooling"] = tuple(values.get("pooling", ("mean",)))
            values["prompts"] = tuple((str(name), str(text)) for name, text in values.get("prompts", ()))
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise UserError(f"embedding: {error}") from None

    def pooled_size(self, hidden_size: int) -> int:
        """Width of the pooled states."""
        return len(self.pooling) * hidden_size

    def vector_size(self, hidden_size: int) -> int:
        """Width of the vectors."""
        dense = [module.out_features for module in self.modules if isinstance(module, DenseModule)]
        return dense[-1] if dense else self.pooled_size(hidden_size)

    @property
    def normalizes(self) -> bool:
        """Whether vectors have length 1."""
        return bool(self.modules) and self.modules[-1] == NORMALIZE

    def prompt(self, name: str | None) -> str:
        """Returns the text of a prompt, of the default one for None. Raises UserError for an unknown name."""
        name = self.default_prompt_name if name is None else name
        prompts = dict(self.prompts)
        if name is not None and name not in prompts:
            known = ", ".join(prompts) or "none"
            raise UserError(f"prompt_name {name!r}: the model has no such prompt; it has {known}")
        return "" if name is None else prompts[name]

    def prepared(self, text: str, prompt: str = "") -> str:
        """Returns a text as it is tokenised."""
        text = prompt + text
        return text.lower() if self.do_lower_case else text
