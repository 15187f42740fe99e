"""Marginals and pairs of a table's columns, data beside draws."""

import numpy as np
import pytest
import torch
from matplotlib.text import Text

from pyrovae.plots import plot_columns, plot_latent, plot_pairs


def rows(number, seed):
    g = torch.Generator().manual_seed(seed)
    real = torch.randn(number, 4, generator=g)
    return torch.cat([real, torch.randint(0, 3, (number, 2), generator=g).float()], 1)


def test_shares_are_those_of_data_and_draws():
    x, draws = rows(200, 0), rows(150, 1)
    x[::5, 0] = torch.nan
    x[:, 1], draws[:, 1] = x[:, 1].exp(), draws[:, 1].exp()
    words = [None, None, None, None, ["a", "b", "c"], ["u", "v", "w"]]
    figure = plot_pairs(x, draws, list("pqrstu"), logs=[False, True] + 4 * [False], words=words)
    assert figure.legends[0].get_title().get_text() == "the first 5 of 6 columns"
    assert len(figure.axes) == 15  # of five columns, at most
    diagonal = [figure.axes[i] for i in (0, 2, 5, 9, 14)]
    held = [patch.get_data().values.sum() for patch in diagonal[0].patches]
    assert held[0] == pytest.approx(1.0) and 0.97 <= held[1] <= 1.0
    assert diagonal[1].get_xscale() == "log" and diagonal[0].get_xscale() == "linear"
    heights = np.array([bar.get_height() for bar in diagonal[4].patches]).reshape(2, 3)
    for share, values in zip(heights, (x, draws), strict=True):
        np.testing.assert_allclose(share, np.bincount(values[:, 4].long(), minlength=3) / len(values))
    pair = figure.axes[1].lines
    assert [len(line.get_xdata()) for line in pair] == [200, 150]
    np.testing.assert_array_equal(pair[1].get_xdata(), draws[:, 0].double())
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["data", "draws"]


def test_every_datum_is_in_the_frame_and_nearly_every_draw():
    x, draws = rows(50, 2)[:, :2], 100 * rows(1000, 3)[:, :2]
    ax = plot_pairs(x, draws, ["a", "b"]).axes[1]
    (low, high), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    assert low <= x[:, 0].min() and x[:, 0].max() <= high and bottom <= x[:, 1].min() and x[:, 1].max() <= top
    assert ((draws[:, 0] > low) & (draws[:, 0] < high)).float().mean() >= 0.97


@pytest.mark.parametrize("plot", [plot_pairs, plot_columns])
def test_a_dollar_in_a_name_begins_no_formula(plot):
    x = torch.zeros(3, 2)
    figure = plot(x, x, ["$_$ and $^", "b\x07"], words=[["A$_$", "$^$"], None])
    figure.canvas.draw()
    said = {t.get_text() for t in figure.findobj(Text)}
    assert {r"\$_\$ and \$^", r"b\x07", r"A\$_\$"} <= said


def test_each_panel_of_reconstructions_says_what_it_shows():
    words = [None, ["a", "b"], ["u"], None, ["v"], ["w"]]
    axes = plot_columns(torch.zeros(2, 6), torch.zeros(2, 6), list("pqrstu"), words=words).axes
    likely = "most probable x'"
    assert [ax.get_ylabel() for ax in axes] == ["E[x'|z]", likely, "", "E[x'|z]", likely, ""]


def test_classes_are_named_as_they_are():
    ax = plot_latent(torch.randn(4, 2), ["a$_$", "b", "b", "b"])
    ax.figure.canvas.draw()
    assert r"a\$_\$" in [t.get_text() for t in ax.get_legend().get_texts()]


def test_frames_of_columns_that_do_not_vary_or_vary_by_all_that_floats_hold():
    x = torch.tensor([[1e18, 1e-150], [1e18, 1e250]], dtype=torch.float64)
    figure = plot_pairs(x, x, ["same", "wide"], logs=[False, True])
    (low, high), (bottom, top) = figure.axes[1].get_xlim(), figure.axes[1].get_ylim()
    assert low < 1e18 < high and bottom < 1e-150 and 1e250 < top < float("inf")


@pytest.mark.parametrize(
    ("x", "draws", "names", "said"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 1), ["a", "b"], "draws \\[M, D\\] and D names"),
        (torch.zeros(0, 1), torch.zeros(3, 1), ["a"], "draws \\[M, D\\] and D names"),
        (torch.zeros(3, 1), torch.full((3, 1), torch.nan), ["a"], "finite draws, got 3 values"),
    ],
)
def test_what_is_refused(x, draws, names, said):
    with pytest.raises(ValueError, match=said):
        plot_pairs(x, draws, names)
