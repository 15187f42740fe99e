"""The positive constants of a likelihood, checked: fixed ones as they were given, learned ones as logarithms."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor, nn

from pyrovae.networks import soft_limit

from ..devices import as_tensor

__all__ = ["LIMIT", "constant_of", "positive_logs", "set_constant", "shown"]

# e^15 is three million; beyond it the exponential of a network's output, or of a learned logarithm, grows linearly.
LIMIT = 15.0


def set_constant(
    part: nn.Module, attribute: str, value: float | Tensor, event_shape: Size, name: str, learned: bool
) -> None:
    """Keeps the logarithm of a positive constant in a part: a parameter where it is learned, else a buffer.

    The buffer is in float64, in which a logarithm holds the digits of a float32 number.

    Raises:
        ValueError: as `positive_logs`; a learned one whose start is beyond e^-15 ... e^15, where `constant_of` would
            change it, or a fixed one that is 0 or infinite in torch's default dtype.
    """
    logs = positive_logs(value, event_shape, name, torch.float64)
    if learned:
        if (logs.abs() > LIMIT).any():
            raise ValueError(
                f"expected a learned {name} to start between {math.exp(-LIMIT):.2g} and {math.exp(LIMIT):.2g}, got "
                f"{value}; try to fix it, or another start"
            )
        part.register_parameter(attribute, nn.Parameter(logs.to(torch.get_default_dtype())))
        return
    rounded = logs.exp().to(torch.get_default_dtype())
    if not (rounded.isfinite() & (rounded > 0)).all():
        raise ValueError(
            f"expected a {name} within the range of {torch.get_default_dtype()}, got {value}; try "
            "torch.set_default_dtype(torch.float64)"
        )
    part.register_buffer(attribute, logs)


def constant_of(logs: Tensor, learned: bool) -> Tensor:
    """Value of a constant that `set_constant` keeps; the bounds are for learned ones alone."""
    return (soft_limit(logs, LIMIT) if learned else logs).exp()


def positive_logs(
    value: float | Tensor, event_shape: Size, name: str, dtype: torch.dtype | None = None
) -> Tensor:
    """Logarithm of a positive number that all elements of a datum share, or of one for each, `[*event_shape]`.

    In torch's default dtype where none is given.

    Raises:
        ValueError: values that are not positive and finite, or of another shape.
    """
    given = as_tensor(value, dtype=torch.float64)
    if not (given.isfinite() & (given > 0)).all():
        raise ValueError(f"expected a positive finite {name}, got {value}")
    if given.dim() and given.shape != event_shape:
        raise ValueError(
            f"expected {name} as a number or of shape {tuple(event_shape)}, got {tuple(given.shape)}"
        )
    return given.log().to(dtype or torch.get_default_dtype())


def shown(constant: Tensor, learned: bool) -> str:
    """Text of a constant for `repr`."""
    each = "one each" if constant.dim() else f"{constant.item():.4g}"
    return f"{each}, learned" if learned else each
