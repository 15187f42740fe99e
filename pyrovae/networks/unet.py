"""A small U-Net."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import silu


class UNet(nn.Module):
    """Down, and up again with connections across; every block hears the time.

    Each datum is normalised by itself (group normalisation): its density does not depend on its batch.
    The last convolution starts at 0.

    Args:
        image_shape: `(H, W)`.
        in_channels, out_channels: of the images.
        channels: of the resolutions, each half as large as the one before.
        context: width of the context (features of the time).

    Raises:
        ValueError: no channels, or image sizes that cannot be halved `len(channels) - 1` times.

    References:
        U-Net (Ronneberger et al., 2015), https://arxiv.org/abs/1505.04597
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        context: int,
    ) -> None:
        super().__init__()
        if not channels or min(channels) < 1:
            raise ValueError(f"expected channels >= 1 for each resolution, got {tuple(channels)}")
        by = 2 ** (len(channels) - 1)
        if any(size % by for size in image_shape):
            raise ValueError(
                f"expected image sizes that can be halved {len(channels) - 1} times (multiples of {by}), got "
                f"{tuple(image_shape)}; try fewer channels, or padding"
            )
        self.first = nn.Conv2d(in_channels, channels[0], 3, padding=1)
        self.down = nn.ModuleList(_Block(c, c, context) for c in channels[:-1])
        self.halve = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(channels))
        self.middle = nn.ModuleList(_Block(channels[-1], channels[-1], context) for _ in range(2))
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairwise(channels))
        self.up = nn.ModuleList(_Block(2 * c, c, context) for c in channels[:-1])
        self.norm = nn.GroupNorm(_groups(channels[0]), channels[0])
        self.last = nn.Conv2d(channels[0], out_channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]  # it has one

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Returns images `[N, out_channels, H, W]` for `[N, in_channels, H, W]` and context `[N, context]`."""
        h = self.first(x)
        across = []
        for block, halve in zip(self.down, self.halve, strict=True):
            h = block(h, context)
            across.append(h)
            h = halve(h)
        for block in self.middle:
            h = block(h, context)
        for block, enlarge, beside in zip(
            reversed(self.up),
            reversed(self.enlarge),
            reversed(across),
            strict=True,
        ):
            h = block(torch.cat([enlarge(h), beside], 1), context)
        return self.last(silu(self.norm(h)))


class _Block(nn.Module):
    """Two convolutions beside a 1x1 one, with scale and shift from the context in between."""

    def __init__(self, fan_in: int, fan_out: int, context: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_groups(fan_in), fan_in)
        self.conv = nn.Conv2d(fan_in, fan_out, 3, padding=1)
        self.film = nn.Linear(context, 2 * fan_out)
        self.second_norm = nn.GroupNorm(_groups(fan_out), fan_out)
        self.second = nn.Conv2d(fan_out, fan_out, 3, padding=1)
        self.beside = nn.Identity() if fan_in == fan_out else nn.Conv2d(fan_in, fan_out, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        scale, shift = self.film(silu(context)).unsqueeze(-1).unsqueeze(-1).chunk(2, 1)
        h = self.conv(silu(self.norm(x)))
        return self.beside(x) + self.second(silu(self.second_norm(h) * (1 + scale) + shift))


def _groups(channels: int) -> int:
    return next(g for g in (8, 4, 2, 1) if channels % g == 0)
