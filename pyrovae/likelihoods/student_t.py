"""Student's likelihood for real data with outliers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyrovae import distributions
from pyrovae.networks import positive_scale

from ..devices import as_tensor
from ._constants import constant_of, set_constant, shown
from ._from_network import WithFloor

__all__ = ["StudentT"]


class StudentT(WithFloor):
    r"""Likelihood :math:`p(x|z) = \prod_i t_{\nu_i}(x_i; \mu_i(z), s_i(z))`, location and scale of the network.

    A density. Its tails fall as a power, so that a few values far out do not move the rest; with many degrees of
    freedom it is `HeteroscedasticGaussian`.

    Args:
        net: Network from `z` (and context) to `[..., 2 * prod(event_shape)]`: first the locations, then the raw
            scales; raw zeros give a scale of 1, and the floor.
        df: Degrees of freedom :math:`\nu > 1` (below which there is no mean), or their start if they are
            learned: a number that all elements of a datum share, or a tensor of the event shape.
        learn_df: Learn them, as :math:`\ln (\nu - 1)`, from a start within -15 ... 15, beyond which they grow
            linearly. Those that are not learned are used as they are.
        min_scale: Floor of the scale, which must be there: where it may go to 0 the likelihood has no maximum.
        event_shape: Shape of one datum; `(net.out_features / 2,)` if not given.

    Raises:
        ValueError: df is not above 1 and finite, beyond its bounds or of another shape, min_scale is not positive
            and finite, or the network's width is not known or does not fill the event shape.

    References:
        Student-t Variational Autoencoder for Robust Density Estimation (Takahashi et al., 2018),
        https://doi.org/10.24963/ijcai.2018/374
    """

    log_df_above_one: Tensor

    def __init__(
        self,
        net: nn.Module,
        df: float | Tensor = 5.0,
        learn_df: bool = True,
        min_scale: float = 1e-2,
        event_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__(net, min_scale, event_shape)
        if not (as_tensor(df, dtype=torch.float64) > 1).all():
            raise ValueError(f"expected df > 1, where the law has a mean, got {df}")
        self.learn_df = learn_df
        set_constant(self, "log_df_above_one", df - 1, self.event_shape, "df - 1", learn_df)

    def law(self, parameters: Tensor) -> Any:
        """Returns the law of each element from its location and raw scale."""
        loc, raw = parameters.unbind(-1)
        return distributions.StudentT(self._df().to(loc.dtype), loc, positive_scale(raw, self.min_scale))

    def _df(self) -> Tensor:
        return 1 + constant_of(self.log_df_above_one, self.learn_df)

    def raw_mean(self, x: Tensor) -> Tensor:
        """Network output `[*event]` at which the locations are the medians of `x`, `[N, *event]`."""
        return x.to(torch.get_default_dtype()).median(0).values

    def settings(self) -> dict[str, object]:
        """Shows the degrees of freedom and the floor."""
        return {"df": shown(self._df(), self.learn_df)} | super().settings()
