"""Valid but unusual tables mean the same in every form of file; other libraries wrote them."""

import csv
import io
import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_emd_jax.data.readers import read_split
from bert_emd_jax.data.tasks import get_task

# Spaces that are no ASCII, a next line, a form feed, quotes, zero-width and combining characters.
ODD = st.sampled_from([*"\u00a0\u2028\u0085\f\"'\u200b\u05d0,;|", "e\u0301"])
WORDS = st.lists(
    st.one_of(ODD, st.text(st.characters(categories=["L", "N", "P", "So"]), min_size=1)), min_size=1
)
TEXTS = WORDS.map(" ".join).filter(lambda text: text.strip() != "")
ROWS = st.lists(st.tuples(TEXTS, TEXTS, st.sampled_from(["yes", "no", "may be"])), min_size=3, max_size=8)
SPELLINGS = {"yes": ["yes", "Yes ", " YES"], "no": ["no", "NO", "no "], "may be": ["may be", " May Be"]}


def table(rows, order: random.Random) -> tuple[list[str], list[list[str]]]:
    """Columns in any order, one more that nobody reads, and labels in any case, with spaces around them."""
    names = ["sentence1", "sentence2", "label", "remark"]
    places = order.sample(range(4), 4)
    cells = [[a, b, order.choice(SPELLINGS[label]), "x"] for a, b, label in rows]
    return [names[place] for place in places], [[row[place] for place in places] for row in cells]


def as_csv(header, rows, order: random.Random) -> bytes:
    file = io.StringIO(newline="")
    quoting = order.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    csv.writer(file, quoting=quoting, lineterminator=order.choice(["\n", "\r\n"])).writerows([header, *rows])
    return order.choice([b"", b"\xef\xbb\xbf"]) + file.getvalue().encode()


def as_tsv(header, rows, order: random.Random) -> bytes:
    end = order.choice(["\n", "\r\n"])
    text = end.join("\t".join(row) for row in [header, *rows]) + order.choice(["", end, 2 * end])
    return order.choice([b"", b"\xef\xbb\xbf"]) + text.encode()


def as_jsonl(header, rows, order: random.Random) -> bytes:
    ascii_only, lines = order.choice([True, False]), []
    for row in rows:
        pairs = list(zip(header, row, strict=True))
        lines.append(json.dumps(dict(order.sample(pairs, len(pairs))), ensure_ascii=ascii_only))
        lines += [""] * order.choice([0, 0, 1])
    return "\n".join(lines).encode()


def as_parquet(header, rows, order: random.Random) -> bytes:
    kinds = {"label": order.choice([pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])}
    columns = {
        name: pa.array([row[place] for row in rows]).cast(kinds.get(name, pa.string()))
        for place, name in enumerate(header)
    }
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), buffer, row_group_size=order.choice([1, 100]))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("form", "write"), [("csv", as_csv), ("tsv", as_tsv), ("jsonl", as_jsonl), ("parquet", as_parquet)]
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, seed=st.integers(0, 2**31))
def test_the_rows_are_those_that_were_written(form, write, rows, seed, tmp_path):
    rows = [*rows, ("a", "b", "yes"), ("c", "d", "no")]  # two labels at least
    order = random.Random(seed)
    (tmp_path / f"train.{form}").write_bytes(write(*table(rows, order), order))
    task = get_task("custom", data_dir=tmp_path, text_column="sentence1", text_pair_column="sentence2")
    read = read_split(task, tmp_path, "train")
    assert read.texts_a == [a for a, _, _ in rows]
    assert read.texts_b == [b for _, b, _ in rows]
    assert {name.strip().lower() for name in task.labels or ()} == {label for *_, label in rows}
    assert len(task.labels or ()) == len({label for *_, label in rows})
    found = [(task.labels or ())[int(label)].strip().lower() for label in np.asarray(read.labels)]
    assert found == [label for *_, label in rows]
