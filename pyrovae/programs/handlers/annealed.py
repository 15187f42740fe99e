"""Densities known up to ln Z, joined to one whose ln Z is known: by it they are trained and normalised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

from torch import Tensor

from ..declaration import declaration_of
from ..parameters import store_of

# An inverse temperature for all x, or one for each, [...].
Beta = float | Tensor


class AnnealedFamily(Protocol):
    """p_beta(x) = exp(-F_beta(x)) / Z_beta, 0 <= beta <= 1: the program at beta = 1, at beta = 0 something known.

    A program says by `@pyrovae.program(density="unnormalised", annealed=...)` how to get its family: a function
    without arguments (on a method: of `self`). It uses the parameters of the program by the same `pyro.module` and
    `pyro.param` statements, so that they are found and trained.
    """

    def free_energy(self, x: Tensor) -> Tensor:
        """F(x) = -ln f(x) at beta = 1, nats, `[..., *event]` to `[...]`; differentiable by the parameters."""
        ...

    def free_energy_change(self, x: Tensor, old: Beta, new: Beta) -> Tensor:
        """F_new(x) - F_old(x), nats, float64."""
        ...

    def transition(self, x: Tensor, steps: int, beta: Beta = 1.0) -> Tensor:
        """Takes steps of a chain that leaves p_beta invariant; each is reversible, for AIS run backwards."""
        ...

    def start(self, num: int) -> Tensor:
        """Independent draws at beta = 0, `[num, *event]`."""
        ...

    def start_log_partition(self) -> Tensor:
        """ln Z_0 in nats, float64."""
        ...


@contextmanager
def annealed_family(model: Callable[..., Any]) -> Iterator[AnnealedFamily]:
    """Yields the family that the model declares, its parameters being those that it is bound to.

    Raises:
        ValueError: for a model that declares none.
    """
    make = declaration_of(model).annealed
    if make is None:
        raise ValueError(
            "expected a program that declares the family it is annealed along, got one that does not; try "
            "@pyrovae.program(density='unnormalised', annealed=...), or pyrovae.models.boltzmann.RBM"
        )
    store = store_of(model)
    with store.active() if store is not None else nullcontext():
        yield make()
