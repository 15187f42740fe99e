"""Likelihoods whose parameters come from one network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Size, Tensor, nn

__all__ = ["FromNetwork", "WithFloor"]


class FromNetwork(nn.Module):
    """Likelihood of independent elements whose parameters come from one network.

    A subclass gives their `law`, and how many `outputs` of the network each element has.

    Args:
        net: Network from `z` (and context) to `[..., outputs * prod(event_shape)]`.
        event_shape: Shape of one datum; `(net.out_features / outputs,)` if None.
        outputs: Outputs of the network for each element, where they differ from the class's.

    Raises:
        ValueError: the network's width is not known, or does not fill the event shape.
    """

    outputs = 1

    def __init__(
        self, net: nn.Module, event_shape: Sequence[int] | None = None, outputs: int | None = None
    ) -> None:
        super().__init__()
        self.net = net
        self.outputs = outputs or self.outputs
        self.event_shape = _event_shape_of(net, event_shape, self.outputs)

    def forward(self, z: Tensor, *context: Tensor) -> Any:
        """Returns p(x|z), `batch_shape` z.shape[:-1]."""
        return self.law(self.parameters_at(z, *context)).to_event(len(self.event_shape))

    def law(self, parameters: Tensor) -> Any:
        """Returns the law of each element from `parameters_at`."""
        raise NotImplementedError

    def parameters_at(self, z: Tensor, *context: Tensor) -> Tensor:
        """Outputs of the network, `[..., *event_shape]` for one for each element, else `[..., *event_shape, outputs]`.

        The outputs come first in the network's own order, as channels do: a `ConvDecoder` of image shape
        `(outputs * C, H, W)` serves images `(C, H, W)`.
        """
        output = self.net(z, *context)
        shape = self.event_shape if self.outputs == 1 else Size((self.outputs, *self.event_shape))
        if output.shape[-1] != shape.numel():
            raise ValueError(
                f"expected a network output of width prod{tuple(shape)} = {shape.numel()}, "
                f"got shape {tuple(output.shape)}"
            )
        output = output.unflatten(-1, shape)
        return output if self.outputs == 1 else output.movedim(-1 - len(self.event_shape), -1)

    def settings(self) -> dict[str, object]:
        """Settings that `repr` shows beside the shape of one datum."""
        return {}

    def extra_repr(self) -> str:
        """Shows the settings and the shape of one datum."""
        shown = self.settings() | {"event_shape": tuple(self.event_shape)}
        return ", ".join(f"{name}={value}" for name, value in shown.items())


class WithFloor(FromNetwork):
    """Likelihood of two outputs for each element, the second a raw scale with a floor.

    Raises:
        ValueError: min_scale is not positive and finite, or as for `FromNetwork`.
    """

    outputs = 2

    def __init__(
        self, net: nn.Module, min_scale: float = 1e-2, event_shape: Sequence[int] | None = None
    ) -> None:
        super().__init__(net, event_shape)
        if not 0 < min_scale < math.inf:
            raise ValueError(f"expected a positive finite min_scale, got {min_scale}")
        self.min_scale = min_scale

    def settings(self) -> dict[str, object]:
        """Shows the floor."""
        return {"min_scale": f"{self.min_scale:g}"}


def _event_shape_of(net: nn.Module, event_shape: Sequence[int] | None, outputs: int) -> Size:
    width = getattr(net, "out_features", None)
    each = f"{outputs} * " if outputs > 1 else ""
    if event_shape is None:
        if not isinstance(width, int):
            raise ValueError(
                f"expected a network with an attribute out_features, got {type(net).__name__} without; "
                "try event_shape=<the shape of one datum>"
            )
        if width % outputs:
            raise ValueError(f"expected out_features = {each}<elements of one datum>, got {width}")
        return Size((width // outputs,))
    filled = outputs * math.prod(event_shape)
    if isinstance(width, int) and width != filled:
        raise ValueError(f"expected out_features = {each}prod{tuple(event_shape)} = {filled}, got {width}")
    return Size(event_shape)
