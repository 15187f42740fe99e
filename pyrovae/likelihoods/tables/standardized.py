"""A likelihood of standardised data, in their own units."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pyrovae import distributions
from pyrovae.data.tables.standardization import Standardization

__all__ = ["Standardized"]


class Standardized(nn.Module):
    r"""Likelihood of data in their own units, from one of standardised data:

    .. math:: \ln p(x|z) = \ln p_t(t(x)|z) + \sum_i \ln |dt_i / dx_i| .

    The last term is what makes the evidence that of the data as they were given: standardisation does not change it.
    Guides see standardised data by `pyrovae.guides.Standardized`.

    Args:
        likelihood: p(t|z), of independent numbers, event shape `[D]`.
        units: The map t, of `data.spec.standardization`.

    Raises:
        ValueError: on a call, for a likelihood whose numbers depend on each other given z.
    """

    center: Tensor
    scale: Tensor
    log: Tensor

    def __init__(self, likelihood: nn.Module, units: Standardization) -> None:
        super().__init__()
        self.likelihood = likelihood
        for name, tensor in zip(("center", "scale", "log"), units.tensors(), strict=True):
            self.register_buffer(name, tensor)

    def forward(self, z: Tensor, *context: Tensor) -> Any:
        """Returns p(x|z), `batch_shape` z.shape[:-1]."""
        return distributions.Standardized(
            self.likelihood(z, *context), self.center.double(), self.scale.double(), self.log
        )
