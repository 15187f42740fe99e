"""Result of `pv.evidence`: estimates by name, what they are of, and what may be said of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..pages.tables import html_table
from ..programs import Measure
from .bounds.bracket import Sandwich
from .core.estimate import SANDWICH, Estimate
from .core.estimator import PerDatum
from .core.paired import PairedDifference, paired_difference
from .frame import data_frame, row_of, rows_per_datum
from .report import evidence_rows, evidence_title, render_evidence
from .verdict import choose, verdict


@dataclass(frozen=True)
class Evidence(Mapping[str, Estimate]):
    """Estimates of ln p(x) of one program on one data set, by estimator name.

    Attributes:
        estimates: by name, in the order asked for.
        warnings: what a reader of the numbers must know.
        attributes: N, event size, seed, chunk, device, dtype, versions, data hash, seconds; `measure`: "mass",
            "density", "mixed" or "unknown", and `observed`, the same by observed site.
        x: the data.
        results: per datum, by estimator: what `merge_evidence` merges.
        rows: which of the data these are, for a shard; None: all.
        about: the warnings that are of the program, and not of the numbers.
        partials: files of partial results that it was put together from.

    Example:
        >>> import pyrovae as pv
        >>> from pyrovae.models.ground_truths import linear_gaussian
        >>> pair = linear_gaussian(8, latent_dim=2)
        >>> evidence = pv.evidence(pair.model, pair.guide, pair.x, estimators=[pv.ELBO(), pv.IS(500)])
        >>> evidence.best.name, evidence.gap > 0
        ('IS', True)
    """

    estimates: dict[str, Estimate]
    warnings: list[str]
    attributes: dict[str, Any]
    x: Tensor = field(repr=False)
    results: dict[str, PerDatum] = field(default_factory=dict, repr=False)
    rows: Tensor | None = field(default=None, repr=False)
    about: tuple[str, ...] = ()
    partials: tuple[Path, ...] = field(default=(), repr=False)

    @property
    def refused(self) -> dict[str, str]:
        """Estimators that refuse this program, and why: a row in the table, and no estimate."""
        return dict(self.attributes.get("refused", {}))

    def __getitem__(self, name: str) -> Estimate:
        """The estimate of this name.

        Raises:
            ValueError: one that was refused, with the reason.
            KeyError: one that was not asked for.
        """
        if name in self.refused:
            raise ValueError(
                f"expected an estimator that serves this program, got {name}: {self.refused[name]}"
            )
        if name not in self.estimates:
            raise KeyError(f"expected one of {list(self.estimates)}, got {name!r}")
        return self.estimates[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.estimates)

    def __len__(self) -> int:
        return len(self.estimates)

    @property
    def best(self) -> Estimate:
        """The estimate with the strongest claim on ln p(x).

        In this order: the exact one; of the lower bounds that carry a certificate (IS, AIS) the one
        with the highest mean; IS; the first that is not refused. Each lies below ln p(x) in expectation, the
        highest of several only up to their errors; its certificate holds, since all of them hold together.
        Means over the data are compared, not single data, of which a maximum would be no bound.
        """
        return choose(list(self.estimates.values()))

    @property
    def per_datum(self) -> dict[str, Tensor]:
        """Estimator name to ln p̂(x_n), `[N]`, nats."""
        return {name: e.per_datum for name, e in self.estimates.items()}

    @property
    def gap(self) -> float:
        """Mean of IS - ELBO: what the ELBO loses, at least, in nats per datum.

        Raises:
            KeyError: without one of them.
        """
        lacking = [name for name in ("ELBO", "IS") if name not in self.estimates]
        if lacking:
            raise KeyError(
                f"expected estimators ELBO and IS for the gap between them, got {list(self.estimates)}; try "
                "estimators=[pv.ELBO(), pv.IS(1000)], or the per_datum of two others"
            )
        return self["IS"].log_evidence - self["ELBO"].log_evidence

    @property
    def measure(self) -> Measure | None:
        """Whether p(x) is a mass or a density; None in files that do not say."""
        found = self.attributes.get("observed")
        return None if found is None else Measure.from_json(found)

    @property
    def verdict(self) -> str:
        """Verdict of the figures, in words."""
        return verdict(self.estimates, self.attributes.get("density") == "bound_only")

    def table(self, style: str = "terminal", against: Evidence | None = None) -> str:
        """One row an estimator; `"terminal"`, `"markdown"` or `"latex"`.

        Args:
            style: of the table.
            against: another evidence on the same data: adds the paired difference of each estimator.

        Raises:
            ValueError: for another style, other data, or a mass against a density.
        """
        notes, other = [*self.warnings, self.verdict], None
        if against is not None:
            found, other = self.compare(against), against.estimates
            name = against.attributes.get("label") or "the other evidence"
            notes += [f"against {name}: {found}", *found.warnings]
        return render_evidence(style, self.estimates, notes, self.attributes, self.x, other)

    def compare(self, other: Evidence) -> PairedDifference:
        """Paired difference self - other of the best estimates, ± SE, nats per datum; see `paired`.

        Raises:
            ValueError: where the data differ, or one is a mass and the other a density.
        """
        return paired_difference(*self.paired(other))

    def paired(self, other: Evidence) -> tuple[Estimate, Estimate]:
        """The estimates of both that `compare` compares.

        The best of `self` among the estimators that both have; where they have none in common, the best of each.

        Raises:
            ValueError: where the data differ.
        """
        if self.attributes["data_hash"] != other.attributes["data_hash"]:
            raise ValueError(
                "expected two evidences on the same data, in the same order, got data with hashes "
                f"{self.attributes['data_hash'][:12]} and {other.attributes['data_hash'][:12]}"
            )
        common = [e for name, e in self.estimates.items() if name in other.estimates]
        mine = choose(common) if common else self.best
        return mine, other.estimates.get(mine.name, other.best)

    def with_sandwich(self, sandwich: Sandwich | Mapping[str, float]) -> Evidence:
        """The same, with how wide its bounds are on simulated data: a column, and a warning of differences.

        A difference that is smaller than either side's gap comes with a warning (`PairedDifference.warnings`).

        Args:
            sandwich: of the same program and guide; or gaps in nats by estimator name.

        Raises:
            ValueError: a gap for an estimator that is not here.
        """
        gaps = sandwich if isinstance(sandwich, Mapping) else sandwich.gaps
        known = {n: {**e.details, SANDWICH: gaps[n]} for n, e in self.estimates.items() if n in gaps}
        if not known:
            raise ValueError(f"expected gaps for some of {list(self.estimates)}, got {list(gaps)}")
        found = {n: replace(e, details=known.get(n, e.details)) for n, e in self.estimates.items()}
        return replace(self, estimates=found)

    def plot(self, image_shape: tuple[int, int] | None = None) -> Any:
        """A figure: L_K against 1/K, ELBO against IS per datum, k-hat; the worst-estimated images.

        Each where it can be had: see `plots.plot_evidence`.

        Args:
            image_shape: height and width, where the data are images.
        """
        from ..plots import plot_evidence

        return plot_evidence(self, image_shape)

    def to_dataframe(self, per_datum: bool = False) -> Any:
        """`pandas.DataFrame`, one row an estimator, or one an estimator and datum; figures in nats.

        Raises:
            ImportError: pandas is not installed.
        """
        estimates = self.estimates.values()
        rows = (
            [r for e in estimates for r in rows_per_datum(e)] if per_datum else list(map(row_of, estimates))
        )
        return data_frame(rows)

    def to_arviz(self) -> Any:
        """`arviz.InferenceData` (0.x) or `xarray.DataTree` (1.x); see `pyrovae.export`."""
        from ..export import evidence_to_arviz

        return evidence_to_arviz(self)

    def _repr_html_(self) -> str:
        heads, rows = evidence_rows(self.estimates, self.attributes, self.x)
        return html_table(heads, rows, evidence_title(self.attributes), [self.verdict], self.warnings)

    def __repr__(self) -> str:
        return "Evidence(\n  " + "\n  ".join(map(repr, self.estimates.values())) + "\n)"
