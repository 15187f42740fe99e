"""A residual block for convolutional networks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu


class ResidualBlock(nn.Module):
    r"""Two 3x3 convolutions beside the identity, :math:`x + (c_2 \circ r \circ c_1 \circ r)(x)`, r a ReLU.

    Without batch normalisation: with it the density of one datum would depend on the others of its batch.
    The last convolution starts at 0, so a new block is the identity.

    Args:
        channels: Channels in and out.

    References:
        Identity Mappings in Deep Residual Networks (He et al., 2016), https://arxiv.org/abs/1603.05027
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]  # it has one

    def forward(self, x: Tensor) -> Tensor:
        """Returns a tensor of the shape of x, `[N, channels, H, W]`."""
        return x + self.second(relu(self.first(relu(x))))
