"""A denoiser of grey levels: what the noisy value itself says of its level is exact, the network adds the rest."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .denoisers import time_features


class LevelDenoiser(nn.Module):
    r"""The noise by way of each element's level, for data that lie on few levels.

    .. math::

        \hat\epsilon = (z_t - \alpha_t E[y|z_t]) / \sigma_t, \qquad
        p(y_i = v_k | z_t) \propto \exp\!\big(l_{ik} + f_{ik}(z_t, \gamma_t)
            - (z_{t,i} - \alpha_t v_k)^2 / 2\sigma_t^2\big)

    l are the elements' log marginals, f a network that is 0 at first: a new one is the best denoiser that takes
    elements for independent, with elements that never change (the edge of a digit) exact. A network of the noise
    itself has to learn both, with a gain of :math:`1/\sigma_t`. The idea is that of analog bits and of predicting
    x in place of the noise (Chen et al. 2022, https://arxiv.org/abs/2208.04202).

    Args:
        marginals: log p(y_i = v_k), `[D, K]`, nats: of the training data, smoothed.
        net: f, 0 at first: a `LevelMLP` or `LevelUNet`, or `(seen [..., 2, D], time features [..., 32]) -> [..., D, K]`
            with z and E[y|z] of independent elements as the two rows of `seen`.
        dropout: share of f's inputs that are left out in training: small data are learnt by heart without.

    Raises:
        ValueError: marginals of another form, fewer than two levels.
    """

    values: Tensor

    def __init__(self, marginals: Tensor, net: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        if marginals.dim() != 2 or marginals.shape[1] < 2 or not torch.isfinite(marginals).all():
            raise ValueError(
                f"expected finite log marginals [D, K] of K >= 2 levels, got shape {tuple(marginals.shape)}"
            )
        values = torch.linspace(-1, 1, marginals.shape[1], dtype=marginals.dtype)
        self.register_buffer("values", values, persistent=False)
        self.marginals = nn.Parameter(marginals.clone())
        if not 0 <= dropout < 1:
            raise ValueError(f"expected 0 <= dropout < 1, got {dropout}")
        self.dropout = dropout
        self.net = net

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        """Returns the noise `[..., D]` in `z` `[..., D]` at -ln SNR `gamma` `[...]`."""
        alpha, sigma = (torch.sigmoid(s * gamma).sqrt()[..., None, None] for s in (-1, 1))
        seen = self.marginals - 0.5 * ((z.unsqueeze(-1) - alpha * self.values) / sigma).square()
        alone = seen.softmax(-1) @ self.values
        inputs = self._kept(torch.stack([z, alone], -2))
        added = self.net(inputs, time_features(gamma).expand(*z.shape[:-1], -1))
        mean = (seen + added).softmax(-1) @ self.values
        return (z - alpha.squeeze(-1) * mean) / sigma.squeeze(-1)

    def _kept(self, x: Tensor) -> Tensor:
        if not self.training or self.dropout == 0:
            return x
        # Not torch's dropout: uniform numbers can be drawn outside of a compiled step.
        return x * (torch.rand_like(x) >= self.dropout) / (1 - self.dropout)


def log_marginals(x: Tensor, levels: int, count: float = 0.1) -> Tensor:
    """Log frequencies of the levels of each element of x `[N, D]` (integers), `count` added to each; `[D, K]`."""
    hits = torch.nn.functional.one_hot(x.long(), levels).sum(0)
    smooth = hits.to(torch.get_default_dtype()) + count
    return (smooth / smooth.sum(-1, keepdim=True)).log()
