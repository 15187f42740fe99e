"""Tables and words for evidence results."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from .diagnostics import khat_threshold
from .result import Estimate, _symbol

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


def rows(ev: Evidence) -> list[list[str]]:
    """Cells of the table, one row an estimator."""
    return [_row(e, ev.attributes["event_size"]) for e in ev.estimates.values()]


def _row(e: Estimate, event_size: int) -> list[str]:
    def number(value: float | None, digits: int = 4) -> str:
        return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"

    ess, high = "–", "–"
    if e.ess is not None and e.khat is not None:
        q = e.ess.quantile(e.ess.new_tensor([0.0, 0.05, 0.5])).tolist()
        ess = "/".join(f"{v:.0f}" for v in q)
        high = f"{float((e.khat > khat_threshold(e.num_samples)).double().mean()):.0%}"
    return [
        e.name,
        f"{_symbol(e.direction)} {e.log_evidence:.4f}",
        number(-e.log_evidence / (event_size * math.log(2))),
        number(e.se_data),
        number(e.se_mc),
        number(e.certificate),
        number(e.bias_indicator),
        f"{e.num_samples:,}",
        ess,
        high,
    ]


def render_table(ev: Evidence, width: int = 130) -> str:
    """For a terminal."""
    table = Table(title=_title(ev), title_justify="left")
    for i, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if i == 0 else "right")
    for row in rows(ev):
        table.add_row(*row)
    out = io.StringIO()
    console = Console(file=out, width=width)
    console.print(table)
    for note in (*ev.warnings, ev.verdict):
        console.print(f"· {note}", highlight=False)
    return out.getvalue()


def render_markdown(ev: Evidence) -> str:
    """For a document."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(row) + " |" for row in rows(ev)]
    lines += ["", _title(ev), "", *(f"- {note}" for note in (*ev.warnings, ev.verdict))]
    return "\n".join(lines) + "\n"


def _title(ev: Evidence) -> str:
    a = ev.attributes
    return (
        f"N = {a['num_data']:,} data of {a['event_size']} dims, seed {a['seed']}, {a['device']}, {a['dtype']}, "
        f"{a['seconds']:.1f} s"
    )


def verdict(ev: Evidence) -> str:
    """What may be said on the strength of the figures, in one or two sentences."""
    e = ev.estimates.get("IS")
    if e is None:
        return "The ELBO bounds ln p(x) from below; how far below is not measured here (try pv.IS)."
    if e.direction == "none":
        return "The density is not normalised: these figures are ln f(x), and no bound on ln p(x)."
    bound = ""
    if e.certificate is not None:
        bound = (
            f"With probability ≥ {1 - e.delta:.0%} the mean ln p(x) of these data is at least "
            f"{e.certificate:.4f} nats."
        )
    share = e.unreliable_share
    if share == 0:
        return f"{bound} The weights are well behaved for every datum: IS is ln p(x) within its errors."
    if share < 0.05:
        return f"{bound} IS is close to ln p(x), but for {share:.1%} of the data it is a lower bound only."
    return (
        f"{bound} For {share:.0%} of the data the weights are too few or too uneven for more than a lower bound: "
        "how far the mean lies below ln p(x) is not known (the estimated bias is the least of it)."
    )
