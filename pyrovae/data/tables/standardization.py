"""Columns centred and scaled by the training rows, and the way back into their own units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...text import listed
from ...units import log_slope, to_standard, to_units

SPREAD = 1e-12  # beside the largest value, below which a column does not vary


@dataclass(frozen=True)
class Standardization:
    r"""Maps each column of data, one by one: :math:`t = (x - c) / s`, or :math:`t = (\ln x - c) / s`.

    Column by column, c and s are mean and standard deviation (of x or of ln x) over the training rows that have it.

    Args:
        center: c of each column, `[D]`.
        scale: s of each column, positive.
        log: whether the logarithm of a column is taken.

    Raises:
        ValueError: lengths that differ, or scales that are not positive and finite.

    Example:
        >>> units = Standardization((5.0,), (2.0,), (False,))
        >>> units.forward(torch.tensor([[9.0]])), units.log_jacobian(torch.tensor([[9.0]]))
        (tensor([[2.]]), tensor([[-0.6931]]))
    """

    center: tuple[float, ...]
    scale: tuple[float, ...]
    log: tuple[bool, ...]

    def __post_init__(self) -> None:
        if not len(self.center) == len(self.scale) == len(self.log) > 0:
            raise ValueError(
                f"expected center, scale and log of one length, got {len(self.center)}, {len(self.scale)} and "
                f"{len(self.log)}"
            )
        if not all(map(math.isfinite, self.center)) or not all(0 < s < math.inf for s in self.scale):
            raise ValueError(f"expected finite centers and positive scales, got {self.center}, {self.scale}")

    def forward(self, x: Tensor) -> Tensor:
        """Returns t for x `[..., D]` in its own units; NaN stays NaN. Worked out in float64."""
        return to_standard(x, *self.tensors(x.device))

    def inverse(self, t: Tensor) -> Tensor:
        """Returns x for t `[..., D]`."""
        return to_units(t, *self.tensors(t.device))

    def log_jacobian(self, x: Tensor) -> Tensor:
        """Returns ln |dt/dx| of each number of x `[..., D]`, in nats."""
        return log_slope(x, *self.tensors(x.device))

    def tensors(self, device: torch.device | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Center, scale (float64) and log (bool), each `[D]`."""
        center, scale = (
            torch.tensor(v, dtype=torch.float64, device=device) for v in (self.center, self.scale)
        )
        return center, scale, torch.tensor(self.log, device=device)

    def of(self, places: Sequence[int]) -> Standardization:
        """The map of some of the columns, by their places."""
        center, scale = (tuple(values[i] for i in places) for values in (self.center, self.scale))
        return Standardization(center, scale, tuple(self.log[i] for i in places))

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary of JSON types; `from_json` is its inverse."""
        return {"center": list(self.center), "scale": list(self.scale), "log": list(self.log)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Standardization:
        """The standardisation that `to_json` gave.

        Raises:
            ValueError: other keys, or values that are none.
        """
        if not isinstance(values, Mapping) or set(values) != {"center", "scale", "log"}:
            raise ValueError(f"expected center, scale and log of a standardisation, got {values!r}")
        return cls(
            tuple(float(v) for v in values["center"]),
            tuple(float(v) for v in values["scale"]),
            tuple(bool(v) for v in values["log"]),
        )


def check_positive(x: Tensor, log: Sequence[bool], names: Sequence[str], data: str) -> None:
    """Refuses rows `[N, D]` without a logarithm where it is taken; NaN passes.

    Raises:
        ValueError: naming the first such column and row.
    """
    bad = (x <= 0) & torch.tensor(list(log), device=x.device)
    if bool(bad.any()):
        row, column = bad.nonzero()[0].tolist()
        raise ValueError(
            f"expected positive numbers in {names[column]!r} of {data}, whose logarithm is taken, got "
            f"{float(x[row, column]):g} in row {row} (from 0); try to drop the row"
        )


def fitted(
    train: Tensor, which: Sequence[bool], log: Sequence[bool], names: Sequence[str], data: str
) -> Standardization:
    """The standardisation of training rows `[N, D]`, which may hold NaN; columns not in `which` stay as they are.

    Raises:
        ValueError: columns that hold nothing, do not vary, or are not positive where their logarithm is asked for;
            each by its name.
    """
    x = train.double()
    low = torch.where(x.isnan(), torch.inf, x).amin(0)
    bad = [n for n, taken, v in zip(names, log, low.tolist(), strict=True) if taken and not v > 0]
    if bad:
        raise ValueError(
            f"expected positive numbers in {listed(bad)} of {data}, whose logarithm is asked for, got others; try it "
            "without"
        )
    asked = torch.tensor(list(log), device="cpu")
    x = torch.where(asked, torch.where(asked, x, 1.0).log(), x)
    held = ~x.isnan()
    count = held.sum(0)
    mean = torch.where(held, x, 0.0).sum(0) / count.clamp(min=1)
    spread = (torch.where(held, x - mean, 0.0).square().sum(0) / count.clamp(min=1)).sqrt()
    top = torch.where(held, x, 0.0).abs().amax(0)
    constant = [
        n
        for n, taken, s, t in zip(names, which, spread.tolist(), top.tolist(), strict=True)
        if taken and not s > SPREAD * t
    ]
    if constant:
        raise ValueError(
            f"expected columns that vary over the training rows of {data}, to be scaled by their standard deviation, "
            f"got one value in {listed(constant)}; try to drop it, or without standardisation"
        )
    return Standardization(
        tuple(c if taken else 0.0 for c, taken in zip(mean.tolist(), which, strict=True)),
        tuple(s if taken else 1.0 for s, taken in zip(spread.tolist(), which, strict=True)),
        tuple(bool(v) for v in log),
    )
