"""Tasks by name, and GLUE files in the official layout; every bad row is named."""

import numpy as np
import pytest

from bert_emd_jax.data.readers import read_split, scored_splits
from bert_emd_jax.data.tasks import TASK_NAMES, get_task
from bert_emd_jax.errors import UserError


def write(directory, name, text, encoding="utf-8"):
    path = directory / name
    path.write_bytes(text.encode(encoding) if isinstance(text, str) else text)
    return path


def refuse(message, task, directory, split="train", **options):
    with pytest.raises(UserError, match=message) as caught:
        read_split(task, directory, split, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- tasks


@pytest.mark.parametrize("name", ["SST-2", "sst2", "Sst-2", "SST_2"])
def test_names_in_any_spelling(name):
    assert get_task(name).name == "SST-2"


def test_every_glue_task_is_known():
    for name in TASK_NAMES[:-1]:
        task = get_task(name.lower())
        assert task.name == name
        assert task.num_labels == (1 if task.labels is None else len(task.labels))
        for file in task.splits.values():
            assert (file.text_b is not None) == task.pair
    assert get_task("cola").metrics == ("matthews_correlation",)
    assert get_task("mrpc").metrics == ("accuracy_and_f1", "accuracy", "f1")
    assert get_task("stsb").metrics == ("pearson_and_spearman", "pearson", "spearman")
    assert get_task("stsb").kind.name == "regression"


def test_unknown_task_lists_the_known_ones():
    with pytest.raises(UserError, match=r"snli: no such task; it is one of CoLA, SST-2, .*custom"):
        get_task("snli")


# --- GLUE

MRPC_HEADER = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
OFFICIAL_ROWS = {
    # task: (file, text, texts_a, texts_b, labels, identifiers)
    "CoLA": (
        "train.tsv",
        'gj04\t1\t\tThe "cat sat.\nx\t0\t*\tSat cat the.\n',
        ['The "cat sat.', "Sat cat the."],
        None,
        [1, 0],
    ),
    "SST-2": ("dev.tsv", "sentence\tlabel\nit 's \t1\nno \t0\n", ["it 's ", "no "], None, [1, 0]),
    "MRPC": (
        "train.tsv",
        MRPC_HEADER + '1\t7\t8\tHe said " no .\t" Yes .\n',
        ['He said " no .'],
        ['" Yes .'],
        [1],
    ),
    "STS-B": (
        "dev.tsv",
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
        "0\tg\tf\t2012\t1\tn\tn\tA.\tB.\t4.750\n",
        ["A."],
        ["B."],
        [4.75],
    ),
    "QQP": (
        "dev.tsv",
        'id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n5\t1\t2\t"A?"\tB?\t1\n',
        ['"A?"'],
        ["B?"],
        [1],
    ),
    "MNLI": (
        "dev_matched.tsv",
        "index\tpromptID\tpairID\tgenre\ts1b\ts2b\ts1p\ts2p\tsentence1\tsentence2\tlabel1\tgold_label\n"
        "3\t1\t2\tg\t-\t-\t-\t-\tA\tB\tentailment\tneutral\n",
        ["A"],
        ["B"],
        [2],
    ),
    "QNLI": (
        "train.tsv",
        "index\tquestion\tsentence\tlabel\n0\tQ?\tS.\tnot_entailment\n",
        ["Q?"],
        ["S."],
        [1],
    ),
    "RTE": ("train.tsv", "index\tsentence1\tsentence2\tlabel\n0\tQ.\tS.\tentailment\n", ["Q."], ["S."], [0]),
    "WNLI": ("train.tsv", "index\tsentence1\tsentence2\tlabel\n0\tQ.\tS.\t1\n", ["Q."], ["S."], [1]),
}


@pytest.mark.parametrize("name", OFFICIAL_ROWS)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_official_layouts(tmp_path, name, ending):
    file, text, texts_a, texts_b, labels = OFFICIAL_ROWS[name]
    write(tmp_path, file, text.replace("\n", ending))
    examples = read_split(get_task(name), tmp_path, "train" if "train" in file else "dev")
    assert examples.texts_a == texts_a
    assert examples.texts_b == texts_b
    assert examples.labels is not None
    assert examples.labels.tolist() == labels
    assert examples.labels.dtype == (np.float32 if name == "STS-B" else np.int32)


def test_unlabelled_files_keep_their_index(tmp_path):
    write(tmp_path, "diagnostic.tsv", "index\tsentence1\tsentence2\n10\tA\tB\n11\tC\tD\n")
    examples = read_split(get_task("AX"), tmp_path, "test")
    assert examples.labels is None
    assert examples.identifiers == ["10", "11"]
    write(tmp_path, "test.tsv", "index\tsentence\n0\tA\n")
    assert read_split(get_task("CoLA"), tmp_path, "test").texts_a == ["A"]


def test_no_quoting_and_no_odd_line_ends(tmp_path):
    texts = ['"', 'a"b', '""', "", "  x ", "u\u2028v\u0085w\x0cz", "n\x00l", "é中🙂", "end\rmiddle", "'"]
    write(tmp_path, "train.tsv", "sentence\tlabel\n" + "".join(f"{text}\t1\n" for text in texts))
    examples = read_split(get_task("SST-2"), tmp_path, "train")
    assert examples.texts_a == texts
    assert examples.lines.tolist() == list(range(2, 2 + len(texts)))


def test_a_gigantic_field(tmp_path):
    write(tmp_path, "train.tsv", f"sentence\tlabel\n{'word ' * 400_000}\t1\nx\t0\n")
    assert len(read_split(get_task("SST-2"), tmp_path, "train").texts_a[0]) == 2_000_000


BAD_ROWS = {
    "too few columns": ("sentence\tlabel\na\t1\nb\n", r"train\.tsv:3: 1 columns where there should be 2"),
    "too many columns": ("sentence\tlabel\na\tb\t1\n", r"train\.tsv:2: 3 columns"),
    "empty line": ("sentence\tlabel\na\t1\n\nb\t0\n", r"train\.tsv:3: 1 columns"),
    "unknown label": ("sentence\tlabel\na\t1\nb\t2\n", r"train\.tsv:3: unknown label '2'; SST-2 has 0, 1"),
    "empty label": ("sentence\tlabel\na\t\n", r"train\.tsv:2: unknown label ''"),
    "bytes": (b"sentence\tlabel\na\t1\nb\xff\t1\n", r"train\.tsv:3: byte 2 of the line is not valid UTF-8"),
    "utf-16": (
        "sentence\tlabel\na\t1\n".encode("utf-16"),
        r"train\.tsv:1: byte 1 of the line is not valid UTF-8",
    ),
    "no header": ("a film\t1\nb\t0\n", r"train\.tsv:1: no column 'sentence' in the header"),
    "two columns of a name": ("sentence\tsentence\tlabel\na\tb\t1\n", r"train\.tsv:1: 2 columns are named"),
    "header only": ("sentence\tlabel\n", r"train\.tsv: no rows"),
    "header and ends": ("sentence\tlabel\n\n\r\n\n", r"train\.tsv: no rows"),
    "nothing": ("", r"train\.tsv: the file is empty"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows_name_file_and_line(tmp_path, case):
    text, message = BAD_ROWS[case]
    write(tmp_path, "train.tsv", text)
    assert str(tmp_path) in refuse(message, get_task("SST-2"), tmp_path)


def test_cola_without_header_counts_columns(tmp_path):
    write(tmp_path, "train.tsv", "gj04\t1\t\tA.\ngj04\t1\tB.\n")
    refuse(r"train\.tsv:2: 3 columns where there should be 4", get_task("CoLA"), tmp_path)


def test_qqp_skips_its_broken_rows_and_counts_them(tmp_path):
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    write(tmp_path, "train.tsv", header + "0\t1\t2\tA?\tB?\t1\nbroken\trow\n1\t1\t2\tC?\tD?\t0\n")
    examples = read_split(get_task("QQP"), tmp_path, "train")
    assert examples.texts_a == ["A?", "C?"]
    assert examples.skipped_lines == (3,)


@pytest.mark.parametrize("score", ["", "high", "nan", "inf", "1e60"])
def test_scores_must_be_numbers(tmp_path, score):
    header = "\t".join("abcdefg") + "\tsentence1\tsentence2\tscore\n"
    write(tmp_path, "train.tsv", header + "\t".join("abcdefg") + f"\tA\tB\t{score}\n")
    refuse(r"train\.tsv:2: the value .* is not a finite number", get_task("STS-B"), tmp_path)


def test_missing_places(tmp_path):
    task = get_task("SST-2")
    refuse("no such directory", task, tmp_path / "nowhere")
    refuse(r"train\.tsv: no such file; it holds the train split of SST-2", task, tmp_path)
    refuse("AX has no train split here, only test", get_task("AX"), tmp_path)
    write(tmp_path, "train.tsv", "sentence\tlabel\na\t1\n")
    refuse(r"train_aug\.tsv: no such file; make it with bert-emd augment", task, tmp_path, aug_train=True)


def test_the_mismatched_sets_go_with_the_matched_ones(tmp_path, said):
    task = get_task("MNLI")
    write(tmp_path, "dev_mismatched.tsv", "")
    assert scored_splits(task, tmp_path, "dev") == ("dev", "dev_mismatched")
    assert not said.records
    assert scored_splits(task, tmp_path, "test") == ("test",)
    assert "no test_mismatched; MNLI is scored on the matched set only" in said.text
    assert scored_splits(task, tmp_path, "train") == ("train",)
    assert scored_splits(get_task("RTE"), tmp_path, "dev") == ("dev",)


def test_augmented_train_file(tmp_path):
    write(tmp_path, "train.tsv", "sentence\tlabel\na\t1\n")
    write(tmp_path, "train_aug.tsv", "sentence\tlabel\na\t1\nb\t1\n")
    write(tmp_path, "dev.tsv", "sentence\tlabel\nc\t0\n")
    assert read_split(get_task("SST-2"), tmp_path, "train", aug_train=True).texts_a == ["a", "b"]
    assert read_split(get_task("SST-2"), tmp_path, "dev", aug_train=True).texts_a == ["c"]
