"""The 15-point Kronrod rule with its 7-point Gauss rule, and sums by them, in logarithms."""

from __future__ import annotations

import torch
from torch import Tensor

# The 15-point Kronrod rule, and the 7-point Gauss rule on every other node of it (QUADPACK's tables).
_X = (
    0.9914553711208126,
    0.9491079123427585,
    0.8648644233597691,
    0.7415311855993945,
    0.5860872354676911,
    0.4058451513773972,
    0.20778495500789848,
)
_K = (
    0.022935322010529224,
    0.06309209262997856,
    0.10479001032225019,
    0.14065325971552592,
    0.1690047266392679,
    0.19035057806478542,
    0.20443294007529889,
)
_G = (
    0.0,
    0.1294849661688697,
    0.0,
    0.27970539148927664,
    0.0,
    0.3818300505051189,
    0.0,
)
_NODES = torch.tensor([*(-x for x in _X), 0.0, *_X[::-1]], dtype=torch.float64, device="cpu")
_KRONROD = torch.tensor(
    [*_K, 0.209482141084727828012999174891714, *_K[::-1]], dtype=torch.float64, device="cpu"
)
_GAUSS = torch.tensor(
    [*_G, 0.417959183673469387755102040816327, *_G[::-1]], dtype=torch.float64, device="cpu"
)
# A jump between two nodes is in the rules' difference; one past the last node is not, nor a flank that rises there.
# So the ends are looked at too, with weight zero: there the polynomial through the nodes must meet the integrand.
_LAST = float(1 - _NODES[-1])
_END = torch.ones(1, dtype=torch.float64, device="cpu")
POINTS = torch.cat([-_END, _NODES, _END])
KRONROD, GAUSS = (torch.nn.functional.pad(w, (1, 1)) for w in (_KRONROD, _GAUSS))


def _to_end(end: float) -> Tensor:
    """Weights at the points of (the polynomial through the nodes, at an end) - (the integrand there)."""
    others = [torch.cat([_NODES[:i], _NODES[i + 1 :]]) for i in range(len(_NODES))]
    lagrange = [((end - x) / (_NODES[i] - x)).prod() for i, x in enumerate(others)]
    weights = torch.nn.functional.pad(torch.stack(lagrange), (1, 1))
    weights[0 if end < 0 else -1] = -1.0
    return weights


_ENDS = (_to_end(-1.0), _to_end(1.0))


def log_sum(values: Tensor, weights: list[Tensor]) -> Tensor:
    """ln of the sum of e^values `[C, Q, P, n]` times the product of weights, one list a dim."""
    product = torch.cartesian_prod(*weights).reshape(len(values[0]), -1).prod(-1).to(values.device)
    return (values + product.log()[:, None, None]).logsumexp(1)


def log_difference(one: Tensor, other: Tensor) -> Tensor:
    """ln |e^one - e^other|."""
    larger = torch.maximum(one, other)
    difference = ((one - larger).exp() - (other - larger).exp()).abs().log() + larger
    return torch.where(larger == -torch.inf, -torch.inf, difference)


def jump_past(shares: Tensor, dim: int) -> Tensor:
    """Change by a jump between the last nodes and the ends in one dim, `[C, P, n]`, of `[C, Q.., P, n]`."""
    found = torch.zeros_like(shares.flatten(1, -3)[:, 0])
    for weights in _ENDS:
        off = torch.tensordot(shares, weights.to(shares.device), dims=([1 + dim], [0])).abs()
        while off.dim() > found.dim():  # the other dim is integrated over
            off = torch.tensordot(off, KRONROD.to(off.device), dims=([1], [0]))
        found = found + _LAST * off
    return found
