"""Logarithm of a ratio of gamma functions that lie far out and close together."""

from __future__ import annotations

import torch
from torch import Tensor

FAR = 32.0


def log_rising(start: Tensor, by: Tensor) -> Tensor:
    r"""Returns :math:`\ln \Gamma(r + x) - \ln \Gamma(r)` for r > 0, x >= 0, in float64.

    The difference of two `lgamma` loses all digits where r is large: at r = 1e12 they are 3e13 each. There it is
    the difference of two Stirling series, with the large terms taken together by hand.

    Args:
        start: r, any shape.
        by: x, of a shape that broadcasts with it.
    """
    r, x = torch.broadcast_tensors(start.double(), by.double())
    far = r >= FAR
    # Each branch sees harmless numbers where the other one counts: an inf there would make the gradient NaN.
    near = torch.where(far, 1.0, r)
    direct = torch.lgamma(near + x) - torch.lgamma(near)
    r = torch.where(far, r, FAR)
    main = x * r.log() + (r + x - 0.5) * torch.log1p(x / r) - x
    return torch.where(far, main + _stirling(r + x) - _stirling(r), direct)


def _stirling(y: Tensor) -> Tensor:
    """Rest of Stirling's series for ln Gamma(y); beyond y = 32 the next term is below 1e-16."""
    inverse = 1 / y
    square = inverse * inverse
    return inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680)))
