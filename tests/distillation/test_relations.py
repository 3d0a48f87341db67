"""Relations in a step: on any number of devices, in every mapping, from the command line."""

import pytest
from commands.test_programs import distill_flags, rows
from distillation.test_distill_step import assert_trees_close, config, run_steps

from bert_emd_jax.commands import distill

ALONE = {"use_relation": True, "use_attention": False, "use_hidden": False, "use_embedding": False}


def test_devices_agree():
    flags = config(**ALONE, mapping="capped")
    one, history = run_steps(flags, devices=1, steps=3)
    many, others = run_steps(flags, devices=4, steps=3)
    assert_trees_close(one.params, many.params, 2e-5)
    for a, b in zip(history, others, strict=True):
        for name in ("loss", "relation_loss"):
            assert a[name] == pytest.approx(b[name], rel=2e-5)
    assert history[0]["relation_loss"] > 0.01


def test_minilm_from_the_command_line(tmp_path, task_dir, tiny_model_dir, capsys):
    """The last layer's relations alone, with 8 relation heads of a teacher of 2 and another width."""
    teacher, run = tiny_model_dir("teacher", hidden_size=32), tmp_path / "run"
    student = tiny_model_dir("student", num_hidden_layers=2, seed=1)
    flags = ("--student_model", student, "--use_relation", "--relation_heads", 8, "--mapping", "last")
    flags += ("--no_use_attention", "--no_use_hidden", "--no_use_embedding", "--objective", "intermediate")
    flags += ("--num_train_epochs", 6, "--learning_rate", 1e-2, "--beta", 1)
    assert distill.main(distill_flags(teacher, task_dir, run, *flags)) == 0
    losses = [row["relation_loss"] for row in rows(run, "train")]
    assert losses[-1] < 0.7 * losses[0]
    page = (run / "report.html").read_text()
    assert "relation" in page
    # Made of hidden states that are kept in bfloat16, instead of a teacher that runs in the step.
    by_place = {}
    for place in ("off", "memory", "device"):
        kept = tmp_path / place
        more = ("--teacher_cache", place, "--max_steps", 3)
        assert distill.main(distill_flags(teacher, task_dir, kept, *flags, *more)) == 0
        by_place[place] = [row["relation_loss"] for row in rows(kept, "train")]
    assert by_place["memory"] == pytest.approx(by_place["off"], rel=1e-2)
    assert by_place["memory"] != by_place["off"]
    assert by_place["memory"] == pytest.approx(by_place["device"], rel=1e-5)
    capsys.readouterr()
    for more, message in (
        (("--relation_heads", 5), "--relation_heads 5: does not divide widths 16 and 32"),
        (("--padding", "include"), "--use_relation: relations are those of real tokens"),
    ):
        assert distill.main(distill_flags(teacher, task_dir, tmp_path / "o", *flags, *more)) == 2
        assert message in capsys.readouterr().err
