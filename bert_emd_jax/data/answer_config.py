"""The flags of questions and answers. No JAX here."""

import dataclasses

from bert_emd_jax.configs import Config


@dataclasses.dataclass(frozen=True, init=False)
class AnswerConfig(Config):
    """Search for answers in texts, with --kind answer."""

    doc_stride: int | None = None
    """Tokens shared by neighbouring windows of a long text; default: a third of a window."""
    max_query_length: int = 64
    """Maximum question length in tokens; longer questions are cut."""
    max_answer_length: int = 30
    """Maximum answer length in tokens."""
    n_best_size: int = 20
    """Number of answers kept per question, best first."""
    null_threshold: float | None = None
    """Treat a question as unanswerable if [CLS] scores more than this above the best answer; default: 0 if
    the data contain such questions, else every question has an answer."""

    def check(self) -> None:
        for name in ("max_query_length", "max_answer_length", "n_best_size"):
            self.require(name, getattr(self, name) >= 1, "at least 1")
        self.require("doc_stride", self.doc_stride is None or self.doc_stride >= 0, "at least 0")
