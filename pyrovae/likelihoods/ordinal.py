"""The ordinal likelihood for ordered categories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from pyrovae.distributions import Levels

from ._from_network import FromNetwork

__all__ = ["Ordinal"]

_NARROW = 1e-4  # floor of the distance between thresholds, by which no category loses its probability


class Ordinal(FromNetwork):
    r"""Likelihood of ordered categories 0..L-1, as floats, by learned thresholds :math:`c_1 < ... < c_{L-1}`:

    .. math:: P(x_i \ge k | z) = \sigma(\mathrm{net}(z)_i - c_{ik}) .

    The proportional-odds model: one number of z says how far up the categories are.

    Args:
        net: Network from `z` (and context) to `[..., prod(event_shape)]`.
        levels: The number of categories L.
        event_shape: Shape of one datum; `(net.out_features,)` if not given.

    Raises:
        ValueError: levels < 2, or the network's width is not known or does not fill the event shape.

    References:
        Regression Models for Ordinal Data (McCullagh, 1980), https://doi.org/10.1111/j.2517-6161.1980.tb01109.x
    """

    def __init__(self, net: nn.Module, levels: int, event_shape: Sequence[int] | None = None) -> None:
        super().__init__(net, event_shape)
        if levels < 2:
            raise ValueError(f"expected levels >= 2, got {levels}")
        self.levels = levels
        # Equal probabilities where the network gives 0.
        start = torch.logit(torch.arange(1, levels) / levels)
        self.first = nn.Parameter(start[:1].expand(*self.event_shape, 1).clone())
        gaps = (start.diff() - _NARROW).expm1().log()
        gaps = gaps.expand(*self.event_shape, levels - 2).clone()
        if levels > 2:
            self.raw_gaps: Tensor = nn.Parameter(gaps)
        else:  # one threshold has no gaps, and nothing of them to learn
            self.register_buffer("raw_gaps", gaps)

    @property
    def thresholds(self) -> Tensor:
        """The thresholds, increasing, `[*event_shape, L - 1]`."""
        gaps = softplus(self.raw_gaps) + _NARROW
        return torch.cat([self.first, self.first + gaps.cumsum(-1)], -1)

    def law(self, parameters: Tensor) -> Any:
        """Returns the law of each element from its place among the thresholds."""
        above = parameters.unsqueeze(-1) - self.thresholds
        low, high = above[..., :-1], above[..., 1:]  # of the categories between two thresholds; high < low
        # s(a) - s(b) = s(a) s(-b) (1 - e^(b - a)), without a difference of numbers that are nearly equal
        between = logsigmoid(low) + logsigmoid(-high) + torch.log(-torch.expm1(high - low))
        logits = torch.cat([logsigmoid(-above[..., :1]), between, logsigmoid(above[..., -1:])], -1)
        return Levels(logits)

    def settings(self) -> dict[str, object]:
        """Shows the number of categories."""
        return {"levels": self.levels}
