"""A likelihood of data of which some numbers are missing."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pyrovae import distributions

__all__ = ["PartiallyObserved"]


class PartiallyObserved(nn.Module):
    r"""Likelihood of the numbers that are not NaN: :math:`\ln p(x|z) = \sum_{i: x_i \ne \mathrm{NaN}} \ln p_i(x_i|z)`.

    The evidence is that of the observed part, :math:`\ln \int p(z) \prod_{i\,\mathrm{observed}} p_i(x_i|z)\, dz`, exact
    where values are missing at random (Rubin 1976, https://doi.org/10.1093/biomet/63.3.581). A guide has to take NaN
    too: give its network `pyrovae.networks.TableInputs` first.

    Args:
        likelihood: p(x|z) of whole data, of independent numbers.
        fill: A value in the support for each number, `[*event]`, which stands where one is missing; no result depends
            on it.

    Raises:
        ValueError: on a call, for a likelihood whose numbers depend on each other given z.

    References:
        MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets (Mattei & Frellsen, 2019),
        https://arxiv.org/abs/1812.02633
    """

    fill: Tensor

    def __init__(self, likelihood: nn.Module, fill: Tensor) -> None:
        super().__init__()
        if not fill.isfinite().all():
            raise ValueError(
                "expected a finite value for each number of a datum as fill, got NaN or infinity"
            )
        self.likelihood = likelihood
        self.register_buffer("fill", fill.detach().clone())

    def forward(self, z: Tensor, *context: Tensor) -> Any:
        """Returns p(x|z), `batch_shape` z.shape[:-1]."""
        return distributions.PartiallyObserved(self.likelihood(z, *context), self.fill)
