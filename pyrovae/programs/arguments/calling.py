"""How a program takes its data: in slices, by indices that its plate draws, or whole."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from ..checks.contract import data_frame
from ..parameters import scratch
from ..plates import Arguments, Calling, ChooseSubsample, alone
from ..seeds import seeded
from ..sites import is_factor, sample_sites, unscaled_log_prob
from .contexts import decide


def find_calling(
    model: Any, guide: Any, x: Tensor, context: tuple[Any, ...], plate: str
) -> tuple[Arguments, Any, Any]:
    """Tries subsets of one and two data; a program whose plate follows takes slices."""
    context = decide(model, guide, x, context, plate)
    sliced = Arguments(x, context, plate, "sliced")

    def look(given: tuple[Any, ...]) -> tuple[int, int, Any, Any]:
        guide_trace, prior_trace = alone(model, guide, given, plate)
        size = data_frame(prior_trace, plate).size
        own = data_frame(guide_trace, plate, "guide").size if any(sample_sites(guide_trace)) else size
        return size, own, guide_trace, prior_trace

    def follows(rows: Tensor) -> dict[str, tuple[int, ...]] | None:
        """Shapes of the parameters created on some data; None if the plates do not hold just these."""
        n = len(rows)
        with scratch(model, guide) as created:
            size, own, guide_trace, prior_trace = look(sliced.slice(rows))
            for trace in (guide_trace, prior_trace):
                fn = trace.nodes[plate]["fn"] if plate in trace.nodes else None
                if fn is not None and fn.subsample_size is not None and fn.size == n:
                    return None  # subsample_size=min(..., len(x)) follows small slices only
                if not _densities_follow(trace, plate, n):
                    return None
        return created if size == own == n else None

    try:
        # Parameters made to the size of the data must be made on all of them.
        every = torch.arange(len(x), device=x.device)
        # The last ones too: sequences may be padded to the longest, which is often the first.
        shapes = [follows(rows) for rows in (every[:1], every[:2], every[-2:])[: min(3, len(x))]]
        if None not in shapes and shapes[0] == shapes[-1]:
            *_, guide_trace, prior_trace = look(sliced.slice(torch.arange(min(2, len(x)), device=x.device)))
            return sliced, guide_trace, prior_trace
    except Exception:
        # A plate of fixed size fails on a slice in any way its author's code can fail; whether
        # it is that, or a mistake, shows on the whole data.
        pass
    size, own, guide_trace, prior_trace = look(sliced.whole())
    if size != len(x) and not _subsamples(model, x, sliced.whole(), plate, prior_trace):
        raise ValueError(
            f"expected the plate {plate!r} to hold the len(x) = {len(x)} data, or to pick a subsample of the "
            f"rows of x, got a plate of {size}; x has one row per datum; try x of shape [N, *event] "
            "(x.T, or x.movedim), obs=x[indices] with the indices that a subsampled plate gives (one for each row of "
            "x, where it is given them), or plate=... for the plate over the rows"
        )
    if own != size:
        raise ValueError(
            f"expected the plate {plate!r} to have one size in model and guide, got {size} in the model and {own} "
            "in the guide; subsample both or none, and set an AutoGuide up on all data (call it once) before"
        )
    calling: Calling = "whole" if size == len(x) else "indexed"
    return Arguments(x, context, plate, calling, size), guide_trace, prior_trace


def _subsamples(model: Any, x: Tensor, given: tuple[Any, ...], plate: str, trace: Any) -> bool:
    """Whether the plate draws a subsample of the rows of x: other indices, other rows observed; and of these alone."""
    node = trace.nodes.get(plate)
    if node is None or not len(node["value"]) < node["fn"].size or len(node["value"]) > len(x):
        return False
    indices = torch.arange(len(node["value"]), device=x.device)
    others = len(x) - 1 - indices

    def observed(data: Tensor, chosen: Tensor) -> dict[str, Any]:
        with ChooseSubsample(plate, chosen), seeded(0, "subsample", device=x.device):
            sites = dict(sample_sites(poutine.trace(model).get_trace(data, *given[1:])))
        return {n: s["value"] for n, s in sites.items() if s["is_observed"] and not is_factor(s)}

    if torch.equal(x[indices], x[others]):  # rows that are all alike show nothing
        return True
    try:
        here, there = observed(x, indices), observed(x, others)
    except IndexError:  # fewer columns than rows
        return False
    elsewhere = x.clone()
    elsewhere[len(indices) :] = x[0]  # rows that were not chosen
    unmoved = observed(elsewhere, indices)
    return all(n not in unmoved or torch.equal(here[n], unmoved[n]) for n in here) and any(
        not torch.equal(here[n], there[n]) for n in here if n in there
    )


def _densities_follow(trace: Any, plate: str, n: int) -> bool:
    """Whether densities have the data plate's size: a mask of fixed size leaves no other sign."""
    dim = data_frame(trace, plate).dim if any(sample_sites(trace)) else -1
    with pyro.validation_enabled(False):
        shapes = [unscaled_log_prob(site).shape for _, site in sample_sites(trace)]
    return all(len(shape) < -dim or shape[dim] in (1, n) for shape in shapes)
