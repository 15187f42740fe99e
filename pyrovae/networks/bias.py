"""Starting a decoder at the mean of the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def set_output_bias(net: nn.Module, bias: Tensor) -> None:
    """Sets a network's `output_bias`, for example to `logit_of_mean(data.train)`, in place.

    With it a Bernoulli decoder starts at the data's mean image (Burda et al., 2015,
    https://arxiv.org/abs/1509.00519).

    Raises:
        ValueError: the network has no `output_bias`, or one of another size.
    """
    own = getattr(net, "output_bias", None)
    if not isinstance(own, Tensor):
        raise ValueError(f"expected a network with an output_bias, got {type(net).__name__}")
    if own.numel() != bias.numel():
        raise ValueError(f"expected a bias of {own.numel()} values, got {bias.numel()}")
    with torch.no_grad():
        own.copy_(bias.reshape(own.shape))


def logit_of_mean(x: Tensor, high: float = 1.0, eps: float = 1e-3) -> Tensor:
    """Logit of the mean of data in 0..high, `[N, *event] -> [*event]`; means stay eps away from 0 and 1."""
    mean = x.to(torch.get_default_dtype()).mean(0) / high
    return torch.logit(mean.clamp(eps, 1 - eps))
