"""Densities of laws in unconstrained coordinates, in closed form: right where no number is near enough to an edge."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import transforms as t
from torch.nn.functional import logsigmoid

from .supports import INDEPENDENT, SAME, bijection


def log_density_of_u(fn: Any, u: Tensor) -> Tensor | None:
    """ln p(z(u)) + ln|dz/du| of a law, masks left out, for z = bijection(u); None where there is no closed form.

    Beta(.05, .05) has 8 % of its mass within 1e-16 of 1, where z is one number and the density of z says nothing; in u
    it falls off as e^(-.05 u). Gamma, inverse Gamma, Weibull, Beta and Dirichlet, and laws whose last transform is the
    bijection itself (logit-normal).
    """
    if isinstance(fn, SAME):
        return log_density_of_u(fn.base_dist, u)
    if isinstance(fn, INDEPENDENT):
        found = log_density_of_u(fn.base_dist, u)
        return None if found is None else _summed(found, fn.reinterpreted_batch_ndims)
    if isinstance(fn, torch.distributions.Gamma):
        return _gamma(fn.concentration, fn.rate, u)
    if isinstance(fn, dist.InverseGamma):
        return _gamma(fn.base_dist.concentration, fn.base_dist.rate, -u)
    if isinstance(fn, torch.distributions.Weibull):
        k = fn.concentration
        scaled = k * (u - fn.scale.log())
        return k.log() + scaled - scaled.exp()
    if isinstance(fn, torch.distributions.Beta):
        return _beta(fn.concentration1, fn.concentration0, u)
    if isinstance(fn, torch.distributions.Dirichlet):
        alpha = fn.concentration
        rest = alpha.flip(-1).cumsum(-1).flip(-1)[..., 1:]
        size = u.shape[-1]
        offset = torch.arange(size, 0, -1, dtype=u.dtype, device=u.device).log()
        return _beta(alpha[..., :-1], rest, u - offset).sum(-1)
    return _of_base(fn, u)


def _of_base(fn: Any, u: Tensor) -> Tensor | None:
    """Density of the other law, where a law is that one pushed through the bijection."""
    transforms = getattr(fn, "transforms", None)
    if not isinstance(fn, torch.distributions.TransformedDistribution) or not transforms:
        return None
    onto = bijection(fn)
    same = isinstance(onto, (t.SigmoidTransform, t.ExpTransform)) and type(transforms[-1]) is type(onto)
    if not same or "log_prob" in type(fn).__dict__:
        return None
    base = fn.base_dist
    law = dist.TransformedDistribution(base, transforms[:-1]) if transforms[:-1] else base
    return _summed(law.log_prob(u), len(fn.event_shape) - len(law.event_shape))


def _gamma(shape: Tensor, rate: Tensor, u: Tensor) -> Tensor:
    return shape * (u + rate.log()) - rate * u.exp() - torch.lgamma(shape)


def _beta(a: Tensor, b: Tensor, u: Tensor) -> Tensor:
    norm = torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b)
    return a * logsigmoid(u) + b * logsigmoid(-u) + norm


def _summed(value: Tensor, dims: int) -> Tensor:
    return value.flatten(value.dim() - dims).sum(-1) if dims > 0 else value


class AsGiven:
    """A law at one value alone, whose log-density there is known."""

    has_enumerate_support = False

    def __init__(self, fn: Any, log_prob: Tensor) -> None:
        self.batch_shape, self.event_shape, self.event_dim = fn.batch_shape, fn.event_shape, fn.event_dim
        self.support = fn.support
        self._log_prob = log_prob

    def log_prob(self, _: Tensor) -> Tensor:
        """Log-density at the value that it was made for."""
        return self._log_prob
