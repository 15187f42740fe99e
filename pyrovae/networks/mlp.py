"""The multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn

from .inputs import join


class MLP(nn.Module):
    """A multi-layer perceptron: `[..., in_features] -> [..., out_features]`.

    Several inputs (data or latents, then context) are broadcast over their leading dims and concatenated;
    `in_features` is their total width.

    Args:
        in_features: Total width of the inputs.
        hidden: Widths of the hidden layers.
        out_features: Width of a last linear layer. None leaves it out: the network ends in the activation
            of its last hidden layer, which is what a guide's own head wants.
        activation: Class (or constructor) of the activation.
        preprocess: A module applied to the first input, for example `Rescale(1 / 16)`.

    Raises:
        ValueError: on a call, for inputs of another width; on construction, for no layer at all.

    Example:
        >>> import torch
        >>> MLP(64, hidden=(32,))(torch.zeros(5, 3, 64)).shape
        torch.Size([5, 3, 32])
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int] = (200, 200),
        out_features: int | None = None,
        activation: Callable[[], nn.Module] = nn.Tanh,
        preprocess: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not hidden and out_features is None:
            raise ValueError("expected at least one layer, got hidden=() and out_features=None")
        widths = [in_features, *hidden]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), activation()]
        if out_features is not None:
            layers.append(nn.Linear(widths[-1], out_features))
        self.in_features = in_features
        self.out_features = widths[-1] if out_features is None else out_features
        self.preprocess = preprocess
        self.layers = nn.Sequential(*layers)

    @property
    def output_bias(self) -> Tensor:
        """Bias of the last layer, `[out_features]`; ValueError if the network ends in an activation."""
        last = self.layers[-1]
        if not isinstance(last, nn.Linear):
            raise ValueError("expected a network with out_features given, got one that ends in an activation")
        return last.bias

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Returns `[..., out_features]` for inputs `[..., width_i]` whose leading dims broadcast."""
        weight = next(self.layers.parameters())
        if self.preprocess is not None:
            x = self.preprocess(x)
        return self.layers(join((x, *context), self.in_features, weight))
