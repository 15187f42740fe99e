"""A base distribution pushed through transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor

__all__ = ["FlowDistribution"]


class FlowDistribution(TorchDistribution):
    r"""A flow :math:`z = f_T \circ \dots \circ f_1(\epsilon)` that remembers the density of its last sample.

    .. math:: \ln q(z) = \ln p(\epsilon) - \sum_t \ln |\det \partial f_t| .

    The log-density of the very tensor that was sampled last costs nothing more; of any other value it goes
    through the inverse. An autoregressive transform takes one pass in its own direction and D passes in the
    other: a guide gives transforms as they are (fast to sample), a prior their inverses (fast to score).

    `pyro.contrib.zuko.ZukoToPyro` is not used here: it has neither `sample`, `rsample` nor `support`, which
    mixtures, HMC and the evidence estimators need.

    Args:
        base: Distribution over vectors, `event_shape` (D,).
        transforms: Transforms with `call_and_ladj` (zuko's), in sampling order; their parameters broadcast
            against the base's batch shape.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, base: Any, transforms: Sequence[Any], validate_args: bool | None = None) -> None:
        self.base, self.transforms = base, tuple(transforms)
        self._last: tuple[Tensor, Tensor, bool] | None = None
        super().__init__(base.batch_shape, base.event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> FlowDistribution:
        """Returns the flow with an expanded base; each batch element has its own noise."""
        new = self._get_checked_instance(FlowDistribution, _instance)
        new.base, new.transforms, new._last = self.base.expand(Size(batch_shape)), self.transforms, None
        super(FlowDistribution, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        """Draws `[*sample, *batch, D]` in one pass a transform, and keeps its log-density."""
        z = self.base.rsample(sample_shape)
        log_prob = self.base.log_prob(z)
        for transform in self.transforms:
            z, ladj = transform.call_and_ladj(z)
            log_prob = log_prob - ladj
        self._last = (z, log_prob, torch.is_grad_enabled())
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats, `[*sample, *batch]`."""
        if self._last is not None:
            own, log_prob, with_grad = self._last
            # The grad mode: sample() runs without gradients, so the value it kept has none to give.
            if own is value and (with_grad or not torch.is_grad_enabled()):
                return log_prob
        if self._validate_args:
            self._validate_sample(value)
        z, total = value, value.new_zeros(())
        for transform in reversed(self.transforms):
            z, ladj = transform.inv.call_and_ladj(z)
            total = total + ladj
        return self.base.log_prob(z) + total

    def __repr__(self) -> str:
        return f"FlowDistribution(transforms={len(self.transforms)}, shape={tuple(self.shape())})"
