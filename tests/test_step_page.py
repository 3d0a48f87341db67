"""The page "A step in 60 lines" runs as it is printed."""

import re
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).parents[1] / "docs" / "step.md"


def test_the_steps_of_the_page_learn(capsys: pytest.CaptureFixture):
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert len(code.splitlines()) <= 60
    names: dict = {}
    exec(compile(code, "step.md", "exec"), names)
    losses = names["losses"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    flow = names["measured"]["plans"].flow[0]
    assert flow.shape == (2, 2, 4)
    np.testing.assert_allclose(flow.sum(axis=(1, 2)), 1, rtol=1e-5)
    assert "accuracy" in capsys.readouterr().out
