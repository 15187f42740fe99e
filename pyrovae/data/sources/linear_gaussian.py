"""Simulated factor-analysis data, whose evidence is known exactly."""

import torch
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal

from .. import seeds
from ..raw import Raw, Request

FEATURES, FACTORS = 16, 4
SIZES = {"train": 2000, "valid": 500, "test": 500}


def load_linear_gaussian(request: Request) -> Raw:
    r"""Draws of x ~ N(b, W Wᵀ + diag(psi)) `[N, 16]`, i.e. x = W z + b + noise with z ~ N(0, I_4).

    The seed determines the parameters W `[16, 4]`, b `[16]`, psi `[16]` (variances) and the data. The exact
    ln p_data(x) (nats, float64) belongs to the values as they are stored, in float32.
    Source: Tipping and Bishop (1999), https://doi.org/10.1111/1467-9868.00196; psi is diagonal, not
    isotropic.

    Raises:
        ValueError: If sizes of splits were asked for.
    """
    request.refuse_sizes("linear-gaussian", "valid", "test")
    random = seeds.generator(request.seed, seeds.SIMULATION)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64, device="cpu")

    W, b = normal(FEATURES, FACTORS), normal(FEATURES)
    psi = 0.1 + 0.4 * torch.rand(FEATURES, generator=random, dtype=torch.float64, device="cpu")
    splits = {
        name: (normal(n, FACTORS) @ W.mT + b + normal(n, FEATURES) * psi.sqrt()).to(torch.float32)
        for name, n in SIZES.items()
    }
    law = LowRankMultivariateNormal(b, W, psi)
    return Raw(
        "linear-gaussian",
        splits,
        support="real",
        log_evidence={name: law.log_prob(x.to(torch.float64)) for name, x in splits.items()},
        parameters={"W": W, "b": b, "psi": psi},
    )
