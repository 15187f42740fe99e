"""Which latents depend on which others, and where that breaks the condition of mean-field KLs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from pyro import poutine
from pyro.infer.inspect import get_dependencies
from torch import Tensor

from ..handlers.substitute import Substitute
from ..inspection import Program
from ..modes import module_mode
from ..seeds import seeded
from ..sites import sample_sites

Dependencies = dict[str, set[str]]


def mean_field_breaches(program: Program) -> list[tuple[str, str]]:
    """Pairs (z, parent) that break the condition of `TraceMeanField_ELBO`.

    Its KL term for z takes z's parents in the model as given, which is right only where no such
    parent descends from z in the guide (Pyro's documentation of TraceMeanField_ELBO). A bottom-up
    guide of a hierarchical model breaks it, and the loss is then wrong in silence.
    """
    return breaches_of(dependencies(program, program.guide), dependencies(program, program.model))


def breaches_of(in_guide: Dependencies, in_model: Dependencies) -> list[tuple[str, str]]:
    """The same from what sites depend on."""
    below = _descendants(in_guide)
    return [
        (z, parent)
        for z, parents in in_model.items()
        if z in in_guide
        for parent in sorted(parents)
        if parent in below.get(z, set())
    ]


def dependencies(program: Program, fn: Callable[..., Any]) -> Dependencies:
    """Latent site to the latents its distribution directly depends on, for one of the two programs.

    Union of provenance tracking (Pyro's `get_dependencies`, which follows tensors but is blind
    to in-place writes, `.item()` and NumPy) and a perturbation test (redraw z_j alone: does
    ln p of z_i change?), which sees those but could miss a dependency that the two redraws
    happen not to excite.
    """
    with (
        module_mode(program.model, program.guide, training=False),
        program.on(program.arguments.chunks(2)[0]) as args,
    ):
        return dependencies_of(fn, args)


def dependencies_of(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
) -> Dependencies:
    """The same for one of the two programs on given arguments, in the mode that it is in."""
    found: Dependencies = {}
    kwargs = kwargs or {}
    with seeded(0, "perturb", device=_device(args)):
        tracked: Any = {}
        with suppress(Exception):  # provenance tensors do not pass through every op (custom flows, C++ ops)
            tracked = get_dependencies(fn, args, kwargs)["prior_dependencies"]
    for name, other in _perturbation(fn, args, kwargs):
        found.setdefault(name, set()).update(other)
    for name, upstream in tracked.items():
        if name in found:
            found[name] |= {u for u in upstream if u in found and u != name}
    return found


def _device(args: tuple[Any, ...]) -> torch.device:
    return next((a.device for a in args if isinstance(a, Tensor)), torch.device("cpu"))


def _perturbation(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[tuple[str, set[str]]]:
    def run(values: dict[str, Tensor] | None, *counter: int) -> Any:
        # Seeded alike each time, so hidden noise cannot pass for a dependency.
        with seeded(0, "perturb", *counter, device=_device(args)), torch.no_grad():
            wrapped = fn if values is None else Substitute(values)(fn)
            return poutine.trace(wrapped).get_trace(*args, **kwargs)

    def values_of(trace: Any) -> dict[str, Tensor]:
        return {n: s["value"] for n, s in sample_sites(trace) if not s["is_observed"]}

    def scores(trace: Any) -> dict[str, Tensor]:
        sites = {n: s for n, s in sample_sites(trace) if not s["is_observed"]}
        return {n: s["fn"].log_prob(s["value"]) for n, s in sites.items()}

    base = values_of(run(None, 0))
    before = scores(run(base, 0))
    upstream: dict[str, set[str]] = {n: set() for n in base}
    for draw in (1, 2):
        fresh = values_of(run(None, draw))
        for j in base:
            after = scores(run({**base, j: fresh[j]}, 0))
            for i in base:
                if i != j and not torch.equal(before[i], after[i]):
                    upstream[i].add(j)
    return list(upstream.items())


def _descendants(direct: Dependencies) -> Dependencies:
    below: Dependencies = {n: set() for n in direct}
    for name in direct:
        stack = list(direct[name])
        seen: set[str] = set()
        while stack:
            up = stack.pop()
            if up not in seen:
                seen.add(up)
                below[up].add(name)
                stack.extend(direct[up])
    return below
