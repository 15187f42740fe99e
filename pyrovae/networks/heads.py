"""Between a network and its head: the width of its features, positive scales, and logarithms within bounds."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

SCALE_FLOOR = 1e-4
_SOFTPLUS_ONE = 0.5413248546129181  # softplus(this) = 1


def positive_scale(raw: Tensor, floor: float = SCALE_FLOOR) -> Tensor:
    r"""Maps an unconstrained tensor to scales: :math:`\sigma = \mathrm{softplus}(r + c)` + floor.

    `c` makes a zero input a scale of 1 (plus the floor), so a new guide starts at the width of the prior.
    """
    # Softplus and a floor, not exp(logvar / 2): exp overflows to inf (and inf - inf to NaN) for inputs
    # far from the training data; clamping it stops the gradient. Softplus grows linearly and always learns.
    return softplus(raw + _SOFTPLUS_ONE) + floor


def soft_limit(raw: Tensor, limit: float) -> Tensor:
    """Maps an unconstrained tensor to logarithms: itself within +-limit, beyond which it grows as a logarithm.

    Its exponential grows linearly there: no overflow, and a gradient that never stops, as a clamp's would.
    """
    beyond = (raw.abs() - limit).relu()
    return torch.where(beyond > 0, raw.sign() * (limit + beyond.log1p()), raw)


def out_features_of(net: nn.Module, features: int | None = None) -> int:
    """Width of a network's output: its attribute `out_features`, or `features` where it has none.

    Raises:
        ValueError: the network does not say and `features` is not given, or the two differ.
    """
    own = getattr(net, "out_features", None)
    if isinstance(own, int):
        if features is not None and features != own:
            raise ValueError(f"expected features={own}, the network's out_features, got {features}")
        return own
    if features is None:
        raise ValueError(
            f"expected a network with an attribute out_features, got {type(net).__name__} without; "
            "try features=<the size of the network's last output dim>"
        )
    return features
