"""Marginals and pairs of a table's columns, data beside draws."""

import numpy as np
import pytest
import torch

from pyrovae.plots import plot_pairs


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
