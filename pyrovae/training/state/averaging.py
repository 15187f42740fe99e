"""An exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class MovingAverage:
    """average <- d average + (1 - d) weights after each step, d = min(decay, (1 + t) / (10 + t)).

    The factor in t forgets the initial weights early on. Polyak and Juditsky 1992; this form:
    Tieleman 2008, and the decay's start as in TensorFlow's ExponentialMovingAverage. In
    unconstrained space; buffers (running statistics) are not averaged.

    Args:
        parameters: unconstrained leaves by name, of now.
        decay: in (0, 1).

    Raises:
        ValueError: for a decay outside (0, 1).
    """

    def __init__(self, parameters: Callable[[], dict[str, Tensor]], decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"expected an EMA decay in (0, 1), got {decay}")
        self._parameters, self.decay = parameters, decay
        self.values = {k: v.detach().clone() for k, v in parameters().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes up the weights after step `step` = 0, 1, ..."""
        now = self._parameters()
        for name in now.keys() - self.values.keys():
            self.values[name] = now[name].detach().clone()
        torch._foreach_lerp_(
            list(self.values.values()), [now[k].detach() for k in self.values], self.share(step)
        )

    def share(self, step: int) -> float:
        """1 - d of step `step` = 0, 1, ...: what the weights of now count."""
        return 1 - min(self.decay, (1 + step) / (10 + step))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The program has the averaged weights in the body, and its own after."""
        now = self._parameters()
        own = {k: now[k].detach().clone() for k in self.values}
        self._put(now, self.values)
        try:
            yield
        finally:
            self._put(now, own)

    def load(self, values: dict[str, Tensor]) -> None:
        """Puts former `values` back."""
        devices = {k: v.device for k, v in self._parameters().items()}
        self.values = {k: v.detach().to(devices[k], copy=True) for k, v in values.items()}

    @staticmethod
    @torch.no_grad()
    def _put(now: dict[str, Tensor], values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            now[name].copy_(value)
