"""Learning rates and options by parameter group, and gradient clipping."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyro
import torch
from torch import Tensor

from .schedules import Schedule, as_schedule

Adam = functools.partial(torch.optim.Adam, eps=1e-7)
Groups = Mapping[str, Mapping[str, Any]]


class GroupedOptimizer:
    """A function `parameters -> optimizer` that gives parameters options by their names.

    Args:
        optim: a torch optimizer class, or a function that takes parameter groups.
        names: leaf tensor -> its names, as they are when the optimizer is made.
        groups: glob of names (`"prior*"`, with `.` or Pyro's `$$$`) -> options; the first that
            fits counts. `lr` may be a schedule. What fits none comes first, in one group.
    """

    def __init__(self, optim: Any, names: Callable[[], dict[str, Tensor]], groups: Groups) -> None:
        self.optim, self.names, self.groups = optim, names, groups
        self.schedules: list[Schedule | None] = []

    def __call__(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """Makes the optimizer.

        Raises:
            ValueError: for a glob that no parameter fits first.
        """
        names = self.names()
        globs = {id(p): self._glob(n) for n, p in reversed(names.items())}
        members: dict[str | None, list[Tensor]] = {None: [], **{glob: [] for glob in self.groups}}
        for p in parameters:
            members[globs.get(id(p))].append(p)
        unused = [glob for glob in self.groups if not members[glob]]
        if unused:
            known = sorted(n.replace("$$$", ".") for n in names)
            raise ValueError(f"expected groups that fit parameters, got {unused}; the parameters are {known}")
        made: list[dict[str, Any]] = []
        for glob, params in members.items():
            if not params:
                continue
            options = {} if glob is None else dict(self.groups[glob])
            lr = options.pop("lr", None)
            self.schedules.append(None if lr is None else as_schedule(lr))
            made.append({"params": params, **options})
        optimizer: torch.optim.Optimizer = self.optim(made)
        return optimizer

    def _glob(self, name: str) -> str | None:
        spellings = (name, name.replace("$$$", "."))
        fits = (g for g in self.groups if any(fnmatch.fnmatchcase(s, g) for s in spellings))
        return next(fits, None)


def with_groups(optim: Any, names: Callable[[], dict[str, Tensor]], groups: Groups | None) -> Any:
    """`optim` for `pv.SVI`, with options by parameter name where there are any.

    Raises:
        ValueError: for groups with an optimizer that is made already, or one of Pyro's.
    """
    if not groups:
        return optim
    if isinstance(optim, torch.optim.Optimizer | pyro.optim.PyroOptim) or not callable(optim):
        raise ValueError(
            f"expected a torch optimizer class (or a function that makes one) with groups, got {optim!r}; try "
            "functools.partial(torch.optim.Adam, lr=1e-3)"
        )
    return GroupedOptimizer(optim, names, groups)


class Rates:
    """The learning rates of an optimizer's groups over the epochs.

    Args:
        default: rate of the groups without one of their own; None leaves them the optimizer's.
        optim: as given to `pv.SVI`; a `GroupedOptimizer` knows its groups' rates.
    """

    def __init__(self, default: Schedule | None, optim: Any) -> None:
        self.default = default
        self.own: list[Schedule | None] = optim.schedules if isinstance(optim, GroupedOptimizer) else []
        self._given: dict[int, float] = {}

    def at(self, optimizer: torch.optim.Optimizer, epoch: float, factor: float) -> list[float]:
        """Every group's rate at an epoch, times `factor`.

        Raises:
            ValueError: for a rate below zero, or NaN.
        """
        rates = []
        for i, group in enumerate(optimizer.param_groups):
            schedule = (self.own[i] if i < len(self.own) else None) or self.default
            if schedule is None:
                rate = self._given.setdefault(i, float(group["lr"]))
            else:
                rate = schedule(epoch)
            if not rate >= 0:
                raise ValueError(f"expected a learning rate >= 0, got {rate} at epoch {epoch:g}")
            rates.append(rate * factor)
        return rates

    def apply(self, optimizer: torch.optim.Optimizer, epoch: float, factor: float) -> None:
        """Sets them; raises as `at`."""
        for group, rate in zip(optimizer.param_groups, self.at(optimizer, epoch, factor), strict=True):
            if isinstance(group["lr"], Tensor):  # of a capturable optimizer
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate


def clipper(norm: float | None) -> Callable[[list[Tensor]], Any] | None:
    """A hook between backward and step that scales gradients down to a total norm.

    Pascanu et al. 2013, https://arxiv.org/abs/1211.5063.

    Raises:
        ValueError: for a norm that is not positive.
    """
    if norm is None:
        return None
    if not norm > 0:
        raise ValueError(f"expected clip_norm > 0, got {norm}")
    return functools.partial(torch.nn.utils.clip_grad_norm_, max_norm=norm)
