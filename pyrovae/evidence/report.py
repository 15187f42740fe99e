"""Tables and words for evidence results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..programs import grain
from .core.estimate import SANDWICH, Estimate, _symbol, paired_difference
from .core.tables import render
from .weights.diagnostics import khat_threshold

if TYPE_CHECKING:
    from .evidence import Evidence

COLUMNS = (
    "estimator",
    "ln p(x) [nats]",
    "bits/dim",
    "± data",
    "± MC",
    "certified ≥",
    "est. bias",
    "K",
    "ESS min/5%/median",
    "k̂ high",
)
LABELLED = COLUMNS[1:3]  # where a density has to be told from a mass
# Shown where an estimator has them: key in its details, head of the column.
FROM_DETAILS = {
    "temperatures": "temperatures",
    "num_temperatures": "temperatures",
    "chains": "chains",
    "num_chains": "chains",
    "acceptance": "acceptance",
    "mean_cost": "cost/datum",
    SANDWICH: "BDMC gap",
}
PAIRED = "Δ ± SE (paired)"
NONE = "–"


def columns(ev: Evidence, against: Evidence | None = None) -> list[str]:
    """Heads of the table: those of every evidence, those its estimators have, the paired difference.

    A density is called one in the heads.
    """
    label = "" if ev.measure is None else ev.measure.label
    return [head + label if head in LABELLED else head for head in _heads(ev, against)]


def _heads(ev: Evidence, against: Evidence | None) -> list[str]:
    own = [FROM_DETAILS[k] for k in FROM_DETAILS if any(k in e.details for e in ev.estimates.values())]
    return [*COLUMNS, *dict.fromkeys(own), *([PAIRED] if against is not None else [])]


def rows(ev: Evidence, against: Evidence | None = None) -> list[list[str]]:
    """Cells of the table, one row an estimator."""
    heads = _heads(ev, against)
    found = [[_cells(e, ev, against)[head] for head in heads] for e in ev.estimates.values()]
    return found + [[name, "refused", *[NONE] * (len(heads) - 2)] for name in ev.refused]


def _cells(e: Estimate, ev: Evidence, against: Evidence | None) -> dict[str, str]:
    ess, high = NONE, NONE
    if e.ess is not None:
        q = e.ess.quantile(e.ess.new_tensor([0.0, 0.05, 0.5])).tolist()
        ess = "/".join(f"{v:.0f}" for v in q)
    if e.khat is not None:
        # A k-hat that does not exist (K < 25) is neither high nor low.
        known = e.khat[~e.khat.isnan()]
        if len(known):
            high = f"{float((known > khat_threshold(e.num_samples)).double().mean()):.0%}"
    digits = _decimals(e.rounding)
    value = "refused" if "refused" in e.details else f"{_symbol(e.direction)} {e.log_evidence:.{digits}f}"
    figures = [
        e.name,
        value,
        _bits(e, ev),
        _number(e.se_data),
        _number(e.se_mc),
        _number(e.certificate, digits),
        _number(e.bias_indicator),
        f"{e.num_samples:,}" if e.num_samples else NONE,
        ess,
        high,
    ]
    cells = dict(zip(COLUMNS, figures, strict=True))
    for key, head in FROM_DETAILS.items():
        if key in e.details or head not in cells:
            cells[head] = _detail(e.details.get(key))
    cells[PAIRED] = _paired(e, against)
    return cells


def _decimals(rounding: float) -> int:
    """Decimals worth printing: none that rounding has made up."""
    return 4 if rounding <= 1e-4 else max(0, math.ceil(-math.log10(rounding)))


def _bits(e: Estimate, ev: Evidence) -> str:
    """Bits per dim: no code length where a density stands on points of positive probability."""
    if ev.measure is not None and ev.measure.kind != "mass" and grain(ev.x) is not None:
        return NONE
    return _number(-e.log_evidence / (max(1, ev.attributes["event_size"]) * math.log(2)))


def _number(value: float | None, digits: int = 4) -> str:
    if value is None or math.isnan(value):
        return NONE
    return "∞" if value == math.inf else f"{value:.{digits}f}"


def _detail(value: Any) -> str:
    if value is None:
        return NONE
    if isinstance(value, Tensor):
        value = float(value.double().mean())
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _paired(e: Estimate, against: Evidence | None) -> str:
    if against is None or e.name not in against.estimates:
        return NONE
    c = paired_difference(e, against.estimates[e.name])
    return NONE if math.isnan(c.difference) else f"{c.difference:+.4f} ± {_number(c.se)}"


def render_evidence(ev: Evidence, style: str, against: Evidence | None = None) -> str:
    """Table for a terminal or a document; as wide as its columns need."""
    return render(style, columns(ev, against), rows(ev, against), _title(ev), _notes(ev, against), width=130)


def _notes(ev: Evidence, against: Evidence | None) -> list[str]:
    notes = [*ev.warnings, ev.verdict]
    if against is not None:
        c = ev.compare(against)
        name = against.attributes.get("label") or "the other evidence"
        notes += [f"against {name}: {c}", *c.warnings]
    return notes


def _title(ev: Evidence) -> str:
    a = ev.attributes
    what = f"{a['label']}: " if a.get("label") else ""
    versions = ", ".join(f"{n} {a[n]}" for n in ("torch", "pyro") if a.get(n))
    part = f" (shard {a['shard'][0]} of {a['shard'][1]})" if a.get("shard") else ""
    return (
        f"{what}N = {a['num_data']:,} data{part} of {a['event_size']} dims, hash {str(a.get('data_hash'))[:8]}, "
        f"seed {a['seed']}, {a['device']}, {a['dtype']}, {versions}, {a['seconds']:.1f} s"
    )


def choose(estimates: Sequence[Estimate]) -> Estimate:
    """The estimate with the strongest claim: see `Evidence.best`."""
    by_name = {e.name: e for e in estimates}
    if "Exact" in by_name and by_name["Exact"].direction != "none":
        return by_name["Exact"]
    certified = [e for e in estimates if e.certificate is not None and not math.isnan(e.log_evidence)]
    if certified:
        return max(certified, key=lambda e: e.log_evidence)
    known = [e for e in estimates if e.direction != "none"] or list(estimates)  # ln p(x) before ln f(x)
    rest = [e for e in known if "refused" not in e.details]
    return next((e for e in known if e.name == "IS"), None) or next(iter(rest), estimates[0])


def verdict(ev: Evidence) -> str:
    """Verdict that the figures support, in one or two sentences."""
    unnormalised = [e.name for e in ev.estimates.values() if e.direction == "none"]
    if unnormalised:
        some = len(unnormalised) < len(ev.estimates)
        which = f"the figures of {' and '.join(unnormalised)} are" if some else "these figures are"
        note = f"The density is not normalised: {which} ln f(x), and no bound on ln p(x)."
        rest = {k: e for k, e in ev.estimates.items() if k not in unnormalised}
        return f"{verdict(replace(ev, estimates=rest))} {note}" if rest else note
    normalised = ev.estimates.get("Normalised")
    if normalised is not None and "Exact" not in ev.estimates:
        return _by_partition(normalised)
    exact = ev.estimates.get("Exact")
    if exact is not None:
        error = exact.details.get("numerical_error")
        within = f", within {float(error.max()):.0e} nats" if error is not None and float(error.max()) else ""
        method = str(exact.details.get("method", ""))
        how = f" ({method})" if method else ""
        loss = (
            f"; the ELBO is {exact.log_evidence - ev['ELBO'].log_evidence:.4f} below" if "ELBO" in ev else ""
        )
        # Quadrature has an error that is no rounding: it is not called exact.
        kind = f"is known by {method}" if method.startswith("quadrature") else f"is exact{how}"
        unseen = (
            "; of a peak that no node and no draw has met it knows nothing"
            if kind.startswith("is known")
            else ""
        )
        return f"ln p(x) {kind}{within}{unseen}{loss}."
    best = choose(list(ev.estimates.values()))
    e = ev.estimates.get("IS")
    if e is not None and best is not e:
        return (
            f"{_certified(best)} {best.name} is the higher of the lower bounds, by "
            f"{best.log_evidence - e.log_evidence:.3f} nats over IS: ln p(x) lies above it, how far is not known."
        ).strip()
    if e is None:
        found = [o.name for o in ev.estimates.values() if o.direction == "~" and "refused" not in o.details]
        if found:
            return (
                f"{found[0]} estimates ln p(x) itself: within its errors where its diagnostics are good and the guide "
                "reaches every mode of the posterior."
            )
        if best.certificate is not None:
            return _certified(best)
        if ev.attributes.get("density") == "bound_only":
            return (
                "The ELBO bounds ln p(x) from below; this program is that bound and has no density, so nothing here "
                "can say how far below (of a diffusion, pv.IS of a chain of moderate T can)."
            )
        return (
            "The ELBO bounds ln p(x) from below; how far below is not measured here (try pv.IS; command line: "
            "--estimators elbo is)."
        )
    bound = _certified(e)
    if e.lower_only is not None:
        return f"{bound} IS is a lower bound only: {e.lower_only}."
    share = e.unreliable_share
    if share == 0:
        return (
            f"{bound} The weights are well behaved for every datum: if the guide reaches every mode of the posterior, "
            "which no weights can show, IS is ln p(x) within its errors."
        )
    if share < 0.05:
        return (
            f"{bound} For {share:.1%} of the data IS is a lower bound only; for all others it is ln p(x) within its "
            "errors, if the guide reaches every mode of the posterior."
        )
    return (
        f"{bound} For {share:.0%} of the data the weights are too few or too uneven for more than a lower bound: "
        "how far the mean lies below ln p(x) is not known (the estimated bias is the least of it)."
    )


def _by_partition(e: Estimate) -> str:
    how = f"ln Z = {e.details['log_partition']:.3f} ± {e.shared_error:.3f} nats ({e.details['method']})"
    meaning = {
        "~": "is exact, so ln p(x) is.",
        ">=": "is too small on average: ln p(x) is OVERSTATED, by how much is not known here (the run backwards from "
        "exact draws bounds it).",
        "<=": "is too large on average: the mean ln p(x) is at least this in expectation, if the draws it started from "
        "are exact.",
    }
    return f"{how} {meaning[e.direction]}"


def _certified(e: Estimate) -> str:
    if e.certificate is None:
        return ""
    return (
        f"With probability ≥ {1 - e.delta:.0%} the mean ln p(x) of these data is at least "
        f"{e.certificate:.4f} nats."
    )
