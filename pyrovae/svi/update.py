"""The update of parameters by one optimizer: Pyro's, torch's, or the fused kernel of torch's Adam."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pyro
import torch
from pyro.infer.util import zero_grads
from torch import Tensor

from .fused import FusedStep


class Update:
    """Moves parameters by their gradients, which are gone after.

    Args:
        optim: a `pyro.optim` optimizer; or a torch optimizer, its class, a partial of one or any function
            `parameters -> torch.optim.Optimizer`.

    Attributes:
        optimizer: torch's, once there is one; None with one of Pyro's, which keep one a parameter.
        names: of parameters by id, for errors.

    Raises:
        TypeError: for an optimizer that is none of these.
    """

    def __init__(self, optim: Any) -> None:
        given = isinstance(optim, torch.optim.Optimizer)
        if not (given or callable(optim)):
            raise TypeError(
                "expected a pyro.optim optimizer, a torch optimizer or a function that makes one, got "
                f"{type(optim).__name__}; try functools.partial(torch.optim.Adam, lr=1e-3)"
            )
        self.optim = optim
        self.optimizer: torch.optim.Optimizer | None = optim if given else None
        self.names: dict[int, str] = {}
        self._known = {id(p) for g in optim.param_groups for p in g["params"]} if given else set()
        self._moved: set[int] = set()
        self._fused: FusedStep | None = None

    @property
    def is_pyros(self) -> bool:
        """Whether the optimizer is one of Pyro's."""
        return isinstance(self.optim, pyro.optim.PyroOptim)

    def __call__(
        self,
        parameters: list[Tensor],
        before: Callable[[list[Tensor]], None] | None = None,
        fused: bool = False,
    ) -> None:
        """One update of the parameters that a program asked for.

        Args:
            parameters: with their gradients.
            before: called with them before they move (clipping).
            fused: by the fused kernel, where the optimizer's arithmetic is the kernel's.

        Raises:
            ValueError: a torch optimizer that was given lacks some of them.
        """
        if not self.is_pyros:
            # As in Pyro, whose gradients are zero after a step, and not gone: momentum moves what
            # the program asks for, with a gradient or without.
            for p in parameters:
                if p.grad is not None:
                    self._moved.add(id(p))
                elif self.has_moved(p):
                    p.grad = torch.zeros_like(p)
        if before is not None:
            before(parameters)
        if self.is_pyros:
            self.optim(parameters)
            zero_grads(parameters)
            return
        optimizer = self.torch_optimizer(parameters)
        if fused:
            self.fused(parameters)()
        else:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def has_moved(self, p: Tensor) -> bool:
        """Whether a parameter had a gradient before, in a run that was resumed too: momentum moves it."""
        return id(p) in self._moved or (self.optimizer is not None and bool(self.optimizer.state.get(p)))

    def will_move(self, parameters: Iterable[Tensor]) -> None:
        """Notes parameters that others give gradients, and move by this optimizer."""
        self._moved.update(map(id, parameters))

    def fused(self, parameters: list[Tensor]) -> FusedStep:
        """The update without the optimizer's bookkeeping."""
        optimizer = self.torch_optimizer(parameters)
        if self._fused is None:
            self._fused = FusedStep(optimizer, lambda p: self.names.get(id(p)))
        return self._fused

    def torch_optimizer(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The one torch optimizer over all parameters met so far; new ones join it."""
        new = [p for p in parameters if id(p) not in self._known and p.requires_grad]
        if new and isinstance(self.optim, torch.optim.Optimizer):
            shapes = [tuple(p.shape) for p in new[:5]]
            raise ValueError(
                f"expected an optimizer over all parameters of the program, got one without {len(new)} of them "
                f"(shapes {shapes}); try functools.partial(torch.optim.Adam, lr=1e-3), and pyro.clear_param_store() "
                "where an earlier program has left parameters of the same names in Pyro's store"
            )
        self._known.update(id(p) for p in new)
        if self.optimizer is None:
            self.optimizer = self.optim(new)
            if not isinstance(self.optimizer, torch.optim.Optimizer):
                raise TypeError(
                    f"expected optim(parameters) to be a torch optimizer, got {type(self.optimizer)}"
                )
        elif new:
            self.optimizer.add_param_group({"params": new})
        return self.optimizer

    def __getstate__(self) -> dict[str, Any]:
        """All but what is bound to tensors at hand, which a copy binds anew."""
        return vars(self) | {"_fused": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self.optimizer is not None:  # tensors of a copy have other ids
            self._known = {id(p) for g in self.optimizer.param_groups for p in g["params"]}
            self._moved = set(map(id, self.optimizer.state))
