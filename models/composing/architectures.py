"""Pairs of networks that fit a data set: an encoder, and decoders for as many outputs as a likelihood wants."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from pyrovae.data import Dataset
from pyrovae.networks import MLP, ConvDecoder, ConvEncoder, GatedMLP, Rescale, ResidualBlock

from .tables import table_inputs

Activation = Callable[[], nn.Module]


class Networks(Protocol):
    """An architecture, a dataclass: makes the two networks of a VAE for a data set."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def encoder(self, data: Dataset, context: int = 0) -> nn.Module:
        """A network `[..., *event_shape] -> [..., features]`, its `out_features` the width.

        With a context it takes a second input `[..., context]`.
        """

    def decoder(self, data: Dataset, latent_dim: int, outputs: int) -> nn.Module:
        """A network `[..., latent_dim] -> [..., outputs * prod(event_shape)]`, outputs first."""


@dataclass(frozen=True)
class Perceptrons:
    """Multi-layer perceptrons, for data of any shape; the decoder has the widths in reverse."""

    hidden: tuple[int, ...] = (128, 128)
    activation: Activation = nn.Tanh

    def encoder(self, data: Dataset, context: int = 0) -> nn.Module:
        """An `MLP` that ends in its last activation."""
        size, preprocess = _inputs(data)
        return MLP(size + context, self.hidden, activation=self.activation, preprocess=preprocess)

    def decoder(self, data: Dataset, latent_dim: int, outputs: int) -> nn.Module:
        """An `MLP` with a linear last layer."""
        size = outputs * math.prod(data.spec.event_shape)
        return MLP(latent_dim, self.hidden[::-1], size, activation=self.activation)


@dataclass(frozen=True)
class Gated:
    """Perceptrons of gated layers (Tomczak & Welling 2018, https://arxiv.org/abs/1705.07120)."""

    hidden: tuple[int, ...] = (300, 300)

    def encoder(self, data: Dataset, context: int = 0) -> nn.Module:
        """A `GatedMLP` that ends in its last gate."""
        size, preprocess = _inputs(data)
        return GatedMLP(size + context, self.hidden, preprocess=preprocess)

    def decoder(self, data: Dataset, latent_dim: int, outputs: int) -> nn.Module:
        """A `GatedMLP` with a linear last layer."""
        return GatedMLP(latent_dim, self.hidden[::-1], outputs * math.prod(data.spec.event_shape))


@dataclass(frozen=True)
class Convolutional:
    """Strided 3x3 convolutions and their mirror, for images; flat data of a known image shape are reshaped inside.

    Args:
        channels: output channels of the encoder's convolutions.
        features: width of the dense layer after them.
        activation: class of the activation.
        residual: a `ResidualBlock` at every resolution.
        decoder_channels: of the transposed convolutions; default: `channels` in reverse.
        last_stride: stride of the decoder's last convolution, 2 or 1.
    """

    channels: tuple[int, ...] = (32, 64)
    features: int = 128
    activation: Activation = nn.ReLU
    residual: bool = False
    decoder_channels: tuple[int, ...] | None = None
    last_stride: int = 2

    def encoder(self, data: Dataset, context: int = 0) -> nn.Module:
        """A `ConvEncoder`; ValueError for data that are no images."""
        return ConvEncoder(
            image_shape(data),
            self.channels,
            self.features,
            self.activation,
            context_features=context,
            preprocess=_scaled(data),
            block=ResidualBlock if self.residual else None,
        )

    def decoder(self, data: Dataset, latent_dim: int, outputs: int) -> nn.Module:
        """A `ConvDecoder`, each output `[C, H, W]`; ValueError for data that are no images."""
        c, h, w = (1, *image_shape(data))[-3:]
        return ConvDecoder(
            latent_dim,
            self.decoder_channels or self.channels[::-1],
            (outputs * c, h, w),
            self.activation,
            block=ResidualBlock if self.residual else None,
            last_stride=self.last_stride,
        )


def image_shape(data: Dataset) -> tuple[int, ...]:
    """`(H, W)` or `(C, H, W)` of one datum.

    Raises:
        ValueError: flat data of unknown image shape, or channels that do not come first.
    """
    event, known = data.spec.event_shape, data.spec.image_shape
    if data.spec.missing is not None:
        raise ValueError(
            "expected whole images for a convolutional network, got data with missing values, which it is not told of; "
            "try multi-layer perceptrons (mlp)"
        )
    if known is None:
        raise ValueError(
            f"expected images for a convolutional network, got data of shape [N, {', '.join(map(str, event))}] whose "
            "image shape is not known; try data [N, H, W] or [N, C, H, W], or multi-layer perceptrons (mlp)"
        )
    if len(event) == 3 and event[1:] != known:
        raise ValueError(f"expected images with the channels first, [N, C, H, W], got [N, {event}]")
    return event if len(event) > 1 else known


class Flatten(nn.Module):
    """Flattens the event dims: `[..., *event_shape] -> [..., prod(event_shape)]`, any number of leading dims."""

    def __init__(self, event_dims: int) -> None:
        super().__init__()
        self.event_dims = event_dims

    def forward(self, x: Tensor) -> Tensor:
        """Returns the flat tensor."""
        return x.flatten(-self.event_dims)


def _scaled(data: Dataset) -> nn.Module | None:
    """Grey levels and counts to 0..1; other data as they are."""
    return None if data.top_count is None else Rescale(1 / data.top_count)


def _inputs(data: Dataset) -> tuple[int, nn.Module | None]:
    """Width of a datum as an encoder takes it, and the module that makes it so."""
    flat, table = _flat(data), table_inputs(data)
    if table is None:
        return math.prod(data.spec.event_shape), flat
    return table.out_features, table if flat is None else nn.Sequential(flat, table)


def _flat(data: Dataset) -> nn.Module | None:
    scaled, dims = _scaled(data), len(data.spec.event_shape)
    if dims == 1:
        return scaled
    return Flatten(dims) if scaled is None else nn.Sequential(Flatten(dims), scaled)
