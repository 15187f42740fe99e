"""The gated multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import glu

from .inputs import join


class GatedMLP(nn.Module):
    r"""A perceptron of gated layers, :math:`h = (W_1 x + b_1)\, \mathrm{sigm}(W_2 x + b_2)`.

    Takes and checks its inputs like `MLP`.

    Args:
        in_features: Total width of the inputs.
        hidden: Widths of the gated layers.
        out_features: Width of a last linear layer. None leaves it out: the network ends in its last gate.
        preprocess: A module applied to the first input, for example `Rescale(1 / 16)`.

    Raises:
        ValueError: on a call, for inputs of another width; on construction, for no gated layer.

    References:
        VAE with a VampPrior (Tomczak & Welling, 2018), https://arxiv.org/abs/1705.07120
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int] = (300, 300),
        out_features: int | None = None,
        preprocess: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not hidden:
            raise ValueError("expected at least one gated layer, got hidden=(); try MLP")
        widths = [in_features, *hidden]
        # Both halves in one product: the first is W1, the second the gate's W2.
        self.gates = nn.ModuleList(nn.Linear(fan_in, 2 * fan_out) for fan_in, fan_out in pairwise(widths))
        self.last = None if out_features is None else nn.Linear(widths[-1], out_features)
        self.in_features = in_features
        self.out_features = widths[-1] if out_features is None else out_features
        self.preprocess = preprocess

    @property
    def output_bias(self) -> Tensor:
        """Bias of the last layer, `[out_features]`; ValueError if the network ends in a gate."""
        if self.last is None:
            raise ValueError("expected a network with out_features given, got one that ends in a gate")
        return self.last.bias

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Returns `[..., out_features]` for inputs `[..., width_i]` whose leading dims broadcast."""
        if self.preprocess is not None:
            x = self.preprocess(x)
        h = join((x, *context), self.in_features, next(self.gates.parameters()))
        for gate in self.gates:
            h = glu(gate(h), -1)
        return h if self.last is None else self.last(h)
