"""Block Gibbs sampling of a machine of two layers: each is independent given the other."""

from __future__ import annotations

import torch
from torch import Tensor

from pyrovae.programs.handlers.annealed import Beta

from .visible_units import BinaryUnits, GaussianUnits, bernoulli


@torch.no_grad()
def gibbs_sampling(
    v: Tensor,
    visible: BinaryUnits | GaussianUnits,
    weight: Tensor,
    biases: tuple[Tensor, Tensor, Tensor],
    steps: int,
    beta: Beta = 1.0,
) -> Tensor:
    """Runs sweeps v -> h -> v, each of which leaves the machine at inverse temperature beta as it is.

    Args:
        v: where the chains are, `[..., D]`.
        visible: the law of v given h.
        weight: W, `[D, H]`.
        biases: b_0 and b of the visible units, `[D]`, and c of the hidden ones, `[H]`.
        steps: sweeps.
        beta: one number, or one of each chain `[...]`; visible biases go from b_0 at 0 to b at 1.

    Raises:
        ValueError: no sweep.

    Source:
        Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of images (Geman & Geman,
        1984), https://doi.org/10.1109/TPAMI.1984.4767596
    """
    if steps < 1:
        raise ValueError(f"expected steps >= 1 of Gibbs sampling, got {steps}")
    base, bias, hidden_bias = biases
    b: Beta = beta.unsqueeze(-1).to(v) if isinstance(beta, Tensor) else beta
    # Where beta is 1 for all, nothing is multiplied.
    plain = not isinstance(b, Tensor) and b == 1.0
    if not plain:
        bias = (1 - b) * base + b * bias
    for _ in range(steps):
        a = visible.drive(v) @ weight + hidden_bias
        h = bernoulli(torch.sigmoid(a if plain else b * a))
        field = h @ weight.mT
        v = visible.draw(bias, field if plain else b * field)
    return v
