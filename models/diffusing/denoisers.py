"""Denoisers: networks from z_t and gamma_t to the noise in z_t."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from pyrovae.networks import FourierFeatures, ResidualMLP, UNet

TIME_FEATURES = 32


class Denoiser(Protocol):
    """Interface of a diffusion's network."""

    def __call__(self, z: Tensor, gamma: Tensor) -> Tensor:
        """Noise `[..., D]` in `z` `[..., D]` at -ln SNR `gamma` `[...]`."""


class MLPDenoiser(nn.Module):
    """A residual perceptron of z, its Fourier features and the time: sigma_t z + f(z, gamma_t), f = 0 at first.

    Args:
        dim: D.
        width, blocks: of the `ResidualMLP`.
        frequencies: exponents n of the features sin(2^n pi z), cos(2^n pi z).

    Raises:
        ValueError: on a call, for inputs of another width.
    """

    def __init__(
        self, dim: int, width: int = 256, blocks: int = 3, frequencies: Sequence[int] = (0, 1)
    ) -> None:
        super().__init__()
        self.fourier = FourierFeatures(frequencies)
        self.net = ResidualMLP(dim * self.fourier.factor + TIME_FEATURES, width, blocks, dim)
        zero_last(self.net.last)

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        """Returns the noise `[..., D]`."""
        return _start(z, gamma) + self.net(self.fourier(z), time_features(gamma))


class UNetDenoiser(nn.Module):
    """A small U-Net for images: sigma_t z + f(z, gamma_t), f = 0 at first.

    Args:
        image_shape: `(H, W)` or `(C, H, W)`.
        channels: of the resolutions; each after the first is half as large.
        frequencies: exponents of the Fourier features, which are input channels.

    Raises:
        ValueError: image sizes that cannot be halved so often.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        channels: Sequence[int] = (32, 64),
        frequencies: Sequence[int] = (0, 1),
    ) -> None:
        super().__init__()
        colours, size = split_image(image_shape)
        self.image_shape = (colours, *size)
        self.fourier = FourierFeatures(frequencies)
        self.net = UNet(size, colours * self.fourier.factor, colours, channels, TIME_FEATURES)

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        """Returns the noise `[..., D]`."""
        image = self.fourier(z.reshape(-1, *self.image_shape).movedim(1, -1)).movedim(-1, 1)
        time = time_features(gamma).expand(*z.shape[:-1], -1).reshape(len(image), -1)
        return _start(z, gamma) + self.net(image, time).reshape(z.shape)


def time_features(gamma: Tensor) -> Tensor:
    """Sines and cosines of -ln SNR, `[...] -> [..., 32]`; wave lengths from 1 to 60."""
    lengths = torch.logspace(0, math.log10(60), TIME_FEATURES // 2, dtype=gamma.dtype, device=gamma.device)
    angles = 2 * math.pi * gamma.unsqueeze(-1) / lengths
    return torch.cat([angles.sin(), angles.cos()], -1)


def _start(z: Tensor, gamma: Tensor) -> Tensor:
    """E[epsilon | z_t] for data of unit variance."""
    return torch.sigmoid(gamma).sqrt().unsqueeze(-1) * z


def split_image(image_shape: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """Channels and `(H, W)` of `(H, W)` or `(C, H, W)`."""
    shape = tuple(image_shape)
    return (shape[0], shape[1:]) if len(shape) == 3 else (1, shape)


def zero_last(layer: nn.Linear | None) -> None:
    """A new network gives 0."""
    assert layer is not None
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
