"""What --dtype auto is on which device."""

from types import SimpleNamespace

import pytest

from bert_emd_jax.devices.precision import resolved_dtype


@pytest.mark.parametrize(
    ("platform", "generation", "dtype"),
    [
        ("cpu", None, "float32"),
        ("tpu", None, "bfloat16"),
        ("gpu", "7.0", "float16"),  # V100
        ("gpu", "7.5", "float16"),  # T4
        ("gpu", "8.0", "bfloat16"),  # A100
        ("gpu", "9.0", "bfloat16"),  # H100
        ("gpu", "12.0", "bfloat16"),
        ("gpu", "gfx90a", "bfloat16"),  # MI250
    ],
)
def test_the_type_that_suits_a_device(platform, generation, dtype):
    device = SimpleNamespace(platform=platform)
    if generation is not None:
        device.compute_capability = generation
    assert resolved_dtype("auto", device) == dtype
    for named in ("float32", "bfloat16", "float16"):
        assert resolved_dtype(named, device) == named


def test_here():
    assert resolved_dtype("auto") == "float32"
