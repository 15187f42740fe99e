"""The mixture over the last batch dim of any distribution."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from .diagonal_gaussian_mixture import DiagonalGaussianMixture
from .pathwise_mixture import PathwiseMixture

__all__ = ["mixture_of"]


def mixture_of(components: Any, logits: Tensor) -> Any:
    r"""Mixture :math:`p(z) = \sum_c \pi_c\, q_c(z)` of a batch of distributions over vectors.

    Diagonal Gaussians, and mixtures of them, take the matrix form; every other family (full covariance,
    flows) takes Pyro's `MixtureSameFamily`, whose `log_prob` scores each value under each component, and
    whose `sample` draws from every component.

    Args:
        components: Distribution with `batch_shape` (C,) and `event_shape` (D,).
        logits: Unnormalised log-weights, `[C]`.

    Returns:
        A Distribution with `batch_shape` () and `event_shape` (D,).

    Raises:
        ValueError: the components' batch shape is not (C,).
    """
    if tuple(components.batch_shape) != tuple(logits.shape) or logits.dim() != 1:
        raise ValueError(
            f"expected components of batch shape {tuple(logits.shape)}, got {tuple(components.batch_shape)}"
        )
    base = getattr(components, "base_dist", None)
    is_vector = (
        isinstance(components, torch.distributions.Independent) and components.reinterpreted_batch_ndims == 1
    )
    if is_vector and isinstance(base, torch.distributions.Normal):
        return DiagonalGaussianMixture(base.loc, base.scale, logits)
    if isinstance(components, PathwiseMixture):
        joint = logits.log_softmax(-1).unsqueeze(-1) + components.logits.log_softmax(-1)
        loc, scale = (t.flatten(0, 1) for t in (components.loc, components.scale))
        return DiagonalGaussianMixture(loc, scale, joint.flatten())
    return dist.MixtureSameFamily(dist.Categorical(logits=logits), components)
