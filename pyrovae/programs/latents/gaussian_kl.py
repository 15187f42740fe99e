r"""Closed-form KL divergences, registered with `torch.distributions.kl_divergence`, in nats.

torch has (diagonal, diagonal) and (full, full); Pyro adds (diagonal, full). Missing, and what a
full-covariance guide under a standard normal prior needs, is (full, diagonal):

.. math:: \mathrm{KL}(N(\mu_0, LL^\top) \| N(\mu_1, \mathrm{diag}\, s^2)) = \tfrac12 \Big[
    \sum_{ij} L_{ij}^2 / s_i^2 + \sum_i (\mu_{0i} - \mu_{1i})^2 / s_i^2 - k \Big]
    + \sum_i \ln s_i - \sum_i \ln L_{ii} ,

and (low rank, diagonal), the same with :math:`\Sigma_0 = WW^\top + \mathrm{diag}\, d`: its trace is
:math:`\sum_i (d_i + \sum_r W_{ir}^2) / s_i^2`, its determinant :math:`|I + W^\top d^{-1} W| \prod_i d_i`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.distributions import (
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    register_kl,
)

__all__: list[str] = []


def _diagonal(q: Independent[Any]) -> Normal:
    # NotImplementedError: TraceMeanField_ELBO then falls back on Monte Carlo.
    if not isinstance(q.base_dist, Normal) or q.reinterpreted_batch_ndims != 1:
        raise NotImplementedError("expected an Independent(Normal, 1): other KLs have no closed form here")
    return q.base_dist


@register_kl(MultivariateNormal, Independent)  # type: ignore[untyped-decorator]  # torch gives it no type
def _kl_full_diagonal(p: MultivariateNormal, q: Independent[Any]) -> Tensor:
    normal = _diagonal(q)
    # The factor without its expanded copies: under K particles the [.., k, k] work is done once a datum.
    tril = p._unbroadcasted_scale_tril
    scale = normal.scale
    trace = (tril / scale.unsqueeze(-1)).pow(2).sum((-2, -1))
    shift = ((p.loc - normal.loc) / scale).pow(2).sum(-1)
    log_det = scale.log().sum(-1) - tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return 0.5 * (trace + shift - p.event_shape[0]) + log_det


@register_kl(LowRankMultivariateNormal, Independent)  # type: ignore[untyped-decorator]  # torch gives it no type
def _kl_low_rank_diagonal(p: LowRankMultivariateNormal, q: Independent[Any]) -> Tensor:
    normal = _diagonal(q)
    factor, diagonal, scale = p._unbroadcasted_cov_factor, p._unbroadcasted_cov_diag, normal.scale
    trace = ((factor.square().sum(-1) + diagonal) / scale.square()).sum(-1)
    shift = ((p.loc - normal.loc) / scale).square().sum(-1)
    capacitance = p._capacitance_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_det = scale.log().sum(-1) - 0.5 * diagonal.log().sum(-1) - capacitance
    return 0.5 * (trace + shift - p.event_shape[0]) + log_det
