"""The latent space as a part of a page, where each datum says what it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ...pages.scatter import svg_scatter
from ..style import BLUE
from .latent import check_plane, codes_of, groups_of, project

MOST = 2000  # points, of a few hundred bytes each


def latent_svg(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    labels: Tensor | Sequence[Any] | None = None,
    texts: Sequence[str] | None = None,
    site: str | None = None,
) -> str:
    """E_q[z | x] of the first 2,000 data as inline SVG, in the plane of `plot_latent_space`.

    Args:
        model, guide, x, *context: the program and its data.
        labels: classes of the data.
        texts: what is shown of each datum beside its number and class.
        site: the latent; default: the first continuous vector.

    Raises:
        ValueError: as `plot_latent_space`.
    """
    codes = codes_of(model, guide, x, *context, site=site)
    check_plane(codes.mean)
    points, axes = project(codes.mean.detach().double().cpu(), codes.kl, "E[z_{} | x]")
    shown = min(len(points), MOST)
    groups = groups_of(labels, len(points)) or {"": (np.ones(len(points), dtype=bool), BLUE)}
    said = [f"datum {n}" for n in range(shown)]
    for name, (mask, _) in groups.items():
        for n in np.flatnonzero(mask[:shown]):
            said[n] += f", class {name}" if name else ""
    if texts is not None:
        said = [f"{a}, {b}" for a, b in zip(said, texts, strict=False)]
    members = {
        name: (np.flatnonzero(mask[:shown]).tolist(), colour if isinstance(colour, str) else BLUE)
        for name, (mask, colour) in groups.items()
    }
    plain = [axis.translate({ord(c): None for c in "${}\\"}) for axis in axes]
    places = [(float(a), float(b)) for a, b in points[:shown]]
    return svg_scatter(places, said, members, (plain[0], plain[1]))
