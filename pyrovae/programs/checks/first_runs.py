"""Faults that the first runs of a program show, refused with their reasons."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ..arguments.marks import unmarked
from ..inspection import Program
from ..latents.supports import base_of
from ..sites import is_factor, sample_sites, unscaled_log_prob
from .contract import event_shape_of, has_any_length, not_finite_data, refuse_undrawable

ROWS = 1024  # data run at once where all are looked at


class RefuseImproper(poutine.messenger.Messenger):
    """Refuses a prior that is no density, or of no number of steps, before it is asked for a draw."""

    def _pyro_sample(self, msg: Any) -> None:
        if msg["value"] is None and isinstance(base_of(msg["fn"]), dist.ImproperUniform):
            raise ValueError(
                f"expected a prior with a density, got ImproperUniform at {msg['name']!r}, whose mass is infinite: "
                "p(x) is then known up to a factor alone; try a wide law, such as dist.Normal(0.0, 10.0)"
            )
        if msg["value"] is None and has_any_length(msg["fn"]):
            refuse_undrawable(msg["fn"], msg["name"])


def check_laws(*traces: Any) -> None:
    """Refuses laws without shapes, and Pyro's sums over draws (`num_samples` of an enumerated site).

    Raises:
        ValueError: naming the site.
    """
    for name, site in (pair for trace in traces for pair in sample_sites(trace)):
        if not hasattr(site["fn"], "batch_shape"):
            raise ValueError(
                f"expected laws with a batch_shape and an event_shape, got {type(site['fn']).__name__} at {name!r}, "
                "which has none; try pyro.distributions.TorchDistribution as its base, and "
                "super().__init__(batch_shape, event_shape)"
            )
        if site["infer"].get("enumerate") == "parallel" and site["infer"].get("num_samples") is not None:
            raise ValueError(
                f"expected enumerated sites to be summed over all their values, got num_samples at {name!r}, a sum "
                "over draws; try it without num_samples, and in a continuous site without enumerate, too (more draws "
                "are num_samples of an estimator, num_particles of an objective)"
            )


def check_observed_shapes(trace: Any) -> None:
    """Refuses data of another width than the likelihood's, and what broadcasts to more than the plates hold."""
    for name, site in sample_sites(trace):
        value, fn = site["value"], site["fn"]
        if is_factor(site) or not isinstance(value, Tensor):
            continue
        event = value.shape[max(0, value.dim() - fn.event_dim) :]
        own = event_shape_of(fn, event)
        wanted = fn.batch_shape + own
        try:
            shape = torch.broadcast_shapes(wanted, value.shape)
        except RuntimeError:
            shape = None
        # A number that stands for a whole event is a constant of the author's; one a datum is not.
        if shape is None or (value.dim() > fn.event_dim and event != own):
            raise ValueError(
                f"expected data of the shape of the model's site {name!r}, {tuple(wanted)} of the data it was run"
                f" on, got {tuple(value.shape)}"
            )
        batch = shape[: len(shape) - fn.event_dim]
        plates = {f.dim for f in site["cond_indep_stack"] if f.vectorized}
        loose = [i - len(batch) for i, size in enumerate(batch) if size > 1 and i - len(batch) not in plates]
        if loose:
            what = f"values {tuple(value.shape)} under a law {tuple(wanted)}"
            hint = "x of the law's own shape (x[:, 0], x.squeeze(-1)), or .to_event(1) on the law"
            # A plate further left than where the laws have their rows.
            if plates and max(plates) < max(loose):
                hint = "a plate without dim=, which then is the last dim of the law's batch"
            raise ValueError(
                f"expected one density for each place of the plates at site {name!r}, got {tuple(batch)} of them "
                f"({what}, run on {_sizes(site)}); try {hint}"
            )


def _sizes(site: Any) -> str:
    return (
        ", ".join(f"{f.name!r} of {f.size}" for f in site["cond_indep_stack"] if f.vectorized) or "no plate"
    )


@contextmanager
def unwritten(x: Tensor, context: tuple[Any, ...]) -> Iterator[None]:
    """Refuses a program that writes to its arguments: each run would find other data than the one before."""
    tensors = [v for v in tree_leaves((x, unmarked(context))) if isinstance(v, Tensor)]
    before = [v._version for v in tensors]
    yield
    if before != [v._version for v in tensors]:
        raise ValueError(
            "expected a program that leaves x and its context as they are, got one that writes to them in place (as "
            "x /= 2 does): each run finds other data than the one before, and x is changed by now; try a tensor of "
            "its own (x = x / 2)"
        )


@contextmanager
def missing_explained(x: Tensor) -> Iterator[None]:
    """Says of a failure on data with NaN that these are the reason."""
    try:
        yield
    except ValueError as error:
        if x.is_floating_point() and x.isnan().any() and "invalid values" in str(error):
            raise not_finite_data(x, ", on which the program fails") from error
        raise


def check_missing(program: Program) -> None:
    """Refuses NaN in x that reaches a density: a program has to mask it, in model and guide.

    Raises:
        ValueError: naming the first site with such a density.
    """
    x = program.arguments.x
    if not x.is_floating_point() or not x.isnan().any():
        return
    with pyro.validation_enabled(False):
        for indices in program.arguments.chunks(ROWS):
            with program.on(indices) as given:
                traces = program.traces(given, None)
            for source, trace in zip(("guide", "model"), traces, strict=True):
                for name, site in sample_sites(trace):
                    if bool(unscaled_log_prob(site).isnan().any()):
                        raise not_finite_data(x, f", which the {source} does not mask at {name!r}")
