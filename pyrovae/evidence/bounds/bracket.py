"""ln p(x) between two bounds: the result of a sandwich."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ...pages.tables import html_table
from ...programs import LABELS
from ..core.estimate import standard_error
from ..core.tables import render
from ..weights.narrower_guides import narrower_note

LOW_ACCEPTANCE = 0.4
WIDE_GAP = 0.5  # nats


@dataclass(frozen=True)
class Bracket:
    """A lower and an upper bound of ln p(x_n), `[N]`, float64, nats, from one effort.

    Attributes:
        method: `"AIS"` or `"IS"`.
        effort: number of temperatures, or of samples.
        lower, upper: at most, at least ln p(x_n) in expectation.
    """

    method: str
    effort: int
    lower: Tensor
    upper: Tensor

    @property
    def gap(self) -> Tensor:
        """upper - lower, `[N]`; its expectation bounds what either bound loses."""
        return self.upper - self.lower

    def means(self) -> dict[str, tuple[float, float]]:
        """Mean over data and its standard error (Monte-Carlo error included), of lower, upper and gap."""
        return {n: _mean(v) for n, v in (("lower", self.lower), ("upper", self.upper), ("gap", self.gap))}


@dataclass(frozen=True)
class Sandwich:
    """ln p(x) between two bounds, on data SIMULATED from the model.

    On real data no exact posterior draw is at hand and there is no upper bound: there, the gap
    says how far the same estimator can be expected to fall short, as far as real data are like
    the model's.

    Attributes:
        brackets: AIS at each number of temperatures, in rising order.
        importance: the importance-weighted pair, ln (1/K) sum w_q and ln (1/K) (w_post + sum w_q).
        x: the simulated data.
        latents: the exact posterior draws, by site.
        acceptance: of HMC moves, at the most temperatures, forward and backward, `[N]`.
        attributes: N, seed, chains, start, measure ("mass", "density", "mixed" or "unknown").

    Example:
        >>> import pyrovae as pv
        >>> from pyrovae.models.ground_truths import linear_gaussian
        >>> pair = linear_gaussian(8, latent_dim=2)
        >>> sandwich = pv.sandwich(pair.model, pair.guide, pair.x, simulate=4, ais=pv.AIS(5, 2), num_samples=50)
        >>> len(sandwich.gap), list(sandwich.curve)
        (4, [5])
    """

    brackets: tuple[Bracket, ...]
    importance: Bracket
    x: Tensor = field(repr=False)
    latents: dict[str, Tensor] = field(repr=False)
    acceptance: Tensor = field(repr=False)
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def lower(self) -> Tensor:
        """Forward AIS at the most temperatures, `[N]`."""
        return self.brackets[-1].lower

    @property
    def upper(self) -> Tensor:
        """Reverse AIS at the most temperatures, `[N]`."""
        return self.brackets[-1].upper

    @property
    def gap(self) -> Tensor:
        """upper - lower, `[N]`."""
        return self.brackets[-1].gap

    @property
    def mean_gap(self) -> tuple[float, float]:
        """Mean over data ± standard error, nats."""
        return _mean(self.gap)

    @property
    def gaps(self) -> dict[str, float]:
        """Mean gap by estimator name, nats: of AIS (at the most temperatures) and of IS."""
        start = "" if self.attributes.get("start", "guide") == "guide" else " (prior)"
        return {f"AIS{start}": self.mean_gap[0], "IS": self.importance.means()["gap"][0]}

    @property
    def curve(self) -> dict[int, dict[str, tuple[float, float]]]:
        """Number of temperatures to mean ± SE of lower, upper and gap."""
        return {b.effort: b.means() for b in self.brackets}

    @property
    def warnings(self) -> list[str]:
        """Warnings that belong to the numbers."""
        n = len(self.x)
        out = [f"bounds hold on these {n} data, simulated from the model; they are none on real data"]
        if self.attributes.get("narrower"):
            out.append(narrower_note(self.attributes["narrower"]))
        gap, se = self.mean_gap
        if not math.isfinite(gap):
            out.append("a bound is infinite: chains of some data never had a weight; see .lower and .upper")
        elif gap < -4 * se:
            out.append(f"the bounds are crossed ({gap:.3f} ± {se:.3f}): an error in the program's densities")
        elif gap > WIDE_GAP:
            out.append(f"the gap is {gap:.2f} ± {se:.2f} nats wide: more temperatures would narrow it")
        low = float((self.acceptance < LOW_ACCEPTANCE).double().mean())
        if low > 0:
            out.append(
                f"HMC accepts less than {LOW_ACCEPTANCE:.0%} for {low:.0%} of the data: more temperatures, or leapfrog"
            )
        return out

    def _rows(self) -> tuple[list[str], list[list[str]]]:
        """Heads, and cells of a row a bracket."""
        label = LABELS.get(self.attributes.get("measure", "mass"), "")
        bounds = [f"ln p(x) {sign} [nats]{label}" for sign in "≥≤"]
        head = ["method", "temperatures / K", *bounds, "gap [nats]"]
        rows = []
        for b in (self.importance, *self.brackets):
            cells = [f"{mean:.4f} ± {se:.4f}" for mean, se in b.means().values()]
            rows.append([b.method, f"{b.effort:,}", *cells])
        return head, rows

    def table(self, style: str = "terminal") -> str:
        """One row a bracket, means ± SE over data in nats; `"terminal"`, `"markdown"` or `"latex"`."""
        return render(style, *self._rows(), self._title, self.warnings, titled=False)

    def plot(self) -> Any:
        """Axes with both bounds of AIS against the number of temperatures (`plots.plot_sandwich`)."""
        from ...plots import plot_sandwich

        efforts, pairs = [b.effort for b in self.brackets], [(b.lower, b.upper) for b in self.brackets]
        return plot_sandwich(efforts, [low for low, _ in pairs], [high for _, high in pairs])

    @property
    def _title(self) -> str:
        return f"Sandwich on {len(self.x)} simulated data"

    def _repr_html_(self) -> str:
        return html_table(*self._rows(), self._title, warnings=self.warnings)

    def __repr__(self) -> str:
        m = self.brackets[-1].means()
        return (
            f"Sandwich({m['lower'][0]:.4f} ≤ ln p(x) ≤ {m['upper'][0]:.4f}, gap {m['gap'][0]:.4f} ± "
            f"{m['gap'][1]:.4f} nats; N={len(self.x)} simulated data, {self.brackets[-1].effort} temperatures)"
        )


def _mean(values: Tensor) -> tuple[float, float]:
    return float(values.mean()), standard_error(values)
