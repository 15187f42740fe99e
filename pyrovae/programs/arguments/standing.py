"""Whether a datum's densities are its own: the same wherever it stands, whatever data are beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ..checks.agreement import is_enumerated
from ..checks.contract import base_of, data_frame
from ..handlers.substitute import Substitute
from ..idioms.cached_draws import BaseDraw, Held, held
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
# Of the gradient of a parameter, and of the largest one.
GRADIENT, LARGEST = 1e-3, 1e-5


def as_it_stands(program: Any) -> Any:
    """The program, run on all data at once if its densities depend on where in the plate a datum stands.

    Data are run in their order, in another one, with half of them replaced, and the last one alone, at one and the
    same draw of each. Gradients of parameters are compared as well as densities: a coefficient that starts at 0 hides
    what it multiplies.

    Where densities change from run to run at the same values, which of the two is `random` is set instead.

    Raises:
        ValueError: where the model's density of a datum depends on the other data or their draws.
    """
    args = program.arguments
    if args.calling == "indexed" or args.num_data < 2:
        return program
    whole = args.calling == "whole"
    with pyro.validation_enabled(False):
        try:
            look = _first_look(program)
            random = look.random()
            if random:  # there is nothing to compare
                return replace(program, random=random)
            model, guide = look.beside_others()
            placed = (False, False) if whole else look.elsewhere()
        except Exception:  # what does not run here is refused where it is run in earnest
            return program
    if not model:
        raise ValueError(
            "expected a density of each datum that is its own, got one that changes with the other data or their "
            "draws (a mean over the data, a sum along the plate): p(x) then does not factorise over the data; try "
            "to compute what all data share before, and hand it over as pv.shared(...)"
        )
    # A guide may look at other data: it stays a guide, of whatever data it is run on.
    if placed[0] or (placed[1] and guide):
        return replace(program, arguments=replace(args, calling="whole"))
    return program


def _first_look(program: Any) -> _Look:
    """At some of the data, the first ones; at all of them where the program reads anything by their place.

    Of a program that takes its data whole, at all; gradients then where they are few.
    """
    x, whole = program.arguments.x, program.arguments.calling == "whole"
    few = min(len(x), max(FEWEST, NUMBERS * len(x) // max(1, x.numel())))
    sliced = replace(program, arguments=replace(program.arguments, calling="sliced"))
    if whole or few == len(x):
        return _Look(sliced, torch.arange(len(x), device=x.device), few == len(x))
    look = _Look(sliced, torch.arange(few, device=x.device), True)
    return _Look(sliced, torch.arange(len(x), device=x.device), True) if look.reads_places() else look


@dataclass(frozen=True)
class _Densities:
    """ln p(x, z) and ln q(z | x) of each datum `[n]`, float64, and gradients of their weighed sums.

    `parts` are the guide's sites, `size` is the sum of all sites' absolute values. Where latents are summed out,
    `model` is the whole log-weight and `guide` 0.
    """

    model: Tensor
    guide: Tensor
    size: Tensor
    parts: dict[str, Tensor]
    gradients: tuple[dict[str, Tensor], ...] = ()


class _Look:
    """Runs of a program on some of its data, at one draw of each.

    Args:
        program: that takes slices.
        rows: the data.
        gradients: whether they are compared.
    """

    def __init__(self, program: Any, rows: Tensor, gradients: bool) -> None:
        self.program, self.rows, n = program, rows, len(rows)
        random = torch.Generator().manual_seed(0)
        order = torch.randperm(n, generator=random)
        self.order = (order.flip(0) if bool((order == torch.arange(n)).all()) else order).to(rows.device)
        self.weights = (0.5 + torch.rand(n, generator=random, dtype=torch.float64)).to(rows.device)
        self.kept = torch.zeros(n, dtype=torch.bool, device=rows.device)
        self.kept[self.order[: (n + 1) // 2]] = True
        every = torch.arange(n, device=rows.device)
        self.replaced = torch.where(self.kept, every, self.order[0])
        with torch.no_grad():
            self.traces, _ = self._sites(program, rows, 0)
        # At given values too: some laws keep more of a draw of their own than its value.
        try:
            self.here = self._run(every, 0, self.weights if gradients else None)
        except Exception:  # NumPy in a program takes no tensors with gradients
            self.here = self._run(every, 0)
        self.beside = self._run(self.replaced, 1)

    def random(self) -> tuple[str, ...]:
        """Names of those of model and guide that have other densities in two runs at the same values of all sites."""
        again, found = self._run(self.replaced, 2), set()
        pairs = [("model", self.beside.model, again.model)]
        pairs += [("guide", v, again.parts[n]) for n, v in self.beside.parts.items() if n in again.parts]
        for name, a, b in pairs:
            if bool(((a - b).abs() > RANDOM * a.abs().clamp(min=1.0)).any()):
                found.add(name)
        return tuple(sorted(found))

    def beside_others(self) -> tuple[bool, bool]:
        """Whether densities of model and guide stay as they are where half of the data are others.

        Not their gradients: a model may train by those of another function, which looks at the whole batch.
        """
        return _same(self.here, self.beside, self.kept)

    def elsewhere(self) -> tuple[bool, bool]:
        """Whether densities of model and guide change with where a datum stands."""
        moved = self._run(self.order, 0, self.weights[self.order] if self.here.gradients else None)
        model, guide = _same(self._of(self.order), moved, torch.ones_like(self.kept))
        last = torch.tensor([len(self.rows) - 1], device=self.rows.device)
        try:
            alone = _same(self._of(last), self._run(last, 1), torch.ones_like(last, dtype=torch.bool), ALONE)
        except Exception:  # some run on several data only
            alone = True, True
        return not (model and alone[0]), not (guide and alone[1])

    def _of(self, places: Tensor) -> _Densities:
        """Densities of the data at `places`."""
        h = self.here
        return replace(h, model=h.model[places], guide=h.guide[places], size=h.size[places])

    def _run(self, places: Tensor, seed: int, weights: Tensor | None = None) -> _Densities:
        """The data at `places` of `rows` with their draws, and gradients of sums weighed so, of model and guide."""
        program = replace(self.program, guide=Substitute(self._draws(places))(self.program.guide))
        with torch.set_grad_enabled(weights is not None):
            traces, sites = self._sites(program, self.rows[places], seed)
            parts = {n: v[0].double() for n, v in sites.guide.items()}
            total = sites.log_weights()[0].double()
            guide = sum(parts.values(), torch.zeros_like(total))
            model = total + guide
            leaves = {} if weights is None else _leaves(traces)
            gradients = (
                () if weights is None else tuple(_gradient(of, weights, leaves) for of in (model, guide))
            )
        parts = {n: v.detach() for n, v in parts.items()}
        of_model = (
            v[0].detach().double() for group in (sites.prior, sites.likelihood) for v in group.values()
        )
        size = sum((v.abs() for v in (*of_model, *parts.values())), model.detach().abs())
        return _Densities(model.detach(), guide.detach(), size, parts, gradients)

    def reads_places(self) -> bool:
        """Whether the program, run on a few of the data, makes use of numbers by their place in the plate."""
        first = torch.arange(min(FEW, len(self.rows)), device=self.rows.device)
        draws = self._draws(first)
        program = replace(self.program, guide=Substitute(draws)(self.program.guide))
        tensors = [v.u if isinstance(v, BaseDraw) else v for v in draws.values()]
        with torch.no_grad(), program.on(self.rows[first]) as given:
            tensors += tensors_in(given)
            with ByPlace(len(first), tensors) as watch, seeded(0, "standing", device=self.rows.device):
                collect(*program.traces(given, None), plate=program.plate, particles=None).log_weights()
        return watch.found

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
            value, axis = site["value"], dim - site["fn"].event_dim
            rows = value.dim() >= -axis and value.size(axis) == n
            found[name] = held(
                site, partial(torch.index_select, dim=axis, index=places) if rows else torch.clone
            )
        return found


def _leaves(traces: Any) -> dict[str, Tensor]:
    """What is trained of the parameters that a program asks for."""
    found = {}
    for trace in traces:
        for name, node in trace.nodes.items():
            if node["type"] == "param":
                value = node["value"]
                leaf = value.unconstrained() if hasattr(value, "unconstrained") else value
                if leaf.requires_grad:
                    found[name] = leaf
    return found


def _gradient(densities: Tensor, weights: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    total = (torch.where(weights > 0, densities, torch.zeros_like(densities)) * weights).sum()
    if not (leaves and total.requires_grad):
        return {}
    found = torch.autograd.grad(total, list(leaves.values()), retain_graph=True, allow_unused=True)
    return {n: g.double() for n, g in zip(leaves, found, strict=True) if g is not None}


def _same(a: _Densities, b: _Densities, at: Tensor, rounding: float = SAME) -> tuple[bool, bool]:
    """Whether densities of model and guide are the same at some of the data, and so are the gradients."""
    if a.model.is_cuda and torch.backends.cuda.matmul.allow_tf32:
        rounding = max(rounding, TF32)
    allowed = rounding * torch.maximum(a.size, b.size).clamp(min=1.0)

    def equal(u: Tensor, v: Tensor) -> bool:
        return bool((((u - v).abs() <= allowed) | (u == v) | (u.isnan() & v.isnan()))[at].all())

    # Without those of one of them there is nothing to compare.
    model, guide = [_same_gradient(u, v) for u, v in zip(a.gradients, b.gradients, strict=False)] or [
        True,
        True,
    ]
    return equal(a.model, b.model) and model, equal(a.guide, b.guide) and guide


def _same_gradient(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    norm: Callable[[Tensor], Tensor] = torch.linalg.vector_norm
    if not all(bool(g.isfinite().all()) for g in (*a.values(), *b.values())):
        return True
    largest = max((float(norm(g)) for g in a.values()), default=0.0)
    return all(
        float(norm(a[n] - b[n])) <= GRADIENT * float(norm(a[n])) + LARGEST * largest
        for n in a.keys() & b.keys()
        if a[n].shape == b[n].shape
    )
