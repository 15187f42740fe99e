"""A law of standardised numbers, in their own units."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from pyrovae.units import log_slope, to_standard, to_units

from ...programs.elements import elements_of
from .elements import Restricted, moments_of, name_of_law, parts_of
from .of_elements import Changed

__all__ = ["Standardized"]


class Standardized(Changed):
    r"""Law of x where t(x), standardised column by column, has the law `base`:

    .. math:: \ln p(x) = \ln p_t(t(x)) + \sum_i \ln |dt_i / dx_i| .

    Args:
        base: Law of t, of independent numbers, event shape `[D]`.
        center, scale, log: Of `pyrovae.data.Standardization`, `[D]` each.

    Raises:
        ValueError: a base whose numbers depend on each other.
    """

    def __init__(
        self, base: Any, center: Tensor, scale: Tensor, log: Tensor, validate_args: bool | None = None
    ) -> None:
        self.units = (center, scale, log)
        super().__init__(base, validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> Any:
        """The base's, in own units; positive where the logarithm is taken."""
        # A column that is not positive has no logarithm: t is NaN, which lies in no support.
        return Restricted(
            self.base.support, lambda x: to_standard(x, *self.units), parts_of(self.base.support)
        )

    @property
    def mean(self) -> Tensor:
        """Mean in own units; of logarithms where they are normal alone.

        Raises:
            NotImplementedError: logarithms of another law.
        """
        center, scale, log = self.units
        mean, variance, normal = moments_of(self.base)
        if bool((log & ~normal).any()):
            raise NotImplementedError
        half = torch.where(
            log, 0.5 * scale * variance, 0.0
        )  # ln E exp(c + s t) = c + s (mean + s variance / 2)
        return to_units(mean + half.to(mean), center, scale, log)

    def sample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        """Draws x `[*sample, *batch, D]`."""
        with torch.no_grad():
            return to_units(self.base.sample(sample_shape), *self.units)

    def log_prob_of_elements(self, value: Tensor) -> Tensor:
        """Log-density of each number, in nats."""
        return elements_of(self.base, to_standard(value, *self.units)) + log_slope(value, *self.units)

    @property
    def law_name(self) -> str:
        """Name for messages."""
        return f"{name_of_law(self.base)} in own units"
