"""A normalising flow as prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import nn

from pyrovae.distributions import FlowDistribution, import_zuko, rational_quadratic_spline

__all__ = ["FlowPrior"]


class FlowPrior(nn.Module):
    r"""Prior :math:`\ln p(z) = \ln N(f(z); 0, I) + \ln |\det \partial f / \partial z|` with a flow f of zuko.

    The flow runs from latents to noise: the density takes one pass, which importance sampling needs by the
    million; sampling takes two passes (`coupling`) or D (`maf`, `spline`) for each transform. The ready ones
    start near the standard normal.

    Args:
        flow: A flow of zuko without context, over a normal base. `import zuko` switches argument validation
            off for the whole process; `pyrovae.distributions.import_zuko("flows")` does not.

    Raises:
        ValueError: a flow with a context, or over another base.

    Example:
        >>> FlowPrior.coupling(8, transforms=4)
        FlowPrior(NICE, latent_dim=8, transforms=4)

    References:
        Neural Spline Flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032
        Masked Autoregressive Flow (Papamakarios et al., 2017), https://arxiv.org/abs/1705.07057
        Density estimation using Real NVP (Dinh et al., 2017), https://arxiv.org/abs/1605.08803
    """

    def __init__(self, flow: nn.Module) -> None:
        super().__init__()
        self.flow = flow
        self.latent_dim = _latent_dim(flow)

    @classmethod
    def spline(
        cls, latent_dim: int, transforms: int = 3, hidden: Sequence[int] = (64, 64), bins: int = 8
    ) -> FlowPrior:
        """Autoregressive rational-quadratic splines on [-5, 5], the identity outside."""
        if bins < 2:
            raise ValueError(f"expected bins >= 2, got {bins}")
        shapes = [(bins,), (bins,), (bins - 1,)]
        options = {"univariate": rational_quadratic_spline, "shapes": shapes}
        return cls(_ready("MAF", latent_dim, transforms, hidden, **options))

    @classmethod
    def maf(cls, latent_dim: int, transforms: int = 3, hidden: Sequence[int] = (64, 64)) -> FlowPrior:
        """Affine autoregressive transforms, their order reversed from one to the next."""
        return cls(_ready("MAF", latent_dim, transforms, hidden))

    @classmethod
    def coupling(cls, latent_dim: int, transforms: int = 4, hidden: Sequence[int] = (64, 64)) -> FlowPrior:
        """Affine coupling transforms (RealNVP): every other latent moves, given the rest."""
        return cls(_ready("NICE", latent_dim, transforms, hidden))

    def forward(self) -> FlowDistribution:
        """Returns the prior, `batch_shape` (), `event_shape` (latent_dim,)."""
        flow = self.flow()
        normal = flow.base.base_dist
        return FlowDistribution(dist.Normal(normal.loc, normal.scale).to_event(1), [flow.transform.inv])

    def __repr__(self) -> str:
        # Not the modules inside: printing those of zuko draws random numbers.
        transforms = len(getattr(self.flow.transform, "transforms", [None]))
        return f"FlowPrior({type(self.flow).__name__}, latent_dim={self.latent_dim}, transforms={transforms})"


def _latent_dim(flow: nn.Module) -> int:
    """Width of a flow that a prior can be made of; ValueError for any other."""
    try:
        q = flow()
        normal = getattr(q.base, "base_dist", None)
        if isinstance(normal, torch.distributions.Normal) and len(q.event_shape) == 1:
            q.log_prob(torch.zeros_like(normal.loc))
            return len(normal.loc)
    except Exception as error:
        raise ValueError(
            f"expected a zuko flow without context, got {type(flow).__name__}: {error}"
        ) from error
    raise ValueError(
        f"expected a zuko flow over a diagonal normal base, got {type(flow).__name__}; "
        "try FlowPrior.spline(latent_dim), .maf or .coupling"
    )


def _ready(name: str, latent_dim: int, transforms: int, hidden: Sequence[int], **options: Any) -> nn.Module:
    if latent_dim < 1 or transforms < 1:
        raise ValueError(f"expected latent_dim >= 1 and transforms >= 1, got {latent_dim} and {transforms}")
    make = getattr(import_zuko("flows"), name)
    # Tanh: it bounds shifts and slopes wherever z is.
    flow = make(
        latent_dim, transforms=transforms, hidden_features=tuple(hidden), activation=nn.Tanh, **options
    )
    with torch.no_grad():
        for transform in flow.transform.transforms:
            # One latent has no network, but free parameters.
            last = transform.hyper[-1].parameters() if hasattr(transform, "hyper") else transform.parameters()
            for p in last:
                p.mul_(1e-2)
    return flow
