"""A program made ready to be trained: its store, its structure, its data checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from torch import nn

from ..programs import (
    ParameterStore,
    Program,
    check_support,
    derive_seed,
    inspect_program,
    module_mode,
    per_datum,
    seeded,
    store_of,
)
from ..programs.checks.finite import not_finite
from ..programs.declaration import with_plate
from ..programs.idioms.conditioning import check_laws_of_globals, given_to
from ..programs.own_memory import move_out
from ..programs.trained import warn_anew
from .batches.sources import Source


class Prepared:
    """Model and guide bound to a parameter store, inspected on their data.

    Attributes:
        store: of the parameters.
        model, guide: bound to it.
        program: on the training data. Its model and guide are what is trained: the given ones, with Pyro's idioms
            brought to one form.
        valid_program: on the validation data, if there are any.
        modules: the torch modules that ran.

    Raises:
        ValueError: for a pair that breaks the contract, or data outside the likelihood's support.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        source: Source,
        *,
        seed: int,
        plate: str | None = None,
        given: Mapping[str, Any] | None = None,
    ) -> None:
        self.store = common_store(model, guide)
        self.model = with_plate(self.store.bind(model), plate)
        self.guide = self.store.bind(guide)
        device = source.train[0].device
        start = derive_seed(seed, "initialise")
        # Parameters come to life in the first run; under the fit's seed, so that it repeats.
        with seeded(seed, "initialise", device=device), self._open() as modules:
            self.program = inspect_program(
                self.model, self.guide, *_rows(source.train), plate=plate, seed=start, given=given
            ).in_parts()
            if given:
                self.model = given_to(self.model, given)
            x = self.program.arguments.x
            if x.dtype != source.train[0].dtype:  # of another precision than the program's: said there
                source.cast(x.dtype)
            _check_ignored(self.program)
            check_laws_of_globals(self.model, self.program)
            _check_support(self.program)
            _check_finite(self.program, derive_seed(seed, "finite"))
        self.modules = modules
        if store_of(model) is None and store_of(guide) is None:
            warn_anew(self.store, model, guide)
        self.valid_program: Program | None = None
        if source.valid is not None:
            with seeded(seed, "initialise", device=device), self._open():
                self.valid_program = inspect_program(
                    self.model,
                    self.guide,
                    *_rows(source.valid),
                    plate=plate,
                    vectorised=None if self.program.is_folded else self.program.vectorised,
                )
                _check_support(self.valid_program)
        self._move_out(source)

    def _move_out(self, source: Source) -> None:
        """Leaves no parameter in the memory of the data, which a step would change."""
        parameters = self.store.unconstrained()
        rows = [t for t in (*source.train, *(source.valid or ())) if isinstance(t, torch.Tensor)]
        names = [n.replace("$$$", ".") for n, p in parameters.items() if any(p is t for t in rows)]
        if names:
            raise ValueError(
                f"expected data that stay what they are, got parameters of this program as data: {names}; try "
                "x.detach().clone() for the data, or pv.shared(...) for what all data share"
            )
        move_out(parameters.values(), source.given)

    def check_trainable(self) -> None:
        """Refuses a program without parameters."""
        if len(self.store):
            return
        found = sorted(
            {type(m).__name__ for m in self.modules if next(m.parameters(recurse=False), None) is not None}
        )
        ran = f"; {', '.join(found)} ran without pyro.module, which makes parameters known" if found else ""
        raise ValueError(
            f"expected a program with parameters to train, got none: neither pyro.param nor pyro.module{ran}; try "
            "pv.evidence for a program that is to be evaluated as it is"
        )

    @contextmanager
    def _open(self) -> Iterator[list[nn.Module]]:
        with self.store.active(), module_mode(self.model, self.guide, training=False) as modules:
            yield modules


def _rows(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Tensors to train on have one row per datum, all of them, unless they are marked."""
    return (values[0], *(per_datum(v) if isinstance(v, torch.Tensor) else v for v in values[1:]))


def _check_ignored(program: Program) -> None:
    """Refuses a guide that observes: an objective would subtract these terms, which are no part of q."""
    if program.ignored:
        raise ValueError(
            f"expected a guide without observed sites, got {list(program.ignored)}, which an ELBO would subtract as if "
            "they were drawn; try poutine.block(guide, hide=[...]), or Pyro's own objective for such a guide"
        )


def _check_support(program: Program) -> None:
    with torch.no_grad(), pyro.validation_enabled(False):
        for indices in program.arguments.chunks(2048):
            with program.on(indices) as given:
                check_support(program.traces(given, None)[1])


def _check_finite(program: Program, seed: int) -> None:
    """Refuses data without a density, such as a zero under a Gamma law, whose support has it."""
    if program.declaration.density not in (None, "exact"):
        return
    with program.quiet(seed, "finite"):
        for indices in program.arguments.chunks(2048):
            with program.on(indices) as given:
                found = not_finite(program.traces(given, None)[1], indices, observed=True)
            if found is not None:
                raise ValueError(
                    f"expected a finite density of each datum at the initial parameters, got {found}; try data inside "
                    "of the law's support, or another likelihood"
                )


def common_store(model: Callable[..., Any], guide: Callable[..., Any]) -> ParameterStore:
    """The store the programs are bound to already, or a new one."""
    bound = [s for s in (store_of(model), store_of(guide)) if s is not None]
    if not bound:
        return ParameterStore()
    if any(s is not bound[0] for s in bound):
        raise ValueError("expected model and guide bound to one parameter store, got two")
    return bound[0]
