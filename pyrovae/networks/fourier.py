"""Fourier features of a network's input."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FourierFeatures(nn.Module):
    r"""x with :math:`\sin(2^n \pi x), \cos(2^n \pi x)` for each exponent n, `[..., D] -> [..., factor * D]`.

    They show a network the small differences between grey levels that decide a likelihood (Kingma et al. 2021,
    appendix C, https://arxiv.org/abs/2107.00630). The highest should have about one period in two levels.

    Args:
        exponents: the n; none leaves x as it is.
    """

    def __init__(self, exponents: Sequence[int] = (0, 1)) -> None:
        super().__init__()
        self.exponents = tuple(exponents)
        self.factor = 1 + 2 * len(self.exponents)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the features."""
        parts = [x]
        for n in self.exponents:
            angle = 2.0**n * math.pi * x
            parts += [angle.sin(), angle.cos()]
        return torch.cat(parts, -1)

    def extra_repr(self) -> str:
        """Shows the exponents."""
        return f"exponents={self.exponents}"
