r"""Divergences of any two densities that can be drawn from: exact where that is known, else with an error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pyro.distributions import Delta
from torch import Tensor
from torch.distributions import Distribution

from ..devices import in_use
from ..evidence.weights.diagnostics import pareto_khat
from ..programs import seeded
from ..programs.latents.supports import base_of
from .drawn import Density, drawn, error_of_mean, variance_of_mean
from .infinite import diverges, reaches_beyond

Method = Literal["closed form", "enumeration", "monte carlo", "supports and tails"]
MAX_KHAT = 0.7  # of |ln p/q|: beyond it means of draws settle too slowly to be trusted (Vehtari et al. 2024)
MIN_DRAWS = 200  # for a tail to be seen


@dataclass(frozen=True, eq=False)
class Divergence:
    """A divergence, `[*batch]`, in nats.

    Attributes:
        value: The divergence, or its unbiased estimate (which may be negative where the truth is small).
        se: Standard error: 0 where exact, NaN where unknown (one draw, or an infinite value).
        method: "closed form", "enumeration", "monte carlo" or "supports and tails" (+inf).
        num_samples: Draws from each law that was drawn from; 0 where exact.
    """

    value: Tensor
    se: Tensor
    method: Method
    num_samples: int = 0

    def __float__(self) -> float:
        """The value, where it is one number."""
        return float(self.value.item())

    def __repr__(self) -> str:
        if self.value.numel() > 1:
            return f"Divergence({tuple(self.value.shape)} values, {self.method}, {self.num_samples} draws)"
        if self.method == "supports and tails":
            why = "p has density where q has none, or tails too heavy for a mean"
            return f"Divergence({self.value.item():.6g} nats: {why})"
        error = "" if self.method != "monte carlo" else f" ± {self.se.item():.2g}, {self.num_samples} draws"
        return f"Divergence({self.value.item():.6g} nats{error}, {self.method})"


def kl(p: Density, q: Density, num_samples: int = 10_000, *, seed: int = 0, exact: bool = True) -> Divergence:
    r"""KL(p ‖ q) = E_p[ln p(x) − ln q(x)] in nats, >= 0; +inf where p reaches beyond the support of q.

    In closed form where torch or Pyro has one registered, by enumeration of one finite support, else the mean
    over draws of p. An overlap that the draws miss is missed by the estimate and its error alike: a KL of
    many nats needs a closed form, or draws from both sides (`js`). A law of counts, or a point, and one with a density
    have no values in common: +inf. Two more ways of being infinite, which draws may miss, are looked for: density of p
    beyond the bounds of q's support, and a tail of p too heavy for ln p/q to have a mean (Cauchy to logistic). Laws of
    single numbers and their products give +inf; of others the tail of the draws is refused.
    Source: Kullback and Leibler (1951), https://doi.org/10.1214/aoms/1177729694.

    Args:
        p: Law under the expectation; needs `sample` unless exact.
        q: The other law, of the same event shape; batch shapes broadcast.
        num_samples: Draws of the Monte Carlo estimate.
        seed: Of the draws; the global generator is left as it was.
        exact: False draws even where a closed form is known.

    Raises:
        TypeError: If a law lacks `sample` or `log_prob`.
        ValueError: If the event shapes differ, num_samples < 1, a log-density is NaN, or ln p/q of the draws has a
            tail index (k-hat, Vehtari et al. 2024, https://jmlr.org/papers/v25/19-556.html) of .7 or more and a
            largest value that is as large a part of the sum as such a tail has it.
    """
    _check(p, q, num_samples)
    if _are_singular(p, q):
        return _same_everywhere(p, q, math.inf, math.nan, "supports and tails")
    known = (_closed_form(p, q) or _enumerated(p, q, _kl_sum)) if exact else None
    if known is not None:
        return known
    with torch.no_grad():
        own, other = drawn(p, q, num_samples, seed, "p")
        ratio = own - other
        endless = torch.zeros(ratio.shape[1:], dtype=torch.bool, device=ratio.device)
        with seeded(seed, "tails of p", device=ratio.device):
            for found in (reaches_beyond(p, q, ratio.device), diverges(p, q, ratio.device)):
                endless = endless if found is None else endless | found
        if bool(endless.any()):
            value = torch.where(endless, torch.inf, ratio.mean(0))
            se = torch.where(endless, torch.nan, error_of_mean(ratio))
            return Divergence(
                value, se, "supports and tails" if bool(endless.all()) else "monte carlo", num_samples
            )
        _check_tail(ratio)
    return Divergence(ratio.mean(0), error_of_mean(ratio), "monte carlo", num_samples)


def _check_tail(ratio: Tensor) -> None:
    """Refuses `[S, *batch]` ln p/q whose mean draws cannot tell from an infinite one."""
    flat = ratio.reshape(len(ratio), -1)
    flat = flat[:, torch.isfinite(flat).all(0)]  # +inf is an answer already
    if len(flat) < MIN_DRAWS or not flat.numel():
        return
    # A light tail behind a lighter bulk has a large k-hat too, but no value that rules the sum: S^(k - 1).
    largest = flat.abs().amax(0) / flat.abs().sum(0)
    flat = flat[:, largest >= 0.5 * len(flat) ** (MAX_KHAT - 1)]
    khat = (
        float(pareto_khat(flat.abs().log()).nan_to_num(-torch.inf, posinf=-torch.inf).max())
        if flat.numel()
        else 0.0
    )
    if khat >= MAX_KHAT:
        raise ValueError(
            f"expected ln p/q with a mean that draws of p can find, got a tail index k-hat = {khat:.2f} >= {MAX_KHAT}: "
            "the KL may be infinite, as where the tails of p are heavier than those of q; try js, which is bounded"
        )


def js(p: Density, q: Density, num_samples: int = 10_000, *, seed: int = 0, exact: bool = True) -> Divergence:
    r"""Jensen–Shannon: ½ KL(p ‖ m) + ½ KL(q ‖ m), m = (p + q)/2, in nats, 0 ... ln 2.

    ln p − ln m = ln 2 − softplus(ln q − ln p) <= ln 2, so the estimate keeps the upper bound whatever was
    drawn, and reaches it for disjoint supports. By enumeration of one finite support, else over num_samples
    draws of each of the two.
    Source: Lin (1991), https://doi.org/10.1109/18.61115 (bits there: the bound is 1).

    Args:
        p: A law.
        q: Another, of the same event shape; batch shapes broadcast.
        num_samples: Draws of p, and of q.
        seed: Of the draws; the global generator is left as it was.
        exact: False draws even where enumeration is possible.

    Raises:
        TypeError: If a law lacks `sample` or `log_prob`.
        ValueError: If the event shapes differ, num_samples < 1, or a log-density is NaN.
    """
    _check(p, q, num_samples)
    if _are_singular(p, q):
        return _same_everywhere(p, q, math.log(2), 0.0, "closed form")
    known = _enumerated(p, q, _js_sum) if exact else None
    if known is not None:
        return known
    with torch.no_grad():
        from_p = _to_mixture(*drawn(p, q, num_samples, seed, "p"))
        from_q = _to_mixture(*drawn(q, p, num_samples, seed, "q"))
        variance = variance_of_mean(from_p) + variance_of_mean(from_q)
    value = 0.5 * (from_p.mean(0) + from_q.mean(0))
    # The mean of equal numbers may round above their bound.
    return Divergence(value.clamp(max=math.log(2)), 0.5 * variance.sqrt(), "monte carlo", num_samples)


def _to_mixture(own: Tensor, other: Tensor) -> Tensor:
    return math.log(2) - torch.nn.functional.softplus(other - own)


def _check(p: Any, q: Any, num_samples: int) -> None:
    for name, law in (("p", p), ("q", q)):
        if not isinstance(law, Density):
            raise TypeError(
                f"expected {name} to have sample and log_prob, got {type(law).__name__}; try a distribution"
            )
    if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
        raise ValueError(f"expected num_samples >= 1, got {num_samples!r}")
    if isinstance(p, Distribution) and isinstance(q, Distribution) and p.event_shape != q.event_shape:
        raise ValueError(
            f"expected one event shape, got {tuple(p.event_shape)} and {tuple(q.event_shape)}; "
            "try .to_event() or Independent"
        )


def _are_singular(p: Density, q: Density) -> bool:
    """Whether one law has its mass on values of its own, as counts or a point, and the other a density.

    Pyro registers -ln q at the point as the KL of a `Delta`, which is what a MAP guide needs and no divergence.
    """
    kinds = []
    for law in (p, q):
        support = getattr(law, "support", None) if isinstance(law, Distribution) else None
        if support is None:
            return False
        kinds.append(support.is_discrete or isinstance(base_of(law), Delta))
    return kinds[0] != kinds[1]


def _same_everywhere(p: Any, q: Any, value: float, se: float, method: Method) -> Divergence:
    shape = torch.broadcast_shapes(p.batch_shape, q.batch_shape)
    device = in_use()
    first, second = (torch.full(shape, v, dtype=torch.float64, device=device) for v in (value, se))
    return Divergence(first, second, method)


def _closed_form(p: Density, q: Density) -> Divergence | None:
    if not (isinstance(p, Distribution) and isinstance(q, Distribution)):
        return None
    try:
        value = torch.distributions.kl_divergence(p, q)
    except NotImplementedError:
        return None
    return Divergence(value, torch.zeros_like(value), "closed form")


def _enumerated(p: Density, q: Density, total: Callable[[Tensor, Tensor], Tensor]) -> Divergence | None:
    if not (isinstance(p, Distribution) and isinstance(q, Distribution)):
        return None
    if not (p.has_enumerate_support and q.has_enumerate_support):
        return None
    try:
        points, others = p.enumerate_support(expand=False), q.enumerate_support(expand=False)
    except NotImplementedError:
        return None
    if points.shape[0] != others.shape[0] or not bool((points.flatten() == others.flatten()).all()):
        return None
    value = total(p.log_prob(points), q.log_prob(others))
    return Divergence(value, torch.zeros_like(value), "enumeration")


def _kl_sum(log_p: Tensor, log_q: Tensor) -> Tensor:
    ratio = torch.where(log_p == -torch.inf, 0.0, log_p - log_q)
    return (log_p.exp() * ratio).sum(0)


def _js_sum(log_p: Tensor, log_q: Tensor) -> Tensor:
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return 0.5 * (_kl_sum(log_p, log_m) + _kl_sum(log_q, log_m))
