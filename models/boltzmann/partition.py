"""ln Z of a restricted Boltzmann machine by enumeration."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrovae.evidence import LogPartition

from .visible_units import BinaryUnits, GaussianUnits

LIMIT = 25  # 2^25 states of the smaller layer
NUMBERS = 2**22  # held at once: (states, units of the other layer)


@torch.no_grad()
def exact_log_partition(
    weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, visible_units: BinaryUnits | GaussianUnits
) -> LogPartition:
    """ln Z = ln Σ over the states of the smaller layer, the other one summed out in closed form; float64.

    Gaussian visible units are integrated, so the hidden ones are enumerated.

    Args:
        weight: `[visible, hidden]`.
        visible_bias, hidden_bias: `[visible]` and `[hidden]`.
        visible_units: what the visible units are.

    Raises:
        ValueError: more than 25 units in the layer.
    """
    visible, hidden = weight.shape
    over_visible = isinstance(visible_units, BinaryUnits) and visible < hidden
    units, other = (visible, hidden) if over_visible else (hidden, visible)
    if units > LIMIT:
        raise ValueError(
            f"expected at most {LIMIT} units in the smaller layer to enumerate 2^n states, got {visible} visible and "
            f"{hidden} hidden units; try an estimate of ln Z: pv.log_partition(model), or --estimators "
            "normalised"
        )
    weight, b, c = weight.double(), visible_bias.double(), hidden_bias.double()

    def log_terms(states: Tensor) -> Tensor:
        if over_visible:
            return states @ b + F.softplus(states @ weight + c).sum(-1)
        return states @ c + visible_units.log_integral(b, states @ weight.mT)

    low = min(units, max(1, (NUMBERS // other).bit_length() - 1))
    bits = _states(low, weight.device)
    totals = []
    for i in range(2 ** (units - low)):  # the high bits are those of i
        high = (
            torch.full((1,), i, device=weight.device) >> torch.arange(units - low, device=weight.device)
        ) & 1
        states = torch.cat([bits, high.double().expand(len(bits), -1)], -1)
        totals.append(torch.logsumexp(log_terms(states), 0))
    return LogPartition(
        value=float(torch.logsumexp(torch.stack(totals), 0)),
        error=0.0,
        direction="~",
        method=f"enumeration of 2^{units} states of the {'visible' if over_visible else 'hidden'} layer",
    )


def _states(units: int, device: torch.device) -> Tensor:
    numbers = torch.arange(2**units, device=device)
    return ((numbers.unsqueeze(-1) >> torch.arange(units, device=device)) & 1).double()
