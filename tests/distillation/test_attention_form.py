"""Steps with fused attention: the losses, plans and updates of direct attention; and what is refused."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from distillation.test_distill_step import assert_trees_close, bert, config, run_steps

from bert_emd_jax.distillation import trainer
from bert_emd_jax.distillation.attention_form import attention_form
from bert_emd_jax.errors import UserError


def test_a_step_is_that_of_direct_attention(monkeypatch):
    """In float32, which the flag refuses: these layers differ enough for it, and it shows the digits."""
    expected, direct = run_steps(config(), devices=4, steps=2, micro_batches=2)
    monkeypatch.setattr(trainer, "attention_form", lambda *_: "xla")
    state, fused = run_steps(config(attention="fused"), devices=4, steps=2, micro_batches=2)
    for ours, theirs in zip(fused, direct, strict=True):
        for name in ("loss", "attention_loss", "hidden_loss", "prediction_loss", "gradient_norm"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5)
        np.testing.assert_allclose(ours["plans"].cost, theirs["plans"].cost, rtol=1e-5)
    assert_trees_close(state.params, expected.params, 1e-5)


def test_bfloat16_differs_from_direct_attention_by_its_rounding():
    fused, direct = (
        run_steps(config(dtype="bfloat16", **flags), 1, 1)[1][0] for flags in ({"attention": "fused"}, {})
    )
    np.testing.assert_allclose(fused["plans"].cost, direct["plans"].cost, rtol=0.03)
    assert not np.array_equal(fused["plans"].cost[:, 0], direct["plans"].cost[:, 0])


def test_what_it_cannot_do_is_refused(monkeypatch):
    def form(heads=(2, 2), dtype="bfloat16", **flags):
        models = bert(2, 8, heads[0]), bert(3, 12, heads[1])
        return attention_form(config(**{"attention": "fused", **flags}).layers, dtype, *models)

    assert form() == "xla"
    assert form(attention="auto") == form(attention="direct") == "direct"
    with pytest.raises(UserError, match="--attention fused: needs --dtype bfloat16 or float16"):
        form(dtype="float32")
    with pytest.raises(UserError, match="the student has 2 heads and the teacher 3"):
        form(heads=(2, 3))
    assert form(heads=(2, 3), use_attention=False) == "xla"

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for capability, accepted in (("9.0", True), ("7.5", False), ("gfx90a", False)):
        device = SimpleNamespace(compute_capability=capability, device_kind="a card")
        monkeypatch.setattr(jax, "local_devices", lambda device=device: [device])
        if accepted:
            assert form() == "cudnn"
        else:
            with pytest.raises(UserError, match="and this is a card"):
                form()


def test_scores_that_are_not_formed_are_not_kept():
    from bert_emd_jax.distillation.teacher_cache import _obstacle

    assert "no attention scores" in (_obstacle(config(attention="fused")) or "")
    assert _obstacle(config(attention="fused", use_attention=False)) is None
    assert _obstacle(config()) is None
