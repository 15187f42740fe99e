"""Table of an evidence's estimates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..programs import Measure, grain_of
from .core.estimate import NUM_DRAWS, OWN, SANDWICH, Estimate
from .core.paired import paired_difference
from .core.tables import render
from .weights.diagnostics import khat_threshold

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
    NUM_DRAWS: "draws/datum",
    "temperatures": "temperatures",
    "num_temperatures": "temperatures",
    "chains": "chains",
    "num_chains": "chains",
    "acceptance": "acceptance",
    "mean_cost": "cost/datum",
    SANDWICH: "BDMC gap",
}
SUPPORTED = "supported"
PAIRED = "Δ ± SE (paired)"
NONE = "–"


def _cells(e: Estimate, dims: float | None, against: Estimate | None) -> dict[str, str]:
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
    value = "refused" if e.refused else f"{e.symbol} {e.log_evidence:.{digits}f}"
    figures = [
        e.name,
        value,
        NONE if dims is None else _number(-e.log_evidence / (dims * math.log(2))),
        *(NONE if e.refused else _number(v) for v in (e.se_data, e.se_mc)),
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
    cells[SUPPORTED] = f"{1 - e.unreliable_share:.1%}" if e.ess is not None else NONE
    cells[PAIRED] = _paired(e, against)
    return cells


def _decimals(rounding: float) -> int:
    """Decimals worth printing: none that rounding has made up."""
    return 4 if rounding <= 1e-4 else max(0, math.ceil(-math.log10(rounding)))


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


def _paired(e: Estimate, against: Estimate | None) -> str:
    if against is None:
        return NONE
    c = paired_difference(e, against)
    return NONE if math.isnan(c.difference) else f"{c.difference:+.4f} ± {_number(c.se)}"


def _observed(x: Tensor, event_size: int) -> float | None:
    """Numbers of a datum that are there, on average; None where none is."""
    gone = float(x.isnan().double().mean()) if x.is_floating_point() else 0.0
    return max(1, event_size) * (1 - gone) or None


def evidence_rows(
    estimates: Mapping[str, Estimate],
    attributes: Mapping[str, Any],
    x: Tensor,
    against: Mapping[str, Estimate] | None = None,
) -> tuple[list[str], list[list[str]]]:
    """Heads, and cells of a row an estimator.

    The columns are those of every evidence, those its estimators have, and the paired difference. A density is called
    one in the heads, and has no bits per dim where it stands on points of positive probability.
    """
    observed = attributes.get("observed")
    measure = None if observed is None else Measure.from_json(observed)
    pointed = measure is not None and measure.kind != "mass" and grain_of(measure, x) is not None
    dims = None if pointed else _observed(x, attributes["event_size"])
    dims = None if dims is None else dims * attributes.get("counted", 1.0) or None
    own = [FROM_DETAILS[k] for k in FROM_DETAILS if any(k in e.details for e in estimates.values())]
    if any(OWN in e.details for e in estimates.values()):
        own.append(SUPPORTED)
    heads = [*COLUMNS, *dict.fromkeys(own), *([PAIRED] if against is not None else [])]
    rows = []
    for e in estimates.values():
        cells = _cells(e, dims, None if against is None else against.get(e.name))
        rows.append([cells[head] for head in heads])
    rows += [[name, "refused", *[NONE] * (len(heads) - 2)] for name in attributes.get("refused", ())]
    label = "" if measure is None else measure.label
    return [head + label if head in LABELLED else head for head in heads], rows


def render_evidence(
    style: str,
    estimates: Mapping[str, Estimate],
    notes: Sequence[str],
    attributes: Mapping[str, Any],
    x: Tensor,
    against: Mapping[str, Estimate] | None = None,
) -> str:
    """Table for a terminal or a document, as wide as its columns need."""
    heads, rows = evidence_rows(estimates, attributes, x, against)
    return render(style, heads, rows, evidence_title(attributes), notes, width=130)


def evidence_title(a: Mapping[str, Any]) -> str:
    """Data that the figures are of."""
    what = f"{a['label']}: " if a.get("label") else ""
    versions = ", ".join(f"{n} {a[n]}" for n in ("torch", "pyro") if a.get(n))
    part = f" (shard {a['shard'][0]} of {a['shard'][1]})" if a.get("shard") else ""
    gone = f" ({100 * a['missing']:.3g} % of them missing)" if a.get("missing") else ""
    gone = f" ({100 * a['counted']:.3g} % of them not masked)" if "counted" in a else gone
    return (
        f"{what}N = {a['num_data']:,} data{part} of {a['event_size']} dims{gone}, hash {str(a.get('data_hash'))[:8]}, "
        f"seed {a['seed']}, {a['device']}, {a['dtype']}, {versions}, {a['seconds']:.1f} s"
    )
