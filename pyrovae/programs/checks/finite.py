"""Search for the site of a program, and the datum, that has no finite log-density."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...devices import as_tensor
from ..sites import sample_sites


def not_finite(trace: Any, indices: Tensor | None = None, observed: bool = False) -> str | None:
    """The first site whose log-density is not finite, in words: "ln p(x) = -inf at x = 0 under Gamma ...".

    Args:
        trace: of a model or a guide.
        indices: of the data in it, for the datum's name.
        observed: of observed sites alone.
    """
    for name, site in sample_sites(trace):
        fn = site["fn"]
        if (observed and not site["is_observed"]) or site["infer"].get("_deterministic"):
            continue
        log_prob = fn.log_prob(site["value"])
        bad = ~log_prob.isfinite()
        if site["mask"] is not None:
            bad = bad & as_tensor(site["mask"])
        if not bool(bad.any()):
            continue
        where = [int(i[0]) for i in torch.nonzero(bad, as_tuple=True)]
        frames = [f for f in site["cond_indep_stack"] if f.vectorized and -f.dim <= bad.dim()]
        what = f"ln p({name}) = {float(log_prob[tuple(where)]):g}"
        value = as_tensor(site["value"])
        event = value.expand(bad.shape + value.shape[value.dim() - fn.event_dim :])[tuple(where)]
        odd = _oddest(fn, event, tuple(where))
        at = [f"{f.name}[{_global(where[f.dim], bad.shape[f.dim], indices)}]" for f in frames]
        law = type(_base(fn)).__name__
        return (
            f"{what} at {name} = {odd:g} under {law}{f' (site {name!r}, {chr(44).join(at)})' if at else ''}"
        )
    return None


def _base(fn: Any) -> Any:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return fn


def _oddest(fn: Any, event: Tensor, where: tuple[int, ...]) -> float:
    """The first number of an event that has no density, where its law is one of independent numbers."""
    inner = getattr(fn, "base_dist", None)
    if event.dim() == 0:
        return float(event)
    if inner is not None and inner.event_dim == 0:
        shape = fn.batch_shape + fn.event_shape
        full = event.expand(shape) if event.dim() < len(shape) else event
        bad = ~inner.log_prob(full).isfinite()
        bad = bad[where] if bad.dim() == len(shape) else bad
        if bool(bad.any()):
            return (
                float(event[bad.expand(event.shape)][0])
                if bad.shape == event.shape
                else float(event.flatten()[0])
            )
    return float(event.flatten()[0])


def _global(i: int, size: int, indices: Tensor | None) -> int:
    return int(indices[i]) if indices is not None and len(indices) == size else i
