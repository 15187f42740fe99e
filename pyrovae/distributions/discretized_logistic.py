"""A logistic distribution, or a mixture of them, rounded to levels."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor
from torch.nn.functional import logsigmoid

__all__ = ["DiscretizedLogistic"]


class DiscretizedLogistic(TorchDistribution):
    r"""Mixture of logistics rounded to the levels 0..L-1; the end levels take the tails.

    .. math:: p(x) = \sum_c \pi_c\, [\mathrm{sigm}(b_c) - \mathrm{sigm}(a_c)], \quad
        a_c = (x - \tfrac12 - m_c) / s_c, \quad b_c = a_c + 1 / s_c ,

    with :math:`a = -\infty` at x = 0 and :math:`b = \infty` at x = L-1. The difference is taken in the exact
    form :math:`\mathrm{sigm}(b)\, \mathrm{sigm}(-a)\, (1 - e^{-1/s})`, which never cancels.

    Args:
        loc: Locations in units of levels, `[*batch, C]`.
        scale: Scales in units of levels, `[*batch, C]`.
        logits: Unnormalised log-weights, `[*batch, C]`.
        levels: The number of levels L.

    Raises:
        ValueError: fewer than two levels, or shapes that differ.

    References:
        PixelCNN++ (Salimans et al., 2017), https://arxiv.org/abs/1701.05517
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "loc": constraints.independent(constraints.real, 1),
        "scale": constraints.independent(constraints.positive, 1),
        "logits": constraints.real_vector,
    }

    def __init__(
        self, loc: Tensor, scale: Tensor, logits: Tensor, levels: int, validate_args: bool | None = None
    ) -> None:
        if levels < 2:
            raise ValueError(f"expected levels >= 2, got {levels}")
        if not loc.dim() or not loc.shape == scale.shape == logits.shape:
            shapes = ", ".join(str(tuple(t.shape)) for t in (loc, scale, logits))
            raise ValueError(f"expected loc, scale, logits all [*batch, C], got {shapes}")
        self.loc, self.scale, self.logits, self.levels = loc, scale, logits, levels
        super().__init__(loc.shape[:-1], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        """The integers 0..L-1."""
        return constraints.integer_interval(0, self.levels - 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> DiscretizedLogistic:
        """Returns the distribution with another batch shape."""
        new = self._get_checked_instance(DiscretizedLogistic, _instance)
        shape = Size(batch_shape) + self.loc.shape[-1:]
        new.loc, new.scale, new.logits = (t.expand(shape) for t in (self.loc, self.scale, self.logits))
        new.levels = self.levels
        super(DiscretizedLogistic, new).__init__(Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        r"""Mean level, :math:`\sum_{l=1}^{L-1} p(x \ge l)`, `[*batch]`."""
        # A loop: all levels at once would take L times the memory of an image.
        above = sum(torch.sigmoid((self.loc - level + 0.5) / self.scale) for level in range(1, self.levels))
        return (self.logits.softmax(-1) * above).sum(-1)

    def sample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        """Draws levels `[*sample, *batch]`."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            loc, scale, probs = (
                t.expand(shape + t.shape[-1:]) for t in (self.loc, self.scale, self.logits.softmax(-1))
            )
            which = torch.multinomial(probs.reshape(-1, probs.shape[-1]), 1).reshape(*shape, 1)
            loc, scale = (t.gather(-1, which).squeeze(-1) for t in (loc, scale))
            u = torch.rand_like(loc).clamp(torch.finfo(loc.dtype).tiny, 1 - torch.finfo(loc.dtype).eps)
            return (loc + scale * torch.logit(u)).round().clamp(0, self.levels - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability in nats, `[*sample, *batch]`."""
        if self._validate_args:
            self._validate_sample(value)
        x = value.to(self.loc.dtype).unsqueeze(-1)
        above, below = x > 0, x < self.levels - 1
        # Both edges from x -+ 1/2 rounded alike: neighbouring levels share an edge to the last bit.
        upper = logsigmoid((x + 0.5 - self.loc) / self.scale)
        lower = logsigmoid((self.loc - (x - 0.5)) / self.scale)
        inside = torch.log(-torch.expm1(-1 / self.scale))
        each = torch.where(below, upper, 0) + torch.where(above, lower, 0)
        each = each + torch.where(above & below, inside, 0)
        if self.loc.shape[-1] == 1:
            return each.squeeze(-1)
        return (each + self.logits.log_softmax(-1)).logsumexp(-1)

    def __repr__(self) -> str:
        sizes = f"levels={self.levels}, components={self.loc.shape[-1]}"
        return f"DiscretizedLogistic({sizes}, batch_shape={tuple(self.batch_shape)})"
