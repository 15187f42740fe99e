"""Verdict on the figures of an evidence, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .core.estimate import MOST_UNREACHED, OWN, UNREACHED, Estimate
from .weights.beyond import any_beyond

Z = 1.96  # errors on each side of a 95 % interval
WIDE = 2.0  # an upper side so many times that of ± MC is not said to be its error
VISIBLE = 1e-3  # nats, from where on a reader is told of it


def choose(estimates: Sequence[Estimate]) -> Estimate:
    """The estimate with the strongest claim: see `Evidence.best`."""
    by_name = {e.name: e for e in estimates}
    if "Exact" in by_name and by_name["Exact"].direction != "none":
        return by_name["Exact"]
    certified = [e for e in estimates if e.certificate is not None and not math.isnan(e.log_evidence)]
    supported = [e for e in certified if e.symbol == "≈"]  # ln p(x) itself, before what is higher by chance
    if supported:
        return min(supported, key=lambda e: e.se_mc)
    if certified:
        best = max(certified, key=lambda e: e.log_evidence)
        two_sided = [
            e for e in certified if e.ess is not None and e.unreliable_share == 0 and not e.lower_only
        ]
        high = {e.name: e.mean_interval()[1] for e in two_sided}
        by_chance = [e for e in two_sided if best.log_evidence - high[e.name] <= Z * best.se_mc]
        return min(by_chance, key=lambda e: e.se_mc) if by_chance and best not in two_sided else best
    known = [e for e in estimates if e.direction != "none"] or list(estimates)  # ln p(x) before ln f(x)
    rest = [e for e in known if not e.refused]
    return next((e for e in known if e.name == "IS"), None) or next(iter(rest), estimates[0])


def verdict(estimates: Mapping[str, Estimate], bound_only: bool = False) -> str:
    """Verdict that the figures support, in one or two sentences; `bound_only`: of a program without a density."""
    unnormalised = [e.name for e in estimates.values() if e.direction == "none"]
    if unnormalised:
        some = len(unnormalised) < len(estimates)
        which = f"the figures of {' and '.join(unnormalised)} are" if some else "these figures are"
        note = f"The density is not normalised: {which} ln f(x), and no bound on ln p(x)."
        rest = {k: e for k, e in estimates.items() if k not in unnormalised}
        return f"{verdict(rest, bound_only)} {note}" if rest else note
    normalised = estimates.get("Normalised")
    if normalised is not None and "Exact" not in estimates:
        return _by_partition(normalised)
    exact = estimates.get("Exact")
    if exact is not None:
        error = exact.details.get("numerical_error")
        within = f", within {float(error.max()):.0e} nats" if error is not None and float(error.max()) else ""
        method = str(exact.details.get("method", ""))
        how = f" ({method})" if method else ""
        loss = (
            f"; the ELBO is {exact.log_evidence - estimates['ELBO'].log_evidence:.4f} below"
            if "ELBO" in estimates
            else ""
        )
        # Quadrature has an error that is no rounding: it is not called exact.
        kind = f"is known by {method}" if method.startswith("quadrature") else f"is exact{how}"
        unseen = (
            "; of a peak that no node and no draw has met it knows nothing"
            if kind.startswith("is known")
            else ""
        )
        return f"ln p(x) {kind}{within}{unseen}{loss}."
    best = choose(list(estimates.values()))
    if OWN in best.details:
        return _of_own_proposals(best)
    e = estimates.get("IS")
    if e is not None and best is not e:
        return (
            f"{_certified(best)} {best.name} is the higher of the lower bounds, by "
            f"{best.log_evidence - e.log_evidence:.3f} nats over IS: ln p(x) lies above it, how far is not known."
        ).strip()
    if e is None:
        found = [o.name for o in estimates.values() if o.direction == "~" and not o.refused]
        if found:
            e = estimates[found[0]]
            return f"{e.name} estimates ln p(x) itself. {_on_two_sides(e)}" if e.ess is not None else ""
        if best.certificate is not None:
            return _certified(best)
        if best.refused:
            return f"{best.name} is refused, and nothing else here says what ln p(x) is (try pv.IS, a lower bound)."
        if bound_only:
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
        return f"{bound} {_on_two_sides(e)}"
    if share < 0.05:
        return (
            f"{bound} For {share:.1%} of the data IS is a lower bound only; for all others ln p(x) is "
            "within their intervals, if the guide reaches every mode of the posterior."
        )
    why = "are too few or too uneven"
    if UNREACHED in e.details and bool((e.details[UNREACHED] > MOST_UNREACHED).any()):
        why += ", or miss values that the guide hardly ever draws,"
    if (beyond := any_beyond(e.details)) is not None and bool(beyond.any()):
        why += ", or leave out a part of the posterior that wider draws find,"
    return (
        f"{bound} For {share:.0%} of the data the weights {why} for more than a lower bound: "
        "how far the mean lies below ln p(x) is not known (the estimated bias is the least of it)."
    )


def _of_own_proposals(e: Estimate) -> str:
    share = 1 - e.unreliable_share
    if share == 1:
        return f"{_certified(e)} {_on_two_sides(e)}"
    return (
        f"{_certified(e)} The weights of {e.name} support {share:.1%} of the data: there ln p(x) is within their "
        "intervals, if the draws reach every mode of the posterior; for all others it is a lower bound only."
    )


def _on_two_sides(e: Estimate) -> str:
    """Statement for data all of which have weights that support it."""
    low, high = e.mean_interval()
    found = f"the mean ln p(x) of these data is in [{low:.4f}, {high:.4f}] (95 %)"
    whose = "guide reaches" if OWN not in e.details else "draws reach"
    unless = f"if the {whose} every mode of the posterior, which no draws can show for sure"
    room, said = high - e.log_evidence, Z * e.se_mc
    if room > WIDE * said and room > VISIBLE:
        return (
            f"The weights of {e.name} support every datum, but the largest that were drawn leave room for larger ones, "
            f"which ± MC does not count: {found}, {unless}."
        )
    return f"The weights of {e.name} support every datum and are well behaved: {found}, {unless}."


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
