"""Whether values lie where their law has a density, and what to do where they do not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyro
import pyro.distributions as dist
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor
from torch.distributions import constraints

from ...devices import as_tensor
from ..latents.supports import base_of
from ..outside import chosen
from ..plates import PARTICLES
from ..sites import is_factor, sample_sites


def check_support(trace: Any) -> None:
    """Refuses observations outside their likelihood's support at every draw, and names the remedies.

    Where the support moves with the draws, one that leaves the observation out has weight zero, and others count,
    be they draws that are still to come.

    Raises:
        ValueError: for the first observed site whose value has no density.
    """
    for name, site, support in _observations(trace):
        if _moves_with_draws(site, support):
            _check_kind(name, site, support)
            continue
        inside = in_support(site["fn"], site["value"])
        for frame in site["cond_indep_stack"]:
            if frame.name == PARTICLES and inside.dim() >= -frame.dim:
                inside = inside.any(frame.dim, keepdim=True)
        _refuse_outside(name, site, support, inside)


def check_kind(trace: Any) -> None:
    """Refuses observations that no latent could allow: bits that are none, counts that are not whole.

    Bounds that may depend on latents (of a uniform law, the trials of a binomial one) are not looked at.

    Raises:
        ValueError: for the first observed site with such a value.
    """
    for name, site, support in _observations(trace):
        _check_kind(name, site, support)


def check_kind_of_numbers(trace: Any) -> None:
    """Refuses observations in a dtype that their law has no density for, such as bools under a Bernoulli.

    Raises:
        ValueError: for the first such site.
    """
    for name, site in sample_sites(trace):
        value = site["value"]
        if not site["is_observed"] or not isinstance(value, Tensor) or value.is_floating_point():
            continue
        try:
            with pyro.validation_enabled(False):
                site["fn"].log_prob(value)
        except (RuntimeError, NotImplementedError) as error:
            why = " ".join(str(error).split())[:120]
            raise ValueError(
                f"expected values of {name!r} of which {type(base_of(site['fn'])).__name__} has a density, got "
                f"{value.dtype} ({why}); try .to(torch.float32) on what is observed"
            ) from error


def _check_kind(name: str, site: Any, support: Any) -> None:
    kind = getattr(support, "base_constraint", support)
    if any(kind is k for k in _CONSTANT):
        inside = kind.check(site["value"])
    elif kind.is_discrete:
        inside = site["value"] == site["value"].round()
    else:
        return
    for _ in range(site["fn"].event_dim):
        inside = inside.all(-1)
    _refuse_outside(name, site, support, inside)


def _moves_with_draws(site: Any, support: Any) -> bool:
    """Whether a bound of the support has a value of its own for each particle."""
    frame = next((f for f in site["cond_indep_stack"] if f.name == PARTICLES), None)
    if frame is None:
        return False
    dim = frame.dim
    while hasattr(support, "base_constraint"):
        dim -= getattr(support, "reinterpreted_batch_ndims", 0)
        support = support.base_constraint
    ends = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))
    return any(isinstance(v, Tensor) and v.dim() >= -dim and v.size(dim) > 1 and v.stride(dim) for v in ends)


# Supports that are the same for all parameters.
_CONSTANT = (
    *(constraints.boolean, constraints.unit_interval, constraints.positive, constraints.nonnegative),
    *(constraints.nonnegative_integer, constraints.real),
)


def _observations(trace: Any) -> Iterator[tuple[str, Any, Any]]:
    """Observed sites with a tensor and a support."""
    for name, site in sample_sites(trace):
        if not site["is_observed"] or is_factor(site):
            continue
        try:
            support = site["fn"].support
        except (NotImplementedError, AttributeError):
            continue
        if support is not None and isinstance(site["value"], Tensor):
            yield name, site, support


def _refuse_outside(name: str, site: Any, support: Any, inside: Tensor) -> None:
    value = site["value"]
    if site["mask"] is not None and site["mask"] is not True:
        inside = inside | ~as_tensor(site["mask"])
    if inside.all():
        return
    base = base_of(site["fn"])
    hint = _REMEDIES.get(type(base).__name__, "choose a likelihood whose support holds the data")
    raise ValueError(
        f"expected values of {name!r} in the support of {type(base).__name__} ({describe(support)}), got "
        f"values in [{value.min().item():.4g}, {value.max().item():.4g}]; try: {hint}"
    )


def outside_of_prior(model_trace: Any) -> list[str]:
    """Latents of a model trace replayed against a guide whose values lie outside of the model's support, in words."""
    found = []
    for name, site in sample_sites(model_trace):
        if site["is_observed"] or is_factor(site) or not isinstance(site["value"], Tensor):
            continue
        try:
            inside = in_support(site["fn"], site["value"])
        except (NotImplementedError, AttributeError, RuntimeError):
            continue
        if not inside.all():
            value = site["value"]
            found.append(
                f"{name!r} in [{value.min().item():.4g}, {value.max().item():.4g}], where the model's "
                f"{type(base_of(site['fn'])).__name__} has the support {describe(site['fn'].support)}"
            )
    return found


def in_support(fn: Any, value: Tensor) -> Tensor:
    """Whether values are in the support, batch-shaped; masked-out ones count as inside."""
    if isinstance(fn, dist.MaskedDistribution):
        return in_support(fn.base_dist, value) | ~as_tensor(fn._mask)
    if isinstance(fn, dist.Independent):
        inside = in_support(fn.base_dist, value)
        return inside.flatten(inside.dim() - fn.reinterpreted_batch_ndims).all(-1)
    if isinstance(fn, ExpandedDistribution):
        return in_support(fn.base_dist, value)
    if isinstance(fn, dist.MaskedMixture):
        of_component: Tensor = chosen(fn, lambda law: in_support(law, value))
        return of_component
    return as_tensor(fn.support.check(value))


def describe(support: Any) -> str:
    """A support in words, without the bounds of every single element."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    text = repr(support)
    return text if len(text) < 80 else type(support).__name__.lstrip("_")


_BINARISE = 'load(..., binarise="dynamic" | "static" | "threshold")'
_REMEDIES = {
    "Bernoulli": f"{_BINARISE}, likelihoods.Binomial(total_count=levels - 1) for grey levels, or "
    "likelihoods.Gaussian for real values",
    "ContinuousBernoulli": "data in [0, 1]: divide grey levels by levels - 1",
    "Levels": "levels of the data, with the data as whole grey levels",
    "DiscretizedLogistic": "levels of the data, with the data as whole grey levels",
    **dict.fromkeys(
        ("Poisson", "NegativeBinomial", "ZeroInflatedNegativeBinomial"),
        "whole numbers >= 0; for real numbers likelihoods.Gaussian or StudentT",
    ),
    **dict.fromkeys(
        ("Gamma", "LogNormal"), "numbers above 0; where zeros are data, likelihoods.Gaussian or StudentT"
    ),
    "Beta": "numbers above 0 and below 1; where 0 and 1 are data, likelihoods.ContinuousBernoulli",
    "Binomial": "total_count = levels - 1 of the data, with the data as whole grey levels",
}
