"""Does a model/guide pair keep the contract? Each breach has one clear error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from ..arguments.marks import tensors_in
from ..plates import PARTICLES
from ..sites import is_factor, sample_sites


def check_arguments(x: Any, context: tuple[Any, ...] = (), missing: bool = False) -> None:
    """Refuses data that no program can be judged on.

    Args:
        x: the data.
        context: what else the program takes.
        missing: let NaN pass, which a program may mask (`check_missing`).

    Raises:
        TypeError: x is not a tensor.
        ValueError: x is empty, has no data dim, or holds NaN or inf; context lies on another device.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"expected x to be a torch.Tensor [N, *event], got {type(x).__name__}")
    elsewhere = [t for t in tensors_in(context) if t.dim() and t.device != x.device]
    if elsewhere:
        raise ValueError(
            f"expected x and its context on one device, {x.device}, got a tensor of shape "
            f"{tuple(elsewhere[0].shape)} on {elsewhere[0].device}; try .to({str(x.device)!r})"
        )
    if x.device.type == "meta":
        raise ValueError(
            "expected x to hold values, got a tensor on the device meta; try x on the CPU or a GPU"
        )
    if x.is_complex():
        raise ValueError(f"expected x of real numbers, got {x.dtype}; try torch.view_as_real(x)")
    if x.dim() == 0 or len(x) == 0:
        raise ValueError(f"expected x of shape [N, *event] with N >= 1, got shape {tuple(x.shape)}")
    if x.is_floating_point() and not torch.isfinite(x).all():
        if missing and not x.isinf().any():
            return
        raise not_finite_data(x, "")


def not_finite_data(x: Tensor, where: str) -> ValueError:
    """The error of data with NaN or inf; `where` they are not masked."""
    bad = (~torch.isfinite(x)).reshape(len(x), -1).any(1)
    return ValueError(
        f"expected finite data, got NaN or inf in {int(bad.sum())} of {len(x)} data (first: {int(bad.nonzero()[0])})"
        f"{where}; try x.nan_to_num(0.0), and a mask over what is missing (the gradient of a masked NaN is NaN)"
    )


def data_frame(trace: Any, plate: str, source: str = "model") -> Any:
    """The frame of the data plate.

    Args:
        trace: of model or guide.
        plate: its name.
        source: whose trace it is, in words.

    Raises:
        ValueError: where no site is in a plate of that name; lists the plates there are.
    """
    names: dict[str, int] = {}
    for name, site in sample_sites(trace):
        for frame in site["cond_indep_stack"]:
            if frame.name == plate and frame.vectorized:
                return frame
            if frame.name == plate:
                raise ValueError(
                    f"expected a vectorised plate {plate!r} over data, got a sequential one (a for loop over it, at "
                    f"{name!r}), in which each datum has sites of its own; try `with pyro.plate({plate!r}, ...)`, and "
                    "a mask for data of different lengths"
                )
            names[frame.name] = frame.size
    # A plate that no site of a density is in (all of them conditioned, or deterministic) is still one.
    names |= {
        n: s["fn"].size
        for n, s in trace.nodes.items()
        if s["type"] == "sample" and type(s["fn"]).__name__ == "_Subsample" and n not in names
    }
    found = ", ".join(f"{n!r} (size {s})" for n, s in names.items()) or "none"
    hint = f"`with pyro.plate({plate!r}, len(x)):` around the sites of the {source}"
    if names:
        hint = (
            f"plate={next(iter(names))!r}, @pyrovae.program(plate=...), or this name in model and guide alike"
        )
    raise ValueError(
        f"expected a pyro.plate named {plate!r} over data, with every latent inside, in the {source}; got plates: "
        f"{found}; try {hint}"
    )


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
        inside = inside | ~torch.as_tensor(site["mask"])
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
        return in_support(fn.base_dist, value) | ~torch.as_tensor(fn._mask)
    if isinstance(fn, dist.Independent):
        inside = in_support(fn.base_dist, value)
        return inside.flatten(inside.dim() - fn.reinterpreted_batch_ndims).all(-1)
    return torch.as_tensor(fn.support.check(value))


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


def base_of(fn: Any) -> Any:
    """The distribution inside Independent, Expanded and Masked wrappers."""
    while hasattr(fn, "base_dist"):
        if isinstance(fn, torch.distributions.TransformedDistribution):
            break
        fn = fn.base_dist
    return fn
