"""Draws of a guide whose discrete latents are made flatter: they meet values that count only together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..inspection import Program
from ..latents.supports import base_of
from ..sites import reduce_to
from .discrete_values import TURNED, PutInGuide, listed, number_of, put


@dataclass(frozen=True)
class FlatLaw:
    """A mixture of laws of a guide's discrete latents, each as likely as the others.

    With a rate r each element is drawn anew with probability r, uniformly over the values to which the guide gives any
    probability; with a shift s all elements of bits and classes are moved by s, as spins that are all turned are:

        q'(z|x) = mean over r of prod_e [(1 - r) q(z_e | those before) + r u(z_e)] and over s of prod_e q(z_e - s | ..).

    Attributes:
        rates: `(0.0,)` is the guide itself.
        shifts: whole numbers.
    """

    rates: tuple[float, ...] = (0.0,)
    shifts: tuple[int, ...] = ()

    @classmethod
    def of(cls, num_elements: int) -> FlatLaw:
        """About two of the elements anew, some, and all; all turned, one way and the other.

        Two values that count together are met by few changes, a path or a mode of its own by many.
        """
        few = {min(0.5, 2 / max(1, num_elements)), min(0.5, max(1, num_elements) ** -0.5)}
        return cls((*sorted(few), 1.0), (1, -1))

    @property
    def size(self) -> int:
        """Number of laws."""
        return len(self.rates) + len(self.shifts)


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
    law: FlatLaw,
    seed: int,
    *counters: int,
) -> FlatDraws:
    """Draws for the data at `indices` of the mixture `law`, whose mean weight is p(x) in expectation, as the guide's.

    `counters` tell this noise from other noise.
    """
    flatten = _Flatten(sites, program, law)
    with program.quiet(seed, "flatter", int(indices[0]), len(law.rates), *counters), flatten:
        log_weights = program.run(indices, num_samples).log_weights().double()
    own, mixed = (values[:, : len(indices)] for values in flatten.ratios())
    return FlatDraws(log_weights + own - mixed, own - mixed, own)


class _Flatten(PutInGuide):
    """Draws elements of discrete sites anew, or turns all."""

    def __init__(self, sites: Sequence[str], program: Program, law: FlatLaw) -> None:
        super().__init__(sites, program)
        self.law = law
        self.runs: list[_Run] = []

    def ratios(self) -> tuple[Tensor, Tensor]:
        """ln q and ln q' of the discrete latents in all runs, `[K, n]` each."""
        own = torch.cat([r.own for r in self.runs])
        mixed = torch.cat([r.of_laws.logsumexp(0) for r in self.runs]) - math.log(self.law.size)
        return own, mixed

    def begin(self, sizes: tuple[int, int], device: torch.device) -> None:
        self.runs.append(_Run.of(self.law.size, sizes, device))

    def put(self, msg: Any, dims: tuple[int, int], sizes: tuple[int, int]) -> None:
        fn, run = msg["fn"], self.runs[-1]
        values, log_q = listed(fn)
        batch, elements, number = len(fn.batch_shape), log_q.dim() - 1 - len(fn.batch_shape), log_q.shape[-1]
        shape = [1] * batch
        for dim, size in zip(dims, sizes, strict=True):
            if -dim <= batch:
                shape[dim] = size

        def of_draw(by_law: Sequence[float]) -> Tensor:
            values = torch.tensor(by_law, dtype=torch.float64, device=log_q.device)
            return values[run.chosen].reshape(*shape, *(1,) * elements)

        rates, shifts = self.law.rates, self.law.shifts
        anew = torch.rand_like(log_q[..., 0], dtype=torch.float64) < of_draw([*rates, *(0.0 for _ in shifts)])
        allowed = log_q.isfinite()
        every = bool(allowed.all())
        if every:
            at = torch.randint(number, log_q.shape[:-1], device=log_q.device)
        else:
            at = torch.rand_like(log_q).masked_fill(~allowed, -1.0).argmax(-1)
        turns = every and isinstance(base_of(fn), TURNED)
        if turns:
            by = of_draw([*(0.0 for _ in rates), *(float(s) for s in shifts)]).long()
            at = torch.where(anew, at, (number_of(fn, msg["value"]) + by) % number)
            anew = anew | (by != 0)
        value = msg["value"] = put(fn, values, at, anew, msg["value"])
        own = base_of(fn).log_prob(value).double().expand(at.shape)
        listed_at = number_of(fn, value)
        uniform = -allowed.sum(-1).double().log()
        uniform = uniform.masked_fill(listed_at >= len(values), -math.inf)
        parts = [own]
        for r in torch.tensor(rates, dtype=torch.float64, device=log_q.device):
            parts.append(torch.logaddexp(own + (-r).log1p(), uniform + r.log()))
        for s in shifts:
            before = ((listed_at - s) % number).unsqueeze(-1) if turns else None
            parts.append(own if before is None else log_q.gather(-1, before)[..., 0].double())
        flat = [reduce_to(t.flatten(batch).sum(-1) if elements else t, dims, sizes) for t in parts]
        run.own = run.own + flat[0]
        run.of_laws = run.of_laws + torch.stack(flat[1:])


@dataclass
class _Run:
    """One run's discrete latents: which law each draw is of, `[K, n]`, ln q, and ln q' by each law."""

    chosen: Tensor
    own: Tensor
    of_laws: Tensor

    @classmethod
    def of(cls, num_laws: int, sizes: tuple[int, int], device: torch.device) -> _Run:
        zero = torch.zeros(num_laws, *sizes, dtype=torch.float64, device=device)
        return cls(torch.randint(num_laws, sizes, device=device), zero[0], zero)
