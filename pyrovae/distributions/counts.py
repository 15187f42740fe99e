"""A binomial whose number of trials is one integer for all elements."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor
from torch.nn.functional import logsigmoid

__all__ = ["Counts"]

MANY = 4096


class Counts(TorchDistribution):
    r"""Binomial counts 0..n with one n: :math:`\ln p(x) = \ln \binom{n}{x} + x \ln p + (n - x) \ln (1 - p)`.

    The same law as `pyro.distributions.Binomial`, for data whose n never changes (grey levels). The binomial
    coefficient is worked out on the data alone, in float64, not once more for every particle.

    Args:
        total_count: The number of trials n.
        logits: Log-odds of p, any shape.

    Raises:
        ValueError: total_count < 1.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"logits": constraints.real}

    def __init__(self, total_count: int, logits: Tensor, validate_args: bool | None = None) -> None:
        if total_count < 1:
            raise ValueError(f"expected total_count >= 1, got {total_count}")
        self.total_count, self.logits = total_count, logits
        super().__init__(logits.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        """The integers 0..n."""
        return constraints.integer_interval(0, self.total_count)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Counts:
        """Returns the distribution with another batch shape."""
        new = self._get_checked_instance(Counts, _instance)
        new.total_count, new.logits = self.total_count, self.logits.expand(batch_shape)
        super(Counts, new).__init__(Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """Mean, n p."""
        return self.total_count * self.logits.sigmoid()

    @property
    def variance(self) -> Tensor:
        """Variance, n p (1 - p)."""
        return self.mean * (-self.logits).sigmoid()

    def sample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        """Draws counts `[*sample, *batch]`."""
        with torch.no_grad():
            p = self.logits.sigmoid().expand(Size(sample_shape) + self.batch_shape)
            return torch.binomial(torch.full_like(p, self.total_count), p)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability in nats, `[*sample, *batch]`."""
        if self._validate_args:
            self._validate_sample(value)
        n, x = self.total_count, value.double()
        ln_coefficient = torch.lgamma(x.new_tensor(n + 1.0)) - torch.lgamma(x + 1) - torch.lgamma(n - x + 1)
        # Of many trials the two terms are large and cancel: float32 would leave .1 nats of a million.
        logits = self.logits.double() if n > MANY else self.logits
        value = x.to(logits.dtype)
        # Two logsigmoids: x * logit - n * softplus(logit) cancels in float32 where p is near 0 or 1.
        ln_trials = value * logsigmoid(logits) + (n - value) * logsigmoid(-logits)
        return (ln_trials + ln_coefficient.to(logits.dtype)).to(self.logits.dtype)

    def __repr__(self) -> str:
        return f"Counts(total_count={self.total_count}, batch_shape={tuple(self.batch_shape)})"
