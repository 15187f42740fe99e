"""A batch of mixtures of diagonal Gaussians with gradients through their samples."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor

__all__ = ["PathwiseMixture"]


class PathwiseMixture(TorchDistribution):
    r"""Mixture :math:`\sum_c \pi_c N(z; m_c, \mathrm{diag}\, s_c^2)`, reparameterised implicitly.

    With the conditional distribution functions :math:`F_i(z) = P(z'_i \le z_i | z_{<i})` a sample moves as

    .. math:: \frac{dz}{d\theta} = -\Big(\frac{\partial F}{\partial z}\Big)^{-1}
        \frac{\partial F}{\partial \theta}, \qquad \frac{\partial F_i}{\partial z_j} = \sum_c w_{ci}
        (\Phi_{ci} - F_i)\, \frac{m_{cj} - z_j}{s_{cj}^2}\ (j < i), \quad p(z_i | z_{<i})\ (j = i) .

    :math:`w_{ci}` is the weight of component c given :math:`z_{<i}`; the matrix is triangular. The gradient of
    the weights is unbiased, but its variance grows with the distance between the modes. Instead of
    `pyro.distributions.MixtureOfDiagNormals`, whose gradient of the weights is biased where scales differ
    from 1 (even in sign), which gives NaN for 100 latents or narrow scales and does not take one latent.

    Args:
        loc: Means, `[*batch, C, D]`.
        scale: Standard deviations, `[*batch, C, D]`.
        logits: Unnormalised log-weights, `[*batch, C]`.

    Raises:
        ValueError: for shapes that do not agree.

    References:
        Implicit Reparameterization Gradients (Figurnov et al., 2018), https://arxiv.org/abs/1805.08498
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "loc": constraints.independent(constraints.real, 2),
        "scale": constraints.independent(constraints.positive, 2),
        "logits": constraints.real_vector,
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, logits: Tensor, validate_args: bool | None = None) -> None:
        if loc.dim() < 2 or loc.shape != scale.shape or logits.shape != loc.shape[:-1]:
            raise ValueError(
                "expected loc [*batch, C, D], scale [*batch, C, D], logits [*batch, C], got "
                f"{tuple(loc.shape)}, {tuple(scale.shape)}, {tuple(logits.shape)}"
            )
        self.loc, self.scale, self.logits = loc, scale, logits
        super().__init__(loc.shape[:-2], loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> PathwiseMixture:
        """Returns the mixture with another batch shape."""
        new = self._get_checked_instance(PathwiseMixture, _instance)
        new.loc, new.scale = (t.expand(*batch_shape, *t.shape[-2:]) for t in (self.loc, self.scale))
        new.logits = self.logits.expand(*batch_shape, -1)
        super(PathwiseMixture, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """Mean, `[*batch, D]`."""
        return (self.logits.softmax(-1).unsqueeze(-1) * self.loc).sum(-2)

    @property
    def variance(self) -> Tensor:
        """Variance of each coordinate, `[*batch, D]`."""
        spread = self.scale.square() + (self.loc - self.mean.unsqueeze(-2)).square()
        return (self.logits.softmax(-1).unsqueeze(-1) * spread).sum(-2)

    def rsample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        """Draws `[*sample, *batch, D]`; gradients reach means, scales and weights."""
        shape, like = self._extended_shape(sample_shape), self.loc.detach()
        with torch.no_grad():
            # Uniform and normal noise only: draws that a compiled graph can take as inputs.
            u = torch.rand(*shape[:-1], 1, dtype=like.dtype, device=like.device)
            which = (u > self.logits.softmax(-1).cumsum(-1)[..., :-1]).sum(-1)[..., None, None]
            which, full = which.expand(*shape[:-1], 1, shape[-1]), shape[:-1] + like.shape[-2:]
            loc, scale = (t.expand(full).gather(-2, which).squeeze(-2) for t in (like, self.scale))
            z = loc + scale * torch.randn(shape, dtype=like.dtype, device=like.device)
        return z - self._step(z) if torch.is_grad_enabled() else z

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats, `[*sample, *batch]`."""
        if self._validate_args:
            self._validate_sample(value)
        each = self._log_normal(self._standardised(value)).sum(-1)
        return (self.logits.log_softmax(-1) + each).logsumexp(-1)

    def _standardised(self, value: Tensor) -> Tensor:
        return (value.unsqueeze(-2) - self.loc) / self.scale

    def _log_normal(self, u: Tensor) -> Tensor:
        return -0.5 * u.square() - self.scale.log() - 0.5 * math.log(2 * math.pi)

    def _step(self, z: Tensor) -> Tensor:
        """Zeros `[*sample, *batch, D]` whose gradient is minus the sample's."""
        u = self._standardised(z)
        log_normal = self._log_normal(u)
        before = torch.nn.functional.pad(log_normal.cumsum(-1)[..., :-1], (1, 0))
        weights = (self.logits.unsqueeze(-1) + before).softmax(-2)
        below = torch.special.ndtr(u)
        cdf = (weights * below).sum(-2)
        fixed_weights, fixed_cdf = weights.detach(), cdf.detach()
        # Never 0: a component of negligible weight can be the one that was drawn.
        density = (
            (fixed_weights * log_normal.detach().exp()).sum(-2).clamp(min=torch.finfo(z.dtype).tiny ** 0.5)
        )
        drift = fixed_weights * (below.detach() - fixed_cdf.unsqueeze(-2))
        jacobian = (drift.mT @ (-u / self.scale).detach()).tril(-1) / density.unsqueeze(-1)
        step = ((cdf - fixed_cdf) / density).unsqueeze(-1)
        return torch.linalg.solve_triangular(jacobian, step, upper=False, unitriangular=True).squeeze(-1)

    def __repr__(self) -> str:
        sizes = f"components={self.loc.shape[-2]}, dim={self.loc.shape[-1]}"
        return f"PathwiseMixture({sizes}, batch_shape={tuple(self.batch_shape)})"
