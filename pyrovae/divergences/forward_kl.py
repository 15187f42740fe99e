"""How far a model is from the law of its data, where that law is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..checking import checked
from ..data import Dataset
from ..evidence.core.direction import REVERSED, Direction, symbol_of
from ..evidence.core.estimate import Estimate, standard_error
from ..evidence.core.estimator import WeightEstimator
from ..evidence.estimators.importance_sampling import IS
from ..evidence.evidence import evidence
from ..programs import Measure, check_alike, grain


@dataclass(frozen=True, eq=False)
class ForwardKL:
    """KL(p_data ‖ p_θ) in nats per datum, by paired differences.

    Attributes:
        per_datum: ln p_data(x_n) − ln p̂_θ(x_n) `[N]`, float64.
        estimate: The evidence it was made of.
    """

    per_datum: Tensor
    estimate: Estimate

    @property
    def value(self) -> float:
        """Mean over data; negative by its errors where the KL is small; NaN where the estimate is refused."""
        return math.nan if self.estimate.refused else float(self.per_datum.mean())

    @property
    def se_data(self) -> float:
        """Standard error for the law of the data: the spread over data, Monte Carlo noise included."""
        return standard_error(self.per_datum)

    @property
    def se_mc(self) -> float:
        """Monte Carlo standard error over these very data."""
        return self.estimate.se_mc

    @property
    def direction(self) -> Direction:
        """Direction of the expectation against the KL: ">=" where ln p̂ is a lower bound (the KL is overstated)."""
        return REVERSED[self.estimate.direction]

    @property
    def bias(self) -> float:
        """Estimated bias in nats (NaN: unknown): that of ln p̂ with the other sign."""
        return -self.estimate.bias_indicator

    def __float__(self) -> float:
        """`value`."""
        return self.value

    def __repr__(self) -> str:
        symbol = symbol_of("none" if self.estimate.refused else self.direction)
        return (
            f"ForwardKL({self.estimate.name}: KL(p_data ‖ p) {symbol} {self.value:.4f} "
            f"± {self.se_data:.4f} (data) ± {self.se_mc:.4f} (MC) nats, bias ~ {self.bias:+.2g}, "
            f"N={len(self.per_datum)})"
        )


@checked
def forward_kl(
    data: Dataset | Tensor,
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *context: Any,
    log_density: Callable[[Tensor], Tensor] | None = None,
    split: str = "test",
    estimator: WeightEstimator | None = None,
    **options: Any,
) -> ForwardKL:
    r"""KL(p_data ‖ p_θ) = E_data[ln p_data(x) − ln p_θ(x)], measured.

    The difference is taken datum by datum: ln p_data and ln p_θ rise and fall together, so its mean varies
    less than −⟨ln p_θ⟩ minus the exact entropy does. A lower bound on ln p_θ (ELBO, IS) overstates the KL;
    `direction` and `bias` say so. Data drawn from p_data are assumed independent.

    Args:
        data: A data set with `log_evidence` (Ising, linear-Gaussian), or data `[N, *event]`.
        model: `model(x, *context)`.
        guide: `guide(x, *context)`.
        *context: As in `evidence`.
        log_density: ln p_data of data `[N, *event]`, `[N]` in nats; needed where `data` do not know their own.
        split: Which data of a data set.
        estimator: Of ln p_θ(x); `IS(1000)` where None.
        **options: To `evidence`: seed, plate, chunk, compile, progress, ...

    Raises:
        ValueError: If no law of the data is known, it is not one finite number a datum, it is a mass and the model a
            density, or as `evidence`.
    """
    x = data if isinstance(data, Tensor) else data.split(split)
    if not (context or isinstance(data, Tensor)):
        context = data.arguments(split)[1:]
    if log_density is not None:
        log_p = log_density(x)
    elif not isinstance(data, Tensor) and data.log_evidence is not None:
        log_p = data.log_evidence[split]
    else:
        raise ValueError(
            "expected data that know their own law (log_evidence), got none; try log_density=, or "
            "load('ising') or load('linear-gaussian')"
        )
    if log_p.shape != (len(x),) or not bool(torch.isfinite(log_p).all()):
        raise ValueError(
            f"expected a finite ln p_data for each of the {len(x)} data, got shape {tuple(log_p.shape)}"
            + ("" if log_p.shape != (len(x),) else " with values that are not finite")
        )
    estimator = IS(1000) if estimator is None else estimator
    found = evidence(model, guide, x, *context, estimators=[estimator], **options)
    # A law of whole numbers is a mass: a density draws none.
    own = Measure(declared="mass" if grain(x) == "whole numbers" else "density")
    check_alike([("the law of the data", own), ("the model", found.measure)])
    estimate = found[estimator.name]
    return ForwardKL(log_p.detach().double() - estimate.per_datum.to(log_p.device), estimate)
