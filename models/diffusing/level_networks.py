"""Networks of a `LevelDenoiser`: what they add to the log-probabilities of each element's levels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyrovae.networks import ResidualMLP, UNet

from .denoisers import TIME_FEATURES, split_image, zero_last

POSITION_CHANNELS = 8


class LevelMLP(nn.Module):
    """A residual perceptron; 0 at first.

    Args:
        dim: D, number of elements.
        levels: K.
        width, blocks: of the `ResidualMLP`.
    """

    def __init__(self, dim: int, levels: int, width: int = 256, blocks: int = 2) -> None:
        super().__init__()
        self.levels = levels
        self.net = ResidualMLP(2 * dim + TIME_FEATURES, width, blocks, dim * levels)
        zero_last(self.net.last)

    def forward(self, seen: Tensor, time: Tensor) -> Tensor:
        """Returns `[..., D, K]` for `seen` `[..., 2, D]` and `time` `[..., TIME_FEATURES]`."""
        return self.net(seen.flatten(-2), time).unflatten(-1, (-1, self.levels))


class LevelUNet(nn.Module):
    """A small U-Net for images that knows where it is: some channels are learned, one number a pixel; 0 at first.

    A convolution alone cannot tell the middle of an image from its edge, where digits have nothing.

    Args:
        image_shape: `(H, W)` or `(C, H, W)`.
        levels: K.
        channels: of the resolutions; each after the first is half as large.

    Raises:
        ValueError: image sizes that cannot be halved so often.
    """

    def __init__(self, image_shape: Sequence[int], levels: int, channels: Sequence[int] = (32, 64)) -> None:
        super().__init__()
        self.colours, self.size = split_image(image_shape)
        self.levels = levels
        self.position = nn.Parameter(0.1 * torch.randn(POSITION_CHANNELS, *self.size))
        self.net = UNet(
            self.size, 2 * self.colours + POSITION_CHANNELS, self.colours * levels, channels, TIME_FEATURES
        )

    def forward(self, seen: Tensor, time: Tensor) -> Tensor:
        """Returns `[..., D, K]` for `seen` `[..., 2, D]` and `time` `[..., TIME_FEATURES]`."""
        batch = seen.shape[:-2]
        images = seen.reshape(-1, 2 * self.colours, *self.size)
        position = self.position.expand(len(images), -1, -1, -1)
        added = self.net(torch.cat([images, position], 1), time.reshape(len(images), -1))
        by_level = added.unflatten(1, (self.colours, self.levels)).movedim(2, -1)
        return by_level.reshape(*batch, -1, self.levels)
