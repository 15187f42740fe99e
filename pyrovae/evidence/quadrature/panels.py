"""Panels of a line or a plane, each datum's own, with a rule and its error on each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .kronrod import GAUSS, KRONROD, POINTS, jump_past, log_difference, log_sum

At = Callable[[Tensor, Tensor], Tensor]  # ln of the integrands [C, K, n'] at t [K, n', d] of the data at [n']

SAFETY = 4.0  # on the rules' difference: of smooth integrands it is far too large already, of jumps it may be too small
NEAR = 40.0  # nats below the prior's peak where a place still counts as one of the prior's
UNITS = 4.0  # that a tail goes on for past an edge, as high as it is there: enough for u^-5/4 and what falls faster


@dataclass
class Panels:
    """P panels of each of n data, and what C integrands have on them.

    Attributes:
        centre, half: `[P, n, d]`.
        log_value: ln of the integral on each, `[P, n, C]`.
        log_error: ln of `SAFETY` times the difference to the Gauss rule in each dim, and of what a jump past the last
            node would make; of halves not more than the larger of these once and the whole's change, `[P, n, C, d]`.
        edge: where the first integrand ends: at the end of the grid, or where it is no number, `[P, n]`.
        top: the largest ln of the first integrand on each, and there of the second, `[P, n, 2]`.
        place: of that, `[P, n, d]`.
        high: the largest ln (first / second), and there of the second, `[P, n, 2]`.
        hidden: ln of what peaks between nodes may hold, by dim: see `_hidden`, `[P, n, d]`.
        end: of the grid.
        eps: of the numbers that the integrands are computed in.
        num_nodes: evaluated for a datum so far.
    """

    centre: Tensor
    half: Tensor
    log_value: Tensor
    log_error: Tensor
    edge: Tensor
    top: Tensor
    place: Tensor
    high: Tensor
    hidden: Tensor
    end: float
    eps: float = torch.finfo(torch.float64).eps
    num_nodes: int = 0

    @classmethod
    def over(cls, at: At, edges: Tensor, end: float, eps: float = torch.finfo(torch.float64).eps) -> Panels:
        """The products of the pieces between `edges` `[B, n, d]`, sorted."""
        rows = torch.arange(edges.shape[1], device=edges.device)
        return _measured(at, *_products(edges), rows, end, eps)

    @property
    def num_panels(self) -> int:
        """P."""
        return len(self.centre)

    @property
    def num_densities(self) -> int:
        """C."""
        return self.log_value.shape[-1]

    def totals(self) -> tuple[Tensor, Tensor, Tensor]:
        """ln of the integrals `[C, n]`; relative to the first, the rule's error and what lies beyond edges, `[n]`."""
        total = self.log_value.logsumexp(0)
        rule = torch.nan_to_num((self.log_error[:, :, 0] - total[:, :1]).exp()).sum((0, 2))
        beyond, between = self._tails(total)
        return total.T, rule, beyond.sum(0) + between.amax(-1).sum(0)

    def _tails(self, total: Tensor) -> tuple[Tensor, Tensor]:
        """Mass beyond panels at an edge, as if it went on for a few units of t, `[P, n]`; between nodes."""
        width = (2 * self.half).amin(-1).clamp(min=1e-12, max=1.0)
        share = torch.nan_to_num((self.log_value - total).exp())[..., 0]
        hidden = self.hidden
        if self.num_densities == 2:  # no peak holds more than the prior's mass times the largest likelihood
            hidden = hidden.minimum((self.log_value[..., 1] + self.peak()[3]).unsqueeze(-1))
        between = torch.nan_to_num((hidden - total[..., :1]).clamp(max=0.0).exp())
        return torch.where(self.edge, UNITS * share / width, 0.0), between

    def peak(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """ln of the first integrand's peak; |ln| of prior and of likelihood there; the largest ln likelihood, `[n]`.

        The last one of places whose prior is within `NEAR` nats of its own peak.
        """
        best = self.top[..., 0].argmax(0, keepdim=True)
        first, second = (v.gather(0, best)[0] for v in self.top.unbind(-1))
        if self.num_densities == 1:
            return first, first.abs(), torch.zeros_like(first), first
        ratio, prior = self.high.unbind(-1)
        ratio = torch.where(prior >= prior.amax(0) - NEAR, ratio, -torch.inf).amax(0)
        return first, second.abs(), (first - second).abs(), ratio

    def highest(self) -> Tensor:
        """Place of the first integrand's peak, `[n, d]`."""
        return self.place[self.top[..., 0].argmax(0), torch.arange(self.top.shape[1], device=self.top.device)]

    def halve(self, at: At, rows: Tensor, weight: Tensor, missing: Tensor, scouts: Tensor | None) -> None:
        """Halves the panels with the largest errors of the data in `rows` (bool `[n]`), in the worse dim.

        Errors of the second integrand, and its share of 1 that is missing, `[n]`, count by `weight`.
        """
        weight = weight.clamp(max=1e6)
        total = self.log_value.logsumexp(0)
        shares = torch.nan_to_num((self.log_error - total.unsqueeze(-1)).exp())
        error = shares[:, :, 0]
        if self.num_densities == 2:
            error = error + shares[:, :, 1] * weight.unsqueeze(-1)
        # What lies beyond, and what no node has met, ask for halves of the longer side.
        beyond, between = self._tails(total)
        long = self.half / self.half.sum(-1, keepdim=True).clamp(min=1e-300)
        error = error + between + (beyond + weight * self._unmet(scouts, missing)).unsqueeze(-1) * long
        width = self.half.shape[-1]
        count = min(max(4, self.num_panels // (12 if width == 1 else 4)), self.num_panels)
        index = rows.nonzero()[:, 0]
        worst = error.sum(-1).topk(count, dim=0).indices[:, index]  # [m, n']
        dim = error[worst, index].argmax(-1, keepdim=True)
        centre, half = self.centre[worst, index], self.half[worst, index]
        step = torch.zeros_like(half).scatter(-1, dim, 0.5 * half.gather(-1, dim))
        both = torch.cat([centre - step, centre + step])
        new = _measured(at, both, (half - step).repeat(2, 1, 1), index, self.end, self.eps)
        # Halves are hardly further off than the whole that they replace: two signs of an error in place of a factor.
        whole, halves = self.log_value[worst, index], torch.logaddexp(*new.log_value.chunk(2))
        moved = log_difference(whole, halves).unsqueeze(-1).repeat(2, 1, 1, 1)
        known = torch.maximum(new.log_error - math.log(SAFETY), moved)
        new.log_error = torch.minimum(new.log_error, known)
        self._replace(worst, index, new)

    def _replace(self, which: Tensor, index: Tensor, new: Panels) -> None:
        """Puts `new` panels of the data at `index` in the place of `which` `[m, n']`, and what is over behind."""
        count = len(which)
        for name in ("centre", "half", "log_value", "log_error", "edge", "top", "place", "high", "hidden"):
            old, made = getattr(self, name), getattr(new, name)
            # Data that are done get panels of no width.
            fill = -torch.inf if name.startswith(("log", "top", "hi")) else 0
            more = torch.full_like(old[:1], fill).repeat(len(made) - count, *[1] * (old.dim() - 1))
            old[which, index], more[:, index] = made[:count], made[count:]
            setattr(self, name, torch.cat([old, more]))
        self.num_nodes += new.num_nodes

    def _unmet(self, scouts: Tensor | None, missing: Tensor) -> Tensor:
        """Excess of a panel's share of the prior's scouts `[S, n, d]` over its share of the mass, `[P, n]`.

        By chance too, but at most what is missing in all. Halves of halves lie graded around what is found.
        """
        if scouts is None or not bool((missing > 0).any()):
            return torch.zeros_like(self.half[..., 0])
        shares = [
            ((scouts - c).abs() <= h).all(-1).double().mean(0)
            for c, h in zip(self.centre, self.half, strict=True)
        ]
        return (torch.stack(shares) - self.log_value[..., 1].exp()).clamp(min=0.0).minimum(missing)


def _products(edges: Tensor) -> tuple[Tensor, Tensor]:
    """Centres and halves `[P, n, d]` of all products of the pieces between edges `[B, n, d]`."""
    low, high = edges[:-1], edges[1:]
    pieces = list(itertools.product(range(len(low)), repeat=edges.shape[-1]))
    index = torch.tensor(pieces, device=edges.device)  # [P, d]
    pick = torch.stack([v[:, :, j][index[:, j]] for v in (low, high) for j in range(edges.shape[-1])], -1)
    low, high = pick.chunk(2, -1)
    return 0.5 * (low + high), 0.5 * (high - low)


def _measured(at: At, centre: Tensor, half: Tensor, rows: Tensor, end: float, eps: float) -> Panels:
    """Both rules on panels `[P, n', d]`."""
    dim, device = centre.shape[-1], centre.device
    grid = torch.cartesian_prod(*[POINTS] * dim).reshape(-1, 1, 1, dim).to(device)
    t = centre + half * grid  # [Q, P, n', d]
    values = at(t.flatten(0, 1), rows)
    values = values.reshape(len(values), *t.shape[:-1])  # [C, Q, P, n']
    bad = ~(values[0] < torch.inf)
    values = torch.where(values < torch.inf, values, -torch.inf)
    log_half = half.log().sum(-1)
    kronrod = log_sum(values, [KRONROD] * dim) + log_half
    highest = values.amax(1)  # [C, P, n']
    shares = torch.where(highest.unsqueeze(1) == -torch.inf, 0.0, (values - highest.unsqueeze(1)).exp())
    shares = shares.reshape(len(values), *[len(POINTS)] * dim, *highest.shape[1:])
    errors = []
    for j in range(dim):
        gauss = log_sum(values, [GAUSS if i == j else KRONROD for i in range(dim)]) + log_half
        jump = jump_past(shares, j).log() + highest + log_half
        errors.append(math.log(SAFETY) + torch.logaddexp(log_difference(kronrod, gauss), jump))
    at_end = ((centre.abs() + half) >= end * (1 - 1e-12)).any(-1)
    edge = (at_end | bad.any(0)) & (half > 0).all(-1)
    first, second = values[0], values[-1]
    top, where = first.max(0)
    ratio = torch.where(torch.isfinite(second) & torch.isfinite(first), first - second, -torch.inf)
    high, highest = ratio.max(0)
    return Panels(
        centre.clone(),
        half.clone(),
        kronrod.movedim(0, -1),
        torch.stack(errors, -1).movedim(0, 2),
        edge,
        torch.stack([top, second.gather(0, where.unsqueeze(0))[0]], -1),
        t.gather(0, where[None, ..., None].expand(1, *where.shape, dim))[0],
        torch.stack([high, second.gather(0, highest.unsqueeze(0))[0]], -1),
        _hidden(first.unflatten(0, [len(POINTS)] * dim), eps) + log_half.unsqueeze(-1),
        end,
        eps,
        len(t) * t.shape[1],
    )


def _hidden(values: Tensor, eps: float) -> Tensor:
    """The largest ln that a peak between the points may reach in each dim, `[P, n, d]`, of ln of the integrand.

    A steep flank says that there is a peak long before a point meets it. On a parabola the peak is above the highest
    of three neighbours by at most a quarter of the larger drop to the other two; four times that is allowed for.
    Where points are closer than the peak is wide (drops within a nat, or rounding), nothing is hidden.
    """
    found = []
    for j in range(values.dim() - 2):
        line = values.movedim(j, 0)
        middle, one, other = line[1:-1], line[:-2], line[2:]
        drop = middle - torch.minimum(one, other)
        peak = (middle >= one) & (middle >= other) & (drop > 1 + 64 * eps * middle.abs()) & drop.isfinite()
        found.append(torch.where(peak, middle + drop, -torch.inf).flatten(0, -3).amax(0))
    return torch.stack(found, -1)
