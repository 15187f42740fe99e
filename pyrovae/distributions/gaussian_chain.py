"""A Gaussian Markov chain as one law of whole paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

Step = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]


class GaussianChain(TorchDistribution):
    """z_1, ..., z_T with z_t ~ N(m(z_{t-1}, s_t), diag v(z_{t-1}, s_t)^2), of which each path has its own length.

    Steps beyond the length are N(0, 1), independent of all: where model and guide are both such chains of one length,
    they cancel in ln p - ln q, and every step has a proper law. Paths are drawn step by step, and scored at once.

    Args:
        step: `step(before, seen)` gives location and scale of z_t: `before` `[..., T or none, D]`, z_{t-1}; `seen` what
            the chain is given at t, or None.
        start: z_0 `[D]`, before the first step.
        lengths: of each path `[N]`, whole numbers in 1 ... num_steps.
        num_steps: T.
        seen: `[N, T, H]`, or None.

    Example:
        >>> step = lambda before, seen: (0.9 * before, torch.ones_like(before))
        >>> chain = GaussianChain(step, torch.zeros(2), torch.tensor([3, 5]), 5)
        >>> chain.batch_shape, chain.event_shape, chain.log_prob(chain.sample((4,))).shape
        (torch.Size([2]), torch.Size([5, 2]), torch.Size([4, 2]))
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012, as torch has it
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(
        self,
        step: Step,
        start: Tensor,
        lengths: Tensor,
        num_steps: int,
        seen: Tensor | None = None,
        batch_shape: torch.Size | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.step, self.start, self.lengths, self.seen = step, start, lengths, seen
        batch = lengths.shape if batch_shape is None else batch_shape
        super().__init__(batch, torch.Size((num_steps, start.shape[-1])), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> GaussianChain:
        """The same law in a larger batch."""
        num_steps = self.event_shape[0]
        return GaussianChain(
            self.step, self.start, self.lengths, num_steps, self.seen, torch.Size(batch_shape), False
        )

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Paths `[*sample, *batch, T, D]`."""
        shape = (*torch.Size(sample_shape), *self.batch_shape, self.event_shape[1])
        z, path = self.start.expand(shape), []
        for t in range(self.event_shape[0]):
            loc, scale = self._law(z, None if self.seen is None else self.seen[..., t, :], t)
            z = loc + scale * torch.randn(shape, dtype=self.start.dtype, device=self.start.device)
            path.append(z)
        return torch.stack(path, -2)

    def log_prob(self, value: Tensor) -> Tensor:
        """ln of the density of whole paths, nats."""
        first = self.start.expand(*value.shape[:-2], 1, value.shape[-1])
        before = torch.cat([first, value[..., :-1, :]], -2)
        loc, scale = self._law(before, self.seen, None)
        return torch.distributions.Normal(loc, scale, validate_args=False).log_prob(value).sum((-2, -1))

    def _law(self, before: Tensor, seen: Tensor | None, t: int | None) -> tuple[Tensor, Tensor]:
        loc, scale = self.step(before, seen)
        if t is None:
            inside = torch.arange(self.event_shape[0], device=loc.device) < self.lengths.unsqueeze(-1)
        else:
            inside = t < self.lengths
        inside = inside.unsqueeze(-1)
        return torch.where(inside, loc, torch.zeros_like(loc)), torch.where(
            inside, scale, torch.ones_like(scale)
        )
