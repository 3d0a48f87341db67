"""Several teachers: the mean of their probabilities, the layers of the first."""

import json

import jax
import numpy as np
import pytest
from commands.test_programs import distill_flags, rows
from scipy.special import expit, log_softmax, softmax

import bert_emd_jax
from bert_emd_jax.commands import distill
from bert_emd_jax.data.kinds import ANSWER, CLASSIFICATION, MULTI_LABEL, REGRESSION, TOKEN


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_mean_is_one_of_probabilities_at_the_temperature(temperature):
    rng = np.random.default_rng(0)
    with jax.enable_x64():
        of_texts = rng.normal(size=(3, 5, 4)) * 8
        mean = softmax(of_texts / temperature, axis=-1).mean(axis=0)
        for kind, logits in ((CLASSIFICATION, of_texts), (TOKEN, of_texts)):
            ours = np.asarray(kind.mean_logits(logits, temperature))
            np.testing.assert_allclose(softmax(ours / temperature, axis=-1), mean, rtol=1e-12)
        ours = np.asarray(MULTI_LABEL.mean_logits(of_texts, temperature))
        np.testing.assert_allclose(
            expit(ours / temperature), expit(of_texts / temperature).mean(axis=0), rtol=1e-12
        )
        np.testing.assert_allclose(REGRESSION.mean_logits(of_texts, temperature), of_texts.mean(axis=0))
        of_tokens = rng.normal(size=(3, 5, 7, 2)) * 8
        ours = np.asarray(ANSWER.mean_logits(of_tokens, temperature))
        mean = softmax(of_tokens / temperature, axis=2).mean(axis=0)
        np.testing.assert_allclose(softmax(ours / temperature, axis=1), mean, rtol=1e-12)


def test_a_student_learns_from_the_mean(tmp_path, task_dir, tiny_model_dir, capsys, monkeypatch):
    """The first step's losses against NumPy; the layers' losses are those of the first teacher alone."""
    first = tiny_model_dir("first", seed=1)
    # Deeper, wider, and with its labels the other way round.
    sizes = {"num_hidden_layers": 6, "hidden_size": 32}
    second = tiny_model_dir("second", seed=2, id2label=("good", "bad"), **sizes)
    flags = ("--max_steps", 1, "--train_batch_size", 64, "--temperature", 2, "--learning_rate", 1e-9)
    flags += ("--student_model", tiny_model_dir("start", seed=3, num_hidden_layers=2))
    flags += ("--student_dropout", 0, "--teacher_cache", "off")
    both, alone = tmp_path / "both", tmp_path / "alone"
    teachers = f"{first},{second}"
    assert distill.main(distill_flags(teachers, task_dir, both, *flags)) == 0
    assert "2 teachers: the mean of their probabilities" in capsys.readouterr().out
    assert distill.main(distill_flags(first, task_dir, alone, *flags)) == 0
    (ours,), (one,) = rows(both, "train"), rows(alone, "train")
    for name in ("attention_loss", "hidden_loss", "embedding_loss"):
        assert ours[name] == pytest.approx(one[name], rel=1e-5)

    train = [json.loads(json.dumps(line)) for line in (task_dir / "train.csv").read_text().splitlines()[1:]]
    texts = [line.rsplit(",", 1)[0].strip('"') for line in train]
    student = bert_emd_jax.load(both, max_seq_length=24).logits(texts)
    members = [bert_emd_jax.load(path, max_seq_length=24).logits(texts) for path in (first, second)]
    mean = (softmax(members[0] / 2, axis=1) + softmax(members[1][:, ::-1] / 2, axis=1)) / 2
    expected = -(mean * log_softmax(student / 2, axis=1)).mean() * 2**2
    assert ours["soft_loss"] == pytest.approx(expected, rel=1e-4)

    # What the teacher predicts is the mean, and its size and cost are those of both.
    results = json.loads((both / "eval_results.json").read_text())
    of_one = json.loads((alone / "eval_results.json").read_text())
    kept = [json.loads(line) for line in (both / "dev_predictions.jsonl").read_text().splitlines()]
    texts = [row["text"] for row in kept]
    p, q = (bert_emd_jax.load(path, max_seq_length=24).predict(texts) for path in (first, second))
    np.testing.assert_allclose([row["teacher"] for row in kept], (p + q[:, ::-1]) / 2, atol=2e-6)
    for name in ("parameters", "flops_per_sentence"):
        assert results["teacher"][name] > 1.5 * of_one["teacher"][name]

    # Kept outputs are those of all; models may be objects.
    monkeypatch.setenv("BERT_EMD_JAX_CACHE", str(tmp_path / "cache"))
    sizes = {"max_steps": 1, "train_batch_size": 64, "temperature": 2, "learning_rate": 1e-9}
    sizes |= {"student_model": tmp_path / "start", "student_dropout": 0, "max_seq_length": 24}
    bert_emd_jax.distill(
        teacher_model=[bert_emd_jax.load(first), second],
        teacher_cache="memory",
        data_dir=task_dir,
        task_name="custom",
        output_dir=tmp_path / "kept",
        **sizes,
    )
    assert rows(tmp_path / "kept", "train")[0]["soft_loss"] == pytest.approx(ours["soft_loss"], rel=1e-4)


def test_mistakes_in_a_line(tmp_path, task_dir, tiny_model_dir, capsys):
    first = tiny_model_dir("first")
    other = tiny_model_dir("other", id2label=("x", "y"))
    upper = tiny_model_dir("upper")
    (upper / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    for teachers, message in (
        (f"{first},{other}", f"--teacher_model {other}: its labels are, in order, x, y"),
        (f"{first},{tmp_path / 'none'}", "no such file or directory"),
        (f"{first},{upper}", f"--teacher_model {upper}: has another tokenizer than --teacher_model {first}"),
        (",", "--teacher_model (): must be a path"),
    ):
        assert distill.main(distill_flags(teachers, task_dir, tmp_path / "o")) == 2
        error = capsys.readouterr().err
        assert message in error
    flags = distill_flags(f"{first},{first}", task_dir, tmp_path / "o", "--kind", "embedding")
    assert distill.main(flags) == 2
    assert "vectors have no mean" in capsys.readouterr().err
    flags = ["--pregenerated_data", str(tmp_path), "--teacher_model", f"{first},{first}"]
    flags += ["--student_init_layers", "1", "--output_dir", str(tmp_path / "o")]
    assert distill.main(flags) == 2
    assert "over a corpus layers alone are learned" in capsys.readouterr().err
