"""A guide that sees standardised data."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pyrovae.data.tables.standardization import Standardization
from pyrovae.units import to_standard

__all__ = ["Standardized"]


class Standardized(nn.Module):
    """Guide :math:`q(z|t(x))` of data in their own units, from one of standardised data.

    Args:
        guide: q(z|t).
        units: The map t, of `data.spec.standardization`.
    """

    center: Tensor
    scale: Tensor
    log: Tensor

    def __init__(self, guide: nn.Module, units: Standardization) -> None:
        super().__init__()
        self.guide = guide
        for name, tensor in zip(("center", "scale", "log"), units.tensors(), strict=True):
            self.register_buffer(name, tensor)

    @property
    def latent_dim(self) -> Any:
        """Number of latents."""
        return getattr(self.guide, "latent_dim", None)

    def forward(self, x: Tensor, *context: Tensor) -> Any:
        """Returns q(z|x), `batch_shape` the leading dims of x."""
        return self.guide(to_standard(x, self.center.double(), self.scale.double(), self.log), *context)
