"""Counts whose totals differ between data, summed out up to the largest total."""

from __future__ import annotations

import copy
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

_WRAPPERS = (dist.MaskedDistribution, dist.ExpandedDistribution)


class _UpToTheLargest:
    """A list as long as the largest total asks for; what is beyond a datum's own total repeats it, and has p = 0."""

    _listed = False

    def enumerate_support(self: Any, expand: bool = True) -> Tensor:
        self._listed = True
        values = self._places(1 + len(self.batch_shape))
        # A program may compute with n - k, which is no number of anything where k is beyond n.
        own: Tensor = torch.minimum(values, self.total_count).to(self._dtype())
        return own  # of each datum, whether asked for or not

    def log_prob(self: Any, value: Tensor) -> Tensor:
        own: Any = super()
        found: Tensor = own.log_prob(value)
        if not self._listed:
            return found
        return torch.where(self._places(value.dim()) <= self.total_count, found, -torch.inf)

    def _places(self: Any, dims: int) -> Tensor:
        places = torch.arange(1 + int(self.total_count.max()), device=self.total_count.device)
        return places.view(-1, *(1,) * (dims - 1))

    def _dtype(self: Any) -> torch.dtype:
        parameter: Tensor = getattr(self, "_param", self.total_count)
        return parameter.dtype if parameter.is_floating_point() else torch.get_default_dtype()


class _Binomial(_UpToTheLargest, dist.Binomial):
    pass


class _BetaBinomial(_UpToTheLargest, dist.BetaBinomial):
    pass


_KINDS: dict[type, type] = {dist.Binomial: _Binomial, dist.BetaBinomial: _BetaBinomial}


def up_to_the_largest(fn: Any) -> Any:
    """A law of counts with unequal totals as one that can be listed; any other law itself."""
    if isinstance(fn, _WRAPPERS):
        inner = up_to_the_largest(fn.base_dist)
        if inner is fn.base_dist:
            return fn
        made = copy.copy(fn)
        made.base_dist = inner
        return made
    kind = _KINDS.get(type(fn))
    if kind is None or bool((fn.total_count == fn.total_count.max()).all()):
        return fn
    made = copy.copy(fn)
    made.__class__, made._validate_args = kind, False
    return made


class UnequalTotals(Messenger):
    """Lets latents of a program that are counts with unequal totals be listed."""

    def _pyro_sample(self, msg: Any) -> None:
        if msg["infer"].get("enumerate") == "parallel" and not msg["is_observed"] and not msg["done"]:
            msg["fn"] = up_to_the_largest(msg["fn"])
