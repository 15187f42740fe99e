"""The residual multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from .inputs import join


class ResidualMLP(nn.Module):
    r"""A perceptron of residual blocks: :math:`h \leftarrow h + W_2\,a(W_1\,a(h))`, a the activation.

    A linear layer brings the inputs to `width`, blocks follow, and an activation ends it. The last layer of
    each block starts at 0, so a new network is one layer, however many blocks it has: chains of many of
    them train. Takes and checks its inputs like `MLP`.

    Args:
        in_features: Total width of the inputs.
        width: Width inside, and of the output where `out_features` is None.
        blocks: Number of residual blocks.
        out_features: Width of a last linear layer. None leaves it out.
        activation: Class (or constructor) of the activation.
        preprocess: A module applied to the first input, for example `Rescale(1 / 16)`.

    Raises:
        ValueError: for a width below 1 or a negative number of blocks; on a call, for inputs of another width.

    References:
        Identity Mappings in Deep Residual Networks (He et al., 2016), https://arxiv.org/abs/1603.05027

    Example:
        >>> import torch
        >>> ResidualMLP(8, 32, blocks=2)(torch.zeros(5, 3, 8)).shape
        torch.Size([5, 3, 32])
    """

    def __init__(
        self,
        in_features: int,
        width: int = 128,
        blocks: int = 1,
        out_features: int | None = None,
        activation: Callable[[], nn.Module] = nn.SiLU,
        preprocess: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if width < 1 or blocks < 0:
            raise ValueError(f"expected width >= 1 and blocks >= 0, got {width} and {blocks}")
        self.in_features = in_features
        self.out_features = width if out_features is None else out_features
        self.preprocess = preprocess
        self.first = nn.Linear(in_features, width)
        self.blocks = nn.ModuleList(_block(width, activation) for _ in range(blocks))
        self.activation = activation()
        self.last = None if out_features is None else nn.Linear(width, out_features)

    @property
    def output_bias(self) -> Tensor:
        """Bias of the last layer, `[out_features]`; ValueError if the network ends in an activation."""
        if self.last is None:
            raise ValueError("expected a network with out_features given, got one that ends in an activation")
        return self.last.bias

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Returns `[..., out_features]` for inputs `[..., width_i]` whose leading dims broadcast."""
        if self.preprocess is not None:
            x = self.preprocess(x)
        h = self.first(join((x, *context), self.in_features, self.first.weight))
        for block in self.blocks:
            h = h + block(h)
        h = self.activation(h)
        return h if self.last is None else self.last(h)


def _block(width: int, activation: Callable[[], nn.Module]) -> nn.Module:
    last = nn.Linear(width, width)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(activation(), nn.Linear(width, width), activation(), last)
