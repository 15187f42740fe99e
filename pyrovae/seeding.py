"""`pv.seed`: initial weights that repeat."""

from __future__ import annotations

from types import TracebackType

import torch

from .checking import checked
from .devices import noise_state, put_back


class Seeded:
    """torch's generators, seeded; leaving a `with` block puts them back where they were."""

    def __init__(self, value: int) -> None:
        kind = torch.accelerator.current_accelerator(check_available=True)
        count = 0 if kind is None else torch.accelerator.device_count()
        self._devices = [torch.device(kind.type, i) for i in range(count)] if kind is not None else []
        self._before = noise_state(*self._devices)
        torch.manual_seed(value)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        put_back(self._before, *self._devices)

    def __repr__(self) -> str:
        return "pv.seed: in a `with` statement the generators are put back at its end"


@checked
def seed(seed: int = 0) -> Seeded:
    """Seeds torch's generators, by which parts are built: `pv.seed(0)`, or `with pv.seed(0):` for a block alone.

    PyTorch draws the initial weights of a module where it is made. `pv.fit(..., seed=0)` comes after that: it makes
    order and noise of the training repeat, and parameters that a program creates by `pyro.param`.

    Args:
        seed: a whole number >= 0.

    Returns:
        What a `with` statement takes: at its end the generators are as they were before the call.

    Raises:
        ValueError: another seed.

    Example:
        >>> from pyrovae.networks import MLP
        >>> with seed(0):
        ...     one = MLP(4, (8,))
        >>> with seed(0):
        ...     two = MLP(4, (8,))
        >>> bool((next(one.parameters()) == next(two.parameters())).all())
        True
    """
    return Seeded(seed)
