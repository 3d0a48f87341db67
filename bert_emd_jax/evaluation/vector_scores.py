"""The scores of vectors: cosines of scored pairs, search among documents, cosines to a teacher's."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from bert_emd_jax.data.kinds import AGREEMENT_METRIC, EMBEDDING, RETRIEVAL_METRICS, SIMILARITY_METRICS
from bert_emd_jax.encoding.embedding_data import EmbeddingSplit, Retrieval
from bert_emd_jax.evaluation.metrics import Scored, ScoredMeans, ScoredRows, compute_metrics
from bert_emd_jax.models.embedding_config import EmbeddingConfig

Vectors = Float[np.ndarray, "rows dim"]

_QUERIES_AT_ONCE = 256
_DEEPEST = 100
"""Documents that are looked at of every query."""


def scored_vectors(split: EmbeddingSplit, vectors: Vectors) -> dict[str, Scored]:
    """Returns by the name of a metric what it is computed of; `vectors` are those of the split's texts."""
    scored: dict[str, Scored] = {}
    if split.pairs is not None:
        first, second = (vectors[rows] for rows in split.pairs.rows.T)
        cosines = ScoredRows(EMBEDDING, cosine(first, second), split.pairs.scores)
        scored |= dict.fromkeys(SIMILARITY_METRICS, cosines)
    if split.retrieval is not None:
        found = ScoredMeans(retrieval_scores(split.retrieval, vectors))
        scored |= dict.fromkeys(RETRIEVAL_METRICS, found)
    return scored


def agreement(vectors: Vectors, teacher: Vectors) -> dict[str, Scored]:
    """Returns the same of vectors beside those that a teacher gives the same texts, as wide."""
    return {AGREEMENT_METRIC: ScoredMeans({AGREEMENT_METRIC: cosine(vectors, teacher)})}


def unit(vectors: Vectors) -> Vectors:
    """Returns float64 vectors of length 1; those of length 0 stay."""
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def cosine(a: Vectors, b: Vectors) -> Float[np.ndarray, " rows"]:
    """Returns the cosines of rows of `a` and the same rows of `b`."""
    return np.einsum("nd,nd->n", unit(a), unit(b))


def similarity(config: EmbeddingConfig, a: Vectors, b: Vectors) -> Float[np.ndarray, "rows others"]:
    """Returns how similar every vector of `a` is to every one of `b`, as the model compares; float32."""
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    if config.similarity == "cosine":
        return (unit(a) @ unit(b).T).astype(np.float32)
    if config.similarity == "dot":
        return a @ b.T
    order = 1 if config.similarity == "manhattan" else 2
    return np.stack([-np.linalg.norm(b - row, ord=order, axis=1) for row in a]) if len(a) else a @ b.T


def retrieval_scores(retrieval: Retrieval, vectors: Vectors) -> dict[str, Float[np.ndarray, " queries"]]:
    """Returns the scores of every query; documents are ordered by cosine, and equal ones as they stand.

    nDCG has the grades as gains, as trec_eval; others count documents with a grade.
    """
    queries, documents = unit(vectors[retrieval.queries]), unit(vectors[retrieval.documents])
    depth = min(_DEEPEST, len(documents))
    scores: dict[str, list[float]] = {name: [] for name in RETRIEVAL_METRICS}
    discounts_of_ten = 1 / np.log2(np.arange(10) + 2)
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        cosines = queries[start : start + _QUERIES_AT_ONCE] @ documents.T
        for row, of_query in enumerate(cosines):
            grades = retrieval.grades[start + row]
            # A whole sort of many documents would be most of the time.
            enough = np.partition(of_query, len(of_query) - depth)[len(of_query) - depth]
            candidates = np.flatnonzero(of_query >= enough)
            best = candidates[np.argsort(-of_query[candidates], kind="stable")][:depth]
            gains = np.array([grades.get(document, 0.0) for document in best.tolist()])
            ideal = np.sort(list(grades.values()))[::-1][:10]
            hits = np.flatnonzero(gains)
            best_gain = ideal @ discounts_of_ten[: len(ideal)]
            scores["ndcg@10"].append(float(gains[:10] @ discounts_of_ten[: len(gains[:10])] / best_gain))
            scores["mrr@10"].append(1 / (hits[0] + 1) if len(hits) and hits[0] < 10 else 0.0)
            for deep in (1, 5, 10, 100):
                scores[f"recall@{deep}"].append((hits < deep).sum() / len(grades))
    return {name: np.array(values) for name, values in scores.items()}


def metrics_of(names: tuple[str, ...], scored: Mapping[str, Scored]) -> dict[str, float]:
    """Returns the named scores, as far as they are there."""
    return {name: compute_metrics([name], scored[name], None)[name] for name in names if name in scored}
