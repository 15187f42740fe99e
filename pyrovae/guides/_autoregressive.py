"""One autoregressive transform, conditioned on features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pyrovae.distributions import import_zuko

from .univariate import Univariate

__all__ = ["Autoregressive"]


class Autoregressive(nn.Module):
    r"""The transform :math:`z_i \mapsto g(z_i; \theta_i)`, its parameters of earlier latents and features.

    It starts near the identity.

    Args:
        order: A permutation of 0..D-1: latent i sees the latents of lower order.
        features: Width of the features.
        hidden: Widths of the hidden layers.
        univariate: The transform g of one latent.
    """

    def __init__(self, order: Tensor, features: int, hidden: Sequence[int], univariate: Univariate) -> None:
        super().__init__()
        self.latent_dim, self.univariate = len(order), univariate
        sees = torch.cat([order[:, None] > order, torch.ones(len(order), features, dtype=torch.bool)], dim=1)
        outputs = sees.repeat_interleave(univariate.parameters, 0)
        # Tanh: it bounds the parameters whatever z is, also in the D passes of the inverse.
        self.hyper = import_zuko("nn").MaskedMLP(outputs, tuple(hidden), activation=nn.Tanh)
        with torch.no_grad():
            self.hyper[-1].weight.mul_(1e-2)
            self.hyper[-1].bias.zero_()

    def forward(self, features: Tensor) -> Any:
        """Returns the transform at features `[..., features]`; its inverse takes D passes."""
        zuko = import_zuko("transforms")
        first, *rest = self.hyper
        on_z, on_features = (first.mask * first.weight).split([self.latent_dim, features.shape[-1]], dim=1)
        # Split: the features' part is the same for every sample and pass, so it is done once a datum.
        bias = linear(features, on_features, first.bias)

        def step(z: Tensor) -> Any:
            raw = linear(z, on_z) + bias
            for layer in rest:
                raw = layer(raw)
            raw = raw.unflatten(-1, (-1, self.univariate.parameters))
            return zuko.DependentTransform(self.univariate(raw), 1)

        return zuko.AutoregressiveTransform(step, self.latent_dim)
