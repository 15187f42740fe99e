"""Likelihoods of counts with a factor on the means: how long, how deep or how many was counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Size, Tensor, nn

from .._constants import LIMIT, positive_logs
from .._from_network import FromNetwork

__all__ = ["Exposed", "Exposure"]


class Exposure(nn.Module):
    """Factor on the means of counts: fixed, or the last tensor of the context.

    Args:
        exposure: a positive number; a tensor of the event shape, one for each element of a datum; or "context".
        event_shape: Shape of one datum.

    Raises:
        ValueError: exposures that are not positive and finite, or of another shape.
    """

    log_factor: Tensor

    def __init__(self, exposure: float | Tensor | Literal["context"], event_shape: Size) -> None:
        super().__init__()
        self.event_shape, self.in_context = event_shape, False
        if isinstance(exposure, str):
            if exposure != "context":
                raise ValueError(
                    f"expected exposure as a number, a tensor or the word 'context', got {exposure!r}"
                )
            exposure, self.in_context = 1.0, True
        self.register_buffer("log_factor", positive_logs(exposure, event_shape, "exposure"))

    def forward(self, z: Tensor, context: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
        """Returns the context that is left for the network, and ln exposure, which broadcasts to the means."""
        if not self.in_context:
            return context, self.log_factor
        if not context:
            raise ValueError(
                "expected exposures as the last tensor of the context, got no context; try data=(x, exposure) and "
                "model(x, exposure), or a fixed exposure"
            )
        *rest, given = context
        widths = (1, self.event_shape.numel())
        # One exposure per datum without a last dim would be spread over the elements of a datum.
        if given.dim() < min(z.dim(), 2) or given.shape[-1] not in widths:
            raise ValueError(
                f"expected exposures of shape [N, 1] or [N, {widths[1]}], got {tuple(given.shape)}; "
                "try exposure[:, None]"
            )
        log_factor = given.to(z.dtype).log()
        shape = self.event_shape if given.shape[-1] == widths[1] else Size([1] * len(self.event_shape))
        return tuple(rest), log_factor.unflatten(-1, shape)

    def extra_repr(self) -> str:
        """Shows where the factor comes from."""
        if self.in_context:
            return "the last tensor of the context"
        return "one each" if self.log_factor.dim() else f"{self.log_factor.exp().item():.4g}"


class Exposed(FromNetwork):
    """Likelihood of counts whose log-means, the first output of the network, are shifted by ln exposure.

    Raises:
        ValueError: as for `Exposure` and `FromNetwork`.
    """

    def __init__(
        self,
        net: nn.Module,
        exposure: float | Tensor | Literal["context"] = 1.0,
        event_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__(net, event_shape)
        self.exposure = Exposure(exposure, self.event_shape)

    def forward(self, z: Tensor, *context: Tensor) -> Any:
        """Returns p(x|z), `batch_shape` z.shape[:-1]."""
        context, log_exposure = self.exposure(z, context)
        law = self.counts(self.parameters_at(z, *context), log_exposure)
        return law.to_event(len(self.event_shape))

    def counts(self, parameters: Tensor, log_exposure: Tensor) -> Any:
        """Returns the law of each count from `parameters_at` and ln exposure, which broadcasts."""
        raise NotImplementedError

    def raw_mean(self, x: Tensor) -> Tensor:
        """Log-means `[*event]` at which the mean is that of `x`, `[N, *event]`; half a count where all are 0."""
        mean = x.double().mean(0).clamp(min=0.5 / len(x))
        raw = mean.log() - self.exposure.log_factor.double().to(x.device)
        return raw.clamp(-LIMIT, LIMIT).to(torch.get_default_dtype())
