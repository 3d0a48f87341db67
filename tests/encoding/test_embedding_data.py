"""Texts to embed from files: columns, prompts, pairs, retrieval, and what is held out."""

import json

import numpy as np
import pytest

from bert_emd_jax.data.retrieval import read_retrieval
from bert_emd_jax.data.task_config import TaskConfig
from bert_emd_jax.encoding.embedding_data import load_embedding_data, load_embedding_split
from bert_emd_jax.encoding.task_data import task_of
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.embedding_config import EmbeddingConfig

PAIRS = "sentence1\tsentence2\tscore\nthe cat\ta dog\t1.5\na dog\ton the mat\t4\n"
FLAGS = {"text_column": "sentence1", "text_pair_column": "sentence2", "label_column": "score"}
TEXTS = "the cat sat\n\n  a dog \nthe cat sat\non the mat\n"


def config_of(directory, **flags) -> TaskConfig:
    fixed = {"data_dir": directory, "task_name": "custom", "kind": "embedding", "token_cache": False}
    return TaskConfig(**fixed, **flags)


def loaded(directory, tokenizer, embedding=None, **flags):
    config = config_of(directory, **flags)
    embedding = embedding or EmbeddingConfig()
    return load_embedding_data(config, task_of(config), tokenizer, embedding, lambda rows: rows, (50,))


def ids_of(rows) -> list[tuple[int, ...]]:
    """Without the special tokens."""
    ids = np.split(rows.token_ids, rows.offsets[1:-1])
    return [tuple(row[1:-1].tolist()) for row in ids]


def tokens(tokenizer, texts) -> list[tuple[int, ...]]:
    return [tuple(ids) for ids in tokenizer.encode(texts)]


def write(directory, files: dict[str, str]):
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text, encoding="utf-8")
    return directory


JSONL = "".join(json.dumps({"text": text}) + "\n" for text in ("the cat", "a dog", "the cat"))
FORMS = {
    "a text a line": ({"train.txt": TEXTS}, ["the cat sat", "a dog", "on the mat"]),
    "one column": ({"train.tsv": "anything\nthe cat\na dog\n"}, ["the cat", "a dog"]),
    "two columns": ({"train.csv": "a,b\nthe cat,a dog\na dog,the mat\n"}, ["the cat", "a dog", "the mat"]),
    "JSON lines": ({"train.jsonl": JSONL}, ["the cat", "a dog"]),
    "text among others": ({"train.csv": "id,text,label\n1,the cat,x\n2,a dog,y\n"}, ["the cat", "a dog"]),
    "columns of the flags": ({"train.tsv": PAIRS}, ["the cat", "a dog", "on the mat"]),
}


@pytest.mark.parametrize("name", FORMS)
def test_training_texts_are_read_once_each(tmp_path, tokenizer, name):
    files, texts = FORMS[name]
    data = loaded(write(tmp_path, {**files, "dev.tsv": PAIRS}), tokenizer, **FLAGS)
    assert ids_of(data.train) == tokens(tokenizer, texts)
    assert data.train.labels is None
    assert data.task.metrics == ("spearman", "pearson")
    assert data.dev.pairs is not None
    np.testing.assert_array_equal(data.dev.pairs.scores, np.float32([1.5, 4]))
    assert data.dev.texts == ("the cat", "a dog", "on the mat")
    np.testing.assert_array_equal(data.dev.pairs.rows, [[0, 1], [1, 2]])


def test_parquet(tmp_path, tokenizer):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": ["the cat", "a dog"]}), tmp_path / "train.parquet")
    data = loaded(write(tmp_path, {"dev.tsv": PAIRS}), tokenizer, **FLAGS)
    assert ids_of(data.train) == tokens(tokenizer, ["the cat", "a dog"])


def test_without_a_dev_file_the_last_texts_are_held_out(tmp_path, tokenizer, said):
    texts = [f"the cat {number}" for number in range(40)]
    data = loaded(write(tmp_path, {"train.txt": "\n".join(texts)}), tokenizer)
    assert data.dev.texts == tuple(texts[-4:])
    assert ids_of(data.train) == tokens(tokenizer, texts[:-4])
    assert data.task.metrics == ("teacher_cosine",)
    assert "the last 4 training texts are held out" in said.text
    with pytest.raises(UserError, match="too few texts to hold some out"):
        loaded(write(tmp_path, {"train.txt": "a\nb\n"}), tokenizer)


def test_a_dev_file_of_texts_is_compared_with_the_teacher(tmp_path, tokenizer):
    directory = write(tmp_path, {"train.txt": TEXTS, "dev.csv": "text,label\na dog,x\nthe mat,y\n"})
    data = loaded(directory, tokenizer)
    assert data.task.metrics == ("teacher_cosine",)
    assert data.dev.pairs is None
    assert (len(data.dev), data.dev.unit) == (2, "texts")


def test_prompts_and_lower_casing(tmp_path, tokenizer):
    prompts = (("query", "q "), ("passage", "P "), ("own", "X "))
    embedding = EmbeddingConfig(do_lower_case=True, prompts=prompts, default_prompt_name="own")
    files = {
        "train.txt": "The CAT\n",
        "dev.tsv": PAIRS,
        "dev/queries.tsv": "id\ttext\n1\tA Dog\n",
        "dev/documents.tsv": "id\ttext\n1\tA Dog\n",
        "dev/relevance.tsv": "query\tdocument\tgrade\n1\t1\t1\n",
    }
    data = loaded(write(tmp_path, files), tokenizer, embedding, **FLAGS)
    assert ids_of(data.train) == tokens(tokenizer, ["x the cat"])
    assert data.dev.texts == ("x the cat", "x a dog", "x on the mat", "q a dog", "p a dog")


RETRIEVAL = {
    "dev/queries.tsv": "id\ttext\nq1\tthe cat\nq2\ta dog\nq3\tnothing\n",
    "dev/documents.tsv": "text\tid\nthe mat\td1\nthe cat\td2\n",
    "dev/relevance.tsv": "query\tdocument\tgrade\nq1\td2\t2\nq1\td1\t0\nq2\td1\t1\n",
}


def test_retrieval_beside_pairs_or_alone(tmp_path, tokenizer):
    directory = write(tmp_path, {"train.txt": TEXTS, **RETRIEVAL})
    data = loaded(directory, tokenizer)
    assert data.task.metrics[0] == "ndcg@10"
    retrieval = data.dev.retrieval
    assert retrieval is not None
    assert (len(data.dev), data.dev.unit) == (2, "queries")
    assert data.dev.texts == ("the cat", "a dog", "the mat")  # the third query has no document
    assert retrieval.queries.tolist() == [0, 1]
    assert retrieval.documents.tolist() == [2, 0]
    assert retrieval.grades == [{1: 2.0}, {0: 1.0}]
    both = loaded(write(tmp_path, {"dev.tsv": PAIRS}), tokenizer, **FLAGS)
    assert both.task.metrics[:3] == ("spearman", "pearson", "ndcg@10")
    chosen = loaded(directory, tokenizer, metric="recall@5", **FLAGS)
    assert chosen.task.primary_metric == "recall@5"
    with pytest.raises(UserError, match=r"--metric accuracy: no score of custom, which has spearman, pears"):
        loaded(directory, tokenizer, metric="accuracy", **FLAGS)


BAD = {
    "unknown document": (
        "relevance.tsv",
        "query\tdocument\tgrade\nq1\td9\t1\n",
        ":2: no 'd9' in documents",
    ),
    "unknown query": ("relevance.tsv", "query\tdocument\tgrade\nq9\td1\t1\n", ":2: no 'q9' in queries.tsv"),
    "no number": (
        "relevance.tsv",
        "query\tdocument\tgrade\nq1\td1\tgood\n",
        ":2: the grade 'good' is no",
    ),
    "nothing": (
        "relevance.tsv",
        "query\tdocument\tgrade\nq1\td1\t0\n",
        "no query has a document with a",
    ),
    "twice": ("documents.tsv", "id\ttext\nd1\ta\nd1\tb\n", ":3: the id 'd1' is there twice"),
    "no column": ("queries.tsv", "name\ttext\nq1\ta\n", ":1: no column 'id' in the header"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_retrieval_files_are_refused_with_file_and_line(tmp_path, name):
    file, text, message = BAD[name]
    write(tmp_path, {**RETRIEVAL, f"dev/{file}": text})
    with pytest.raises(UserError, match=message) as refused:
        read_retrieval(tmp_path, "dev")
    assert str(refused.value).startswith(str(tmp_path / "dev" / file))


def test_bad_flags_and_files(tmp_path, tokenizer):
    write(tmp_path, {"train.txt": TEXTS, "dev.tsv": PAIRS})
    with pytest.raises(UserError, match=r"dev.tsv:1: no column 'grade', which --label_column names"):
        loaded(tmp_path, tokenizer, **(FLAGS | {"label_column": "grade"}))
    with pytest.raises(UserError, match=r"dev.tsv:1: no column 'text' or 'sentence'"):
        loaded(tmp_path, tokenizer)
    with pytest.raises(UserError, match="--labels: the labels of kind embedding have no names"):
        loaded(tmp_path, tokenizer, labels=("a", "b"))
    write(tmp_path, {"dev.tsv": PAIRS + "a\tb\tsimilar\n"})
    with pytest.raises(UserError, match=r"dev.tsv:4: the value 'similar' is not a finite number"):
        loaded(tmp_path, tokenizer, **FLAGS)
    (tmp_path / "train.txt").write_bytes(b"fine\n\xff\n")
    with pytest.raises(UserError, match=r"train.txt:2: .* not valid UTF-8"):
        loaded(tmp_path, tokenizer, **FLAGS)
    config = config_of(tmp_path, **FLAGS)
    assert load_embedding_split(config, task_of(config), tokenizer, EmbeddingConfig(), "test") is None
