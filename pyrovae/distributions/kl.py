r"""Closed-form KL divergences, registered with `torch.distributions.kl_divergence`, in nats.

torch has (diagonal, diagonal) and (full, full); Pyro adds (diagonal, full). Missing, and what a
full-covariance guide under a standard normal prior needs, is (full, diagonal):

.. math:: \mathrm{KL}(N(\mu_0, LL^\top) \| N(\mu_1, \mathrm{diag}\, s^2)) = \tfrac12 \Big[
    \sum_{ij} L_{ij}^2 / s_i^2 + \sum_i (\mu_{0i} - \mu_{1i})^2 / s_i^2 - k \Big]
    + \sum_i \ln s_i - \sum_i \ln L_{ii} .
"""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, register_kl

__all__: list[str] = []


@register_kl(MultivariateNormal, Independent)
def _kl_full_diagonal(p: MultivariateNormal, q: Independent) -> Tensor:
    normal = q.base_dist
    # NotImplementedError: TraceMeanField_ELBO then falls back on Monte Carlo.
    if not isinstance(normal, Normal) or q.reinterpreted_batch_ndims != 1:
        raise NotImplementedError(
            "KL(MultivariateNormal, Independent) is closed only for an Independent(Normal, 1)"
        )
    # The factor without its expanded copies: under K particles the [.., k, k] work is done once a datum.
    tril = p._unbroadcasted_scale_tril
    scale = normal.scale
    trace = (tril / scale.unsqueeze(-1)).pow(2).sum((-2, -1))
    shift = ((p.loc - normal.loc) / scale).pow(2).sum(-1)
    log_det = scale.log().sum(-1) - tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return 0.5 * (trace + shift - p.event_shape[0]) + log_det
