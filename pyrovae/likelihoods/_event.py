"""The event shape of a likelihood, checked against its network's width."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Size, Tensor, nn

__all__ = ["as_event", "event_shape_of"]


def event_shape_of(net: nn.Module, event_shape: Sequence[int] | None) -> Size:
    """Returns the data event shape; ValueError where the network's `out_features` does not fill it."""
    width = getattr(net, "out_features", None)
    if event_shape is None:
        if not isinstance(width, int):
            raise ValueError(
                f"expected a network with an attribute out_features, got {type(net).__name__} without; "
                "try event_shape=<the shape of one datum>"
            )
        return Size((width,))
    if isinstance(width, int) and width != prod(event_shape):
        raise ValueError(
            f"expected out_features = prod{tuple(event_shape)} = {prod(event_shape)}, got {width}"
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
