"""The error that rounding leaves in log-weights, measured against float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from ..handlers.substitute import Substitute
from ..inspection import Program
from ..latents.supports import base_of
from ..sites import Sites, reduce_to, sample_sites

DRAWS = 4  # a few tell the size of the error, which has one sign for most draws
SCOUTS = 256  # draws that tell of the ends of the numbers there are
LOST = 1e3  # nats
MUCH, MORE = 0.01, 64  # nats, from which on more draws are looked at, and how many
INFLUENCE = 100.0  # draws like one of a few there may be for each of them
# Laws whose mass may lie nearer to 0 or 1 than any number but these.
CORNER = 1e-5  # mass of a law that may be lost to rounding
PEAKED = (dist.Gamma, dist.Beta, dist.Dirichlet, dist.InverseGamma)
NARROW = (torch.float32, torch.float16, torch.bfloat16)


class InFloat64(TorchFunctionMode):
    """Runs every torch function in float64, whatever its tensors are stored in.

    Parameters and data stay as they are and count as exact numbers. A write into a narrow tensor
    rounds, as it would without.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":  # of a property
            return func(*args, **kwargs)
        if func is torch.Tensor.float:
            return args[0].double()
        into = args[0] if args and _writes(name) else None
        if isinstance(into, Tensor) and into.dtype in NARROW:
            return func(*_each(lambda v: _cast(v, into.dtype), args), **kwargs)
        if into is not None:
            return func(into, *_each(_widen, args[1:]), **_each(_widen, kwargs))
        return func(*_each(_widen, args), **_each(_widen, kwargs))


def _each(change: Callable[[Any], Any], values: Any) -> Any:
    """Arguments changed one by one; a `torch.Size` stays one, as `Tensor.new` takes a tuple for the numbers themselves.

    Cauchy, Exponential and Laplace laws draw with it.
    """
    return tree_map(change, values, is_leaf=lambda value: isinstance(value, torch.Size))


def _writes(name: str) -> bool:
    """Whether a function of this name writes into its first argument."""
    return name == "__setitem__" or name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))


def _widen(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dtype in NARROW:
        return value.to(torch.float64)
    return torch.float64 if isinstance(value, torch.dtype) and value in NARROW else value


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point() and value.dtype != dtype:
        return value.to(dtype)
    return value


@dataclass(frozen=True)
class Rounding:
    """Errors that come from rounding, `[n]`, float64, nats.

    Attributes:
        of_draws: of ln w: what a mean of log-weights may be off by.
        of_mean: of the ln of the mean weight, to which a draw counts as far as its weight does.
    """

    of_draws: Tensor
    of_mean: Tensor


def rounding(program: Program, indices: Tensor, num_samples: int = DRAWS, seed: int = 0) -> Rounding:
    """Errors of rounding, in log-weights and in the ln of their mean.

    The program runs at the same draws in its own precision and in float64: the error of ln w is the largest difference
    of their log-weights. That of the ln of the mean is the same of draws that have a weight; of one with a weight
    far below their mean in both precisions it is at most 100 times what it adds to the mean. A program that does not
    run in float64 gets eps times the sum of |ln p| over its sites, which is what summation alone may cost; so does one
    that is in float64 already. Added to both: what is at stake where draws of the guide are rounded to the end of
    the numbers there are (`_at_the_end`).
    """
    found = _of_terms(program, indices, num_samples, seed)
    end = _at_the_end(program, indices, seed)
    return Rounding(found.of_draws + end, found.of_mean + end)


def _of_terms(program: Program, indices: Tensor, num_samples: int, seed: int) -> Rounding:
    lw, wide, of_sum = _in_both(program, indices, num_samples, seed)
    if wide is None:
        return Rounding(of_sum, of_sum)
    few, of_draws, of_mean = len(lw), _difference(lw, wide).amax(0), _of_weight(lw, wide, len(lw))
    if bool((of_mean > MUCH).any()):  # it may be that no draw of these few has any weight
        narrow, double = [lw], [wide]
        for i in range(1, MORE // num_samples + 1):
            lw, wide, _ = _in_both(program, indices, num_samples, seed, i)
            if wide is not None:
                narrow.append(lw)
                double.append(wide)
        of_mean = _of_weight(torch.cat(narrow), torch.cat(double), few)
    return Rounding(of_draws, of_mean)


def _in_both(
    program: Program, indices: Tensor, num_samples: int, seed: int, *number: int
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Log-weights of a few draws, `[k, n]`; in float64, if that can be; and what summation may cost, `[n]`."""
    with program.quiet(seed, "rounding", *number):
        narrow = program.run(indices, num_samples)
        assert narrow.traces is not None
        size = _size(narrow).nan_to_num(nan=0.0, posinf=0.0)  # a weight of zero has no error
        of_sum = torch.finfo(narrowest(narrow)).eps * size
        lw = narrow.log_weights().double()
        if narrowest(narrow) == torch.float64 or program.random:  # whose second run has other random numbers
            return lw, None, of_sum
        try:
            wide = _again(program, narrow, indices, num_samples)
        except Exception:  # kernels without float64, checks of dtypes in the program's own code
            return lw, None, of_sum
    return lw[: len(wide)], wide, of_sum


def _difference(lw: Tensor, wide: Tensor) -> Tensor:
    return (lw - wide).abs().nan_to_num(nan=0.0, posinf=0.0)


def _of_weight(lw: Tensor, wide: Tensor, few: int) -> Tensor:
    """Largest error of draws `[k, n]`, of each at most 100 times its weight over their mean: of the first few, if one
    of these has a weight."""
    mean = wide.logsumexp(0) - math.log(len(wide))
    weight = (torch.maximum(lw, wide) - mean).exp().nan_to_num(nan=torch.inf, posinf=torch.inf)
    error = torch.minimum(_difference(lw, wide), INFLUENCE * weight)
    weighty = (weight[:few] * INFLUENCE >= 1).any(0)
    return torch.where(weighty, error[:few].amax(0), error.amax(0))


def _at_the_end(program: Program, indices: Tensor, seed: int) -> Tensor:
    """-ln(1 - s), `[n]`, with s the share of weight on draws that stand for others nearer to an edge than any number.

    Beta(5, 0.1) has a fifth of its mass within 6e-8 of 1, which float32 puts at one number: weights there are that
    number's, whatever their mean over the mass it stands for.
    """
    with program.quiet(seed, "ends of the numbers"):
        with program.on(indices) as given:
            guide_trace = poutine.trace(program.guide).get_trace(*given)
        found = {name: _ends(site["fn"]) for name, site in sample_sites(guide_trace)}
        ends = {name: values for name, values in found.items() if values is not None}
        if not ends:
            return torch.zeros(len(indices), dtype=torch.float64, device=indices.device)
        log_weights, rounded = [], []
        at_once = DRAWS if program.vectorised else 1  # chunks of data are made for so many
        for _ in range(SCOUTS // at_once):
            sites = program.run(indices, at_once)
            assert sites.traces is not None
            lw = sites.log_weights()
            count = torch.zeros_like(lw)
            for name, values in ends.items():
                site = sites.traces[0].nodes[name]
                at_end = torch.isin(site["value"], values)
                if site["fn"].event_dim:
                    at_end = at_end.flatten(-site["fn"].event_dim).any(-1)
                particle = -1 - program.max_plate_nesting
                datum = next(f.dim for f in site["cond_indep_stack"] if f.name == program.plate)
                size = (len(lw), at_end.shape[datum])
                count = count + reduce_to(at_end.double(), (particle, datum), size)[:, : count.shape[1]]
            log_weights.append(lw.double())
            rounded.append(count > 0)
    lw, there = torch.cat(log_weights), torch.cat(rounded)
    kept = lw.masked_fill(there, -torch.inf).logsumexp(0)
    # Where all weight is there, nothing is known: a number that every statement gives way to.
    return (lw.logsumexp(0) - kept).nan_to_num(nan=0.0, posinf=LOST)


def peaked_at_ends(program: Program, indices: Tensor) -> list[str]:
    """Latents whose prior puts draws at the last number before an end of its support, for want of nearer ones."""
    with program.quiet(0, "ends of the prior"), program.on(indices) as given:
        trace = poutine.trace(program.model).get_trace(*given)
        latents = {name: site["fn"] for name, site in sample_sites(trace) if not site["is_observed"]}
        found = {name: _ends(fn) for name, fn in latents.items()}
    peaked = {name for name, ends in found.items() if ends is not None and len(ends)}
    return sorted(peaked | {name for name, fn in latents.items() if _is_cornered(fn)})


def _is_cornered(fn: Any) -> bool:
    """Whether a Dirichlet law has mass where 1 - z is lost to rounding: eps^(2 a) of it, for a concentration a."""
    law = base_of(fn)
    if not isinstance(law, torch.distributions.Dirichlet):
        return False
    least = law.concentration.amin().double()
    return bool(torch.finfo(law.concentration.dtype).eps ** (2 * least) > CORNER)


def _ends(fn: Any) -> Tensor | None:
    """Numbers at which many draws of a law are put, for want of others nearer to the edge of its support."""
    law = base_of(fn)
    if not isinstance(law, PEAKED):
        return None
    draws = law.sample((SCOUTS,))
    ends = []
    for end in (draws.amin(0), draws.amax(0)):
        ends.append(end[(draws == end).sum(0) > 1])
    found = torch.cat(ends).unique()
    return found if found.numel() else None


def _again(program: Program, sites: Sites, indices: Tensor, num_samples: int) -> Tensor:
    """Log-weights of the same draws, all operations in float64."""
    assert sites.traces is not None
    if not program.vectorised:
        # Each draw has run alone, and only the first one's trace is kept.
        num_samples = 1
    drawn = {
        name: site["value"]
        for name, site in sample_sites(sites.traces[0])
        if not site["is_observed"]
        and site["infer"].get("_enumerate_dim") is None
        and not isinstance(base_of(site["fn"]), dist.Delta)
    }
    given = replace(program, guide=Substitute(drawn)(program.guide))
    with InFloat64():
        return given.run(indices, num_samples).log_weights()


def _size(sites: Sites) -> Tensor:
    """Sum of |ln p| over sites, the largest of the draws, `[n]`."""
    if sites.marginal is not None:
        return sites.marginal.double().abs().amax(0)
    terms = [*sites.prior.values(), *sites.likelihood.values(), *sites.guide.values()]
    total = sum((t.double().abs() for t in terms), torch.zeros((), dtype=torch.float64, device="cpu"))
    return total.amax(0)


def narrowest(sites: Sites) -> torch.dtype:
    """The narrowest dtype of the sites' log-probabilities."""
    if sites.marginal is not None:
        return sites.marginal.dtype
    terms = [*sites.prior.values(), *sites.likelihood.values(), *sites.guide.values()]
    return next((t.dtype for t in terms if t.dtype in NARROW), torch.float64)
