"""The variational mixture of posteriors as prior."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pyrovae.distributions import mixture_of

__all__ = ["VampPrior"]


class VampPrior(nn.Module):
    r"""Prior :math:`p(z) = \sum_c \pi_c\, q(z | u_c)`: the guide itself, at C learned pseudo-inputs.

    The guide's parameters are shared, not copied. The pseudo-inputs are encoded once a call, never once a
    sample. Any guide works; a diagonal Gaussian one is scored in matrix form.

    Args:
        guide: The guide, called with the pseudo-inputs alone.
        pseudo_inputs: Their start, `[C, *event]`, for example training data: `data.train[:500]`.
        low: Lower end of the data's range; with `high` it keeps the pseudo-inputs inside through a sigmoid.
        high: Upper end of the data's range.
        learn_weights: Learn the weights; otherwise they stay uniform.

    Raises:
        ValueError: no pseudo-input, no event dim, values outside the range, or half a range; on a call, a
            guide whose batch shape at the pseudo-inputs is not (C,).

    References:
        VAE with a VampPrior (Tomczak & Welling, 2018), https://arxiv.org/abs/1705.07120
    """

    def __init__(
        self,
        guide: nn.Module,
        pseudo_inputs: Tensor,
        low: float | None = None,
        high: float | None = None,
        learn_weights: bool = False,
    ) -> None:
        super().__init__()
        if pseudo_inputs.dim() < 2 or pseudo_inputs.numel() == 0:
            raise ValueError(
                f"expected pseudo_inputs [C, *event] with C >= 1, got {tuple(pseudo_inputs.shape)}"
            )
        start = pseudo_inputs.detach().clone()
        start = start if start.is_floating_point() else start.to(torch.get_default_dtype())
        if (low is None) != (high is None):
            raise ValueError(f"expected low and high together, got low={low}, high={high}")
        if low is not None and high is not None:
            if not low < high or start.min() < low or start.max() > high:
                raise ValueError(f"expected low < high around all pseudo_inputs, got low={low}, high={high}")
            # 1 % inside: at an end of the range the sigmoid is flat and a pseudo-input would never move.
            start = torch.logit(((start - low) / (high - low)).clamp(0.01, 0.99))
        self.low, self.high = low, high
        self.guide = guide
        self.latent_dim = int(guide.latent_dim)  # type: ignore[arg-type]  # a number
        self.raw_pseudo_inputs = nn.Parameter(start)
        logits = torch.zeros(len(start), dtype=start.dtype)
        self.logits: Tensor
        if learn_weights:
            self.logits = nn.Parameter(logits)
        else:
            self.register_buffer("logits", logits)

    @property
    def pseudo_inputs(self) -> Tensor:
        """The pseudo-inputs in data space, `[C, *event]`."""
        if self.low is None or self.high is None:
            return self.raw_pseudo_inputs
        return self.low + (self.high - self.low) * torch.sigmoid(self.raw_pseudo_inputs)

    def forward(self) -> Any:
        """Returns the prior, `batch_shape` (), `event_shape` (latent_dim,)."""
        return mixture_of(self.guide(self.pseudo_inputs), self.logits)

    def extra_repr(self) -> str:
        """Shows the sizes."""
        bounds = "" if self.low is None else f", low={self.low:g}, high={self.high:g}"
        return f"latent_dim={self.latent_dim}, num_components={len(self.logits)}{bounds}"
