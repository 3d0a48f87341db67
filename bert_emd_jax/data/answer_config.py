"""The flags of questions and answers. No JAX here."""

import dataclasses

from bert_emd_jax.configs import Config


@dataclasses.dataclass(frozen=True, init=False)
class AnswerConfig(Config):
    """How texts are searched for answers, with --kind answer."""

    doc_stride: int | None = None
    """Tokens that neighbouring windows of a long text share; not given: a third of a window."""
    max_query_length: int = 64
    """Longest question in tokens; longer ones are cut."""
    max_answer_length: int = 30
    """Longest answer in tokens."""
    n_best_size: int = 20
    """Answers that are kept of every question, the best first."""
    null_threshold: float | None = None
    """A question has no answer if [CLS] scores more than so much above the best one. Not given: 0 if the data
    have such questions; else every question has one."""

    def check(self) -> None:
        for name in ("max_query_length", "max_answer_length", "n_best_size"):
            self.require(name, getattr(self, name) >= 1, "at least 1")
        self.require("doc_stride", self.doc_stride is None or self.doc_stride >= 0, "at least 0")
