"""Declarations of a program, where its traces cannot tell."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, get_args

from pyro.poutine.messenger import _context_wrap

Density = Literal["exact", "unnormalised", "bound_only"]
Measured = Literal["mass", "density", "mixed"]
F = TypeVar("F", bound=Callable[..., Any])

_ATTRIBUTE = "__pyrovae_declaration__"


@dataclass(frozen=True)
class Declaration:
    """Declaration of a model; the tools believe it.

    Attributes:
        density: `"exact"`: the trace's log-probability is ln p(x, z). `"unnormalised"`: it is
            an energy (a Boltzmann machine). `"bound_only"`: it is a surrogate whose expectation
            bounds ln p(x) (continuous-time diffusion); exp(log w) then means nothing. None:
            undeclared, which is taken as exact unless the trace holds a `pyro.factor`.
        plate: name of the plate over data.
        observed: name of the observed site, where there are several.
        simulate: draws `(x, z)` from the model, for bounds that need an exact posterior draw.
        log_evidence: `log_evidence(x, *context)`, exact ln p(x_n) `[N]` in nats, for `pv.Exact`; normalised,
            whatever the density is.
        annealed: `annealed()`, the `AnnealedFamily` of an unnormalised density, by which it is trained and its
            ln Z estimated.
        measure: whether p(x) is a probability `"mass"`, a `"density"` or a product of both (`"mixed"`). None: told
            by the supports of the observed sites, which a `pyro.factor` does not have.
        check: `check(x, *context)` raises a ValueError for arguments that the program does not take; asked once about
            all of them, before anything runs.
    """

    density: Density | None = None
    plate: str | None = None
    observed: str | None = None
    simulate: Callable[..., Any] | None = None
    log_evidence: Callable[..., Any] | None = None
    annealed: Callable[..., Any] | None = None
    measure: Measured | None = None
    check: Callable[..., None] | None = None

    def __post_init__(self) -> None:
        if self.density is not None and self.density not in get_args(Density):
            raise ValueError(f"expected density to be one of {get_args(Density)}, got {self.density!r}")
        if self.measure is not None and self.measure not in get_args(Measured):
            raise ValueError(f"expected measure to be one of {get_args(Measured)}, got {self.measure!r}")


def program(
    *,
    density: Density | None = None,
    plate: str | None = None,
    observed: str | None = None,
    simulate: Callable[..., Any] | None = None,
    log_evidence: Callable[..., Any] | None = None,
    annealed: Callable[..., Any] | None = None,
    measure: Measured | None = None,
    check: Callable[..., None] | None = None,
) -> Callable[[F], F]:
    """Decorates a model (function or method) with what it declares; see `Declaration`.

    On a method, `log_evidence`, `annealed` and `check` are functions that take `self` first, as methods do.

    Example:
        >>> @program(density="bound_only", plate="images")
        ... def model(x): ...
        >>> declaration_of(model).plate
        'images'
    """
    declared = Declaration(density, plate, observed, simulate, log_evidence, annealed, measure, check)

    def decorate(fn: F) -> F:
        setattr(fn, _ATTRIBUTE, declared)
        return fn

    return decorate


def with_plate(bound: Callable[..., Any], plate: str | None) -> Callable[..., Any]:
    """The same wrapper of a model, which now declares its plate over data, so that nobody has to say it again."""
    if plate is not None:
        setattr(bound, _ATTRIBUTE, replace(declaration_of(bound), plate=plate))
    return bound


def declaration_of(fn: Callable[..., Any]) -> Declaration:
    """The declaration a program carries, through `functools.partial` and bound wrappers."""
    seen: Any = fn
    partials: list[Any] = []
    while seen is not None:
        found = getattr(seen, _ATTRIBUTE, None)
        if isinstance(found, Declaration):
            return _bound(found, seen, partials)
        if isinstance(seen, functools.partial):
            partials.append(seen)
        if isinstance(seen, functools.partial) and seen.func is _context_wrap:
            seen = partials.pop().args[1]  # of a handler: partial(_context_wrap, handler, fn)
            continue
        seen = getattr(seen, "__wrapped__", None) or getattr(seen, "func", None)
    return Declaration()


def _bound(found: Declaration, fn: Any, partials: list[Any]) -> Declaration:
    """Binds the model's own object, and the arguments that it was given before, in front."""
    owner = getattr(fn, "__self__", None)

    def own(function: Callable[..., Any] | None) -> Callable[..., Any] | None:
        return function if function is None or owner is None else functools.partial(function, owner)

    exact, annealed, check = own(found.log_evidence), own(found.annealed), own(found.check)
    for partial in reversed(partials):
        if exact is not None:
            exact = functools.partial(exact, *partial.args, **partial.keywords)
        if check is not None:
            check = functools.partial(check, *partial.args, **partial.keywords)
    return replace(found, log_evidence=exact, annealed=annealed, check=check)
