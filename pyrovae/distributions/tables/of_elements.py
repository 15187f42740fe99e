"""Laws that are known by the log-probability of each number of an event."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pyro.distributions import TorchDistribution
from torch import Size, Tensor

from ...programs.elements import check_elements
from .elements import name_of_law

__all__ = ["Changed", "OfElements"]


class OfElements(TorchDistribution):
    """Law of events of independent numbers; a subclass has `log_prob_of_elements`."""

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def log_prob_of_elements(self, value: Tensor) -> Tensor:
        """Log-probability of each number in nats, `[*sample, *batch, *event]`."""
        raise NotImplementedError

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability in nats, `[*sample, *batch]`."""
        if self._validate_args:
            self._validate_sample(value)
        return self.log_prob_of_elements(value).flatten(-len(self.event_shape)).sum(-1)


class Changed(OfElements):
    """Law made of one other law of the same events, `base`.

    Raises:
        ValueError: a base whose numbers depend on each other.
    """

    def __init__(self, base: Any, validate_args: bool | None = None) -> None:
        check_elements(base)
        self.base = base
        super().__init__(base.batch_shape, base.event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        """Returns the distribution with another batch shape."""
        new: Self = self._get_checked_instance(type(self), _instance)
        new.__dict__.update(self.__dict__)
        new.base = self.base.expand(batch_shape)
        OfElements.__init__(new, Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def column_kinds(self) -> list[str] | None:
        """Whether each number has a "mass" or a "density", where the base says it."""
        return getattr(self.base, "column_kinds", None)

    @property
    def law_name(self) -> str:
        """Name for messages."""
        return name_of_law(self.base)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base})"
