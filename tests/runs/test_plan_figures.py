"""Figures for notebooks: what they draw is what the run recorded."""

import numpy as np
import pytest
from report import synthetic_run

import bert_emd_jax
from bert_emd_jax import UserError
from bert_emd_jax.runs.plan_figures import draw_plans, pixels


@pytest.fixture
def run(tmp_path):
    return synthetic_run.write_run(tmp_path / "run")


def test_the_plans_of_a_logged_step(run):
    mapping = synthetic_run.mapping()
    for step, index in ((None, -1), (0, 0), (203, 20)):
        figure = bert_emd_jax.plot_mapping(run, step)
        attention, hidden = figure.axes
        assert (attention.get_title(), hidden.get_title()) == ("attention", "hidden")
        for axes in figure.axes:
            drawn = axes.images[0].get_array()
            expected = mapping[f"{axes.get_title()}_flow"][index]
            np.testing.assert_allclose(drawn, expected, atol=1e-7)
            shown = {tuple(text.get_position()): text.get_text() for text in axes.texts}
            assert shown == {
                (column, row): f"{100 * mass:.0f}"
                for (row, column), mass in np.ndenumerate(expected)
                if mass >= 5e-3
            }
        assert figure.get_suptitle().endswith(f"step {mapping['steps'][index]}")


def test_the_layer_weights_over_time(run):
    mapping = synthetic_run.mapping()
    figure = bert_emd_jax.plot_layer_weights(run)
    for axes in figure.axes:
        model, kind = axes.get_title().replace(" layers,", "").split()
        drawn = np.stack([line.get_ydata() for line in axes.lines], axis=1)
        np.testing.assert_allclose(drawn, mapping[f"{kind}_{model}_weights"], atol=1e-7)
        np.testing.assert_array_equal(axes.lines[0].get_xdata(), mapping["steps"])
        assert [text.get_text() for text in axes.get_legend().get_texts()] == [
            str(1 + layer) for layer in range(drawn.shape[1])
        ]


def test_many_layers_have_room():
    plan = np.full((12, 24), 1 / 288)
    (axes,) = draw_plans({"hidden": plan}).axes
    assert not axes.texts  # no numbers in cells as small as these
    assert [label.get_text() for label in axes.get_xticklabels()] == [str(layer) for layer in range(1, 25, 2)]


def test_a_figure_as_pixels_and_as_png():
    plan = np.array([[1.0, 0.0]])
    figure = draw_plans({"attention": plan})
    picture = pixels(figure)
    assert picture.dtype == np.uint8
    assert picture.shape == (round(100 * figure.get_figheight()), round(100 * figure.get_figwidth()), 3)
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_what_there_is_not_to_draw(run, tmp_path):
    with pytest.raises(
        UserError, match=r"layer_mapping\.npz: no such file; is .* the output_dir of a distil"
    ):
        bert_emd_jax.plot_mapping(tmp_path)
    empty = {name: value[:0] for name, value in synthetic_run.mapping().items()}
    np.savez(run / "layer_mapping.npz", **empty)
    for plot in (bert_emd_jax.plot_mapping, bert_emd_jax.plot_layer_weights):
        with pytest.raises(UserError, match="no plan is recorded yet"):
            plot(run)
