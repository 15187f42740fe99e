"""A categorical distribution whose categories are numbers."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor

__all__ = ["Levels"]


class Levels(TorchDistribution):
    r"""Categorical over the levels 0..L-1, as floats: :math:`\ln p(x) = \mathrm{log\,softmax}(\eta)_x`.

    The same law as `pyro.distributions.Categorical`, whose samples are integers of dtype int64 and whose
    mean is NaN, because its categories have no order.

    Args:
        logits: Unnormalised log-probabilities, `[*batch, L]`.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"logits": constraints.real_vector}

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.logits = logits
        super().__init__(logits.shape[:-1], validate_args=validate_args)

    @property
    def num_levels(self) -> int:
        """The number of levels L."""
        return self.logits.shape[-1]

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        """The integers 0..L-1."""
        return constraints.integer_interval(0, self.num_levels - 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Levels:
        """Returns the distribution with another batch shape."""
        new = self._get_checked_instance(Levels, _instance)
        new.logits = self.logits.expand(*batch_shape, self.num_levels)
        super(Levels, new).__init__(Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """Mean level, `[*batch]`."""
        levels = torch.arange(self.num_levels, dtype=self.logits.dtype, device=self.logits.device)
        return self.logits.softmax(-1) @ levels

    @property
    def mode(self) -> Tensor:
        """Most probable level, `[*batch]`."""
        return self.logits.argmax(-1).to(self.logits.dtype)

    def sample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        """Draws levels `[*sample, *batch]`."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            probs = self.logits.softmax(-1).expand(*shape, self.num_levels)
            index = torch.multinomial(probs.reshape(-1, self.num_levels), 1)
            return index.reshape(shape).to(self.logits.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability in nats, `[*sample, *batch]`; -inf of what is no level."""
        if self._validate_args:
            self._validate_sample(value)
        level = value.long().clamp(0, self.num_levels - 1)  # an index beyond ends a GPU's whole process
        index, logits = torch.broadcast_tensors(level.unsqueeze(-1), self.logits)
        found = logits.gather(-1, index[..., :1]).squeeze(-1) - self.logits.logsumexp(-1)
        return torch.where(level == value, found, -torch.inf)

    def __repr__(self) -> str:
        return f"Levels({self.num_levels}, batch_shape={tuple(self.batch_shape)})"
