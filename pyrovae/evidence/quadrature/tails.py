"""Mass of an integrand beyond the last number that a node can be, on lines out from its peak."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ...devices import as_tensor

# [C, K, n'] at u [K, n', d] for the data at positions [n'].
LogDensities = Callable[[Tensor, Tensor], Tensor]

# Decades that a line reaches, in float64 and below: squares of numbers there are numbers.
FAR = {True: 140, False: 15}
# Decades of its scale between which a line has `PER` points each; further out it has one in three decades.
NEAREST, FINE, PER = -4, 6, 4
NOTHING = -46.0  # ln of a share of the integral, below which an end is of no concern: 1e-20
# |u| from where on a map onto a half line or an interval nears the last of its numbers.
ENDS = {True: 36.0, False: 16.0}
BISECTIONS = 24
FLAT = 1e-3  # exponent that rounding cannot tell from 0


def beyond(
    log_densities: LogDensities,
    place: Tensor,
    scale: Tensor,
    reach: Tensor,
    log_integral: Tensor | None,
    mapped: Tensor,
    *,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Share of the integral beyond `reach`, and beyond all numbers, `[n]` each; inf where it diverges.

    Lines go from the peak to both ends of every coordinate. There the integrand g(v) is held to fall as e^(-a v) with
    the exponent that it has at its last points, g / a beyond them: v = u for latents mapped onto a half line or an
    interval, v = ln u for real ones, so that a is an exponent of a power of z less 1 in both cases. a <= 0: no
    integral. An integrand that ends before that (no number, or a prior of zero) has met the end of the numbers. One
    that a likelihood ends, at a place well within the numbers, has an end of its own.

    Args:
        log_densities: as in `integrate`.
        place: the peak, `[n, d]`.
        scale: of the coordinates around it, `[n, d]`.
        reach: distance from it that nodes have been put at, `[n, d]`.
        log_integral: `[n]`; None: of the line itself, times its own width elsewhere.
        mapped: `[d]`, whether a coordinate's latent is another number than u.
        eps: of the numbers that the densities are computed in.
    """
    n, dim = place.shape
    wide = eps < 1e-10
    near = torch.arange(NEAREST * PER, FINE * PER + 1, dtype=torch.float64, device="cpu") / PER
    far = torch.arange(FINE + 3.0, FAR[wide], 3.0, dtype=torch.float64, device="cpu")
    decades = torch.cat([near, far]).to(place.device)[:, None]
    rows = torch.arange(n, device=place.device)
    past, outside = torch.zeros(2, n, dtype=torch.float64, device=place.device).unbind(0)
    for j in range(dim):
        log_r = math.log(10) * decades + scale[:, j].log()
        log_r = torch.minimum(log_r, as_tensor(math.log(10) * FAR[wide]).to(log_r))
        sides = [_Line(log_densities, place, j, sign, rows) for sign in (-1.0, 1.0)]
        values = [side(log_r) for side in sides]
        total = log_integral
        if total is None:
            total = torch.cat([_pieces(v[0].nan_to_num(-torch.inf), log_r) for v in values]).logsumexp(0)
        for side, value in zip(sides, values, strict=True):
            of_side = _of_side(side, value, log_r, total, reach[:, j], bool(mapped[j]), ENDS[wide])
            past, outside = past + of_side[0], outside + of_side[1]
    return past, outside


class _Line:
    """ln of the integrands at distances from a place along one coordinate, `[C, K, n]` at ln r `[K, n]`."""

    def __init__(
        self, log_densities: LogDensities, place: Tensor, dim: int, sign: float, rows: Tensor
    ) -> None:
        self.log_densities, self.place, self.rows = log_densities, place, rows
        self.step = torch.zeros_like(place)
        self.step[:, dim] = sign
        self.origin = place[:, dim] * sign

    def __call__(self, log_r: Tensor) -> Tensor:
        u = self.place + self.step * log_r.exp().unsqueeze(-1)
        values = self.log_densities(u, self.rows).double()
        return torch.where(values < torch.inf, values, torch.nan)

    def size(self, log_r: Tensor) -> Tensor:
        """|u| of the coordinate."""
        return (self.origin + log_r.exp()).abs()


def _of_side(
    line: _Line,
    value: Tensor,
    log_r: Tensor,
    total: Tensor,
    reach: Tensor,
    mapped: bool,
    ends: float,
) -> tuple[Tensor, Tensor]:
    """Shares `[n]` beyond the reach, and beyond the last number."""
    first = value[0]
    finite = first.isfinite()
    count = len(first)
    order = torch.arange(count, device=first.device)[:, None]
    last = torch.where(finite, order, -1).amax(0)  # [n]
    inside = last.clamp(min=0)[None]
    low, high = log_r.gather(0, inside), log_r.gather(0, (last + 1).clamp(max=count - 1)[None])
    ended = last < count - 1
    level = torch.where(last < 0, 0.0, first.gather(0, inside)[0] + low[0] - total)
    pieces = _pieces(first.nan_to_num(-torch.inf), log_r) - total
    past = torch.where(log_r[1:] <= reach.log(), -torch.inf, pieces).logsumexp(0).exp()
    past = torch.where(past > math.exp(NOTHING), past, 0.0)
    concern = level > NOTHING
    if not bool(concern.any()):
        return past, torch.zeros_like(past)
    if bool((ended & concern).any()):
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            fine = line(middle)[0].isfinite()
            low, high = torch.where(fine & ended, middle, low), torch.where(fine | ~ended, high, middle)
        # Where it ends: at no number, where the prior is none, or near the last of a map's numbers.
        after = line(high)[:, 0]
        at_end = after[0].isnan() | (mapped & (line.size(high)[0] > ends))
        if len(after) > 1:
            at_end |= ~after[1].isfinite()
        concern &= ~ended | at_end
    end = torch.cat([low - math.log(2), low])
    inner, outer = line(end)[0]
    if mapped:  # g = f(u)
        exponent, flat = (inner - outer) / (0.5 * low[0].exp()), FLAT * 1e-3
        log_g = outer - total
    else:  # g = u f(u)
        exponent, flat = (inner - outer) / math.log(2) - 1, FLAT
        log_g = outer + low[0] - total
    tail = torch.where(exponent > flat, (log_g - exponent.clamp(min=flat).log()).exp(), torch.inf)
    # A peak with no number next to it stands at the end of the numbers, and has not been met.
    tail = torch.where(last < 0, torch.inf, tail.nan_to_num(nan=torch.inf, posinf=torch.inf))
    outside = torch.where(concern, tail, 0.0)
    return past + outside, outside


def _pieces(log_value: Tensor, log_r: Tensor) -> Tensor:
    """ln of the integrals over r between points `[K, n]`, by the trapezoidal rule in ln r, `[K - 1, n]`."""
    g = log_value + log_r
    return torch.logaddexp(g[1:], g[:-1]) + (0.5 * log_r.diff(dim=0)).clamp(min=1e-300).log()
