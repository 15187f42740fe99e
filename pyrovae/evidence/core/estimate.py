"""Results of evidence estimation: numbers with direction, errors apart, and what may be said."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from ...programs import Measure
from ..weights.beyond import any_beyond
from ..weights.diagnostics import MIN_ESS, khat_threshold
from .direction import Direction, symbol_of

TAIL = "tail_allowance"  # in an estimate's details: see `tail.tail_allowance`, `[N]`
# In an estimate's details: share of the estimate that p(x) has more of (less, if < 0) where no draw of the guide meets
# the values of discrete latents that it hardly ever draws, `[N]`; see `unreached`.
UNREACHED = "unreached"
UNREACHED_ERROR = "unreached_error"  # its standard error, `[N]`
MOST_UNREACHED = 0.01  # of p(x): a two-sided statement leaves out no more
VISIBLE = 5e-5  # nats: half of the last digit that is printed
OWN = "own_proposal"  # in an estimate's details: 1 where a datum's draws are of its own proposal, 0 where the guide's
ANNEALED = "annealed"  # in an estimate's details: 1 where a datum's chains were annealed from its proposal
NUM_DRAWS = "num_draws"  # in an estimate's details: draws of each datum, where they differ
SANDWICH = "sandwich_gap"  # in an estimate's details: upper - lower bound on simulated data, nats


def standard_error(values: Tensor) -> float:
    """Standard error of the mean of independent values `[N]`; NaN for a single one."""
    return float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan


@dataclass(frozen=True)
class _Sides:
    """Parts of two-sided intervals, `[N]`, nats.

    Attributes:
        centre: estimates less their biases.
        lower, upper: room below and above for what independent draws leave open.
        over, under: room below and above for values that are hardly ever drawn.
        error: numerical error and rounding, on both sides.
    """

    centre: Tensor
    lower: Tensor
    upper: Tensor
    over: Tensor
    under: Tensor
    error: Tensor


@dataclass(frozen=True)
class Estimate:
    """One estimator over a data set. All figures in nats; per-datum tensors are `[N]`, float64.

    Attributes:
        name: the estimator's.
        direction: of its expectation against ln p(x): `"<="`, `">="`, `"~"`, `"none"`.
        num_samples: K.
        per_datum: estimate of ln p(x_n).
        variance: Monte-Carlo variance of each.
        bias: estimated bias of each (NaN: unknown).
        ess, khat: diagnostics of the weights, where there are weights.
        curve: mean over data of L_k against k, from disjoint blocks.
        certificate: the mean of ln p(x_n) over THESE data is at least this; None where the estimator gives
            none. With probability >= 1 - delta all certificates of one evidence hold together, so that the
            highest may be picked (see `pv.evidence`).
        delta: of the certificates.
        details: what only this estimator has: `[N]` tensors, numbers or text.
        measure: whether p(x) is a mass or a density; None: not known.
    """

    name: str
    direction: Direction
    num_samples: int
    per_datum: Tensor
    variance: Tensor
    bias: Tensor
    ess: Tensor | None = None
    khat: Tensor | None = None
    curve: dict[int, float] = field(default_factory=dict)
    certificate: float | None = None
    delta: float = 0.05
    details: dict[str, Any] = field(default_factory=dict)
    measure: Measure | None = None

    @property
    def log_evidence(self) -> float:
        """Mean over data, nats per datum; NaN where it is refused."""
        return math.nan if self.refused else float(self.per_datum.mean())

    @property
    def refused(self) -> str | None:
        """Why nothing is said of ln p(x), though numbers were computed; None: it is not refused."""
        return self.details.get("refused")

    @property
    def se_data(self) -> float:
        """Standard error of the mean as an estimate for the population the data came from."""
        return standard_error(self.per_datum)

    @property
    def se_mc(self) -> float:
        """Standard error of the mean over these very data: Monte Carlo, rounding, and what digits show of numerics."""
        own = float(self.variance.sum().sqrt() / len(self.variance))
        return math.hypot(own, self.shared_error, self.rounding, self.numerical)

    @property
    def numerical(self) -> float:
        """Numerical error of the mean of an exact value, where four digits show it, nats; else 0."""
        error = self.details.get("numerical_error")
        size = 0.0 if error is None else float(error.mean())
        return size if size > VISIBLE else 0.0

    @property
    def rounding(self) -> float:
        """Rounding error of the mean, nats: errors of one sign, which no mean over data makes smaller."""
        error = self.details.get("rounding")
        return 0.0 if error is None else float(error.mean())

    @property
    def shared_error(self) -> float:
        """Standard error that all data have in common (that of ln Z): no mean over data makes it smaller."""
        return float(self.details.get("shared_error", 0.0))

    def certificate_among(self, number: int) -> float | None:
        """The certificate, chosen after the fact among those of `number` programs: ln(number) / N lower."""
        return None if self.certificate is None else self.certificate - math.log(number) / len(self.per_datum)

    @property
    def bias_indicator(self) -> float:
        """Estimated bias of the mean; averaging over data removes variance, not this."""
        return float(self.bias.mean())

    @property
    def lower_only(self) -> str | None:
        """Why this lower bound supports no two-sided statement, however good its weights look; None: it may."""
        return self.details.get("lower_only")

    @property
    def reliable(self) -> Tensor:
        """`[N]` bool: data that support a two-sided statement, if the draws reach all of the posterior.

        A finite estimate with a finite variance; and, where there are weights, ESS >= 200 and largest weights
        that exclude an infinite mean (a finite `details["tail_allowance"]`; k-hat below its threshold where
        an estimator has none). No datum does where most of them do not exclude it: all share the families of guide
        and prior, and those that pass are the ones whose draws missed the tail (of a t_3 prior under a normal guide
        65 % of such intervals covered). Nor where the guide does not reach all that the prior allows (`lower_only`),
        nor a datum of which values of discrete latents that the guide hardly ever draws hold more than 1 % of p(x),
        nor one for which draws of the prior, or of a guide with flatter discrete latents, find more than the guide's.
        Nor where nothing tells how far a bound lies from ln p(x): an ELBO, an upper bound.
        No diagnostic sees a mode that neither draws of the guide nor these have reached.
        """
        only_bounds = self.direction == ">=" or (self.direction == "<=" and self.ess is None)
        if only_bounds or self.lower_only is not None:
            return torch.zeros_like(self.per_datum, dtype=torch.bool)
        good = torch.isfinite(self.variance) & torch.isfinite(self.per_datum)
        # k-hat = -inf marks weights that are all equal: exact, however few they are.
        equal = torch.zeros_like(good) if self.khat is None else self.khat == -torch.inf
        if self.ess is not None:
            good &= (self.ess >= MIN_ESS) | equal
        tail = self.details.get(TAIL)
        if tail is not None:
            bounded = torch.isfinite(tail)
            good &= bounded if float(bounded.double().mean()) >= 0.5 else equal
        elif self.khat is not None:
            good &= self.khat <= self.khat_threshold
        if UNREACHED in self.details:
            good &= self.details[UNREACHED].to(good.device) <= MOST_UNREACHED
        if (beyond := any_beyond(self.details)) is not None:
            good &= ~beyond.to(good.device)
        return good

    @property
    def symbol(self) -> str:
        """ln p(x) against the estimate: "≥" for a lower bound.

        "≈" where the draws of proposals of the data's own support every one of them; "?" where it is refused.
        """
        if self.refused:
            return symbol_of("none")
        supported = OWN in self.details and self.direction == "<=" and self.unreliable_share == 0
        return symbol_of("~" if supported else self.direction)

    @property
    def khat_threshold(self) -> float:
        """Above this k-hat the error of a datum's estimate cannot be trusted: min(1 - 1/log10 K, 0.7)."""
        return khat_threshold(self.num_samples)

    @property
    def unreliable_share(self) -> float:
        """Share of data whose weights support no two-sided statement."""
        return 1.0 - float(self.reliable.double().mean())

    def interval(self, level: float = 0.95) -> Tensor:
        """Two-sided per-datum interval for ln p(x_n), `[N, 2]`; NaN where `reliable` refuses it.

        With c the estimate less its bias, s its Monte-Carlo error, z the normal quantile and a the tail allowance:

            [c - z s, c + max(z s, ln(1 + sqrt(z^2 s^2 + a^2)))].

        The upper end has room for weights that were not drawn, since a run without its largest weights is too low
        and looks harmless; it does not shrink with the level. It covers if the guide reaches every mode. Where values
        of discrete latents are hardly ever drawn, the end on their side has room for what they hold.

        Who has one: what estimates ln p(x) itself (direction `"~"`: jackknife, MLMC, exact), and lower
        bounds made of weights (IS, AIS), whose distance to ln p(x) the weights tell. ELBO and upper
        bounds have none: their spread says nothing of that distance. The numerical error of an exact
        value widens it.

        Raises:
            ValueError: level outside (0, 1), or an estimator that only bounds ln p(x).
        """
        out = self._interval(level)
        out[~self.reliable] = torch.nan
        return out

    def mean_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided interval for the mean ln p(x_n) of these data; NaN where `reliable` refuses one of them.

        Sides of the data's own intervals are of independent draws: they add in squares, and errors that all data share
        as they are. Of one datum it is its `interval`. Its upper side, with room for weights that were not drawn, may
        be many times `se_mc`, which is of the weights that were.

        Raises:
            ValueError: as `interval`.
        """
        sides = self._sides(level)
        if not bool(self.reliable.all()):
            return math.nan, math.nan
        centre, n = float(sides.centre.mean()), len(self.per_datum)
        shared = NormalDist().inv_cdf(0.5 + level / 2) * self.shared_error
        # Values that no draw meets are the same ones for all data: what they hold does not average out.
        low, high = (
            math.hypot(float(own.square().sum().sqrt()) / n, shared) + float(same.mean() + sides.error.mean())
            for own, same in ((sides.lower, sides.over), (sides.upper, sides.under))
        )
        return centre - low, centre + high

    def _interval(self, level: float) -> Tensor:
        """Whatever the diagnostics say."""
        sides = self._sides(level)
        low = sides.centre - sides.lower - sides.over - sides.error
        return torch.stack([low, sides.centre + sides.upper + sides.under + sides.error], -1)

    def _sides(self, level: float) -> _Sides:
        if not 0 < level < 1:
            raise ValueError(f"expected a level in (0, 1), got {level}")
        if self.direction == "none":
            raise ValueError(
                "expected a normalised density, got one whose weights estimate ln f(x), not ln p(x)"
            )
        if self.direction != "~" and (self.direction != "<=" or self.ess is None):
            raise ValueError(f"expected an estimator of ln p(x), got {self.name}: it only bounds ln p(x)")
        half = NormalDist().inv_cdf(0.5 + level / 2) * self.variance.sqrt()
        zero = torch.zeros_like(half)
        names = (TAIL, UNREACHED, UNREACHED_ERROR)
        tail, more, of_more = (self.details.get(name, zero).to(half.device) for name in names)
        slack = NormalDist().inv_cdf(0.5 + level / 2) * of_more
        error = self.details.get("numerical_error", zero) + 2 * self.details.get("rounding", zero)
        return _Sides(
            centre=self.per_datum - torch.nan_to_num(self.bias),
            lower=half,
            upper=torch.maximum(half, torch.log1p(torch.hypot(half, tail))),
            over=-torch.log1p((more - slack).clamp(min=-0.999, max=0.0)),
            under=(more + slack).clamp(min=0.0).log1p(),
            error=zero + error,
        )

    def __repr__(self) -> str:
        symbol = symbol_of("none" if self.refused else self.direction)
        return (
            f"Estimate({self.name}, K={self.num_samples}: ln p(x) {symbol} {self.log_evidence:.4f} "
            f"± {self.se_data:.4f} (data) ± {self.se_mc:.4f} (MC) nats"
            f"{'' if self.measure is None else self.measure.label}, N={len(self.per_datum)})"
        )
