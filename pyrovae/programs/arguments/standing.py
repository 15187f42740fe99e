"""Whether a datum's densities are its own: the same wherever it stands, whatever data are beside it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ..checks.agreement import is_enumerated
from ..checks.contract import base_of, data_frame
from ..handlers.substitute import Substitute
from ..idioms.cached_draws import Held, change_held, held
from ..seeds import seeded
from ..sites import Sites, collect, sample_sites

ROWS = 32  # data among which one is looked at


def as_it_stands(program: Any) -> Any:
    """The program, run on all data at once if its densities depend on where in the plate a datum stands.

    The last of some data is run among them, alone, and among copies of itself, at one and the same draw.

    Where densities change from run to run at the same values, which of the two is `random` is set instead.

    Raises:
        ValueError: where the model's density of a datum depends on the other data or their draws.
    """
    args = program.arguments
    if args.calling == "indexed" or args.num_data < 2:
        return program
    whole = args.calling == "whole"
    sliced = replace(program, arguments=replace(args, calling="sliced"))
    rows = torch.arange(args.num_data if whole else min(args.num_data, ROWS), device=args.x.device)
    copied = rows[-1:].expand(len(rows))
    with torch.no_grad(), pyro.validation_enabled(False):
        try:
            first = _run(sliced, rows, None, 0)
            draws = _draws(sliced, first.traces, len(rows))
            every = _all_draws(first.traces)
            # At given values too: some laws keep more of a draw of their own than its value.
            among = _run(sliced, rows, every, 0)
            copies, again = (_run(sliced, copied, draws, seed) for seed in (1, 2))
            random = _random(copies, again)
            if random:  # there is nothing to compare
                return replace(program, random=random)
            if not whole and _same(among, _run(sliced, rows[-1:], draws, 1)) == (True, True):
                return program
        except Exception:  # what does not run here is refused where it is run in earnest
            return program
    model, guide = _same(among, copies)
    if not model:
        raise ValueError(
            "expected a density of each datum that is its own, got one that changes with the other data or their "
            "draws (a mean over the data, a sum along the plate): p(x) then does not factorise over the data; try "
            "to compute what all data share before, and hand it over as pv.shared(...)"
        )
    # A guide may look at other data: it stays a guide, of whatever data it is run on.
    return replace(program, arguments=replace(args, calling="whole")) if guide else program


def _run(program: Any, indices: Tensor, draws: Any, seed: int) -> Sites:
    if draws is not None:
        values = {n: _wide(v, axis, len(indices)) for n, (v, axis) in draws.items()}
        program = replace(program, guide=Substitute(values)(program.guide))
    with seeded(seed, "standing", device=indices.device), program.on(indices) as given:
        traces = program.traces(given, None)
        return collect(*traces, plate=program.plate, particles=None)


def _wide(draw: Held, axis: int | None, n: int) -> Held:
    """One row, the same for n data."""

    def expand(value: Tensor) -> Tensor:
        if axis is None:
            return value
        shape = list(value.shape)
        shape[axis] = n
        return value.expand(shape)

    return change_held(draw, expand)


def _draws(program: Any, traces: Any, n: int) -> dict[str, tuple[Held, int | None]]:
    """The last datum's draw of each site, one row, and the dim that rows are in (None: no such dim)."""
    dim = data_frame(traces[1], program.plate).dim
    found: dict[str, tuple[Held, int | None]] = {}
    for name, site in sample_sites(traces[0]):
        if site["is_observed"] or is_enumerated(site) or isinstance(base_of(site["fn"]), dist.Delta):
            continue
        value, axis = site["value"], dim - site["fn"].event_dim
        rows = value.dim() >= -axis and value.size(axis) == n
        last = held(site, partial(torch.narrow, dim=axis, start=n - 1, length=1)) if rows else held(site)
        found[name] = (last, axis if rows else None)
    return found


def _all_draws(traces: Any) -> dict[str, tuple[Held, int | None]]:
    """All data's draws of each site, as they are."""
    return {
        name: (held(site, torch.clone), None)
        for name, site in sample_sites(traces[0])
        if not site["is_observed"]
        and not is_enumerated(site)
        and not isinstance(base_of(site["fn"]), dist.Delta)
    }


def _random(a: Sites, b: Sites) -> tuple[str, ...]:
    """Names of those of model and guide that have other densities in two runs at the same values of all sites."""
    pairs = [
        ("model", _of_model(a), _of_model(b)),
        *(("guide", v, b.guide[n]) for n, v in a.guide.items() if n in b.guide),
    ]
    found = {name for name, u, v in pairs if bool(((u - v).abs() > 1e-3 * u.abs().clamp(min=1.0)).any())}
    return tuple(sorted(found))


def _of_model(sites: Sites) -> Tensor:
    total = sites.log_weights()
    for term in sites.guide.values():
        total = total + term.double()
    return total


def _same(a: Sites, b: Sites) -> tuple[bool, bool]:
    """Whether the last datum has the same densities of model and guide."""

    def last(sites: Sites) -> tuple[Tensor, Tensor]:
        guide = sum((v[0, -1].double() for v in sites.guide.values()), torch.zeros(()).double())
        return sites.log_weights()[0, -1] + guide.to(sites.log_weights().device), guide

    def equal(u: Tensor, v: Tensor) -> bool:
        return bool(((u - v).abs() <= 1e-3 * u.abs().clamp(min=1.0)) | (u == v) | (u.isnan() & v.isnan()))

    (p, q), (r, s) = last(a), last(b)
    return equal(p, r), equal(q, s)
