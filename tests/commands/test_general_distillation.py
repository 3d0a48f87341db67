"""General distillation end to end on a tiny corpus, and its held-out loss against direct computations."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from bert_emd_jax.checkpoints.model_directory import load_model
from bert_emd_jax.commands import distill, pretrain_data
from bert_emd_jax.corpus.dataset import PregeneratedData
from bert_emd_jax.distillation.distill_config import GeneralDistillConfig
from bert_emd_jax.distillation.general import GeneralDistillTrainer
from bert_emd_jax.transport import attention_cost, hidden_cost, network_simplex


@pytest.fixture
def corpus_dir(tmp_path: Path, vocabulary_dir: Path) -> Path:
    """Two pregenerated epochs of some forty rows, with masked tokens."""
    import random

    from conftest import SENTENCES

    rng = random.Random(0)
    sentences = [sentence for texts in SENTENCES.values() for sentence in texts.split("|")]
    documents = ["\n".join(rng.choices(sentences, k=rng.randint(4, 12))) for _ in range(40)]
    (tmp_path / "corpus.txt").write_text("\n\n".join(documents) + "\n")
    output = tmp_path / "corpus"
    flags = [
        "--train_corpus",
        tmp_path / "corpus.txt",
        "--bert_model",
        vocabulary_dir,
        "--output_dir",
        output,
    ]
    flags += ["--epochs_to_generate", 2, "--max_seq_len", 24, "--masked_lm_prob", 0.15]
    assert pretrain_data.main([str(flag) for flag in flags]) == 0
    return output


def config(teacher: Path, corpus: Path, output: Path, **changes) -> GeneralDistillConfig:
    values = {
        "teacher_model": teacher,
        "student_init_layers": (1, 3),
        "pregenerated_data": corpus,
        "output_dir": output,
        "held_out_rows": 12,
        "train_batch_size": 8,
        "eval_batch_size": 8,
        "num_train_epochs": 2,
        "learning_rate": 1e-2,
        "masked_lm_weight": 0.5,
    }
    return GeneralDistillConfig(**(values | changes))


def test_the_held_out_loss_falls_and_is_what_it_says(tmp_path, corpus_dir, tiny_model_dir):
    from bert_emd_jax.models.heads import EncoderWithoutHead, MaskedLanguageModel, forward

    teacher_dir, output = tiny_model_dir("teacher"), tmp_path / "student"
    results = GeneralDistillTrainer.from_config(config(teacher_dir, corpus_dir, output)).train()
    rows = list(map(json.loads, (output / "metrics.jsonl").read_text().splitlines()))
    losses = [row["held_out_loss"] for row in rows if row["kind"] == "eval"]
    assert rows[0]["step"] == 0
    assert len(losses) == 3
    assert losses[-1] < 0.9 * losses[0]
    metrics = results["student"]["metrics"]
    assert (results["rows"], results["chose_step"]) == (12, True)
    assert metrics["held_out_loss"] == pytest.approx(min(losses), rel=1e-5)

    # The best student's loss, computed anew on all held-out rows at once.
    student, teacher = load_model(output, head="masked_lm"), load_model(teacher_dir, head="none")
    dataset = PregeneratedData.open(corpus_dir, teacher.tokenizer).epoch(0)
    batch = dataset.collate(np.arange(len(dataset))[-12:], 24)
    positions, masked_labels = batch.pop("masked_positions"), batch.pop("masked_labels")
    row, column = np.nonzero(masked_labels >= 0)
    labels = np.full(batch["input_ids"].shape, -1)
    labels[row, positions[row, column]] = masked_labels[row, column]
    ours = jax.device_get(forward(MaskedLanguageModel(student.config), student.params, batch))
    theirs = jax.device_get(forward(EncoderWithoutHead(teacher.config), teacher.params, batch))
    projected = ours.hidden_states @ student.projection["kernel"] + student.projection["bias"]
    mask = batch["attention_mask"]
    halves, quarters = np.full(2, 1 / 2), np.full(4, 1 / 4)
    costs = {
        "attention": attention_cost(ours.attention_scores, theirs.attention_scores, mask),
        "hidden": hidden_cost(projected[1:], theirs.hidden_states[1:], mask),
    }
    expected = {
        kind: network_simplex(np.asarray(cost), halves, quarters).cost for kind, cost in costs.items()
    }
    expected["embedding"] = np.mean(((projected[0] - theirs.hidden_states[0]) ** 2)[mask > 0])
    logits = np.float64(ours.logits[labels >= 0])
    chosen = logits[np.arange(len(logits)), labels[labels >= 0]]
    expected["masked_lm"] = np.mean(np.log(np.exp(logits).sum(axis=1)) - chosen)
    for term, value in expected.items():
        assert metrics[f"held_out_{term}_loss"] == pytest.approx(value, rel=1e-4), term
    total = sum(value * (0.5 if term == "masked_lm" else 1) for term, value in expected.items())
    assert metrics["held_out_loss"] == pytest.approx(total, rel=1e-4)


def test_balanced_costs_weigh_the_same_on_held_out_rows(tmp_path, corpus_dir, tiny_model_dir):
    flags = {"balance": "costs", "mapping": "capped", "masked_lm_weight": 0, "max_steps": 2}
    trainer = GeneralDistillTrainer.from_config(
        config(tiny_model_dir("teacher"), corpus_dir, tmp_path / "student", **flags)
    )
    # Each cost by itself; the student's embeddings are the teacher's, and cost nothing yet.
    assert trainer.evaluate()["held_out_loss"] == pytest.approx(2, rel=1e-5)
    metrics = trainer.train()["student"]["metrics"]
    scales = jax.device_get(trainer.state.method.scales)
    names = ("attention", "hidden", "embedding")
    expected = sum(
        metrics[f"held_out_{name}_loss"] / scale for name, scale in zip(names, scales, strict=True)
    )
    assert metrics["held_out_loss"] == pytest.approx(expected, rel=1e-5)


def test_a_student_that_is_narrower_than_its_layers(tmp_path, corpus_dir, tiny_model_dir):
    flags = {"student_width": 8, "max_steps": 2, "mapping": "uniform"}
    trainer = GeneralDistillTrainer.from_config(
        config(tiny_model_dir("teacher"), corpus_dir, tmp_path / "student", **flags)
    )
    assert trainer.train()["student"]["hidden_size"] == 8
    assert load_model(tmp_path / "student", head="masked_lm").config.num_attention_heads == 1


@pytest.mark.parametrize("mapping", ["nearest", "top", "random"])
def test_the_held_out_loss_is_that_of_the_mapping(mapping, tmp_path, corpus_dir, tiny_model_dir):
    """What the student pays for the layers that the mapping pairs, by NumPy, on all held-out rows at once."""
    from bert_emd_jax.models.heads import EncoderWithoutHead, forward

    flags = {"mapping": mapping, "masked_lm_weight": 0, "use_embedding": False, "theta": 2.0, "seed": 3}
    trainer = GeneralDistillTrainer.from_config(
        config(tiny_model_dir("teacher"), corpus_dir, tmp_path / "student", **flags)
    )
    losses = trainer.evaluate()
    student, teacher = trainer.model, trainer.teacher
    dataset = PregeneratedData.open(corpus_dir, teacher.tokenizer).epoch(0)
    batch = dataset.collate(np.arange(len(dataset))[-12:], 24)
    ours, theirs = (
        jax.device_get(forward(EncoderWithoutHead(model.config), {"bert": model.params["bert"]}, batch))
        for model in (student, teacher)
    )
    projected = ours.layer_outputs @ student.projection["kernel"] + student.projection["bias"]
    real = batch["attention_mask"] > 0
    pairs = real[:, None, :, None] & real[:, None, None, :]
    pairs = np.broadcast_to(pairs, ours.attention_scores.shape[1:])
    hidden = [[np.mean((s - t)[real] ** 2) for t in theirs.layer_outputs] for s in projected]
    scores = [[np.mean((s - t)[pairs] ** 2) for t in theirs.attention_scores] for s in ours.attention_scores]

    def paid(costs) -> float:
        costs = np.array(costs)
        if mapping == "nearest":
            return costs.min(axis=1).mean()
        layers = np.array([2, 3])  # the last two of four
        if mapping == "random":
            layers = np.sort(np.random.default_rng((3, 0)).permutation(4)[:2])  # of seed and epoch
        return costs[[0, 1], layers].mean()

    assert losses["held_out_hidden_loss"] == pytest.approx(paid(hidden), rel=1e-4)
    assert losses["held_out_attention_loss"] == pytest.approx(paid(scores), rel=1e-4)
    assert losses["held_out_loss"] == pytest.approx(2 * (paid(hidden) + paid(scores)), rel=1e-4)


def test_the_student_goes_on_to_a_task_and_to_transformers(
    tmp_path, corpus_dir, tiny_model_dir, task_dir, capsys
):
    teacher, output = tiny_model_dir("teacher"), tmp_path / "general"
    flags = ["--pregenerated_data", corpus_dir, "--teacher_model", teacher, "--student_init_layers", "0,2"]
    flags += ["--output_dir", output, "--held_out_rows", 8, "--max_steps", 2, "--mapping", "uniform"]
    flags = [str(flag) for flag in flags]
    assert distill.main(flags) == 0
    assert distill.main([*flags, "--resume"]) == 0
    # Rows follow from the number of epochs: a run that is not finished cannot go on with another.
    results = (output / "eval_results.json").read_text()
    (output / "eval_results.json").unlink()
    for path in corpus_dir.glob("epoch_1*"):
        path.rename(path.with_name(f"away_{path.name}"))
    capsys.readouterr()
    assert distill.main([*flags, "--resume"]) == 2
    assert "the run began with 2 epochs" in capsys.readouterr().err
    (output / "eval_results.json").write_text(results)
    trained = load_model(output, head="none")

    flags = ["--teacher_model", teacher, "--student_model", output, "--data_dir", task_dir, "--task_name"]
    flags += ["custom", "--output_dir", tmp_path / "distilled", "--max_steps", 1, "--max_seq_length", 24]
    assert distill.main([str(flag) for flag in flags]) == 0
    # Its projection is handed on.
    kernel = load_model(tmp_path / "distilled").projection["kernel"]
    assert np.abs(kernel - trained.projection["kernel"]).max() < 1e-3

    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    model = transformers.AutoModel.from_pretrained(output / "pytorch").eval()
    weights = model.state_dict()["encoder.layer.1.output.dense.weight"]
    assert torch.equal(weights, torch.tensor(trained.params["bert"]["layer_1"]["output"]["kernel"].T.copy()))


def test_what_cannot_work_is_one_line(tmp_path, corpus_dir, tiny_model_dir, vocabulary_dir, capsys):
    teacher = tiny_model_dir("teacher")

    def refused(message: str, *changes: object) -> None:
        flags = ["--teacher_model", teacher, "--output_dir", tmp_path / "out", "--student_init_layers", "1,3"]
        flags += ["--pregenerated_data", corpus_dir, *changes]
        capsys.readouterr()
        assert distill.main([str(flag) for flag in flags]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert not (tmp_path / "out").exists()

    refused("no more rows", "--held_out_rows", 1000)
    refused("nothing to learn", "--mapping", "none")
    refused("no such directory", "--pregenerated_data", tmp_path / "nowhere")
    unmasked = tmp_path / "unmasked"
    flags = [
        "--train_corpus",
        tmp_path / "corpus.txt",
        "--bert_model",
        vocabulary_dir,
        "--output_dir",
        unmasked,
    ]
    assert (
        pretrain_data.main([str(flag) for flag in (*flags, "--epochs_to_generate", 1, "--max_seq_len", 24)])
        == 0
    )
    more = ("--held_out_rows", 5, "--masked_lm_weight", 1)
    refused("--masked_lm_prob 0.15", "--pregenerated_data", unmasked, *more, "--max_steps", 1)
