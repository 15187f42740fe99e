"""One continuous latent site of a program: what the guide says of it, and what the model makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import constraints, kl_divergence

from ..inspection import Program
from ..looking import inspect_program
from ..seeds import seed_of_part
from ..sites import sample_sites
from .changed import warn_changed
from .generated import ROWS, Generated, join
from .predictive import decode

PRIOR_DRAWS = 4096


@dataclass(frozen=True)
class Codes:
    """Places where the guide puts the data.

    Attributes:
        mean: E_q[z | x], `[N, D]`.
        kl: KL(q(z_j | x) ‖ p(z_j)) of each dimension, mean over the data, `[D]`, in nats; None where
            guide or prior does not factorise over dimensions, or the KL has no closed form.
    """

    mean: Tensor
    kl: Tensor | None


@dataclass(frozen=True)
class LatentSpace:
    """A latent site of a program on some data, as vectors of `dim` real numbers.

    Attributes:
        program: the pair and its data.
        site: name of the latent.
        event_shape: its event shape; vectors here are flat.
        datum_dim: where the data plate is, among its batch dims.
        exact_mean: whether the guide's own mean is E_q[z | x]: no other draw comes before it.
        observed: name of the observed site, for models with several.
    """

    program: Program
    site: str
    event_shape: tuple[int, ...]
    datum_dim: int
    exact_mean: bool
    observed: str | None = None

    @property
    def dim(self) -> int:
        """D."""
        return math.prod(self.event_shape)

    def encode(self, *, num_samples: int = 20, seed: int = 0) -> Codes:
        """E_q[z | x] of all data, and the KL dimension by dimension.

        Args:
            num_samples: draws of what comes before the site (in hierarchies), or of the site itself
                where its distribution has no mean; not used where the mean is exact.
            seed: of those draws.
        """
        means, kls, count = [], [], 0
        draws = 1 if self.exact_mean else num_samples
        program = self.program
        for i, rows in enumerate(program.arguments.chunks(ROWS)):
            mean: Any = 0.0
            for k in range(draws):
                with program.quiet(seed, "latent space", i, k), program.on(rows) as given:
                    q = poutine.trace(program.guide).get_trace(*given)
                    p = poutine.trace(poutine.replay(program.model, trace=q)).get_trace(*given)
                mean = mean + self._rows(_mean_of(q.nodes[self.site]))[: len(rows)] / draws
                kl = None if program.enumerated else _kl(q.nodes[self.site], p.nodes[self.site])
                kls.append(None if kl is None else self._rows(kl)[: len(rows)].double().sum(0) / draws)
            means.append(mean)
            count += len(rows)
        known = [kl for kl in kls if kl is not None]
        total = torch.stack(known).sum(0) / count if len(known) == len(kls) else None
        return Codes(torch.cat(means), total)

    def decode(self, z: Tensor, *, datum: int = 0, seed: int = 0) -> Generated:
        """Runs the model at z; its other latents are at the mean of their distribution given z.

        Args:
            z: `[M, D]`.
            datum: whose context the model is given.
            seed: of what is drawn: x itself, and discrete latents.

        Raises:
            ValueError: for z of another shape.
        """
        if z.dim() != 2 or z.shape[1] != self.dim or not len(z):
            raise ValueError(f"expected z [M, {self.dim}] with M >= 1, got shape {tuple(z.shape)}")
        program = self.program.in_parts()  # of the model alone
        args = program.arguments
        size = {"sliced": ROWS, "whole": args.num_data}.get(args.calling) or args.subsample_size or ROWS
        parts: list[Generated] = []
        for i, part in enumerate(z.split(size)):
            # A plate of fixed size takes no fewer: the last row is repeated, and cut off again.
            rows = len(part) if args.calling == "sliced" else size
            padded = torch.cat([part, part[-1:].expand(rows - len(part), -1)])
            value = padded.reshape(rows, *(1,) * (-self.datum_dim - 1), *self.event_shape)
            here = torch.full((rows,), datum, device=args.x.device)
            with program.on(here) as given:
                made = decode(
                    program.model,
                    {self.site: value},
                    *given,
                    seed=seed_of_part(seed, i),
                    observed=self.observed,
                    means=True,
                    on_changed=None if parts else warn_changed,  # said once
                )
            parts.append(made.rows(torch.arange(len(part), device=made.x.device)))
        return join(parts)

    def prior_moments(self, *, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of p(z), dimension by dimension, each `[D]`.

        Exact for a Gaussian prior that depends on nothing else, otherwise from a few thousand draws.
        """
        program = self.program.in_parts()
        args = program.arguments
        size = ROWS if args.calling == "sliced" else (args.subsample_size or args.num_data)
        rows = torch.zeros(size, dtype=torch.long, device=args.x.device)
        draws: list[Tensor] = []
        while sum(map(len, draws)) < PRIOR_DRAWS:
            with program.quiet(seed, "latent space", len(draws)), program.on(rows) as given:
                trace = poutine.trace(program.model).get_trace(*given)
            site: Any = trace.nodes[self.site]
            first = next(n for n, s in sample_sites(trace) if not s["is_observed"])
            if first == self.site and isinstance(_factors(site), dist.Normal):
                fn = site["fn"]
                return self._rows(fn.mean)[0], self._rows(fn.variance)[0].sqrt()
            draws.append(self._rows(site["value"]))
        every = torch.cat(draws)
        return every.mean(0), every.std(0)

    def _rows(self, value: Tensor) -> Tensor:
        """`[n, D]` from the site's own shape."""
        first = value.movedim(self.datum_dim - len(self.event_shape), 0)
        return first.reshape(len(first), self.dim)


def latent_space(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    site: str | None = None,
    plate: str | None = None,
    observed: str | None = None,
) -> LatentSpace:
    """The latent site named, or the first one that is a vector of real numbers.

    Args:
        model, guide, x, *context: as in `pv.log_weights`.
        site: name of the latent.
        plate: name of the data plate; default: what the model declares, else `"data"`.
        observed: name of the observed site, for models with several.

    Raises:
        ValueError: as `pv.log_weights` for a pair that breaks the contract; for a site that is not
            there, discrete, constrained, or in a plate inside of the data plate.
    """
    program = inspect_program(model, guide, x, *context, plate=plate, vectorised=True)
    rows = program.arguments.chunks(2)[0]
    with program.quiet(0, "latent space"), program.on(rows) as given:
        q = poutine.trace(guide).get_trace(*given)
        p = poutine.trace(poutine.replay(model, trace=q)).get_trace(*given)
    latents = {n: s for n, s in sample_sites(p) if not s["is_observed"] and n in q.nodes}
    reasons = {n: _refusal(s, program.plate) for n, s in latents.items()}
    if site is None:
        fitting = [n for n, why in reasons.items() if why is None and latents[n]["fn"].event_dim]
        if not fitting:
            found = ", ".join(f"{n!r} ({why or 'scalar'})" for n, why in reasons.items()) or "none"
            raise ValueError(f"expected a continuous vector-valued latent, got {found}; try site=...")
        site = fitting[0]
    if site not in latents:
        raise ValueError(f"expected a latent of {list(latents)}, got {site!r}")
    if reasons[site] is not None:
        raise ValueError(f"expected a latent of unconstrained real numbers, got {site!r}, {reasons[site]}")
    fn = latents[site]["fn"]
    drawn = [n for n, s in sample_sites(q) if not s["is_observed"]]
    frame = next(f for f in latents[site]["cond_indep_stack"] if f.name == program.plate)
    exact = drawn[0] == site and _has_mean(q.nodes[site]["fn"])
    return LatentSpace(program, site, tuple(fn.event_shape), frame.dim, exact, observed)


def _refusal(site: Any, plate: str) -> str | None:
    """Why a site is no vector of real numbers; None where it is."""
    fn = site["fn"]
    try:
        support = fn.support
    except (NotImplementedError, AttributeError):
        support = constraints.real
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    if getattr(support, "is_discrete", False) or not site["value"].is_floating_point():
        return "which is discrete"
    if support is not constraints.real:
        return f"whose support is {support}".replace("()", "")
    inner = [f.name for f in site["cond_indep_stack"] if f.vectorized and f.name != plate and f.size > 1]
    return f"which is in the inner plate {inner[0]!r}" if inner else None


def _has_mean(fn: Any) -> bool:
    try:
        return not isinstance(fn, dist.Delta) and bool(torch.isfinite(fn.mean).all())
    except (NotImplementedError, AttributeError):
        return False


def _mean_of(site: Any) -> Tensor:
    fn = site["fn"]
    mean = fn.mean if _has_mean(fn) else site["value"]
    return mean.expand(fn.batch_shape + fn.event_shape)


def _factors(site: Any) -> Any:
    """The distribution of single dimensions, where the site's is their product, unmasked; else None."""
    fn = site["fn"]
    if site["mask"] is not None and site["mask"] is not True:
        return None
    while isinstance(fn, dist.Independent | torch.distributions.Independent):
        fn = fn.base_dist
    return None if isinstance(fn, dist.MaskedDistribution) or fn.event_shape else fn


def _kl(q: Any, p: Any) -> Tensor | None:
    """KL of each dimension, in the site's shape; None without a closed form."""
    one, other = _factors(q), _factors(p)
    if one is None or other is None:
        return None
    try:
        kl = kl_divergence(one, other)
    except NotImplementedError:
        return None
    return kl.expand(q["fn"].batch_shape + q["fn"].event_shape)
