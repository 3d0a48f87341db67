"""Scores of vectors beside SciPy, scikit-learn, sentence-transformers and plain loops."""

import numpy as np
import pytest
from scipy import stats

from bert_emd_jax.data.examples import Examples
from bert_emd_jax.encoding.dataset import EncodedDataset
from bert_emd_jax.encoding.embedding_data import EmbeddingSplit, Retrieval, ScoredPairs
from bert_emd_jax.evaluation.intervals import difference_interval, score_interval
from bert_emd_jax.evaluation.metrics import ScoredMeans
from bert_emd_jax.evaluation.similarities import write_similarities
from bert_emd_jax.evaluation.vector_scores import agreement, cosine, metrics_of, scored_vectors
from bert_emd_jax.files import read_json

RNG = np.random.default_rng(0)
TEXTS = tuple(f"text {number}" for number in range(160))
VECTORS = RNG.standard_normal((160, 6)).astype(np.float32)
PAIR_ROWS = RNG.permutation(160)[:144].reshape(72, 2)
SCORES = RNG.uniform(0, 5, 72)
QUERIES, DOCUMENTS = np.arange(12), np.arange(12, 160)
GRADES = [
    {int(document): float(RNG.integers(1, 4)) for document in RNG.choice(148, size, replace=False)}
    for size in (1, 2, 3, 5, 9, 14, 1, 2, 3, 5, 9, 14)
]
ROWS = EncodedDataset(np.ones(160, np.int32), np.arange(161), np.ones(160, np.int32), None, 0)
SPLIT = EmbeddingSplit(
    TEXTS,
    ROWS,
    ScoredPairs(PAIR_ROWS, SCORES, Examples.from_texts(["a"] * 72, ["b"] * 72, SCORES)),
    Retrieval(QUERIES, DOCUMENTS, GRADES),
)
NAMES = ("spearman", "pearson", "ndcg@10", "mrr@10", "recall@1", "recall@5", "recall@10", "recall@100")


def test_pairs_are_scored_as_scipy_does():
    a, b = VECTORS[PAIR_ROWS[:, 0]], VECTORS[PAIR_ROWS[:, 1]]
    cosines = np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(cosine(a, b), cosines, atol=1e-6)
    scores = metrics_of(NAMES, scored_vectors(SPLIT, VECTORS))
    assert scores["spearman"] == pytest.approx(stats.spearmanr(cosines, SCORES)[0], abs=1e-6)
    assert scores["pearson"] == pytest.approx(stats.pearsonr(cosines, SCORES)[0], abs=1e-6)


def test_ndcg_is_that_of_scikit_learn():
    from sklearn.metrics import ndcg_score

    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    found = unit[QUERIES] @ unit[DOCUMENTS].T
    truth = np.zeros_like(found)
    for query, grades in enumerate(GRADES):
        truth[query, list(grades)] = list(grades.values())
    scores = metrics_of(NAMES, scored_vectors(SPLIT, VECTORS))
    assert scores["ndcg@10"] == pytest.approx(ndcg_score(truth, found, k=10), abs=1e-9)


def test_search_is_scored_as_sentence_transformers_does():
    pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    class Embeds:
        """Vectors by the numbers in texts; what else the evaluator asks of a model."""

        similarity_fn_name, similarity = "cosine", None
        model_card_data = prompts = None

    import torch

    def of(texts, **_):
        return torch.tensor(np.array([VECTORS[int(text.split()[1])] for text in texts]))

    queries = {str(row): TEXTS[row] for row in QUERIES}
    corpus = {str(row): TEXTS[row] for row in DOCUMENTS}
    relevant = {str(row): {str(12 + document) for document in GRADES[row]} for row in QUERIES}
    ks = [1, 5, 10, 100]
    evaluator = InformationRetrievalEvaluator(
        queries, corpus, relevant, mrr_at_k=[10], ndcg_at_k=[10], precision_recall_at_k=ks, accuracy_at_k=[1]
    )
    from sentence_transformers.util import cos_sim

    model = Embeds()
    model.encode = model.encode_query = model.encode_document = of  # pyright: ignore[reportAttributeAccessIssue]
    evaluator.score_functions, evaluator.score_function_names = {"cosine": cos_sim}, ["cosine"]
    theirs = evaluator.compute_metrices(model)["cosine"]
    ours = metrics_of(NAMES, scored_vectors(SPLIT, VECTORS))
    assert ours["mrr@10"] == pytest.approx(theirs["mrr@k"][10], abs=1e-9)
    for k in ks:
        assert ours[f"recall@{k}"] == pytest.approx(theirs["recall@k"][k], abs=1e-9)
    flat = EmbeddingSplit(
        TEXTS, ROWS, None, Retrieval(QUERIES, DOCUMENTS, [dict.fromkeys(grades, 1.0) for grades in GRADES])
    )
    ours = metrics_of(NAMES, scored_vectors(flat, VECTORS))
    assert ours["ndcg@10"] == pytest.approx(theirs["ndcg@k"][10], abs=1e-9)


def test_fewer_documents_than_are_looked_at():
    retrieval = Retrieval(np.array([0]), np.array([1, 2]), [{1: 1.0}])
    vectors = np.float32([[1, 0], [0, 1], [1, 0.1]])
    split = EmbeddingSplit(TEXTS[:3], ROWS, None, retrieval)
    scores = metrics_of(NAMES, scored_vectors(split, vectors))
    assert set(scores.values()) == {1.0}
    scores = metrics_of(NAMES, scored_vectors(split, vectors[[0, 2, 1]]))
    assert (scores["recall@1"], scores["mrr@10"], scores["recall@5"]) == (0, 0.5, 1)
    assert scores["ndcg@10"] == pytest.approx(1 / np.log2(3))


def test_agreement_and_intervals():
    other = VECTORS + 0.5 * RNG.standard_normal(VECTORS.shape).astype(np.float32)
    scored = agreement(other, VECTORS)
    assert metrics_of(("teacher_cosine", "spearman"), scored) == {
        "teacher_cosine": pytest.approx(np.mean(cosine(other, VECTORS)))
    }
    assert metrics_of(("teacher_cosine",), agreement(VECTORS, VECTORS)) == {
        "teacher_cosine": pytest.approx(1)
    }
    one, perfect = scored["teacher_cosine"], agreement(VECTORS, VECTORS)["teacher_cosine"]
    low, high = score_interval("teacher_cosine", one, None)
    values = cosine(other, VECTORS)
    error = values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.3 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.3 * error)
    low, high = difference_interval("teacher_cosine", [one], [perfect], None)
    assert low < high < 0
    with pytest.raises(ValueError, match="the model has diverged"):
        ScoredMeans({"teacher_cosine": np.array([np.nan])})


def test_similarities_for_the_report(tmp_path):
    student = VECTORS + 0.3 * RNG.standard_normal(VECTORS.shape).astype(np.float32)
    write_similarities(tmp_path / "a.json", TEXTS, {"student": student, "teacher": VECTORS})
    write_similarities(tmp_path / "b.json", TEXTS, {"student": student, "teacher": VECTORS})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    content = read_json(tmp_path / "a.json")
    row = {text: number for number, text in enumerate(TEXTS)}
    assert len(content["cosines"]["student"]) == len(content["cosines"]["teacher"]) > 1000
    gaps = [abs(pair["student"] - pair["teacher"]) for pair in content["apart"]]
    assert gaps == sorted(gaps, reverse=True)
    assert max(np.abs(np.subtract(*content["cosines"].values()))) == pytest.approx(gaps[0], abs=2e-4)
    for pair in content["apart"]:
        vectors = {"student": student, "teacher": VECTORS}
        for name in vectors:
            a, b = (vectors[name][row[pair[key]]][None] for key in ("text", "text_pair"))
            assert cosine(a, b)[0] == pytest.approx(pair[name], abs=1e-4)
    for query in content["neighbours"]:
        cosines = cosine(np.repeat(VECTORS[[row[query["text"]]]], 160, axis=0), VECTORS)
        cosines[row[query["text"]]] = -2
        best = [TEXTS[k] for k in np.argsort(-cosines)[:4]]
        assert [neighbour["text"] for neighbour in query["teacher"]] == best
