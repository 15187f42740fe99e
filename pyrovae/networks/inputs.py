"""Inputs of a network: several tensors joined, grey levels rescaled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def join(inputs: Sequence[Tensor], width: int, like: Tensor) -> Tensor:
    """Concatenates along the last dim after broadcasting the leading dims; checks the total width."""
    # Only non-float inputs are cast: uint8 images are data, but float64 against float32 is a mistake.
    tensors = [x if x.is_floating_point() else x.to(like.dtype) for x in inputs]
    if any(x.dim() == 0 for x in tensors):
        raise ValueError("expected inputs with at least one dim, got a scalar")
    if sum(x.shape[-1] for x in tensors) != width:
        got = " + ".join(str(x.shape[-1]) for x in tensors) or "no input"
        raise ValueError(f"expected inputs of total width {width} on the last dim, got {got}")
    if len(tensors) == 1:
        return tensors[0]
    lead = torch.broadcast_shapes(*(x.shape[:-1] for x in tensors))
    return torch.cat([x.expand(*lead, x.shape[-1]) for x in tensors], dim=-1)


class Rescale(nn.Module):
    """An affine input module, `x * factor + shift`: `Rescale(1 / 16)` maps grey levels 0..16 to 0..1."""

    def __init__(self, factor: float, shift: float = 0.0) -> None:
        super().__init__()
        self.factor, self.shift = float(factor), float(shift)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the rescaled tensor, of the same shape."""
        return x * self.factor + self.shift

    def extra_repr(self) -> str:
        """Shows the factor and the shift."""
        return f"factor={self.factor:g}, shift={self.shift:g}"
