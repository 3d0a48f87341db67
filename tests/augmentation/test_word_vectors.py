"""Word vectors from text files: neighbours against scikit-learn's, and every bad line by its number."""

import re
from pathlib import Path

import numpy as np
import pytest

from bert_emd_jax.augmentation.word_vectors import WordVectors
from bert_emd_jax.errors import UserError

GLOVE = """\
film 1.0 0.1 0.0
movie 0.9 0.2 0.0
, 1 1 1
dog 0 1 0.1
2004 1 0.1 0
cat 0 0.9 0.3
zero 0 0 0
"""


def write(directory: Path, content: str | bytes) -> Path:
    path = directory / "vectors.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_neighbours_are_those_of_scikit_learn():
    neighbors = pytest.importorskip("sklearn.neighbors")
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((300, 7)).astype(np.float32)
    words = ["w" + "".join(chr(97 + int(digit)) for digit in str(number)) for number in range(300)]
    index = neighbors.NearestNeighbors(n_neighbors=6, metric="cosine", algorithm="brute").fit(vectors)
    theirs = index.kneighbors(vectors, return_distance=False)
    ours = WordVectors(words, vectors).neighbours(words, 5)
    for word, indices, found in zip(words, theirs, ours, strict=True):
        assert found == [words[index] for index in indices if words[index] != word]


@pytest.mark.parametrize("header", ["", "7 3\n", "\ufeff7 3\n"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", " \n"])  # fastText leaves a space
def test_forms_of_the_file(tmp_path, header, ending):
    vectors = WordVectors.from_file(write(tmp_path, header + GLOVE.replace("\n", ending)))
    assert len(vectors) == 5  # words of letters
    assert vectors.neighbours(["film", "Dog", "unknown", "zero", "2004"], 2) == [
        ["movie", "dog"],
        ["cat", "movie"],
        [],
        [],
        [],
    ]


def test_all_others_where_fewer_are_there(tmp_path):
    vectors = WordVectors.from_file(write(tmp_path, GLOVE))
    assert vectors.neighbours(["film"], 99) == [["movie", "dog", "cat"]]


def test_the_first_lines_only(tmp_path):
    path = write(tmp_path, GLOVE + "broken\n")
    assert len(WordVectors.from_file(path, 2)) == 2
    assert len(WordVectors.from_file(path, 3)) == 2  # the third is a comma
    assert len(WordVectors.from_file(path, 7)) == 5
    assert len(WordVectors.from_file(path)) == 5


def test_a_word_with_spaces_is_no_broken_line(tmp_path):
    path = write(tmp_path, "film 1 2\n. . . 3 4\nat name@domain.com 5 6\nmovie 1 2\n")
    assert WordVectors.from_file(path).neighbours(["film"], 3) == [["movie"]]


def test_the_last_of_two_lines_of_a_word_counts():
    """As in TinyBERT's program; the other is nobody's neighbour."""
    vectors = WordVectors(["film", "dog", "movie", "film"], np.array([[1, 0], [0, 1], [1, 0.1], [0.1, 1]]))
    assert vectors.neighbours(["film", "movie"], 2) == [["dog", "movie"], ["film", "dog"]]


@pytest.mark.parametrize(
    "line",
    [
        *("dog 1 2", "dog 1 2 3 4", "dog", "dog 1 x 3", "dog 1 nan 3", "dog 1 1e999 3", "1 2 3", " 1 2 3"),
        *("dog\t1\t2\t3", "dog 1  2 3"),
    ],
)
def test_a_bad_line_is_skipped_and_said(tmp_path, line, said):
    path = write(tmp_path, f"film 1 2 3\nmovie 1 2 3\n{line}\ncat 1 2 3\n")
    assert WordVectors.from_file(path).neighbours(["film"], 9) == [["movie", "cat"]]
    assert re.search(r"vectors\.txt:3: .* a word and 3 numbers; lines skipped: 1", said.text)
    path = write(tmp_path, "film 1 2 3\n" + 11 * f"{line}\n")
    with pytest.raises(UserError, match=r"vectors\.txt:2: .* a word and 3 numbers, nor are others; correct"):
        WordVectors.from_file(path)


def test_files_that_hold_none(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        WordVectors.from_file(tmp_path / "missing.txt")
    for content in ("", "\n\n", ", 1 2\n"):
        with pytest.raises(UserError, match="no word vectors"):
            WordVectors.from_file(write(tmp_path, content))
    with pytest.raises(UserError, match="no word vectors"):
        WordVectors.from_file(write(tmp_path, "word\n"))
    with pytest.raises(UserError, match=":2: byte 1"):
        WordVectors.from_file(write(tmp_path, b"film 1 2\n\xff 1 2\n"))
