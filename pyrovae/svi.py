"""A drop-in for `pyro.infer.SVI` that also takes torch optimizers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pyro
import torch
from pyro.infer.elbo import ELBO as PyroELBO
from pyro.infer.util import torch_item, zero_grads
from torch import Tensor

from .programs import capture_parameters

OptimizerFactory = Callable[[Iterable[Tensor]], torch.optim.Optimizer]


class SVI:
    """Stochastic variational inference: the signature and meaning of `pyro.infer.SVI`.

    Args:
        model, guide: Pyro programs.
        optim: a `pyro.optim` optimizer; or a torch optimizer, its class, a partial of one or any
            function `parameters -> torch.optim.Optimizer`. The torch forms hold all parameters
            in ONE optimizer (Pyro makes one object per parameter, which costs more than the
            arithmetic on small networks).
        loss: one of Pyro's ELBOs, or a function `(model, guide, *args) -> loss`.
        loss_and_grads: as in Pyro; by default the loss's own.

    Example:
        >>> import functools
        >>> from pyro.infer import Trace_ELBO
        >>> adam = functools.partial(torch.optim.Adam, lr=1e-3)
        >>> svi = SVI(lambda: None, lambda: None, adam, Trace_ELBO())

    Raises:
        TypeError: for an optimizer that is none of these.
        ValueError: at the first step, where a given torch optimizer lacks parameters of the program.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        optim: Any,
        loss: Any,
        loss_and_grads: Callable[..., Any] | None = None,
    ) -> None:
        given = isinstance(optim, torch.optim.Optimizer)
        if not (given or callable(optim)):
            raise TypeError(
                "expected a pyro.optim optimizer, a torch optimizer or a function that makes one, got "
                f"{type(optim).__name__}; try functools.partial(torch.optim.Adam, lr=1e-3)"
            )
        self.model = model
        self.guide = guide
        self.optim = optim
        self.optimizer: torch.optim.Optimizer | None = optim if given else None
        self._known = {id(p) for g in optim.param_groups for p in g["params"]} if given else set()
        if isinstance(loss, PyroELBO):
            elbo: Any = loss
            self.loss, self.loss_and_grads = elbo.loss, loss_and_grads or elbo.loss_and_grads
        else:
            self.loss, self.loss_and_grads = loss, loss_and_grads or _with_backward(loss)

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """One gradient step; returns the loss, summed over the batch, in nats."""
        with capture_parameters() as parameters:
            loss = self.loss_and_grads(self.model, self.guide, *args, **kwargs)
        if isinstance(self.optim, pyro.optim.PyroOptim):
            self.optim(parameters)
            zero_grads(parameters)
        else:
            self.torch_optimizer(parameters).step()
            assert self.optimizer is not None
            self.optimizer.zero_grad(set_to_none=True)
        return type(loss)(map(torch_item, loss)) if isinstance(loss, tuple) else torch_item(loss)

    def torch_optimizer(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The one torch optimizer over all parameters met so far; new ones join it."""
        new = [p for p in parameters if id(p) not in self._known and p.requires_grad]
        if new and isinstance(self.optim, torch.optim.Optimizer):
            shapes = [tuple(p.shape) for p in new[:5]]
            raise ValueError(
                f"expected an optimizer over all parameters of the program, got one without {len(new)} of them "
                f"(shapes {shapes}); try functools.partial(torch.optim.Adam, lr=1e-3)"
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

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> Any:
        """The loss without a step, summed over the batch, in nats."""
        with torch.no_grad():
            loss = self.loss(self.model, self.guide, *args, **kwargs)
        return type(loss)(map(torch_item, loss)) if isinstance(loss, tuple) else torch_item(loss)


def _with_backward(loss: Callable[..., Any]) -> Callable[..., Any]:
    def loss_and_grads(*args: Any, **kwargs: Any) -> Any:
        value = loss(*args, **kwargs)
        if getattr(value, "requires_grad", False):
            value.backward(retain_graph=True)
        return value

    return loss_and_grads
