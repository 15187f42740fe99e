"""What a reader of the numbers must know: the warnings of an evidence."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from ..programs import Program
from ..programs.validity import scaled_sites
from .diagnostics import MIN_ESS, khat_threshold
from .jackknife import DOMINANT
from .reach import narrower_note
from .result import Estimate

_NOISY = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)


def estimate_notes(estimates: dict[str, Estimate]) -> list[str]:
    """Warnings of the numbers, by estimator."""
    out = []
    for e in estimates.values():
        if "refused" in e.details:
            out.append(f"{e.name} is refused: {e.details['refused']}")
    if "IS" in estimates:
        out += _of_weights(estimates["IS"])
    if "Jackknife" in estimates:
        out += _of_jackknife(estimates["Jackknife"])
    if "MLMC" in estimates:
        out += _of_levels(estimates["MLMC"])
    return out + _of_order(estimates)


def program_notes(program: Program, modules: Iterable[nn.Module] = ()) -> list[str]:
    """Warnings of the program.

    Args:
        program: what is evaluated.
        modules: that it runs, in the mode in which the user left them.
    """
    out = []
    scaled = scaled_sites(program)
    if scaled:
        out.append(
            f"sites {scaled} carry a scale other than 1; the evidence is computed without it (a scale inside "
            "the weights would make it no bound)"
        )
    if program.full_size is not None:
        out.append(
            f"the plate stands for {program.full_size:,} data, and {program.arguments.num_data:,} were passed: "
            "these are figures of the data passed, not of the data set"
        )
    if program.narrower:
        out.append(narrower_note(program.narrower))
    training = sorted({type(m).__name__ for m in modules if m.training and isinstance(m, _NOISY)})
    if training:
        out.append(f"{', '.join(training)} were left in train mode; they were evaluated in eval mode")
    return out


def _of_weights(e: Estimate) -> list[str]:
    out: list[str] = []
    if e.ess is None or e.khat is None:
        return out
    dead = int((~torch.isfinite(e.per_datum)).sum())
    if dead:
        out.append(f"{dead} data have only zero weights: the guide never hits the posterior's support")
    if e.num_samples < 25:
        out.append(f"K = {e.num_samples} is too few for tail diagnostics (k-hat needs 25)")
    share = e.unreliable_share
    if share > 0 and e.lower_only is None:
        low = float((e.ess < MIN_ESS).double().mean())
        why = f"ESS < {MIN_ESS:.0f}: {low:.0%}"
        if e.num_samples >= 25:
            high = float((e.khat > khat_threshold(e.num_samples)).double().mean())
            why += f", k-hat above {khat_threshold(e.num_samples):.2f}: {high:.0%}"
        out.append(
            f"{share:.0%} of the data support no two-sided interval ({why}); the mean is still a lower bound"
        )
    ks = sorted(e.curve)
    if len(ks) >= 2 and e.curve[ks[-1]] - e.curve[ks[-2]] > max(0.05, 2 * e.se_mc):
        out.append(
            f"L_K still rises by {e.curve[ks[-1]] - e.curve[ks[-2]]:.2f} nats from K = {ks[-2]} to {ks[-1]}: "
            "more samples would raise the bound"
        )
    return out


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
    if "refused" in e.details or "decay" not in e.details:
        return out
    if math.isnan(e.details["decay"]):
        out.append(
            "MLMC has too few replicates and data to measure how its level variances decay: whether its variance "
            "is finite is not known"
        )
    share = float((e.details["tail_index_limit"] < e.khat).double().mean()) if e.khat is not None else 0.0
    if share > 0.05:
        out.append(
            f"k-hat is above {e.details['tail_index_limit']:.2f} for {share:.0%} of the data: if that is the weights' "
            "tail, the variance of MLMC is not finite there and its error is understated"
        )
    return out


def _of_order(estimates: dict[str, Estimate]) -> list[str]:
    """Both bound ln p(x) from below, and AIS has no excuse for being the lower one."""
    ais, weights = estimates.get("AIS"), estimates.get("IS")
    if ais is None or weights is None:
        return []
    short = weights.log_evidence - ais.log_evidence
    se = (ais.se_mc**2 + weights.se_mc**2) ** 0.5
    if short <= 3 * se:
        return []
    return [
        f"AIS is {short:.2f} nats below IS: its chains have not mixed; try more temperatures, smaller steps, or a "
        "start from the guide"
    ]
