"""Warnings that belong to the numbers of an evidence."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from .bounds.bracket import LOW_ACCEPTANCE
from .core.estimate import OWN, TAIL, UNREACHED, Estimate
from .estimators.jackknife import DOMINANT
from .weights.beyond import any_beyond, beyond_notes
from .weights.diagnostics import ALONE, MIN_ESS, MIN_SAMPLES, khat_threshold
from .weights.unreached import share_missing, unreached_note

STUCK = 0.05  # acceptance of the worst chain
FEW_CHAINS = 10  # whose spread tells an error
UNEVEN = 0.25  # ESS / chains of an annealing that has not kept up
ROUNDING = 0.01  # nats per datum, from where on a reader is told of it


def estimate_notes(estimates: dict[str, Estimate]) -> list[str]:
    """Warnings of the numbers, by estimator."""
    out = []
    for e in estimates.values():
        if e.refused:
            out.append(f"{e.name} is refused: {e.refused}")
    out += _of_rounding(estimates.values())
    out += [
        f"{e.name} has a numerical error of {e.numerical:.2g} nats per datum, which its ± MC holds; try float64 "
        "(x.double(), and .double() of the modules), or a smaller tolerance"
        for e in estimates.values()
        if e.numerical
    ]
    for e in estimates.values():
        out += _of_weights(e, estimates) + _of_partition(e)
    if "Jackknife" in estimates:
        out += _of_jackknife(estimates["Jackknife"])
    if "MLMC" in estimates:
        out += _of_levels(estimates["MLMC"])
    return out + _of_order(estimates)


def _of_weights(e: Estimate, estimates: dict[str, Estimate]) -> list[str]:
    """Notes on the weights of any estimator: IS and AIS here, of draws or of chains."""
    # The jackknife's are those of IS, and MLMC has words of its own.
    if e.ess is None or e.khat is None or e.name == "MLMC" or (e.name == "Jackknife" and "IS" in estimates):
        return []
    out: list[str] = []
    name = "" if e.name == "IS" else f"{e.name}: "
    dead = int((~torch.isfinite(e.per_datum)).sum())
    if dead:
        out.append(f"{name}{dead} data have only zero weights: the guide never hits the posterior's support")
    if e.num_samples < MIN_SAMPLES:
        out.append(f"{name}K = {e.num_samples} is too few for tail diagnostics (k-hat needs {MIN_SAMPLES})")
    if UNREACHED in e.details and share_missing(e.details[UNREACHED]):
        out.append(name + unreached_note(e.details[UNREACHED]))
    out += [name + note for note in beyond_notes(e.details)]
    share = e.unreliable_share
    if share > 0 and e.lower_only is None:
        bound = "the mean is still a lower bound" if e.direction == "<=" else "the mean is no bound"
        out.append(
            f"{name}{share:.0%} of the data support no two-sided interval ({why_unsupported(e)}); {bound}"
        )
    single = float((e.ess < ALONE).double().mean())
    if single > 0:
        out.append(
            f"{name}one weight decides for {single:.0%} of the data (ESS < {ALONE:g} of {e.num_samples:,}): their "
            "estimates lie below ln p(x) by more than their ± MC can tell"
        )
    if "acceptance" in e.details:
        out += _of_moves(e, name)
    if "tolerance" in e.details:
        missed = float((e.variance.sqrt() > e.details["tolerance"]).double().mean())
        if missed > 0:
            out.append(
                f"{name}the error is above the tolerance of {e.details['tolerance']:g} nats for {missed:.0%} of the "
                "data; try a larger max_samples"
            )
    ks = sorted(e.curve)
    if len(ks) >= 2 and e.curve[ks[-1]] - e.curve[ks[-2]] > max(0.05, 2 * e.se_mc):
        out.append(
            f"{name}L_K still rises by {e.curve[ks[-1]] - e.curve[ks[-2]]:.2f} nats from K = {ks[-2]} to {ks[-1]}: "
            "more samples would raise the bound"
        )
    return out


def _of_rounding(estimates: Iterable[Estimate]) -> list[str]:
    worst = max(estimates, key=lambda e: e.rounding)
    if worst.rounding <= ROUNDING:
        return []
    size = float(worst.per_datum[torch.isfinite(worst.per_datum)].abs().mean())
    return [
        f"rounding errs by {worst.rounding:.2g} nats per datum in {worst.name}, whose size is {size:.2g}; errors and "
        "certificates count it; try float64 (x.double(), and .double() of the modules), or other units"
    ]


def why_unsupported(e: Estimate) -> str:
    """Shares of the data without a two-sided interval by reason, of those that hold for any."""
    assert e.ess is not None and e.khat is not None
    few = e.num_samples <= MIN_ESS
    drawn = "chains" if "num_temperatures" in e.details else "samples"
    more = f", which takes more than the {e.num_samples:,} {drawn} here" if few else ""
    shares = {f"ESS < {MIN_ESS:.0f}": (float((e.ess < MIN_ESS).double().mean()), more)}
    if e.num_samples >= MIN_SAMPLES:
        limit = khat_threshold(e.num_samples)
        shares[f"k-hat above {limit:.2f}"] = (float((e.khat > limit).double().mean()), "")
        if TAIL in e.details:
            endless = float(e.details[TAIL].isinf().double().mean())
            shares["an infinite mean of the weights not excluded"] = (endless, "")
        if UNREACHED in e.details:
            shares["values that are hardly ever drawn"] = (share_missing(e.details[UNREACHED]), "")
        if (beyond := any_beyond(e.details)) is not None:
            shares["a part of the posterior that is left out"] = (float(beyond.double().mean()), "")
    return ", ".join(f"{words}: {share:.0%}{rest}" for words, (share, rest) in shares.items() if share > 0)


def _of_moves(e: Estimate, name: str) -> list[str]:
    """Notes on chains whose moves are turned down, or that end in very uneven weights."""
    out = []
    assert e.ess is not None
    low = float((e.details["acceptance"] < LOW_ACCEPTANCE).double().mean())
    if low > 0:
        out.append(
            f"{name}HMC accepts less than {LOW_ACCEPTANCE:.0%} for {low:.0%} of the data: more temperatures, or "
            "smaller steps (a higher target_acceptance)"
        )
    stuck = float((e.details.get("acceptance_worst_chain", e.details["acceptance"]) < STUCK).double().mean())
    if stuck > 0:
        out.append(f"{name}a chain hardly moves (acceptance below {STUCK:.0%}) for {stuck:.0%} of the data")
    uneven = float((e.ess < UNEVEN * e.num_samples).double().mean())
    if uneven > 0:
        out.append(
            f"{name}the chains' weights are uneven (ESS below {UNEVEN:.0%} of {e.num_samples} chains) for {uneven:.0%} "
            "of the data: the annealing is too fast for them; more temperatures would raise the bound"
        )
    return out


def _of_partition(e: Estimate) -> list[str]:
    """Notes on the chains that ln Z of an unnormalised program is of."""
    if "partition_ess" not in e.details:
        return []
    chains, ess = int(e.details["num_chains"]), float(e.details["partition_ess"])
    if ess < UNEVEN * chains:
        side = "above" if e.direction == ">=" else "below"
        return [
            f"{e.name}: the chains of ln Z have uneven weights (ESS {ess:.1f} of {chains}): ln p(x) lies {side} the "
            "true one by more than ± can tell; try more temperatures (betas)"
        ]
    if chains < FEW_CHAINS:
        return [f"{e.name}: {chains} chains are too few to tell the error of ln Z; try {FEW_CHAINS} or more"]
    return []


def _of_jackknife(e: Estimate) -> list[str]:
    if "max_share" not in e.details:
        return []
    share = float((e.details["max_share"] > DOMINANT).double().mean())
    if not share:
        return []
    return [
        f"one weight holds more than {DOMINANT:.0%} of the sum for {share:.0%} of the data: the jackknife cancels "
        "there, and its error is of the size of its correction"
    ]


def _of_levels(e: Estimate) -> list[str]:
    out: list[str] = []
    if "decay" not in e.details:
        return out
    if math.isnan(e.details["decay"]):
        out.append(
            "MLMC has too few replicates and data to measure how its level variances decay: whether its variance "
            "is finite is not known"
        )
    share = float((e.details["tail_index_limit"] < e.khat).double().mean()) if e.khat is not None else 0.0
    if share > 0 and not e.refused:
        out.append(
            f"MLMC: k-hat is above {e.details['tail_index_limit']:.2f} for {share:.0%} of the data: if "
            "that is the weights' tail, the variance of MLMC is not finite there and its error is understated"
        )
    return out


def _of_order(estimates: dict[str, Estimate]) -> list[str]:
    """Lower bounds in the wrong order: a guide that misses something, or chains that have not mixed."""
    out = []
    ais, weights = estimates.get("AIS"), estimates.get("IS")
    if ais is not None and weights is not None:
        short = weights.log_evidence - ais.log_evidence
        se = (ais.se_mc**2 + weights.se_mc**2) ** 0.5
        if short > 3 * se:
            out.append(
                f"AIS is {short:.2f} nats below IS: its chains have not mixed; try more temperatures, smaller steps, "
                "or a start from the guide"
            )
    out += _of_certified(estimates)
    for wide in ("AIS (prior)", "IS (defensive)", "OwnIS", "Adaptive"):
        for narrow in ("IS", "Jackknife", "MLMC", "AIS"):
            if wide in estimates and narrow in estimates:
                out += _of_starts(estimates[wide], estimates[narrow])
    return out


def _of_certified(estimates: dict[str, Estimate]) -> list[str]:
    """Note on an estimate that claims to be ln p(x) itself, and lies below what is certified."""
    certified = [e for e in estimates.values() if e.certificate is not None]
    best = max(certified, key=lambda e: e.certificate or -math.inf, default=None)
    if best is None or best.certificate is None:
        return []
    out = []
    for e in estimates.values():
        short = best.certificate - e.log_evidence
        if e.direction == "~" and not e.refused and short > 3 * e.se_mc and short > 1e-6:
            out.append(
                f"{e.name} is {short:.2f} nats below what {best.name} certifies: its K is too small for these "
                "weights, and it is no estimate of ln p(x) here"
            )
    return out


def _of_starts(wide: Estimate, narrow: Estimate) -> list[str]:
    """Note where chains from the prior, which miss no mode, are above those from the guide, which may."""
    if narrow.refused or wide.direction != "<=":
        return []
    higher = wide.per_datum.cpu() - narrow.per_datum.cpu()
    # The bound may be high by chance: 4 of its errors off.
    error = (wide.variance + narrow.variance).sqrt().cpu()
    mean, se = float(higher.mean()), float((error.square().sum().sqrt()) / len(error))
    found = (higher > 4 * error) & (higher > 1e-6)
    if OWN in wide.details:  # even weights are higher than uneven ones, which say themselves that they are
        found &= narrow.reliable.cpu()
        mean = 0.0
    number = int(found.sum())
    if not (mean > 4 * se and mean > 1e-6) and not number:
        return []
    what = f"{wide.name} is above {narrow.name} beyond their errors"
    if mean > 4 * se:
        what = f"{wide.name} is {mean:.2f} ± {se:.2f} nats above {narrow.name}"
    return [
        f"{what} ({number} of {len(found)} data by more than 4 errors): the guide misses a part of the posterior, or "
        f"reaches it too seldom; the weights of {narrow.name} do not show it, and intervals that it gives there do not "
        "cover"
    ]
