"""The data whose evidence is known worst."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes

from ...results import EstimateLike, EvidenceLike
from ..checks import estimate_of
from ..images import plot_images


def worst_estimated(e: EstimateLike, num: int = 10) -> list[int]:
    """Positions of the data with the lowest ESS (the highest variance where there are no weights), worst first."""
    badness = -e.ess if e.ess is not None else e.variance
    badness = torch.nan_to_num(badness, nan=torch.inf)
    return [int(i) for i in badness.argsort(descending=True, stable=True)[:num]]


def plot_worst(
    ev: EvidenceLike, image_shape: tuple[int, int], num: int = 10, name: str = "IS", ax: Axes | None = None
) -> Axes:
    """Images of the worst- and the best-estimated data, by the ESS of their weights, worst first.

    Args:
        ev: whose data are images.
        image_shape: height and width.
        num: images a row.
        name: the estimator asked.
        ax: to draw into.

    Raises:
        ValueError: without that estimator; for data that are no such images.
    """
    e = estimate_of(ev, name, "its worst data")
    order = worst_estimated(e, len(ev.x))
    worst, best = order[:num], order[::-1][:num]

    def label(word: str, rows: list[int]) -> str:
        if e.ess is None:
            return word
        ess = e.ess[torch.tensor(rows, device="cpu")]
        return f"{word}\nESS {float(ess.min()):.0f}–{float(ess.max()):.0f}"

    x = ev.x.detach().cpu()
    rows = [x[torch.tensor(worst, device="cpu")], x[torch.tensor(best, device="cpu")]]
    return plot_images(rows, image_shape, ax, labels=[label("worst", worst), label("best", best)])
