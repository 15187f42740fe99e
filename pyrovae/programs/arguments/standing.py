"""Whether a datum's densities are its own: the same wherever it stands, whatever data are beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from ..checks.agreement import is_enumerated
from ..checks.contract import data_frame
from ..handlers.substitute import Substitute
from ..idioms.cached_draws import BaseDraw, Held, held
from ..latents.supports import base_of, is_real
from ..outside import is_bounded
from ..seeds import seeded
from ..sites import Sites, collect, sample_sites
from .by_place import FEW, ByPlace
from .marks import tensors_in

# Numbers of x that are looked at, unless the program reads anything by the place of data: then all of them.
NUMBERS = 2**15
FEWEST = 32  # data
# Rounding, as a share of the terms that a density is the sum of: of runs on as many data, and on one.
SAME, ALONE = 2e-5, 1e-3
TF32 = 1e-2
RANDOM = 1e-3
WIDE = 4.0
MOVED = 0.05  # times a normal number, of parameters


def as_it_stands(program: Any) -> Any:
    """The program, run on all data at once if its densities may depend on where in the plate a datum stands.

    They may where the program reads anything by the place of data (rows of a table): at the draws looked at, what is
    read there may not count. Other programs' data are run in their order, in another one, with each half of them
    replaced, and the last one alone, at one and the same draw of each; all that again with other values of the
    parameters, which then have theirs again (a coefficient that starts at 0 hides what it multiplies); and again at
    wide draws of the prior.

    Where densities change from run to run at the same values, which of the two is `random` is set instead.

    Raises:
        ValueError: where the model's density of a datum depends on the other data or their draws.
    """
    args = program.arguments
    if args.calling == "indexed" or args.num_data < 2:
        return program
    with pyro.validation_enabled(False), torch.no_grad():
        try:
            look, by_place = _first_look(program)
            random = look.random()
            if random:  # there is nothing to compare
                return replace(program, random=random)
            (model, guide), place = look.stands(args.calling == "whole")
        except Exception:  # what does not run here is refused where it is run in earnest
            return program
    if not model:
        raise ValueError(
            "expected a density of each datum that is its own, got one that changes with the other data or their "
            "draws (a mean over the data, a sum along the plate): p(x) then does not factorise over the data; try "
            "to compute what all data share before, and hand it over as pv.shared(...)"
        )
    if by_place or not place[0] or (guide and not place[1]):
        return replace(program, arguments=replace(args, calling="whole"))
    # A guide may look at other data: it stays a guide, of whatever data it is run on.
    return replace(program, beside=not guide)


def _first_look(program: Any) -> tuple[_Look, bool]:
    """Runs on some of the data, here and there; on all where the program takes them whole, or reads by their place.

    And whether it does the latter.
    """
    x, whole = program.arguments.x, program.arguments.calling == "whole"
    every = torch.arange(len(x), device=x.device)
    few = min(len(x), max(FEWEST, NUMBERS * len(x) // max(1, x.numel())))
    sliced = replace(program, arguments=replace(program.arguments, calling="sliced"))
    if whole:
        return _Look(sliced, every), False
    if few == len(x):
        look = _Look(sliced, every)
        return look, look.may_read_places()
    # Sorted data may be alike for long.
    look = _Look(
        sliced,
        every[torch.linspace(0, len(x) - 1, few, dtype=torch.float64, device="cpu").long().to(x.device)],
    )
    by_place = look.may_read_places()
    return _Look(sliced, every) if by_place else look, by_place


@dataclass(frozen=True)
class _Densities:
    """ln p(x, z) and ln q(z | x) of each datum `[n]`, float64.

    `parts` are the guide's sites, `size` is the sum of all sites' absolute values. Where latents are summed out,
    `model` is the whole log-weight and `guide` 0.
    """

    model: Tensor
    guide: Tensor
    size: Tensor
    parts: dict[str, Tensor]

    def of(self, places: Tensor) -> _Densities:
        """Those of the data at `places`."""
        parts = {n: v[places] for n, v in self.parts.items()}
        return _Densities(self.model[places], self.guide[places], self.size[places], parts)


class _Look:
    """Runs of a program on some of its data, at one draw of each.

    Args:
        program: that takes slices.
        rows: the data.
    """

    def __init__(self, program: Any, rows: Tensor) -> None:
        self.program, self.rows, n = program, rows, len(rows)
        # One cycle: no row keeps its place, and no table but a constant one stays as it is.
        cycle = torch.randperm(n, generator=torch.Generator().manual_seed(0), device="cpu")
        self.order = torch.empty_like(cycle).index_copy_(0, cycle, cycle.roll(-1)).to(rows.device)
        self.every = torch.arange(n, device=rows.device)
        self.kept = torch.zeros(n, dtype=torch.bool, device=rows.device)
        self.kept[self.order[: (n + 1) // 2]] = True
        self.replaced = torch.where(self.kept, self.every, self.order[0])
        # The other half, so that each is replaced once: one datum may be what all look at.
        self.others = torch.where(self.kept, self.order[-1], self.every)
        self.traces, _ = self._sites(program, rows, 0)
        self.prior: dict[str, Tensor] = {}

    def random(self) -> tuple[str, ...]:
        """Names of those of model and guide that have other densities in two runs at the same values of all sites."""
        first, again, found = self._run(self.replaced, 1), self._run(self.replaced, 2), set()
        pairs = [("model", first.model, again.model)]
        pairs += [("guide", v, again.parts[n]) for n, v in first.parts.items() if n in again.parts]
        for name, a, b in pairs:
            if bool(((a - b).abs() > RANDOM * a.abs().clamp(min=1.0)).any()):
                found.add(name)
        return tuple(sorted(found))

    def stands(self, whole: bool) -> tuple[tuple[bool, bool], tuple[bool, bool]]:
        """Whether densities of model and guide are the same beside other data, and (unless `whole`) elsewhere."""
        found = [self._stands(whole)]
        with suppress(Exception), _moved(_leaves(self.traces)):  # there may be no program at other values
            found.append(self._stands(whole))
        with suppress(Exception), self._at_prior():
            found.append(self._stands(whole))
        (beside, place), *moved = found
        for others, places in moved:
            beside = beside[0] and others[0], beside[1] and others[1]
            place = place[0] and places[0], place[1] and places[1]
        return beside, place

    @contextmanager
    def _at_prior(self) -> Iterator[None]:
        """Draws of the prior in the body, of real numbers wider ones: they go where the guide's seldom do."""
        program, own = self.program, self.traces[0].nodes
        with seeded(1, "standing", device=self.rows.device), program.on(self.rows) as given:
            drawn = poutine.trace(program.model).get_trace(*given)
        sites = {n: s for n, s in sample_sites(drawn) if not s["is_observed"] and n in own}
        for name, site in sites.items():
            if site["value"].shape == own[name]["value"].shape:
                wide = is_real(getattr(site["fn"], "support", None)) and not is_bounded(site["fn"])
                self.prior[name] = WIDE * site["value"] if wide else site["value"]
        try:
            yield
        finally:
            self.prior = {}

    def _stands(self, whole: bool) -> tuple[tuple[bool, bool], tuple[bool, bool]]:
        # At given values in this order too: some laws keep more of a draw of their own than its value.
        here = self._run(self.every, 0)
        halves = (self.replaced, self.kept), (self.others, ~self.kept)
        found = [_same(here, self._run(places, 1), at) for places, at in halves]
        beside = all(m for m, _ in found), all(g for _, g in found)
        if whole:
            return beside, (True, True)
        model, guide = _same(here.of(self.order), self._run(self.order, 0), torch.ones_like(self.kept))
        try:
            alone = _same(
                here.of(self.every[-1:]), self._run(self.every[-1:], 1), self.kept[:1] | True, ALONE
            )
        except Exception:  # some run on several data only
            alone = True, True
        return beside, (model and alone[0], guide and alone[1])

    def _run(self, places: Tensor, seed: int) -> _Densities:
        """The data at `places` of `rows` with their draws."""
        program = replace(self.program, guide=Substitute(self._draws(places))(self.program.guide))
        _, sites = self._sites(program, self.rows[places], seed)
        parts = {n: v[0].double() for n, v in sites.guide.items()}
        total = sites.log_weights()[0].double()
        guide = sum(parts.values(), torch.zeros_like(total))
        model = total + guide
        of_model = (v[0].double() for group in (sites.prior, sites.likelihood) for v in group.values())
        size = sum((v.abs() for v in (*of_model, *parts.values())), model.abs())
        return _Densities(model, guide, size, parts)

    def may_read_places(self) -> bool:
        """Whether the program makes use of numbers by the place of data in the plate, in runs on a few of them.

        In runs on three numbers of data: a layer, or an axis, has the size of one of them at most. A table may end
        before. Each run is on one datum, again and again: numbers that differ are then not made of labels or lists.
        """
        x = self.program.arguments.x[self.rows]
        another = int((x != x[0]).reshape(len(x), -1).any(1).int().argmax())
        try:
            runs = [self._watched(FEW[0], 0)]
            if not runs[0].found and not runs[0].lifted:
                return False
            runs += [self._watched(*at) for at in zip(FEW[1:], (another, len(x) - 1), strict=True)]
        except Exception:  # what cannot be watched may read anything
            return True
        if all(run.found for run in runs):
            return True
        lifted = zip(*(run.lifted for run in runs), strict=False)
        return not self.program.arguments.lists and any(map(_all_equal, lifted))

    def _watched(self, count: int, row: int) -> ByPlace:
        copies = torch.full((count,), row, device=self.rows.device)
        draws = self._draws(copies)
        program = replace(self.program, guide=Substitute(draws)(self.program.guide))
        tensors = [v.u if isinstance(v, BaseDraw) else v for v in draws.values()]
        with program.on(self.rows[copies]) as given:
            tensors += tensors_in(given)
            with ByPlace(count, tensors) as watch, seeded(0, "standing", device=self.rows.device):
                collect(*program.traces(given, None), plate=program.plate, particles=None).log_weights()
        return watch

    @staticmethod
    def _sites(program: Any, indices: Tensor, seed: int) -> tuple[Any, Sites]:
        with seeded(seed, "standing", device=indices.device), program.on(indices) as given:
            traces = program.traces(given, None)
            return traces, collect(*traces, plate=program.plate, particles=None)

    def _draws(self, places: Tensor) -> dict[str, Held]:
        """Draws of the data at `places`."""
        guide_trace, model_trace = self.traces
        dim, n = data_frame(model_trace, self.program.plate).dim, len(self.rows)
        found: dict[str, Held] = {}
        for name, site in sample_sites(guide_trace):
            if site["is_observed"] or is_enumerated(site) or isinstance(base_of(site["fn"]), dist.Delta):
                continue
            if name in self.prior:
                site = {**site, "value": self.prior[name]}
            value, axis = site["value"], dim - site["fn"].event_dim
            rows = value.dim() >= -axis and value.size(axis) == n
            found[name] = held(
                site, partial(torch.index_select, dim=axis, index=places) if rows else torch.clone
            )
        return found


def _all_equal(tensors: tuple[Tensor, ...]) -> bool:
    first, *others = tensors
    return all(torch.equal(first, v) for v in others)


def _leaves(traces: Any) -> dict[str, Tensor]:
    """Trained leaves of the parameters that a program asks for, by name."""
    found = {}
    for trace in traces:
        for name, node in trace.nodes.items():
            if node["type"] == "param":
                value = node["value"]
                leaf = value.unconstrained() if hasattr(value, "unconstrained") else value
                if leaf.requires_grad and leaf.is_floating_point():
                    found[name] = leaf
    return found


@contextmanager
def _moved(leaves: dict[str, Tensor]) -> Iterator[None]:
    """Gives parameters other values in the body, in their own memory, and puts theirs back."""
    random = torch.Generator().manual_seed(0)
    former = {n: p.data.clone() for n, p in leaves.items()}
    try:
        for p in leaves.values():
            noise = torch.randn(p.shape, generator=random, dtype=torch.float64, device="cpu")
            p.data.add_((MOVED * noise).to(p.device, p.dtype))
        yield
    finally:
        for n, p in leaves.items():
            p.data.copy_(former[n])


def _same(a: _Densities, b: _Densities, at: Tensor, rounding: float = SAME) -> tuple[bool, bool]:
    """Whether densities of model and guide are the same at some of the data."""
    if a.model.is_cuda and torch.backends.cuda.matmul.allow_tf32:
        rounding = max(rounding, TF32)
    allowed = rounding * torch.maximum(a.size, b.size).clamp(min=1.0)

    def equal(u: Tensor, v: Tensor) -> bool:
        return bool((((u - v).abs() <= allowed) | (u == v) | (u.isnan() & v.isnan()))[at].all())

    return equal(a.model, b.model), equal(a.guide, b.guide)
