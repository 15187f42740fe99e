"""A law of events of which some numbers are not observed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ...programs.elements import elements_of
from .elements import Restricted, parts_of
from .of_elements import Changed

__all__ = ["PartiallyObserved"]


class PartiallyObserved(Changed):
    r"""Law of the numbers that are there: :math:`\ln p(x) = \sum_{i: x_i \ne \mathrm{NaN}} \ln p_i(x_i)`.

    NaN stands for "not observed"; of an event without a number it is ln 1 = 0. Draws have all numbers.

    Args:
        base: Law of whole events, of independent numbers.
        fill: A value in the base's support, `[*event]`, at which it is worked out where a number is missing; the
            result does not depend on it.

    Raises:
        ValueError: a base whose numbers depend on each other.

    References:
        MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets (Mattei & Frellsen, 2019),
        https://arxiv.org/abs/1812.02633
    """

    def __init__(self, base: Any, fill: Tensor, validate_args: bool | None = None) -> None:
        self.fill = fill
        super().__init__(base, validate_args)

    def _filled(self, value: Tensor) -> Tensor:
        return torch.where(value.isnan(), self.fill.to(value), value)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> Any:
        """The base's, for the numbers that are there."""
        return Restricted(self.base.support, self._filled, parts_of(self.base.support))

    @property
    def mean(self) -> Tensor:
        """Mean of whole events."""
        mean: Tensor = self.base.mean
        return mean

    def sample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        """Draws whole events `[*sample, *batch, *event]`."""
        found: Tensor = self.base.sample(sample_shape)
        return found

    def log_prob_of_elements(self, value: Tensor) -> Tensor:
        """Log-probability of each number in nats, 0 where it is missing."""
        # Filled before the law sees it: the gradient of a masked NaN would be NaN.
        return torch.where(value.isnan(), 0.0, elements_of(self.base, self._filled(value)))
