"""The certificate: a bound on the mean ln p(x) of a data set that holds whatever the weights are like."""

from __future__ import annotations

import math

from torch import Tensor

from ..weights.rounding import SAFETY


def certificate(per_datum: Tensor, delta: float, number: int = 1, rounding: Tensor | None = None) -> float:
    """Markov's inequality on E[prod p̂_n / p_n] = 1: mean ln p̂ - ln(number/delta) / N, less the rounding error.

    All of `number` such certificates hold together with probability >= 1 - delta, by the union bound: that of
    whichever estimator turns out the highest holds too. The inequality is of exact arithmetic; rounding is the same
    for all draws, and no average makes it smaller.
    """
    error = 0.0 if rounding is None else SAFETY * float(rounding.mean())
    return float(per_datum.mean()) - math.log(number / delta) / len(per_datum) - error
