"""The parts of what the ELBO loses: the result of `pv.gaps`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ...pages.tables import html_table
from ..core.direction import symbol_of
from ..core.estimate import Estimate, standard_error
from ..core.tables import check_style, render
from ..weights.narrower_guides import narrower_note


@dataclass(frozen=True)
class Part:
    """A paired difference of two bounds, nats.

    Attributes:
        per_datum: `[N]`, float64.
        variance: Monte-Carlo variance of each, `[N]`.
    """

    per_datum: Tensor
    variance: Tensor

    @property
    def mean(self) -> float:
        """Over data, nats per datum."""
        return float(self.per_datum.mean())

    @property
    def se(self) -> float:
        """Standard error of the mean over data (paired; the Monte-Carlo error is in it)."""
        return standard_error(self.per_datum)

    @property
    def se_mc(self) -> float:
        """Monte-Carlo standard error of the mean over these very data."""
        return float(self.variance.sum().sqrt() / len(self.variance))

    def __repr__(self) -> str:
        return f"{self.mean:.4f} ± {self.se:.4f} (data) ± {self.se_mc:.4f} (MC) nats"


def _difference(first: Estimate, second: Estimate) -> Part:
    """Draws are not shared (where they are, errors go along and this variance is too large, not too small)."""
    return Part(first.per_datum.cpu() - second.per_datum.cpu(), first.variance.cpu() + second.variance.cpu())


@dataclass(frozen=True)
class Gaps:
    """ln p(x) - ELBO in parts; estimates are per datum, `[N]`, in nats.

    Attributes:
        evidence: the estimate of ln p(x) used: exact where the program has it, else the highest
            among the lower bounds in `bounds`, each less its Monte-Carlo error: none is taken for its noise.
        elbo: of the guide q_phi.
        elbo_local: of q*, the guide's families with parameters of each datum's own.
        elbo_flow: of the richer family; None where it was not asked for.
        bounds: all estimates of ln p(x) there are: those asked for, and importance sampling from q* and
            from the richer family.
        conditional: guide sites that depend on other draws: their dependence stays amortised.
        attributes: as of `Evidence`, and the optimisation's; `kept`: data whose amortised guide stayed.
        partials: files of partial results that they were put together from.

    Example:
        >>> import pyrovae as pv
        >>> from pyrovae.models.ground_truths import linear_gaussian
        >>> pair = linear_gaussian(8, latent_dim=2)
        >>> quick = pv.LocalFit(steps=5, num_particles=4)
        >>> gaps = pv.gaps(pair.model, pair.guide, pair.x, fit=quick, flow=False, num_samples=50)
        >>> list(gaps.parts)
        ['total', 'amortisation', 'approximation']
    """

    evidence: Estimate
    elbo: Estimate
    elbo_local: Estimate
    elbo_flow: Estimate | None
    bounds: tuple[Estimate, ...] = field(repr=False, default=())
    conditional: tuple[str, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict, repr=False)
    partials: tuple[Path, ...] = field(default=(), repr=False)

    @property
    def total(self) -> Part:
        """ln p̂(x) - ELBO(q_phi)."""
        return _difference(self.evidence, self.elbo)

    @property
    def amortisation(self) -> Part:
        """ELBO(q*) - ELBO(q_phi)."""
        return _difference(self.elbo_local, self.elbo)

    @property
    def approximation(self) -> Part:
        """ln p̂(x) - ELBO(q*)."""
        return _difference(self.evidence, self.elbo_local)

    @property
    def flow_share(self) -> Part | None:
        """ELBO(richer family) - ELBO(q*): the part of the approximation gap that a richer family wins."""
        return None if self.elbo_flow is None else _difference(self.elbo_flow, self.elbo_local)

    @property
    def rest(self) -> Part | None:
        """ln p̂(x) - ELBO(richer family): what the richer family does not express either."""
        return None if self.elbo_flow is None else _difference(self.evidence, self.elbo_flow)

    @property
    def parts(self) -> dict[str, Part]:
        """Gaps by name: total, amortisation, approximation and its two halves."""
        found = {
            "total": self.total,
            "amortisation": self.amortisation,
            "approximation": self.approximation,
            "won by a flow": self.flow_share,
            "left by the flow": self.rest,
        }
        return {name: part for name, part in found.items() if part is not None}

    @property
    def warnings(self) -> list[str]:
        """Warnings that belong to the numbers."""
        out = []
        e = self.evidence
        if e.direction == "<=":
            out.append(
                f"ln p(x) is taken from {e.name}, a lower bound: the total and the approximation gap are understated "
                "by what it lacks"
            )
            if e.unreliable_share > 0 and not e.name.startswith("AIS"):
                out.append(
                    f"its weights support no two-sided statement for {e.unreliable_share:.0%} of the data; "
                    "pv.AIS among the estimators may be closer (command line: --estimators ais)"
                )
        if self.attributes.get("narrower"):
            out.append(narrower_note(self.attributes["narrower"]))
        if self.conditional:
            out.append(
                f"sites {list(self.conditional)} depend on other draws: that dependence stays amortised, so the "
                "amortisation gap is understated and the approximation gap overstated"
            )
        for name, part in self.parts.items():
            if part.mean < -4 * part.se_mc:
                out.append(
                    f"{name} is negative beyond its error: more steps, or a larger learning rate, are needed"
                )
        return out

    def summary(self) -> dict[str, Any]:
        """All means and errors, as plain numbers, for JSON."""
        estimates = [self.elbo, self.elbo_local, *([self.elbo_flow] if self.elbo_flow else []), *self.bounds]
        return {
            "parts": {n: {"mean": p.mean, "se_data": p.se, "se_mc": p.se_mc} for n, p in self.parts.items()},
            "estimates": {
                e.name: {
                    "mean": e.log_evidence,
                    "se_data": e.se_data,
                    "se_mc": e.se_mc,
                    "direction": e.direction,
                }
                for e in estimates
            },
            "evidence": self.evidence.name,
            "measure": self.attributes.get("measure"),
            "warnings": self.warnings,
            "attributes": {
                k: v if isinstance(v, int | float | str) else str(v) for k, v in self.attributes.items()
            },
        }

    def _rows(self) -> tuple[list[str], list[list[str]]]:
        """Heads, and cells of a row a bound or a gap."""
        label = "" if self.elbo.measure is None else self.elbo.measure.label
        head = ["", f"nats per datum{label}", "± data", "± MC", "share"]
        lines = [
            (f"ln p(x) {symbol_of(e.direction)} {e.name}", e.log_evidence, e.se_data, e.se_mc, "")
            for e in self._levels()
        ]
        whole = self.total.mean
        for name, p in self.parts.items():
            share = f"{p.mean / whole:.0%}" if whole > 0 else "–"
            lines.append((f"gap: {name}", p.mean, p.se, p.se_mc, share))
        return head, [[a, f"{b:.4f}", _figure(c), _figure(d), e] for a, b, c, d, e in lines]

    def table(self, style: str = "terminal") -> str:
        """Bounds and gaps, means ± SE over data ± Monte-Carlo error; `"terminal"`, `"markdown"` or `"latex"`."""
        check_style(style)
        return render(style, *self._rows(), self._title, self.warnings)

    def _repr_html_(self) -> str:
        return html_table(*self._rows(), self._title, warnings=self.warnings)

    def plot(self, label: str = "this guide") -> Any:
        """Axes with a bar of the parts."""
        from ...plots import plot_gap_bars

        return plot_gap_bars({label: self.bar()})

    def bar(self) -> Mapping[str, tuple[float, float]]:
        """Parts that add up to the total, for `plots.plot_gap_bars`: name to (nats, SE)."""
        parts = {"amortisation": self.amortisation, "approximation": self.approximation}
        share, rest = self.flow_share, self.rest
        if share is not None and rest is not None and share.mean > 0 and rest.mean > 0:
            parts = {"amortisation": self.amortisation, "won by a flow": share, "left by the flow": rest}
        return {name: (p.mean, p.se) for name, p in parts.items()}

    def _levels(self) -> list[Estimate]:
        flow = [] if self.elbo_flow is None else [self.elbo_flow]
        return [self.elbo, self.elbo_local, *flow, self.evidence]

    @property
    def _title(self) -> str:
        a = self.attributes
        what = f"{a['label']}: " if a.get("label") else ""
        return (
            f"{what}what the ELBO loses on N = {len(self.elbo.per_datum):,} data "
            f"({a.get('steps')} steps of {a.get('num_particles')} draws, seed {a.get('seed')})"
        )

    def __repr__(self) -> str:
        found = self.evidence
        return (
            f"Gaps(ln p(x) {symbol_of(found.direction)} {found.log_evidence:.4f} ({found.name}); "
            f"amortisation {self.amortisation!r}, approximation {self.approximation!r})"
        )


def _figure(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"
