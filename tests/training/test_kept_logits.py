"""A teacher's predictions for evaluation rows: kept, found again, never those of other models or rows."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from bert_emd_jax.checkpoints.model_directory import load_model
from bert_emd_jax.commands import distill
from bert_emd_jax.distillation.distill_config import DistillConfig
from bert_emd_jax.encoding.task_data import load_task_data, task_of
from bert_emd_jax.models.heads import SequenceClassifier
from bert_emd_jax.training import kept_logits as module_under_test
from bert_emd_jax.training.kept_logits import kept_logits


@pytest.fixture(autouse=True)
def keeps_little(monkeypatch):
    monkeypatch.setattr(module_under_test, "_FEWEST_FLOPS", 0)


@pytest.fixture
def teacher(tiny_model_dir):
    return load_model(tiny_model_dir("teacher"))


@pytest.fixture
def rows(tmp_path, task_dir, teacher):
    config = DistillConfig(
        teacher_model=tmp_path,
        student_init_layers=(1,),
        data_dir=task_dir,
        task_name="custom",
        output_dir="o",
    )
    return load_task_data(config.task, task_of(config.task), teacher.tokenizer, lambda rows: 1, ()).dev


def test_they_are_computed_once_for_a_model_and_its_rows(tmp_path, teacher, rows):
    computed = []

    def ask(model=teacher, dataset=rows, directory=tmp_path, **options):
        def compute():
            computed.append(len(computed))
            return np.full((len(rows), 2), computed[-1], np.float32)

        module = SequenceClassifier(model.config, **options)
        return kept_logits(directory, module, model, dataset, compute)[0, 0]

    assert [ask(), ask()] == [0, 0]
    kernel = {"kernel": teacher.params["classifier"]["kernel"] + 1e-3}
    other = dataclasses.replace(
        teacher, params=teacher.params | {"classifier": teacher.params["classifier"] | kernel}
    )
    ids = rows.token_ids.copy()
    ids[1] += 1
    assert ask(model=other) == 1
    assert ask(dataset=dataclasses.replace(rows, token_ids=ids)) == 2
    assert ask(dtype=jnp.bfloat16) == 3
    assert ask() == 0
    assert [ask(directory=None), ask(directory=None)] == [4, 5]
    not_finite = np.full((len(rows), 2), np.nan, np.float32)
    for damage in (
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-4]),
        lambda path: np.save(path, not_finite),
    ):
        before = len(computed)
        for path in tmp_path.glob("logits-*.npy"):
            damage(path)
        assert ask() == before
        assert ask() == before


def test_a_second_run_does_not_ask_the_teacher_again(tmp_path, tiny_model_dir, task_dir, monkeypatch):
    flags = ["--teacher_model", str(tiny_model_dir("teacher")), "--student_init_layers", "1,3"]
    flags += ["--data_dir", str(task_dir), "--task_name", "custom", "--max_seq_length", "24"]
    flags += ["--max_steps", "1", "--cache_dir", str(tmp_path / "cache")]

    def results(name: str) -> dict:
        assert distill.main([*flags, "--output_dir", str(tmp_path / name)]) == 0
        written = json.loads((tmp_path / name / "eval_results.json").read_text())
        return {key: written[key] for key in ("difference", "rows")} | {
            model: {key: written[model][key] for key in ("metrics", "interval", "by_label")}
            for model in ("student", "teacher")
        }

    first = results("first")
    kept = list((tmp_path / "cache").glob("logits-*.npy"))
    assert len(kept) == 2  # of the dev and the test rows
    # The predictions that are read are the ones that count.
    for path in kept:
        np.save(path, -np.load(path))
    monkeypatch.setattr(np, "save", None)  # nothing is written again
    second = results("second")
    assert second["student"] == first["student"]
    assert second["teacher"] != first["teacher"]
