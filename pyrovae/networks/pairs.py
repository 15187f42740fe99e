"""Ready pairs of convolutional encoder and decoder."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from .conv import ConvDecoder, ConvEncoder
from .residual import ResidualBlock


def keras_conv_pair(
    latent_dim: int, image_shape: Sequence[int] = (28, 28), preprocess: nn.Module | None = None
) -> tuple[ConvEncoder, ConvDecoder]:
    """The pair of the Keras example: 32 and 64 filters, a dense layer of 16; back through 64, 64, 32.

    Convolutions are 3x3 of stride 2 with ReLU; the decoder's last one, to the image, has stride 1. One
    difference: the output has one bias for each pixel, not for each channel (`set_output_bias`).

    Source:
        Variational AutoEncoder (Chollet, 2020), https://keras.io/examples/generative/vae/
    """
    encoder = ConvEncoder(image_shape, (32, 64), 16, preprocess=preprocess)
    return encoder, ConvDecoder(latent_dim, (64, 64, 32), image_shape, last_stride=1)


def residual_conv_pair(
    latent_dim: int,
    image_shape: Sequence[int] = (28, 28),
    channels: Sequence[int] = (32, 64),
    out_features: int = 128,
    preprocess: nn.Module | None = None,
) -> tuple[ConvEncoder, ConvDecoder]:
    """A small strided residual network and its mirror: a `ResidualBlock` at every resolution."""
    encoder = ConvEncoder(image_shape, channels, out_features, preprocess=preprocess, block=ResidualBlock)
    return encoder, ConvDecoder(latent_dim, tuple(channels)[::-1], image_shape, block=ResidualBlock)
