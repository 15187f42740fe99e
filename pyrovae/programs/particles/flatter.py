"""Draws of a guide whose discrete latents are made flatter: they meet values that count only together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..checks.contract import base_of
from ..inspection import PARTICLES, Program
from ..sites import reduce_to
from .discrete_values import is_listed, listed, put


@dataclass(frozen=True)
class FlatDraws:
    """Draws of a flatter law q', `[K, n]` each, float64.

    Attributes:
        log_weights: ln p(x, z) / q'(z|x).
        log_ratio: ln q(z|x) / q'(z|x).
        log_mass: ln q of the discrete latents.
    """

    log_weights: Tensor
    log_ratio: Tensor
    log_mass: Tensor


def flat_draws(
    program: Program,
    sites: Sequence[str],
    indices: Tensor,
    num_samples: int,
    rates: Sequence[float],
    seed: int,
    *counters: int,
) -> FlatDraws:
    """Draws for the data at `indices`, the elements of discrete `sites` drawn anew with a probability r.

    r is one of `rates`, the same for all elements of a draw. What is drawn anew is uniform over the values to which
    the guide gives any probability. The draws are of the mixture

        q'(z|x) = mean_r prod_e [(1 - r) q(z_e | those before) + r u(z_e)],

    so that their mean weight is p(x) in expectation, as the guide's. `rates=[0.0]` gives draws of the guide itself.
    `counters` tell this noise from other noise.
    """
    flatten = _Flatten(sites, program, rates)
    with program.quiet(seed, "flatter", int(indices[0]), len(rates), *counters), flatten:
        log_weights = program.run(indices, num_samples).log_weights().double()
    own, mixed = (values[:, : len(indices)] for values in flatten.ratios())
    return FlatDraws(log_weights + own - mixed, own - mixed, own)


def rates_of(num_elements: int) -> tuple[float, ...]:
    """Shares of the elements to draw anew: about two of them, some, and all.

    Two values that count together are met by few changes, a path or a mode of its own by many.
    """
    return (*sorted({min(0.5, 2 / max(1, num_elements)), min(0.5, max(1, num_elements) ** -0.5)}), 1.0)


class _Flatten(Messenger):
    """Draws elements of discrete sites anew; stands around guide and model, as what it puts is replayed."""

    def __init__(self, sites: Sequence[str], program: Program, rates: Sequence[float]) -> None:
        super().__init__()
        self.program, self.rates = program, rates
        self.in_guide = dict.fromkeys(sites, False)  # guide and model have a site in turns
        self.runs: list[_Run] = []

    def ratios(self) -> tuple[Tensor, Tensor]:
        """ln q and ln q' of the discrete latents in all runs, `[K, n]` each."""
        own = torch.cat([r.own for r in self.runs])
        mixed = torch.cat([r.of_rates.logsumexp(0) for r in self.runs]) - math.log(len(self.rates))
        return own, mixed

    def _pyro_post_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name not in self.in_guide:
            return
        self.in_guide[name] = not self.in_guide[name]
        if not self.in_guide[name]:
            return
        fn = msg["fn"]
        values, log_q = listed(fn)
        frames = {f.name: f for f in msg["cond_indep_stack"] if f.vectorized}
        datum, particles = frames[self.program.plate], frames.get(PARTICLES)
        dims = (-1 - self.program.max_plate_nesting, datum.dim)
        sizes = (1 if particles is None else particles.size, datum.size)
        if not self.runs or name in self.runs[-1].seen:  # samples that run one at a time
            self.runs.append(_Run.of(len(self.rates), sizes, log_q.device))
        run = self.runs[-1]
        run.seen.add(name)
        rates = torch.tensor(self.rates, dtype=torch.float64, device=log_q.device)
        batch, elements = len(fn.batch_shape), log_q.dim() - 1 - len(fn.batch_shape)
        shape = [1] * batch
        for dim, size in zip(dims, sizes, strict=True):
            if -dim <= batch:
                shape[dim] = size
        rate = rates[run.chosen].reshape(*shape, *(1,) * elements)
        allowed = log_q.isfinite()
        if bool(allowed.all()):
            at = torch.randint(log_q.shape[-1], log_q.shape[:-1], device=log_q.device)
        else:
            at = torch.rand_like(log_q).masked_fill(~allowed, -1.0).argmax(-1)
        anew = torch.rand_like(log_q[..., 0], dtype=torch.float64) < rate
        value = msg["value"] = put(fn, values, at, anew, msg["value"])
        own = base_of(fn).log_prob(value).double().expand(at.shape)
        uniform = -allowed.sum(-1).double().log()
        uniform = uniform.masked_fill(~is_listed(fn, values, value), -math.inf)
        parts = (torch.logaddexp(own + (-r).log1p(), uniform + r.log()) for r in rates)
        flat = [reduce_to(t.flatten(batch).sum(-1) if elements else t, dims, sizes) for t in (own, *parts)]
        run.own = run.own + flat[0]
        run.of_rates = run.of_rates + torch.stack(flat[1:])


@dataclass
class _Run:
    """One run's discrete latents: which rate each draw has, `[K, n]`, ln q, and ln q' at each rate."""

    chosen: Tensor
    own: Tensor
    of_rates: Tensor
    seen: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, num_rates: int, sizes: tuple[int, int], device: torch.device) -> _Run:
        zero = torch.zeros(num_rates, *sizes, dtype=torch.float64, device=device)
        return cls(torch.randint(num_rates, sizes, device=device), zero[0], zero)
