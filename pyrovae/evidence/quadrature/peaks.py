"""Peaks of densities over one or two dims: found by Newton's steps from many places, all data at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# ln of an integrand [K, n] at u [K, n, d].
LogDensity = Callable[[Tensor], Tensor]

STEPS = 24
NEAR = 0.5  # nats below its peak: a start that has come so close has found it
APART = 3.0  # standard deviations between two peaks, below which they are one
LOW = 60.0  # nats below the largest, from where on a peak's mass counts for nothing
MOST = {1: 24, 2: 6}  # peaks of a datum


@dataclass(frozen=True)
class Peaks:
    """Up to M peaks of each of n data, the one with the largest mass first.

    Attributes:
        place: `[M, n, d]`.
        covariance: minus the inverse Hessian there, `[M, n, d, d]`.
        found: `[M, n]`; the rest is of no meaning.
    """

    place: Tensor
    covariance: Tensor
    found: Tensor


def climb(log_density: LogDensity, starts: Tensor) -> Peaks | None:
    """Newton's steps within a trust region, uphill from every start `[S, n, d]`; None where there are no gradients.

    A step is |H|^-1 g, which leaves saddles and climbs where the density is not log-concave (Dauphin et al. 2014,
    https://arxiv.org/abs/1406.2572), and is cut until it goes up. Masses of peaks are Laplace's,
    p(u) |2 pi C|^{1/2}.
    """
    scale = _scale(starts)
    try:
        v, f, g, h = _climbed(log_density, starts / scale, scale)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError):
        return None
    curvature, axes = torch.linalg.eigh(-h.nan_to_num(0.0))
    along = (axes.mT @ g.nan_to_num(0.0).unsqueeze(-1)).squeeze(-1)
    left = 0.5 * (along.square() / curvature.abs().clamp(min=1e-300)).sum(-1)
    found = f.isfinite() & (curvature > 1e-12).all(-1) & (left < NEAR)
    curvature = curvature.clamp(min=1e-12)
    covariance = (axes / curvature.unsqueeze(-2)) @ axes.mT
    mass = torch.where(found, f - 0.5 * curvature.log().sum(-1), -torch.inf)
    place, covariance, found = _distinct(v, covariance, -h, mass)
    outer = scale.unsqueeze(-1) * scale.unsqueeze(-2)
    return Peaks(place * scale, covariance * outer, found)


def has_gradients(log_density: LogDensity, at: Tensor) -> bool:
    """Whether gradients are those of the density: differences over small steps `[S, n, d]` agree with them for most."""
    scale = _scale(at)
    try:
        v = (at / scale).detach().requires_grad_()
        with torch.enable_grad():
            value = log_density(v * scale)
            (slope,) = torch.autograd.grad(value.sum(), v)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError):
        return False
    step = 1e-6 * torch.ones_like(v)
    change = log_density((v.detach() + step) * scale) - log_density((v.detach() - step) * scale)
    told = 2 * (slope * step).sum(-1)
    good = (change - told).abs() <= 1e-2 * (change.abs() + told.abs()) + 1e-11 * (1 + value.abs())
    usable = value.isfinite() & change.isfinite()
    return bool((good & usable).sum() >= 0.8 * usable.sum())


def _scale(starts: Tensor) -> Tensor:
    spread = starts.nan_to_num(0.0, posinf=0.0, neginf=0.0).std(0)
    return torch.where(spread > 1e-12, spread, torch.ones_like(spread))


def _climbed(log_density: LogDensity, v: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ends of the climbs, and value, gradient and Hessian there."""
    v = v.nan_to_num(0.0, posinf=0.0, neginf=0.0)
    f, g, h = _derivatives(log_density, v, scale)
    radius = torch.ones_like(f)
    for _ in range(STEPS):
        curvature, axes = torch.linalg.eigh(-h.nan_to_num(0.0))
        along = (axes.mT @ g.nan_to_num(0.0).unsqueeze(-1)).squeeze(-1)
        left = 0.5 * (along.square() / curvature.abs().clamp(min=1e-300)).sum(-1)
        if bool(((left < 1e-6) | ~f.isfinite()).all()):
            break
        step = (axes @ (along / curvature.abs().clamp(min=1e-300)).unsqueeze(-1)).squeeze(-1)
        length = step.norm(dim=-1).clamp(min=1e-300)
        step = step * (radius / length).clamp(max=1.0).unsqueeze(-1)
        trial = v + step.nan_to_num(0.0)
        found = _derivatives(log_density, trial, scale)
        up = found[0] >= f
        radius = torch.where(up, 2 * radius, 0.25 * torch.minimum(radius, length))
        v = torch.where(up.unsqueeze(-1), trial, v)
        f = torch.where(up, found[0], f)
        g = torch.where(up.unsqueeze(-1), found[1], g)
        h = torch.where(up[..., None, None], found[2], h)
    return v, f, g, h


def _derivatives(log_density: LogDensity, v: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    v = v.detach().requires_grad_()
    with torch.enable_grad():
        value = log_density(v * scale)
        (g,) = torch.autograd.grad(value.sum(), v, create_graph=True)
        rows = []
        for part in g.unbind(-1):
            if part.requires_grad:
                (row,) = torch.autograd.grad(part.sum(), v, retain_graph=True, allow_unused=True)
            else:
                row = None
            rows.append(torch.zeros_like(v) if row is None else row)
    h = torch.stack(rows, -1)
    return value.detach(), g.detach(), (0.5 * (h + h.mT)).detach()


def _distinct(
    v: Tensor, covariance: Tensor, precision: Tensor, mass: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One end of each peak, by falling mass, as far as their mass counts: places, covariances and which there are."""
    places, covariances, found = [], [], []
    floor = mass.amax(0) - LOW
    mass = torch.where(mass >= floor, mass, -torch.inf)
    pick = torch.arange(v.shape[1], device=v.device)
    for _ in range(MOST[v.shape[-1]]):
        best = mass.argmax(0)
        there = mass[best, pick] > -torch.inf
        if not bool(there.any()):
            break
        at = v[best, pick]
        places.append(at)
        covariances.append(covariance[best, pick])
        found.append(there)
        off = v - at
        distance = torch.einsum("snd,nde,sne->sn", off, precision[best, pick], off)
        mass = torch.where(distance <= APART**2, -torch.inf, mass)
        mass[best, pick] = -torch.inf
    if not places:
        n, d = v.shape[1:]
        return v.new_zeros(0, n, d), v.new_zeros(0, n, d, d), v.new_zeros(0, n, dtype=torch.bool)
    return torch.stack(places), torch.stack(covariances), torch.stack(found)
