"""Noise schedules of a diffusion: gamma(t) = -ln SNR(t), rising from a pinned start to a pinned end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

# gamma_0 by the number of levels: so little noise that the level next to x is told with certainty (MATH.md 6).
FIRST = {2: -3.6, 17: -7.9, 256: -13.3}
LAST = 5.0


class LinearSchedule(nn.Module):
    """gamma(t) = gamma_0 + (gamma_1 - gamma_0) t.

    Args:
        gamma_0, gamma_1: -ln SNR at t = 0 (nearly no noise) and t = 1 (nearly all noise).

    Raises:
        ValueError: ends that are not finite or not in order.
    """

    def __init__(self, gamma_0: float = FIRST[256], gamma_1: float = LAST) -> None:
        super().__init__()
        self.gamma_0, self.gamma_1 = _ends(gamma_0, gamma_1)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns gamma(t) and its derivative, of the shape of t."""
        slope = self.gamma_1 - self.gamma_0
        return self.gamma_0 + slope * t, torch.full_like(t, slope)


class LearnedSchedule(nn.Module):
    r"""A learned monotone schedule with pinned ends (Kingma et al. 2021, appendix H).

    :math:`g(t) = w t + \sum_k a_k\,\mathrm{sigm}(b_k (t - c_k))`, all of w, a, b positive, and
    :math:`\gamma(t) = \gamma_0 + (\gamma_1 - \gamma_0) \frac{g(t) - g(0)}{g(1) - g(0)}`; its derivative is exact.
    It starts close to linear. In continuous time the bound does not depend on its shape, but the variance
    of the estimate does. https://arxiv.org/abs/2107.00630

    Args:
        gamma_0, gamma_1: as of `LinearSchedule`.
        units: number of sigmoids.

    Raises:
        ValueError: ends that are not finite or not in order, no units.
    """

    def __init__(self, gamma_0: float = FIRST[256], gamma_1: float = LAST, units: int = 32) -> None:
        super().__init__()
        self.gamma_0, self.gamma_1 = _ends(gamma_0, gamma_1)
        if units < 1:
            raise ValueError(f"expected at least one unit, got {units}")
        self.slope = nn.Parameter(torch.tensor(1.0))
        self.heights = nn.Parameter(torch.full((units,), -4.0))
        self.steepness = nn.Parameter(torch.full((units,), 5.0))
        self.centres = nn.Parameter(torch.linspace(0, 1, units))

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns gamma(t) and its derivative, of the shape of t."""
        first, _ = self._free(t.new_zeros(()))
        last, _ = self._free(t.new_ones(()))
        value, slope = self._free(t)
        factor = (self.gamma_1 - self.gamma_0) / (last - first)
        return self.gamma_0 + factor * (value - first), factor * slope

    def _free(self, t: Tensor) -> tuple[Tensor, Tensor]:
        linear, heights, steep = softplus(self.slope), softplus(self.heights), softplus(self.steepness)
        s = torch.sigmoid(steep * (t.unsqueeze(-1) - self.centres))
        slope = linear + (heights * steep * s * (1 - s)).sum(-1)
        return linear * t + (heights * s).sum(-1), slope


class GivenSchedule(nn.Module):
    """A schedule given by hand: values at equidistant times from 0 to 1, joined by straight lines.

    Args:
        gammas: at least two strictly rising values of -ln SNR.

    Raises:
        ValueError: values that do not rise, or too few.
    """

    gammas: Tensor

    def __init__(self, gammas: Sequence[float] | Tensor) -> None:
        super().__init__()
        values = torch.as_tensor(gammas, dtype=torch.get_default_dtype())
        if values.dim() != 1 or len(values) < 2 or not torch.isfinite(values).all():
            raise ValueError(f"expected at least two finite values of gamma, got shape {tuple(values.shape)}")
        falls = (values.diff() <= 0).nonzero()
        if len(falls):
            i = int(falls[0])
            raise ValueError(
                f"expected a schedule whose -ln SNR rises strictly, got {float(values[i]):g} and then "
                f"{float(values[i + 1]):g} (at {i + 1} of {len(values)}); noise can only be added"
            )
        self.gamma_0, self.gamma_1 = float(values[0]), float(values[-1])
        self.register_buffer("gammas", values)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns gamma(t) and its derivative (that of the piece to the right), of the shape of t."""
        pieces = len(self.gammas) - 1
        i = (t * pieces).floor().clamp(0, pieces - 1).long()
        low, high = self.gammas[i], self.gammas[i + 1]
        return low + (high - low) * (t * pieces - i), (high - low) * pieces


def _ends(gamma_0: float, gamma_1: float) -> tuple[float, float]:
    if not -100 < gamma_0 < gamma_1 < 100:
        raise ValueError(
            f"expected ends in order, gamma_0 < gamma_1 (-ln SNR rises with the noise), got {gamma_0:g} and {gamma_1:g}"
        )
    return float(gamma_0), float(gamma_1)
