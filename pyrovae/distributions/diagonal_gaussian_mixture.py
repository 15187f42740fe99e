"""A mixture of diagonal Gaussians whose density is one matrix product."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor
from torch.nn.functional import linear, log_softmax

__all__ = ["DiagonalGaussianMixture"]

LOWEST = -80.0  # A component this many nats below the best one adds e^-80: nothing in any dtype.


class DiagonalGaussianMixture(TorchDistribution):
    r"""Mixture of diagonal Gaussians over vectors, scored in matrix form.

    .. math:: \ln p(z) = \operatorname{logsumexp}_c \Big[ \ln \pi_c
        - \tfrac12 z^2 \cdot v_c + z \cdot (m_c v_c) + k_c \Big], \qquad v_c = s_c^{-2} .

    One product of `[.., 2D]` with `[2D, C]` replaces the `[.., C, D]` tensor of the textbook form. The
    parameters have no batch dims: `expand` repeats the same mixture and costs nothing. Not reparameterised:
    it is meant as a prior, which is scored (for a guide see `PathwiseMixture`).

    Args:
        loc: Means, `[C, D]`.
        scale: Standard deviations, `[C, D]`.
        logits: Unnormalised log-weights, `[C]`; uniform if not given.

    Raises:
        ValueError: for shapes that do not agree.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "loc": constraints.independent(constraints.real, 2),
        "scale": constraints.independent(constraints.positive, 2),
        "logits": constraints.real_vector,
    }
    support = constraints.real_vector
    has_rsample = False

    def __init__(
        self, loc: Tensor, scale: Tensor, logits: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        logits = loc.new_zeros(loc.shape[:1]) if logits is None else logits
        if loc.dim() != 2 or loc.shape != scale.shape or logits.shape != loc.shape[:1]:
            raise ValueError(
                "expected loc [C, D], scale [C, D], logits [C], got "
                f"{tuple(loc.shape)}, {tuple(scale.shape)}, {tuple(logits.shape)}"
            )
        self.loc, self.scale, self.logits = loc, scale, logits
        super().__init__(Size(), loc.shape[1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> DiagonalGaussianMixture:
        """Returns the same mixture with another batch shape."""
        new = self._get_checked_instance(DiagonalGaussianMixture, _instance)
        new.loc, new.scale, new.logits = self.loc, self.scale, self.logits
        shape = torch.broadcast_shapes(Size(batch_shape), self.batch_shape)
        super(DiagonalGaussianMixture, new).__init__(shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """Mean, `[*batch, D]`."""
        mean = self.logits.softmax(-1) @ self.loc
        return mean.expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        """Variance of each coordinate, `[*batch, D]`."""
        weights = self.logits.softmax(-1)
        spread = self.scale.square() + (self.loc - weights @ self.loc).square()
        return (weights @ spread).expand(self.batch_shape + self.event_shape)

    def sample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        """Draws `[*sample, *batch, D]`, without a gradient."""
        shape = Size(sample_shape) + self.batch_shape
        with torch.no_grad():
            index = torch.multinomial(self.logits.softmax(-1), max(shape.numel(), 1), replacement=True)
            index = index[: shape.numel()].reshape(shape)
            return torch.normal(self.loc[index], self.scale[index])

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats, `[*sample, *batch]`."""
        if self._validate_args:
            self._validate_sample(value)
        # Float64: the three terms cancel. At scale .02 and |z| = 4 each is 2e4, where float32 keeps 1e-3
        # nats, and no common centre helps when the means themselves are spread. Doubles are also left alone
        # by autocast and TF32. The product is small beside the decoder's; its result goes back to the input's
        # dtype before the log-sum-exp.
        z, loc, scale = value.double(), self.loc.double(), self.scale.double()
        precision = scale.pow(-2)
        weight = torch.cat([-0.5 * precision, loc * precision], -1)
        bias = log_softmax(self.logits.double(), -1) - scale.log().sum(-1)
        bias = bias - 0.5 * (loc.square() * precision).sum(-1) - 0.5 * loc.shape[1] * math.log(2 * math.pi)
        joint = linear(torch.cat([z * z, z], -1), weight, bias)
        joint = joint.to(torch.promote_types(value.dtype, self.loc.dtype))
        # exp(-100) is a denormal number, and in float32 on a CPU such numbers cost as much as the product.
        lowest = joint.detach().amax(-1, keepdim=True) + LOWEST
        log_prob = torch.maximum(joint, lowest).logsumexp(-1)
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def __repr__(self) -> str:
        sizes = f"components={len(self.loc)}, dim={self.loc.shape[1]}"
        return f"DiagonalGaussianMixture({sizes}, batch_shape={tuple(self.batch_shape)})"
