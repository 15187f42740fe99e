"""Data of the user's to float32, where it tells their values apart."""

import numpy as np
import torch
from torch import Tensor

_SHARE = 1e-3  # of the standard deviation, that rounding may come to
_NOISE = 1e-14  # spread beside the values, below which float64 has no digits of it either
_BLOCK = 2**22  # values looked at in one go


def rounded(splits: dict[str, Tensor], columns: tuple[str, ...] | None, name: str) -> dict[str, Tensor]:
    """The splits in float32; those of float64 are looked at, element by element of a datum, over all splits.

    Args:
        splits: Split -> data `[N, *event]`, float32 or float64.
        columns: Names of the elements, where they have some.
        name: Of the data, for the message.

    Raises:
        ValueError: If the largest rounding error of an element is above 1e-3 of its standard deviation: dates in
            seconds, say, of which float32 makes steps of two minutes.
    """
    shapes = {x.shape[1:] for x in splits.values()}
    if len(shapes) == 1 and any(x.dtype == torch.float64 for x in splits.values()):
        shape = shapes.pop()
        _check(list(splits.values()), tuple(shape), columns, name)
    return {split: x.to(torch.float32) for split, x in splits.items()}


def _check(parts: list[Tensor], shape: tuple[int, ...], columns: tuple[str, ...] | None, name: str) -> None:
    flat = [x.flatten(1) for x in parts]
    width = max(1, _BLOCK // max(1, sum(map(len, flat))))
    for start in range(0, flat[0].shape[1], width):
        x = torch.cat([f[:, start : start + width].double() for f in flat])
        lost, spread = _lost(x)
        bad = (lost > _SHARE * spread).nonzero().flatten().tolist()
        if bad:
            first = start + bad[0]
            index = tuple(map(int, np.unravel_index(first, shape)))
            where = f"column {columns[first]!r}" if columns else f"element {list(index)} of a datum"
            raise ValueError(
                f"expected values that float32 tells apart, got {where} of {name} with rounding errors up to "
                f"{lost[bad[0]]:.2g} beside a standard deviation of {spread[bad[0]]:.2g}; try to subtract its mean "
                "(in float64), or other units"
            )


def _lost(x: Tensor) -> tuple[Tensor, Tensor]:
    """Largest rounding error and standard deviation of each column of `[N, D]`; both 0 where it does not vary."""
    low = x.float().double()
    held = x.isfinite() & low.isfinite()  # the others are refused as such
    x = torch.where(held, x, 0.0)
    lost = torch.where(held, x - low, 0.0).abs().amax(0)
    top = x.abs().amax(0).clamp(min=torch.finfo(torch.float64).tiny)
    scaled, count = x / top, held.sum(0).clamp(min=1)  # squares of the values themselves could be 0
    mean = scaled.sum(0) / count
    spread = (torch.where(held, scaled - mean, 0.0).square().sum(0) / count).sqrt()
    varies = spread > _NOISE
    return torch.where(varies, lost, 0.0), torch.where(varies, spread * top, 0.0)
