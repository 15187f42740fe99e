"""zuko's rational-quadratic spline, built without a softmax over few bins."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.nn.functional import pad

from .lazy_zuko import import_zuko

__all__ = ["rational_quadratic_spline"]


def rational_quadratic_spline(
    widths: Tensor, heights: Tensor, slopes: Tensor, bound: float = 5.0, slope: float = 1e-3
) -> Any:
    """Returns `zuko.transforms.MonotonicRQSTransform` for the same arguments, in half its time.

    Args:
        widths: Raw bin widths, `[..., bins]`.
        heights: Raw bin heights, `[..., bins]`.
        slopes: Raw slopes at the inner knots, `[..., bins - 1]`.
        bound: Half the width of the domain; outside it is the identity.
        slope: The least slope.

    References:
        Neural Spline Flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032
    """
    # torch's softmax over a last dim of eight takes longer than network and spline together; the raw values
    # are bounded here, so exp needs no maximum. zuko's own constructor gets one bin to chew on.
    one = widths.new_zeros(1)
    spline = import_zuko("transforms").MonotonicRQSTransform(one, one, one[:0], bound=bound, slope=slope)
    limit = -math.log(slope)
    spline.horizontal = _knots(widths / (1 + (2 / limit) * widths.abs()), bound)
    spline.vertical = _knots(heights / (1 + (2 / limit) * heights.abs()), bound)
    spline.derivatives = pad(slopes / (1 + slopes.abs() / limit), (1, 1)).exp()
    return spline


def _knots(raw: Tensor, bound: float) -> Tensor:
    # One cumulated sum serves as sum too: the last knot is the bound to the last bit.
    upto = raw.exp().cumsum(-1)
    return pad((2 * bound) * (upto / upto[..., -1:]) - bound, (1, 0), value=-bound)
