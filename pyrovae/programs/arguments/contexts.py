"""Decision which context has one row per datum, by what the program makes of it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.enum_messenger import EnumMessenger
from torch import Tensor

from ..checks.agreement import is_enumerated
from ..checks.contract import data_frame
from ..handlers.substitute import Substitute
from ..latents.supports import base_of
from ..parameters import scratch
from ..plates import Arguments, ChooseSubsample
from ..seeds import seeded
from ..sites import collect, sample_sites
from .marks import Marked, change, num_rows, wrong_rows

# Beyond so many data the program is not run on all of them to decide; of more tensors than these only that all are
# per datum is held against the run on all.
MOST_DATA = 4096
MOST_UNMARKED = 4


def decide(model: Any, guide: Any, x: Tensor, context: tuple[Any, ...], plate: str) -> tuple[Any, ...]:
    """`context` with every tensor of N rows marked as per datum or shared.

    Marks that are given stand. An unmarked tensor of N rows, in a container or not, is tried both ways on a few data.
    Where the program runs one way only, or the densities are the same, that settles it. Else they are compared with
    those of the same data in a run on all data, which gets its context whole.

    Raises:
        ValueError: a marked tensor with other than N rows; a context that cannot be told, with the markers named.
    """
    n = len(x)
    for mark in _marked(context):
        wrong = wrong_rows(mark.value, n) if mark.per_datum else []
        if wrong:
            raise ValueError(
                f"expected context marked pv.per_datum to have len(x) = {n} rows, got {', '.join(wrong)}; try "
                "pv.shared(...) for what all data share"
            )
        leaves: list[Any] = []
        change(mark.value, leaves.append, items=n)
        if mark.per_datum and isinstance(mark.value, list) and len(mark.value) == n and len(leaves) == n > 1:
            raise ValueError(
                f"expected to see whether a list of {n} tensors of {n} rows is one item a datum, or columns with one "
                "row a datum; try a tuple of the columns, or torch.stack(list) for items"
            )
    unknown = [v for c in context for v in _unmarked(c, n)]
    if not unknown:
        return context

    def marked(ways: tuple[bool, ...]) -> tuple[Any, ...]:
        given = {id(t): way for t, way in zip(unknown, ways, strict=True)}

        def leaf(v: Any) -> Any:
            return Marked(v, given[id(v)]) if id(v) in given else v

        return tuple(change(c, leaf, items=n) for c in context)

    count = len(unknown)
    ways = list(product((True, False), repeat=count)) if count <= MOST_UNMARKED else [(True,) * count]
    probe = _Probe(model, guide, x, plate)
    with scratch(model, guide):
        found = {way: probe.few(marked(way)) for way in ways}
        ran = {way: value for way, value in found.items() if value is not None}
        if not ran:  # a program that runs on no part of the data is run on all of them
            return marked(ways[0])
        first, *others = ran
        if len(ways) == 2**count and all(_equal(ran[first], ran[way]) for way in others):
            return marked(first)
        truth = probe.all(marked((False,) * count)) if n <= MOST_DATA else None
        if truth is not None:
            fits = [way for way in ran if probe.agrees(marked(way), *truth)]
            if fits:
                return marked(fits[0])
    shapes = [
        tuple(v.shape) if isinstance(v, Tensor) else f"a {type(v).__name__} of {num_rows(v)}" for v in unknown
    ]
    raise ValueError(
        f"expected to see which context is per datum, got tensors of shapes {shapes} with as many rows as there are "
        f"data (N = {n}), and densities that depend on it; mark each as pv.per_datum(tensor) or pv.shared(tensor)"
    )


class _Probe:
    """Runs of a program on a few of the data, and on all."""

    def __init__(self, model: Any, guide: Any, x: Tensor, plate: str) -> None:
        self.model, self.guide, self.x, self.plate = model, guide, x, plate
        # Not as many rows as there are data, and not the first ones: context[:len(x)] would be taken for rows.
        last = torch.arange(2 if len(x) != 2 else 3, device=x.device)
        self.rows = (len(x) - 1 - last) % len(x)

    def few(self, context: tuple[Any, ...]) -> Tensor | None:
        """Log-weights of a few data; None where the program does not run on them."""
        return self._try(self._sliced(context), len(self.rows), self.guide)

    def all(self, context: tuple[Any, ...]) -> tuple[Tensor, Any] | None:
        """Log-weights and guide trace of a run on all data."""
        return self._run(self._arguments(context).whole(), len(self.x), self.guide, need_trace=True)

    def agrees(self, context: tuple[Any, ...], truth: Tensor, trace: Any) -> bool:
        """Whether the few data have the log-weights that they have in the run on all, at its draws."""
        dim = data_frame(trace, self.plate).dim if any(sample_sites(trace)) else -1
        values = {}
        for name, site in sample_sites(trace):
            if site["is_observed"] or is_enumerated(site) or isinstance(base_of(site["fn"]), dist.Delta):
                continue
            value, axis = site["value"], dim - site["fn"].event_dim
            rows = value.dim() >= -axis and value.size(axis) == len(self.x)
            values[name] = value.index_select(axis, self.rows) if rows else value
        got = self._try(self._sliced(context), len(self.rows), Substitute(values)(self.guide))
        return got is not None and _equal(got, truth[self.rows])

    def _arguments(self, context: tuple[Any, ...]) -> Arguments:
        return Arguments(self.x, context, self.plate, "sliced")

    def _sliced(self, context: tuple[Any, ...]) -> tuple[Any, ...]:
        return self._arguments(context).slice(self.rows)

    def _try(self, given: tuple[Any, ...], n: int, guide: Callable[..., Any]) -> Tensor | None:
        found = self._run(given, n, guide)
        return None if found is None else found[0]

    def _run(
        self, given: tuple[Any, ...], n: int, guide: Any, need_trace: bool = False
    ) -> tuple[Tensor, Any] | None:
        try:
            with (
                seeded(0, "contexts", device=self.x.device),
                pyro.validation_enabled(False),
                ChooseSubsample(self.plate, None),
            ):
                own = poutine.trace(EnumMessenger(-9)(guide)).get_trace(*given)
                model = poutine.replay(EnumMessenger()(self.model), trace=own)
                trace = poutine.trace(model).get_trace(*given)
                weights = collect(own, trace, plate=self.plate, particles=None).log_weights()
        except Exception:  # a program fails on what does not fit in any way its author's code can fail
            return None
        return (weights[0], own) if weights.shape[-1] == n and bool((~weights.isnan()).all()) else None


def _equal(a: Tensor, b: Tensor) -> bool:
    same = (a - b).abs() <= 1e-3 * b.abs().clamp(min=1.0)
    return bool((same | (a == b)).all())


def _marked(value: Any) -> list[Marked]:
    found: list[Marked] = []
    change(value, lambda v: found.append(v) if isinstance(v, Marked) else None)
    return found


def _unmarked(value: Any, n: int) -> list[Any]:
    """Tensors of n rows without a mark."""
    found: list[Any] = []
    change(value, lambda v: found.append(v) if num_rows(v) == n else None, items=n)
    return found
