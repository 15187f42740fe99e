"""The event shape of a likelihood, checked."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Size, Tensor, nn

__all__ = ["as_event", "as_parameters", "event_shape_of"]


def event_shape_of(net: nn.Module, event_shape: Sequence[int] | None, outputs: int = 1) -> Size:
    """Returns the data event shape; ValueError where the network's `out_features` does not fill it.

    Args:
        net: The network.
        event_shape: Shape of one datum; from the network's width if None.
        outputs: What the network gives for each element of a datum.
    """
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
    if isinstance(width, int) and width != outputs * prod(event_shape):
        raise ValueError(
            f"expected out_features = {each}prod{tuple(event_shape)} = {outputs * prod(event_shape)}, got {width}"
        )
    return Size(event_shape)


def as_event(output: Tensor, event_shape: Size) -> Tensor:
    """Reshapes a network's output `[..., prod(event_shape)]` to `[..., *event_shape]`."""
    if output.shape[-1] != event_shape.numel():
        raise ValueError(
            f"expected a network output of width prod{tuple(event_shape)} = {event_shape.numel()}, "
            f"got shape {tuple(output.shape)}"
        )
    return output.unflatten(-1, event_shape)


def as_parameters(output: Tensor, event_shape: Size, outputs: int) -> Tensor:
    """Reshapes `[..., outputs * prod(event_shape)]` to `[..., *event_shape, outputs]`.

    The outputs come first in the network's own order, as channels do: a `ConvDecoder` of image shape
    `(outputs * C, H, W)` serves images `(C, H, W)`.
    """
    split = as_event(output, Size((outputs, *event_shape)))
    return split.movedim(-1 - len(event_shape), -1)
