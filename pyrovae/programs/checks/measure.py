"""Is p(x) a probability or a density? Figures of one kind cannot be compared with those of the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyro.distributions as dist
import torch
from torch import Tensor

from ..declaration import Declaration
from ..sites import is_factor, sample_sites

Kind = Literal["mass", "density", "mixed", "unknown"]
WORDS = {
    "mass": "a probability mass",
    "density": "a probability density",
    "mixed": "a mass in some sites and a density in others",
    "unknown": "a mass or a density, which is not known",
}
LABELS = {"mass": "", "density": ", density", "mixed": ", mass × density", "unknown": ", mass or density"}
REMEDY = (
    "for whole numbers a mass is pv.likelihoods.Binomial or DiscretizedLogistic (command line: --likelihood "
    "binomial or discretized-logistic), once the smallest is subtracted from negative ones"
)
ON_GRAIN = (
    "on such data a density has no upper bound, is no probability, gives no bits/dim and is not comparable with a "
    f"mass; {REMEDY}"
)
# Of the first so many values (at least FEWEST), no more than one in RARE distinct: levels, or rounded data.
LOOKED_AT, RARE, FEWEST = 100_000, 10, 100


@dataclass(frozen=True)
class Measure:
    """Measure that p(x) refers to: counting (a mass, <= 1), volume (a density, without bound), or their product.

    Attributes:
        kinds: "mass", "density", "mixed" or "unknown" by observed site. A `pyro.factor` is unknown.
        laws: name of the distribution, by observed site.
        declared: what the program declares (`pyrovae.program(measure=...)`), which counts for all sites.
        columns: "mass" or "density" of each number of a datum, by observed site, where the law says it.
    """

    kinds: Mapping[str, str] = field(default_factory=dict)
    laws: Mapping[str, str] = field(default_factory=dict)
    declared: str | None = None
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Measure of all observed sites together."""
        if self.declared is not None:
            return self.declared
        found = set(self.kinds.values())
        if not found or "unknown" in found:
            return "unknown"
        return found.pop() if len(found) == 1 else "mixed"

    @property
    def label(self) -> str:
        """Behind the name of a figure: "" for a mass, else ", density" and the like."""
        return LABELS[self.kind]

    def __str__(self) -> str:
        where = ", ".join(f"{law} at {name!r}" for name, law in self.laws.items())
        return f"{WORDS[self.kind]} ({where})" if where else WORDS[self.kind]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary of JSON types; `from_json` is its inverse."""
        found = {"kinds": dict(self.kinds), "laws": dict(self.laws), "declared": self.declared}
        return found | ({"columns": {k: list(v) for k, v in self.columns.items()}} if self.columns else {})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Measure:
        """The measure that `to_json` gave."""
        columns = {k: tuple(v) for k, v in values.get("columns", {}).items()}  # older results have none
        return cls(dict(values["kinds"]), dict(values["laws"]), values["declared"], columns)


def check_alike(measures: Sequence[tuple[str, Measure | None]]) -> None:
    """Refuses to put figures of masses and of densities side by side.

    Args:
        measures: name of a program and its measure; None and "unknown" pass.

    Raises:
        ValueError: naming two that differ.
    """
    known = [(n, m) for n, m in measures if m is not None and m.kind != "unknown"]
    for name, measure in known[1:]:
        first, other = known[0]
        same = measure.kind == other.kind
        if same and measure.kind == "mixed" and dict(measure.kinds) != dict(other.kinds):
            same = False
        if same and measure.kind == "mixed":
            _check_columns(name, measure, first, other)
        if not same:
            raise ValueError(
                f"expected figures of one kind, got {_named(first, other)} and {_named(name, measure)}: a density "
                "changes with the units of x and has no upper bound on whole numbers, so that its difference from a "
                f"mass means nothing; try likelihoods of one kind for both: {REMEDY}"
            )


def _check_columns(name: str, measure: Measure, first: str, other: Measure) -> None:
    for site in measure.columns.keys() & other.columns.keys():
        own, others = measure.columns[site], other.columns[site]
        odd = [i for i, (a, b) in enumerate(zip(own, others, strict=False)) if a != b]
        if len(own) == len(others) and not odd:
            continue
        what = f"column {odd[0]} (from 0) of {site!r}" if odd else f"another number of columns of {site!r}"
        raise ValueError(
            f"expected a mass in the same columns, and a density in the others, got {_named(first, other)} and "
            f"{_named(name, measure)}, which differ in {what}: a difference of figures of a mass and of a density "
            "means nothing; try the same roles of columns for both"
        )


def _named(name: str, measure: Measure) -> str:
    return f"{name}, {measure}" if name else str(measure)


def measure_of(model_trace: Any, declared: Declaration) -> Measure:
    """The measure of a program, from a trace of its model.

    In a program that declares itself "bound_only" or "unnormalised" a `pyro.factor` is a term of its latents, and
    the observed sites alone say what p(x) is of.
    """
    kinds, laws, columns = {}, {}, {}
    for name, site in sample_sites(model_trace):
        if not site["is_observed"] or is_computed(site):
            continue
        if is_factor(site):
            if declared.density in (None, "exact"):
                kinds[name], laws[name] = "unknown", "pyro.factor"
            continue
        kinds[name], laws[name] = kind_of(site["fn"]), _name(_law(site["fn"]))
        if (own := getattr(_law(site["fn"]), "column_kinds", None)) is not None:
            columns[name] = tuple(own)
    return Measure(kinds, laws, declared.measure, columns)


def _name(law: Any) -> str:
    return str(getattr(law, "law_name", type(law).__name__))


def is_computed(site: Any) -> bool:
    """Whether a site is a value that others make, as reparameterisers leave it: a point mass at the value itself.

    Some leave it masked; some with the logarithm of a Jacobian, or of a law that they took apart. A point mass at which
    data are observed stands somewhere else in memory.
    """
    fn, masked = site["fn"], False
    while isinstance(fn, dist.MaskedDistribution | dist.Independent | dist.ExpandedDistribution):
        masked |= getattr(fn, "_mask", None) is False
        fn = fn.base_dist
    if not isinstance(fn, dist.Delta):
        return False
    return masked or (
        (site["is_observed"] or "was_observed" in site["infer"]) and _same_memory(fn.v, site["value"])
    )


def _same_memory(a: Any, b: Any) -> bool:
    try:
        return a is b or a.data_ptr() == b.data_ptr()
    except RuntimeError:  # of torch.func, or of a tracer
        return False


def kind_of(fn: Any) -> Kind:
    """Whether a distribution's `log_prob` is of a mass or of a density.

    By its support; "unknown" for point masses (Delta, Empirical), for discrete laws under a transform, and where
    no support is given.
    """
    base = _law(fn)
    if isinstance(base, dist.Delta | dist.Empirical):
        return "unknown"
    if isinstance(base, torch.distributions.TransformedDistribution):
        return "density" if kind_of(base.base_dist) == "density" else "unknown"
    try:
        kind = _kind_of_support(base.support)
    except (NotImplementedError, AttributeError, ValueError):
        return "unknown"
    if kind == "density" and type(base).__name__.startswith("ZeroInflated"):
        return "mixed"
    return kind


def _law(fn: Any) -> Any:
    """Law inside Independent, Expanded and Masked wrappers; a law made from another one stays."""
    wrappers = (torch.distributions.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)
    while isinstance(fn, wrappers):
        fn = fn.base_dist
    return fn


def _kind_of_support(support: Any) -> Kind:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    parts = getattr(support, "cseq", None)  # of a concatenation
    if parts:
        found = {_kind_of_support(c) for c in parts}
        return found.pop() if len(found) == 1 else "mixed"
    return "mass" if support.is_discrete else "density"


def grain_of(measure: Measure, x: Tensor) -> str | None:
    """Reason why data under such a measure have points of positive probability where it has a density, as `grain`.

    Of rows in part under a mass, the columns of whole numbers are taken to be those.
    """
    if measure.kind == "mixed" and x.dim() == 2 and x.is_floating_point():
        x = x[:, ~((x == x.round()) | x.isnan()).all(0)]
        if not x.numel():
            return "whole numbers"
    return grain(x)


def grain(x: Tensor) -> str | None:
    """Reason why data have points of positive probability: whole numbers, few distinct values; else None."""
    if x.is_floating_point() and bool(x.isnan().any()):
        x = x[~x.isnan()]  # what is missing is no value
    if not x.is_floating_point() or bool((x == x.round()).all()):
        return "whole numbers"
    values = x.detach().flatten()[:LOOKED_AT]
    distinct = len(values.unique())
    if len(values) >= FEWEST and distinct * RARE <= len(values):
        return f"only {distinct:,} distinct values among {len(values):,}"
    return None


def measure_notes(measure: Measure, x: Tensor) -> list[str]:
    """Warning about the kind of ln p(x) of these data."""
    if measure.kind == "unknown" and measure.declared is None:
        unknown = [n for n, kind in measure.kinds.items() if kind == "unknown"]
        return [
            f"p(x) is a mass or a density, which is not known (sites {unknown}); to say it: "
            '@pyrovae.program(measure="mass") or "density"'
        ]
    if measure.kind not in ("density", "mixed"):
        return []
    found = grain_of(measure, x)
    if found is None:
        return []
    return [f"x holds {found}, and p(x) is {measure}: {ON_GRAIN}"]
