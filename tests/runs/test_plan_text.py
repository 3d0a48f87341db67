"""Plans as pictures of characters, and when a run prints them."""

import numpy as np

from bert_emd_jax.runs.metrics_log import MetricsLog
from bert_emd_jax.runs.plan_text import plans_as_text

DIAGONAL = np.array([[0.2, 0.05, 0.0], [0.0, 0.1, 0.15]])
PICTURE = """\
attention    hidden
   1 2 3        1 2 3
1 ██░░       1   ▓▓██
2   ▒▒▓▓     2 ▒▒██"""


def test_darker_means_more_mass():
    hidden = np.array([[0.0, 0.15, 0.2], [0.1, 0.2, 0.0]])
    assert plans_as_text({"attention": DIAGONAL, "hidden": hidden}) == PICTURE
    # Twelve layers need two digits, cells are as wide; a plan of zeros is blank.
    lines = plans_as_text({"wide": np.eye(2, 12), "none": np.zeros((2, 2))}).splitlines()
    assert lines[1].startswith("    1  2  3  4")
    assert lines[2].startswith("1 ███")
    assert lines[3].startswith("2    ███")
    assert [line.split()[-1] for line in lines[2:]] == ["1", "2"]
    assert len(plans_as_text({"a": np.eye(2), "b": np.eye(3)}).splitlines()) == 5


def test_a_run_prints_them_if_it_is_asked_to(tmp_path, said):
    for flags in ({"show_mapping": False}, {"show_mapping": True}):
        log = MetricsLog(tmp_path, 0, flags=flags)
        log.write("train", 1, {"attention": DIAGONAL})
        assert "attention" not in said.text
        log.write("eval", 1, {"accuracy": 0.5})
        log.close()
    assert said.text.count("step 1: how much of each teacher layer") == 1
    assert "1 ██░░" in said.text
