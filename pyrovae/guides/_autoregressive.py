"""One affine autoregressive transform, conditioned on features."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

__all__ = ["AutoregressiveAffine"]

MIN_SLOPE = 1e-2


def _zuko(module: str) -> Any:
    """Imports a module of zuko, and undoes its switching off argument validation for the whole process."""
    validate = torch.distributions.Distribution._validate_args
    try:
        return importlib.import_module(f"zuko.{module}")
    finally:
        torch.distributions.Distribution.set_default_validate_args(validate)


class AutoregressiveAffine(nn.Module):
    r"""The transform :math:`z_i \mapsto z_i\, e^{a_i} + b_i`, a and b of earlier latents and features.

    It starts near the identity, with :math:`|a| < \ln 100`.

    Args:
        order: A permutation of 0..D-1: latent i sees the latents of lower order.
        features: Width of the features.
        hidden: Widths of the hidden layers.
    """

    def __init__(self, order: Tensor, features: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.latent_dim = len(order)
        sees = torch.cat([order[:, None] > order, torch.ones(len(order), features, dtype=torch.bool)], dim=1)
        # Tanh: it bounds shifts and slopes whatever z is, also in the D passes of the inverse.
        self.hyper = _zuko("nn").MaskedMLP(sees.repeat_interleave(2, 0), tuple(hidden), activation=nn.Tanh)
        with torch.no_grad():
            self.hyper[-1].weight.mul_(1e-2)
            self.hyper[-1].bias.zero_()

    def forward(self, features: Tensor) -> Any:
        """Returns the transform at features `[..., features]`; its inverse takes D passes."""
        zuko = _zuko("transforms")
        first, *rest = self.hyper
        on_z, on_features = (first.mask * first.weight).split([self.latent_dim, features.shape[-1]], dim=1)
        # Split: the features' part is the same for every sample and pass, so it is done once a datum.
        bias = linear(features, on_features, first.bias)

        def step(z: Tensor) -> Any:
            raw = linear(z, on_z) + bias
            for layer in rest:
                raw = layer(raw)
            shift, slope = raw.unflatten(-1, (-1, 2)).unbind(-1)
            return zuko.DependentTransform(zuko.MonotonicAffineTransform(shift, slope, slope=MIN_SLOPE), 1)

        return zuko.AutoregressiveTransform(step, self.latent_dim)
