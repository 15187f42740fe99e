"""The one site collector: log-probabilities per site, per sample and per datum."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.util import scale_and_mask
from pyro.infer import reparam
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree
from torch import Tensor

from .idioms.cached_draws import refuse_missing_inverse
from .idioms.value_dtypes import in_dtype_of
from .latents.supports import base_of
from .outside import log_prob_within, may_leave_out
from .undefined import undefined


@dataclass(frozen=True)
class Sites:
    """Log-probabilities of one joint run of guide and model, each `[K, N]`, in nats.

    Unscaled (plate subsampling and `poutine.scale` are divided out: inside a log-sum-exp they
    would make it no bound) and mask-aware. Everything that is an expectation over the guide
    (ELBO, IS, per-level KL, rate and distortion) is a sum of these.

    Attributes:
        prior: model log-probability of each latent site.
        likelihood: model log-probability of each observed site.
        guide: guide log-probability of each latent and auxiliary site.
        marginal: what remains once enumerated discrete sites are summed out, together with
            every term that touches them; None where nothing is enumerated.
    """

    prior: dict[str, Tensor]
    likelihood: dict[str, Tensor]
    guide: dict[str, Tensor]
    marginal: Tensor | None = None
    traces: tuple[Any, Any] | None = field(default=None, repr=False)

    def log_weights(self) -> Tensor:
        """ln w = ln p(x, z) - ln q(z | x), `[K, N]`, in nats, float64.

        Sites are summed in float64: ln w may be small beside its terms, which float32 would round to its own
        eps times their size.
        """
        plus = [*self.prior.values(), *self.likelihood.values()]
        minus = list(self.guide.values())
        if self.marginal is not None:
            plus.append(self.marginal)
        if not plus:
            raise ValueError("expected a model with at least one site in the data plate, got none")
        total = plus[0].double()
        for term in plus[1:]:
            total = total + term
        for term in minus:
            total = total - term
        return total


def sample_sites(trace: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """`(name, site)` of the sites of a trace that carry a density.

    Without the plates' own subsample sites, and without `pyro.deterministic`.
    """
    for name, site in trace.nodes.items():
        if site["type"] != "sample" or type(site["fn"]).__name__ == "_Subsample":
            continue
        if not site["infer"].get("_deterministic"):
            yield name, site


def is_factor(site: dict[str, Any]) -> bool:
    """Whether the site is a `pyro.factor`."""
    return type(site["fn"]).__name__ == "Unit"


def unscaled_log_prob(site: dict[str, Any], masked: bool = True) -> Tensor:
    """ln p of a site at its value, scale divided out, the mask kept (or not); the site's batch shape."""
    fn = site["fn"] if masked else unmasked(site["fn"])
    value = in_dtype_of(fn, site["value"])
    try:
        log_prob = fn.log_prob(value, *site["args"], **site["kwargs"])
    except (KeyError, NotImplementedError) as error:
        refuse_missing_inverse(fn, value, site["name"], error)
        if isinstance(error, KeyError):
            raise
        raise ValueError(_no_density(fn, site["name"])) from error
    # Of observations, those outside of other bounds are refused.
    if not is_factor(site) and (not site["is_observed"] or may_leave_out(fn)):
        log_prob = log_prob_within(fn, value, log_prob)
    return scale_and_mask(log_prob, 1.0, site["mask"] if masked else None)


def _no_density(fn: Any, name: str) -> str:
    law = type(base_of(fn)).__name__
    known = hasattr(reparam, f"{law}Reparam")
    remedy = (
        f"poutine.reparam(model, {{{name!r}: pyro.infer.reparam.{law}Reparam()}})" if known else "another law"
    )
    return f"expected a law of {name!r} with a density, got {law}, whose log_prob is not implemented; try {remedy}"


def _defined_log_prob(site: dict[str, Any], masked: bool = True) -> Tensor:
    """`unscaled_log_prob`, no number where parameters are beyond their bounds."""
    log_prob = unscaled_log_prob(site, masked)
    wrong = undefined(site["fn"] if masked else unmasked(site["fn"]))
    if wrong is None:
        return log_prob
    return log_prob + scale_and_mask(
        torch.where(wrong, torch.nan, 0.0), 1.0, site["mask"] if masked else None
    )


def unmasked(fn: Any) -> Any:
    """A distribution without the masks of `.mask()`."""
    if isinstance(fn, dist.MaskedDistribution):
        return unmasked(fn.base_dist)
    if isinstance(fn, dist.Independent):
        return dist.Independent(unmasked(fn.base_dist), fn.reinterpreted_batch_ndims)
    return fn


def reduce_to(log_prob: Tensor, dims: tuple[int, int], sizes: tuple[int, int]) -> Tensor:
    """Sums a site's log-prob over all batch dims but (particle, datum): `[K, N]`.

    Args:
        log_prob: batch-shaped log-probabilities; missing leading dims broadcast.
        dims: the (particle, datum) dims, negative.
        sizes: (K, N).
    """
    particle, datum = dims
    width = max(-particle, -datum, log_prob.dim())
    log_prob = log_prob.reshape((1,) * (width - log_prob.dim()) + tuple(log_prob.shape))
    keep = {width + particle, width + datum}
    rest = [d for d in range(width) if d not in keep]
    if rest:
        log_prob = log_prob.sum(rest)
    return log_prob.expand(sizes)  # the particle plate is outermost: order is (K, N)


def collect(
    guide_trace: Any,
    model_trace: Any,
    *,
    plate: str,
    particles: str | None,
    power: float = 1.0,
    normalised: bool = False,
) -> Sites:
    """Collects `Sites` from a guide trace and the model trace replayed against it.

    Args:
        guide_trace: trace of the guide.
        model_trace: trace of the model, replayed.
        plate: name of the data plate.
        particles: name of the particle plate; None for a run without one (K = 1).
        power: of the model's densities, also under the sum over enumerated sites: sum_c p(c, z, x)^power.
        normalised: count latents' own densities without their masks, as an integral over the latents needs them.
    """
    data = next(f for _, s in sample_sites(model_trace) for f in s["cond_indep_stack"] if f.name == plate)
    outer = next(
        (f for _, s in sample_sites(model_trace) for f in s["cond_indep_stack"] if f.name == particles), None
    )
    depth = max(-f.dim for _, s in sample_sites(model_trace) for f in s["cond_indep_stack"] if f.vectorized)
    dims = (outer.dim if outer else -depth - 1, data.dim)
    sizes = (outer.size if outer else 1, data.size)

    if any(
        site["infer"].get("_enumerate_dim") is not None
        for trace in (guide_trace, model_trace)
        for _, site in sample_sites(trace)
    ):
        return _collect_enumerated(guide_trace, model_trace, data, outer, sizes, power, normalised)

    prior: dict[str, Tensor] = {}
    likelihood: dict[str, Tensor] = {}
    guide: dict[str, Tensor] = {}
    for name, site in sample_sites(model_trace):
        group = likelihood if site["is_observed"] else prior
        masked = site["is_observed"] or not normalised
        group[name] = reduce_to(_powered(_defined_log_prob(site, masked), power), dims, sizes)
    for name, site in sample_sites(guide_trace):
        if not site["is_observed"] or is_factor(site):  # a factor in the guide is part of ln q
            guide[name] = reduce_to(_defined_log_prob(site), dims, sizes)
    return Sites(prior, likelihood, guide, traces=(guide_trace, model_trace))


def _powered(log_prob: Tensor, power: float) -> Tensor:
    return log_prob if power == 1 else power * log_prob


def _collect_enumerated(
    guide_trace: Any,
    model_trace: Any,
    data: Any,
    outer: Any,
    sizes: tuple[int, int],
    power: float,
    normalised: bool,
) -> Sites:
    """Sums enumerated sites out: Σ_c p(c, z_c, x) / q(z_c | x, c).

    All factors, with the guide's entering inverted, form one tensor tree which Pyro contracts
    respecting inner plates; q of a site that the guide itself enumerates drops out, since the
    sum over c replaces the draw of c. The factor p(c) of an enumerated site is not masked (nor is it in Pyro's
    TraceEnum_ELBO): a masked one would be 1 for each of C values, and the sum ln C too large.
    """
    guide_trace.symbolize_dims()
    model_trace.symbolize_dims(guide_trace.plate_to_symbol)
    symbols = model_trace.plate_to_symbol
    kept = [symbols[f.name] for f in (outer, data) if f is not None]

    factors: OrderedDict[frozenset[str], list[Tensor]] = OrderedDict()
    enumerated: set[str] = set()
    for factor, trace in ((power, model_trace), (-1.0, guide_trace)):
        for _, site in sample_sites(trace):
            to_symbol = site["infer"]["_dim_to_symbol"]
            own = site["infer"].get("_enumerate_dim")
            if own is not None:
                enumerated.add(to_symbol[own])
                if trace is guide_trace:
                    continue
            if trace is guide_trace and site["is_observed"] and not is_factor(site):
                continue
            masked = own is None and (site["is_observed"] or not normalised)
            term = packed.pack(_powered(_defined_log_prob(site, masked), factor), to_symbol)
            plates = frozenset(symbols[f.name] for f in site["cond_indep_stack"] if f.vectorized)
            factors.setdefault(plates, []).append(term)

    kinds = {t.dtype for terms in factors.values() for t in terms}
    if len(kinds) > 1:  # the contraction takes one
        for terms in factors.values():
            for i, term in enumerate(terms):
                wide = term.double()
                wide._pyro_dims = term._pyro_dims  # type: ignore[attr-defined]  # by which Pyro contracts
                terms[i] = wide
    total: Tensor | None = None
    for terms in contract_tensor_tree(factors, enumerated).values():
        for term in terms:
            names = term._pyro_dims
            rest = [i for i, s in enumerate(names) if s not in kept]
            value = term.sum(rest) if rest else term
            present = [s for s in names if s in kept]
            # Bring to (particle, datum) order, size-1 where the term lacks one.
            value = value.permute([present.index(s) for s in kept if s in present])
            shape, it = [], iter(value.shape)
            for s in kept:
                shape.append(next(it) if s in present else 1)
            value = value.reshape(shape).expand(sizes if outer else sizes[1:]).reshape(sizes)
            total = value if total is None else total + value
    return Sites({}, {}, {}, marginal=total, traces=(guide_trace, model_trace))


def stack_samples(parts: list[Sites]) -> Sites:
    """Concatenates runs along the sample dim; the traces kept are those of the first.

    Raises:
        ValueError: runs with other sites than the first.
    """
    names = [{*p.prior, *p.likelihood, *p.guide} for p in parts]
    differ = sorted({n for here in names for n in here ^ names[0]})
    if differ:
        raise ValueError(
            f"expected the same sites in every run, got {differ[:5]} in some runs alone (a loop or a branch that goes "
            "by a draw); try a loop of a fixed number of steps, with .mask(...) or poutine.mask over those that are "
            "not taken, in model and guide"
        )

    def cat(name: str) -> dict[str, Tensor]:
        return {k: torch.cat([getattr(p, name)[k] for p in parts]) for k in getattr(parts[0], name)}

    marginal = [p.marginal for p in parts if p.marginal is not None]
    return Sites(
        cat("prior"),
        cat("likelihood"),
        cat("guide"),
        torch.cat(marginal) if marginal else None,
        parts[0].traces,
    )
