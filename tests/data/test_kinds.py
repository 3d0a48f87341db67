"""Kinds of tasks: labels of every file form as they are meant, flags that disagree, losses against torch."""

import csv
import json

import numpy as np
import pytest

from bert_emd_jax.data.kinds import ANSWER, KINDS, Classification, MultiLabel, Regression, kind_of
from bert_emd_jax.data.label_cells import LabelCells
from bert_emd_jax.data.readers import read_split
from bert_emd_jax.data.task_config import TaskConfig
from bert_emd_jax.data.tasks import get_task
from bert_emd_jax.encoding.task_data import task_of
from bert_emd_jax.errors import UserError
from bert_emd_jax.evaluation.metrics import LABEL_METRICS, METRICS
from bert_emd_jax.models.encoder_config import EncoderConfig

SETS = [["joy"], [], ["joy", "deep sorrow"], ["anger", "joy", "deep sorrow"]]
LABELS = ("anger", "deep sorrow", "joy")
EXPECTED = [[0, 0, 1], [0, 0, 0], [0, 1, 1], [1, 1, 1]]


def write_sets(directory, form: str, split: str = "train"):
    """The four sets in a file: parquet has class numbers, `columns` a column of 0 and 1 for each label."""
    path = directory / f"{split}.{'csv' if form in ('columns', 'json in csv') else form}"
    texts = [f"text {row}" for row in range(4)]
    if form == "parquet":
        import pyarrow
        import pyarrow.parquet

        feature = {"feature": {"names": LABELS, "_type": "ClassLabel"}, "_type": "List"}
        metadata = {"huggingface": json.dumps({"info": {"features": {"label": feature}}})}
        numbers = [[LABELS.index(label) for label in labels] for labels in SETS]
        table = pyarrow.table({"text": texts, "label": numbers})
        pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), path)
    elif form == "jsonl":
        rows = zip(texts, SETS, strict=True)
        path.write_text("".join(json.dumps({"text": text, "label": labels}) + "\n" for text, labels in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if form == "tsv" else ",", lineterminator="\n")
            writer.writerow(["text", *(LABELS if form == "columns" else ["label"])])
            for text, labels, row in zip(texts, SETS, EXPECTED, strict=True):
                cells = (
                    row
                    if form == "columns"
                    else [json.dumps(labels) if "json" in form else ", ".join(labels)]
                )
                writer.writerow([text, *cells])


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "json in csv", "parquet", "columns"])
def test_sets_of_labels_mean_the_same_in_every_form(tmp_path, form):
    write_sets(tmp_path, form)
    columns = {"label_columns": LABELS} if form == "columns" else {}
    task = get_task("custom", data_dir=tmp_path, kind="multi_label", **columns)
    assert (task.labels, task.num_labels, task.primary_metric) == (LABELS, 3, "f1_micro")
    labels = read_split(task, tmp_path, "train").labels
    assert labels is not None
    assert labels.dtype == np.float32
    assert labels.tolist() == EXPECTED


def test_another_separator_other_order_and_other_spelling(tmp_path):
    (tmp_path / "train.tsv").write_text("text\tlabel\na\tDEEP_sorrow; joy\nb\tanger;\nc\t ;\n")
    task = get_task(
        "custom",
        data_dir=tmp_path,
        kind="multi_label",
        label_separator=";",
        labels=("joy", "anger", "deep sorrow"),
    )
    labels = read_split(task, tmp_path, "train").labels
    assert labels is not None
    assert labels.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    (tmp_path / "train.tsv").write_text("text\tlabel\na\tgrief\n")
    with pytest.raises(UserError, match=r"train\.tsv:2: unknown label 'grief'; custom has joy"):
        read_split(task, tmp_path, "train")


def test_numbers_are_labels_in_their_order(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "a", "label": [10, 9]}\n{"text": "b", "label": 9}\n')
    task = get_task("custom", data_dir=tmp_path, kind="multi_label")
    assert task.labels == ("9", "10")
    labels = read_split(task, tmp_path, "train").labels
    assert labels is not None
    assert labels.tolist() == [[1, 1], [1, 0]]


@pytest.mark.parametrize(("test", "known"), [("text\na\n", False), ("text,label\na,\nb,joy\n", True)])
def test_a_test_split_has_labels_or_no_column(tmp_path, test, known):
    """An empty cell is not a label, where a row of another kind would have none that is known."""
    write_sets(tmp_path, "csv")
    (tmp_path / "test.csv").write_text(test)
    labels = read_split(get_task("custom", data_dir=tmp_path, kind="multi_label"), tmp_path, "test").labels
    assert labels is None if not known else labels is not None and labels.tolist() == [[0, 0, 0], [0, 0, 1]]


BAD = {
    "null": ("train.jsonl", '{"text": "a", "label": null}\n', {}, "should be a list of labels, it is null"),
    "object": ("train.jsonl", '{"text": "a", "label": {"b": 1}}\n', {}, "it is an object"),
    "nested": ("train.jsonl", '{"text": "a", "label": [["b"]]}\n', {}, "should be a string or number"),
    "python": (
        "train.csv",
        "text,label\na,\"['b', 'c']\"\n",
        {},
        r"is not JSON; write the labels as a,b or as",
    ),
    "no label": (
        "train.csv",
        "text,label\na,\n",
        {},
        "0 different labels in 'label'; a multi_label task needs",
    ),
    "two": (
        "train.csv",
        "text,b,c\na,1,2\n",
        {"label_columns": ("b", "c")},
        "'c' is '2'; the column of a label",
    ),
    "empty": (
        "train.csv",
        "text,b,c\na,1,\n",
        {"label_columns": ("b", "c")},
        "'c' is ''; the column of a label",
    ),
    "no column": ("train.csv", "text,b\na,1\n", {"label_columns": ("b", "c")}, "no column 'c' in the header"),
    "twice": ("train.csv", "text,b\na,1\n", {"label_columns": ("b", "b")}, "different labels"),
    "both": (
        "train.csv",
        "text,b\na,1\n",
        {"label_columns": ("b",), "labels": ("b",)},
        "--labels and --label_columns: the columns are the labels",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_sets_of_labels_are_named(tmp_path, case):
    name, text, options, message = BAD[case]
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_split(get_task("custom", data_dir=tmp_path, kind="multi_label", **options), tmp_path, "train")
    assert "\n" not in str(caught.value)


def test_flags_and_tasks_that_disagree(tmp_path):
    write_sets(tmp_path, "csv")
    for options, message in (
        ({"kind": "regression", "labels": ("a",)}, "--labels: the labels of kind regression have no names"),
        (
            {"label_columns": ("a", "b")},
            "--label_columns: not for kind classification; add --kind multi_label",
        ),
        ({"kind": "multi_label", "regression": True}, "--regression and --kind multi_label: choose one"),
        ({"kind": "tagging"}, "--kind tagging: is none of classification, regression, multi_label"),
        ({"kind": "multi_label", "label_separator": ""}, "--label_separator"),
        ({"label_separator": ";"}, "--label_separator: a text of kind classification has one label"),
        (
            {"model_kind": KINDS["regression"], "kind": "multi_label"},
            "--kind multi_label: the model is of kind",
        ),
        (
            {"kind": "multi_label", "metric": "accuracy"},
            "--metric accuracy: no score of custom.*subset_accuracy",
        ),
        ({"kind": "multi_label", "metric": "f1_jo"}, "did you mean f1_joy"),
    ):
        with pytest.raises(UserError, match=message):
            get_task("custom", data_dir=tmp_path, **options)
    for name, kind in (("mrpc", "regression"), ("sts-b", "classification"), ("cola", "multi_label")):
        with pytest.raises(UserError, match=f"--kind {kind}: .* is of kind"):
            get_task(name, kind=kind)
    with pytest.raises(UserError, match="--kind regression: CoLA is of kind classification"):
        get_task("cola", regression=True)
    assert get_task("sts-b", regression=True) == get_task("sts-b", kind="regression") == get_task("sts-b")


def test_a_regressor_whose_output_has_a_name(tmp_path):
    """Its name is not a label of the task."""
    (tmp_path / "dev.csv").write_text("text,label\na,0.5\n")
    config = TaskConfig(data_dir=tmp_path, task_name="custom")
    task = task_of(config, model_kind=KINDS["regression"], model_labels=("score",))
    assert (task.kind.name, task.labels) == ("regression", None)
    task = task_of(config, model_kind=KINDS["multi_label"], model_labels=("joy",))
    assert (task.kind.name, task.labels) == ("multi_label", ("joy",))


def test_the_score_that_chooses_comes_first(tmp_path):
    write_sets(tmp_path, "csv")
    task = get_task("custom", data_dir=tmp_path, kind="multi_label", metric="recall_deep sorrow")
    assert task.metrics[:2] == ("recall_deep sorrow", "f1_micro")
    assert get_task("mnli", metric="f1_macro").metrics == ("f1_macro", "accuracy")
    assert get_task("mrpc", metric="f1").metrics == ("f1", "accuracy_and_f1", "accuracy")


def test_every_score_of_a_kind_is_there():
    for kind in KINDS.values():
        if kind is not ANSWER:  # whose scores are means over questions, see evaluation.answers
            assert set(kind.metrics) <= set(METRICS)
        assert set(kind.label_metrics) <= set(LABEL_METRICS)


@pytest.mark.parametrize(
    ("problem_type", "outputs", "kind"),
    [
        (None, 1, "regression"),
        (None, 2, "classification"),
        ("single_label_classification", 3, "classification"),
        ("regression", 1, "regression"),
        ("multi_label_classification", 1, "multi_label"),
        ("multi_label_classification", 5, "multi_label"),
        ("regression", 2, None),
        ("single_label_classification", 1, None),
    ],
)
def test_the_kind_of_a_model(problem_type, outputs, kind):
    config = EncoderConfig(num_labels=outputs, problem_type=problem_type)
    if kind is None:
        with pytest.raises(UserError, match=f"model: problem_type '{problem_type}' with {outputs} labels"):
            kind_of(config, "model")
    else:
        assert kind_of(config, "model") is KINDS[kind]
        again = EncoderConfig.from_dict(config.to_dict())
        assert again == config


@pytest.mark.parametrize("name", [name for name in KINDS if name != ANSWER.name])
def test_answers_survive_files(name):
    kind = KINDS[name]
    labels = None if kind.fewest_labels is None else ("a, b", "[c]", "d")
    logits = np.random.default_rng(0).normal(size=(20, kind.outputs(labels)))
    for answer in kind.answers(kind.predictions(logits)):
        assert np.array_equal(kind.read(json.loads(json.dumps(kind.json(answer, labels))), labels), answer)
        np.testing.assert_allclose(kind.read(kind.text(answer, labels), labels), answer, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_losses_are_those_of_torch(temperature):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 6, 5)) * 3
    truths = (rng.random((6, 5)) < 0.4).astype(np.float32)
    s, t, y = map(torch.tensor, (student, teacher, truths.astype(np.float64)))
    multi_label = MultiLabel()
    hard = functional.binary_cross_entropy_with_logits(s, y, reduction="none").mean(1)
    targets = torch.sigmoid(t / temperature)
    soft = functional.binary_cross_entropy_with_logits(s / temperature, targets, reduction="none")
    np.testing.assert_allclose(multi_label.hard_loss(student, truths), hard, rtol=1e-5)
    np.testing.assert_allclose(
        multi_label.soft_loss(student, teacher, temperature), temperature**2 * soft.mean(1), rtol=1e-5
    )
    # transformers' own loss is the mean over rows and labels.
    whole = torch.nn.BCEWithLogitsLoss()(s, y)
    np.testing.assert_allclose(np.mean(multi_label.hard_loss(student, truths)), whole, rtol=1e-5)
    classes = truths.argmax(1)
    np.testing.assert_allclose(
        Classification().hard_loss(student, classes),
        functional.cross_entropy(s, torch.tensor(classes), reduction="none"),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        Regression().soft_loss(student[:, :1], teacher[:, :1], temperature),
        functional.mse_loss(s[:, 0], t[:, 0], reduction="none"),
        rtol=1e-5,
    )


def test_a_label_cell_says_where_it_stands(tmp_path):
    cells = LabelCells(tmp_path / "x.csv", 3, ("label",), ("nan",))
    with pytest.raises(UserError, match=r"x\.csv:3: the value 'nan' is not a finite number"):
        KINDS["regression"].truth(cells, get_task("sts-b"))
