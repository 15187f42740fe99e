"""The checks behind the truth table: estimators against exact evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import pyrovae as pv
from pyrovae.evidence import Estimate
from pyrovae.evidence.coverage import Coverage, interval_coverage
from pyrovae.evidence.delete_one import jackknife_shift
from pyrovae.models.ground_truths import GroundTruth, ground_truths, linear_gaussian

F64 = torch.float64
NONE = "–"


def truth_rows(num_data: int, num_samples: int, seed: int) -> list[str]:
    """One row a ground truth, one column an estimator; Markdown.

    What each cell tests is a statement that the estimator makes. IS and AIS: E exp(estimate) = p(x), as
    (mean of p̂/p - 1) / its standard error. Jackknife, MLMC: mean error / Monte-Carlo error. ELBO: a lower
    bound, so the excess over the exact value in errors, 0 where it lies below. Exact: largest error, nats.
    """
    heads = ["ground truth", "ELBO ≤", "IS E[p̂]/p", "Jackknife", "MLMC", "AIS E[p̂]/p", "Exact [nats]"]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    worst = 0.0
    for truth in ground_truths(num_data, seed=seed):
        weighted: list[Any] = [
            pv.ELBO(num_samples),
            pv.IS(num_samples),
            pv.Jackknife(num_samples),
            pv.MLMC(replicates=64),
        ]
        if truth.continuous:
            weighted.append(pv.AIS(40, 16))
        ev = pv.evidence(truth.model, truth.guide, truth.x, estimators=weighted, seed=seed)
        exact = truth.log_evidence
        elbo = float((ev["ELBO"].per_datum - exact).mean()) / ev["ELBO"].se_mc
        cells = [
            max(0.0, elbo),
            _of_p(ev["IS"], exact),
            _of_log(ev["Jackknife"], exact),
            _of_log(ev["MLMC"], exact),
        ]
        cells.append(_of_p(ev["AIS"], exact) if truth.continuous else math.nan)
        worst = max([worst, *(abs(c) for c in cells if not math.isnan(c))])
        shown = [NONE if math.isnan(c) else f"{c:+.1f}".replace("-", "−") for c in cells]
        lines.append(f"| {truth.name} | " + " | ".join([*shown, _exact(truth)]) + " |")
    lines += [
        "",
        f"{num_data} data, K = {num_samples:,}, AIS with 40 temperatures and 16 chains, seed {seed}; ",
    ]
    lines[-1] += (
        f"largest |error / MC error| {worst:.1f} (to be within 4). –: discrete latents (AIS), or no exact method"
    )
    lines[-1] += " of its own (more than two latent dims, nothing declared)."
    return lines


def _of_p(e: Estimate, exact: Tensor) -> float:
    """(mean p̂/p - 1) / SE; p̂/p has the relative variance that the weights tell."""
    ratio = (e.per_datum - exact).exp()
    se = float((ratio.square() * e.variance).sum().sqrt()) / len(ratio)
    return float(ratio.mean() - 1) / se


def _of_log(e: Estimate, exact: Tensor) -> float:
    return math.nan if "refused" in e.details else float((e.per_datum - exact).mean()) / e.se_mc


def _exact(truth: GroundTruth) -> str:
    guide = truth.guide
    try:
        found = pv.evidence(truth.model, guide, truth.x, estimators=[pv.Exact()])["Exact"]
    except ValueError:
        return NONE
    return f"{float((found.per_datum - truth.log_evidence).abs().max()):.0e}"


def bias_slopes(num_data: int, seed: int) -> list[str]:
    """Bias of IS and jackknife against K on lognormal weights, whose evidence is 0; Markdown."""
    ks, sigma2, runs = (4, 8, 16, 32), 0.5, 6
    found: dict[str, list[float]] = {"IS": [], "Jackknife": []}
    for k in ks:
        sums = [0.0, 0.0]
        for r in range(runs):
            generator = torch.Generator().manual_seed(1000 * k + r + 10**6 * seed)
            lw = math.sqrt(sigma2) * torch.randn(k, num_data, generator=generator, dtype=F64) - sigma2 / 2
            # The first two orders of ln(mean weight), whose mean is known, as a control variate.
            off = lw.exp().mean(0) - 1
            control, known = off - off.square() / 2, -math.expm1(sigma2) / (2 * k)
            value = lw.logsumexp(0) - math.log(k)
            for j, v in enumerate((value, value + jackknife_shift(lw))):
                sums[j] += (float((v - control).mean()) + known) / runs
        for name, total in zip(found, sums, strict=True):
            found[name].append(total)
    lines = [
        "| | " + " | ".join(f"K = {k}" for k in ks) + " | slope | theory |",
        "|---|" + "---:|" * (len(ks) + 2),
    ]
    for name, theory in (("IS", -1), ("Jackknife", -2)):
        y, x = torch.tensor(found[name]).abs().log(), torch.tensor(ks, dtype=torch.float32).log()
        slope = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
        cells = [f"{b:.5f}".replace("-", "−") for b in found[name]]
        lines.append(f"| {name} bias [nats] | " + " | ".join(cells) + f" | −{-slope:.2f} | −{-theory} |")
    lines += [
        "",
        f"Lognormal weights, σ² = {sigma2}, {runs * num_data:,} data a point; slopes on log-log axes.",
    ]
    return lines


def closing_bounds(num_data: int, seed: int) -> list[str]:
    """Forward and reverse AIS around the exact evidence of a linear-Gaussian program; Markdown."""
    truth = linear_gaussian(4, width=1.6, seed=seed)
    temperatures = (3, 10, 30, 100)
    sw = pv.sandwich(
        truth.model,
        truth.guide,
        truth.x,
        simulate=max(20, num_data),
        ais=pv.AIS(100, 4, "prior", 4),
        temperatures=temperatures,
        num_samples=50,
        seed=seed,
    )
    exact = pv.evidence(truth.model, truth.guide, sw.x, estimators=[pv.Exact()])["Exact"].per_datum
    lines = ["| temperatures | exact − forward | reverse − exact | gap |", "|---:|---:|---:|---:|"]
    for b in sw.brackets:
        cells = [_mean(v) for v in (exact - b.lower, b.upper - exact, b.gap)]
        lines.append(f"| {b.effort} | " + " | ".join(cells) + " |")
    note = f"Means ± SE in nats over {len(sw.x)} simulated data, 4 chains from the prior; all are ≥ 0, and close in."
    return [*lines, "", note]


def certificate_rate(repeats: int, seed: int) -> list[str]:
    """How often mean ln p̂ - ln(1/delta)/N exceeds the truth, for a guide of infinite weight variance; Markdown."""
    truth, size = linear_gaussian(5, latent_dim=2, width=0.6, seed=seed), 5
    x = truth.x.repeat(repeats, 1)
    e = pv.evidence(truth.model, truth.guide, x, estimators=[pv.IS(8)], seed=seed)["IS"]
    means = e.per_datum.reshape(repeats, size).mean(1)
    exact = float(truth.log_evidence.mean())
    lines = ["| δ | violated | allowed |", "|---:|---:|---:|"]
    for delta in (0.05, 0.2, 0.5):
        rate = float((means - math.log(1 / delta) / size > exact).double().mean())
        lines.append(f"| {delta} | {rate:.4f} | {delta} |")
    note = f"{repeats:,} data sets of {size} data, IS with K = 8 and a guide narrower than the posterior (E w² = ∞)."
    return [*lines, "", note]


@dataclass(frozen=True)
class Curves:
    """Points of the coverage figure, and their table."""

    points: list[Coverage]
    rows: list[str]


def coverage_curves(
    repeats: int,
    seed: int,
    variances: Sequence[float] = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 9.0, 16.0),
) -> Curves:
    """Coverage and refusal of nominal 95 % intervals on lognormal weights; points and Markdown."""
    points = interval_coverage(
        [pv.IS(1000), pv.Jackknife(1000)], variances, num_samples=1000, repeats=repeats, seed=seed
    )
    lines = [
        "| σ² of ln w | " + " | ".join(f"{v:g}" for v in variances) + " |",
        "|---|" + "---:|" * len(variances),
    ]
    for name in ("IS", "Jackknife"):
        own = [p for p in points if p.estimator == name]
        lines.append(f"| {name}: covered | " + " | ".join(f"{p.covered:.3f}" for p in own) + " |")
        lines.append(f"| {name}: refused | " + " | ".join(f"{p.refused:.2f}" for p in own) + " |")
    lines += [
        "",
        f"Nominal 95 %, K = 1,000, {repeats} runs a point (so ± {math.sqrt(0.0475 / repeats):.3f}); covered is of ",
    ]
    lines[-1] += "ALL intervals, refused ones included."
    return Curves(points, lines)


def _mean(values: Tensor) -> str:
    return f"{float(values.mean()):.4f} ± {float(values.std()) / math.sqrt(len(values)):.4f}"
