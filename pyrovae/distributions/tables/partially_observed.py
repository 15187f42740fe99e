"""A law of events of which some numbers are not observed."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints

from ...programs.elements import check_elements, elements_of
from .elements import Restricted, name_of_law, parts_of

__all__ = ["PartiallyObserved"]


class PartiallyObserved(TorchDistribution):
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

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, base: Any, fill: Tensor, validate_args: bool | None = None) -> None:
        check_elements(base)
        self.base, self.fill = base, fill
        super().__init__(base.batch_shape, base.event_shape, validate_args=validate_args)

    def _filled(self, value: Tensor) -> Tensor:
        return torch.where(value.isnan(), self.fill.to(value), value)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> Any:
        """The base's, for the numbers that are there."""
        return Restricted(self.base.support, self._filled, parts_of(self.base.support))

    def expand(self, batch_shape: Any, _instance: Any = None) -> PartiallyObserved:
        """Returns the distribution with another batch shape."""
        new = self._get_checked_instance(PartiallyObserved, _instance)
        new.base, new.fill = self.base.expand(batch_shape), self.fill
        super(PartiallyObserved, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

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

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of what is observed in nats, `[*sample, *batch]`."""
        if self._validate_args:
            self._validate_sample(value)
        return self.log_prob_of_elements(value).flatten(-len(self.event_shape)).sum(-1)

    @property
    def column_kinds(self) -> list[str] | None:
        """Whether each number has a "mass" or a "density", where the base says it."""
        found: list[str] | None = getattr(self.base, "column_kinds", None)
        return found

    @property
    def law_name(self) -> str:
        """Name for messages."""
        return name_of_law(self.base)

    def __repr__(self) -> str:
        return f"PartiallyObserved({self.base})"
