"""The error that rounding leaves in log-weights, measured against float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from ..checks.contract import base_of
from ..handlers.substitute import Substitute
from ..inspection import Program
from ..modes import module_mode
from ..seeds import seeded
from ..sites import Sites, sample_sites

DRAWS = 4  # a few tell the size of the error, which has one sign for most draws
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
            return func(*tree_map(lambda v: _cast(v, into.dtype), args), **kwargs)
        if into is not None:
            return func(into, *tree_map(_widen, args[1:]), **tree_map(_widen, kwargs))
        return func(*tree_map(_widen, args), **tree_map(_widen, kwargs))


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


def rounding(program: Program, indices: Tensor, num_samples: int = DRAWS, seed: int = 0) -> Tensor:
    """Error of ln w that comes from rounding, `[n]`, float64, nats.

    The program runs at the same draws in its own precision and in float64: this is the largest difference
    of their log-weights. A program that
    does not run in float64 gets eps times the sum of |ln p| over its sites, which is what summation alone
    may cost; so does one that is in float64 already.
    """
    with (
        torch.no_grad(),
        module_mode(program.model, program.guide, training=False),
        pyro.validation_enabled(False),
        seeded(seed, "rounding", device=indices.device),
    ):
        narrow = program.run(indices, num_samples)
        assert narrow.traces is not None
        size = _size(narrow).nan_to_num(nan=0.0, posinf=0.0)  # a weight of zero has no error
        lw = narrow.log_weights()
        if _dtype(narrow) == torch.float64 or program.random:  # whose second run has other random numbers
            return torch.finfo(_dtype(narrow)).eps * size
        try:
            wide = _again(program, narrow, indices, num_samples)
        except Exception:  # kernels without float64, checks of dtypes in the program's own code
            return torch.finfo(_dtype(narrow)).eps * size
    return (lw[: len(wide)] - wide).abs().nan_to_num(nan=0.0, posinf=0.0).amax(0)


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
    total = sum((t.double().abs() for t in terms), torch.zeros((), dtype=torch.float64))
    return total.amax(0)


def _dtype(sites: Sites) -> torch.dtype:
    """The narrowest of the sites' log-probabilities."""
    if sites.marginal is not None:
        return sites.marginal.dtype
    terms = [*sites.prior.values(), *sites.likelihood.values(), *sites.guide.values()]
    return next((t.dtype for t in terms if t.dtype in NARROW), torch.float64)
