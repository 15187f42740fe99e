"""The checks behind the truth table: estimators against exact evidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import pyrovae as pv
from pyrovae.evidence import Estimate
from pyrovae.evidence.core.certificate import certificate
from pyrovae.evidence.weights.coverage import Coverage, Law, interval_coverage, lognormal, pareto
from pyrovae.evidence.weights.delete_one import jackknife_shift
from pyrovae.models.ground_truths import GroundTruth, ground_truths, linear_gaussian
from pyrovae.text import table_lines

F64 = torch.float64
NONE = "–"


def truth_rows(num_data: int, num_samples: int, seed: int) -> list[str]:
    """One row a ground truth, one column an estimator; Markdown.

    What each cell tests is a statement that the estimator makes. IS and AIS: E exp(estimate) = p(x), as
    (mean of p̂/p - 1) / its standard error. Jackknife, MLMC: mean error / Monte-Carlo error. ELBO: a lower
    bound, so the excess over the exact value in errors, 0 where it lies below. Exact: largest error, nats.
    """
    heads = ["ground truth", "ELBO ≤", "IS E[p̂]/p", "Jackknife", "MLMC", "AIS E[p̂]/p", "Exact [nats]"]
    rows, worst = [], 0.0
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
        rows.append([truth.name, *shown, _exact(truth)])
    note = (
        f"{num_data} data, K = {num_samples:,}, AIS with 40 temperatures and 16 chains, seed {seed}; largest |error / "
        f"MC error| {worst:.1f} (to be within 4). –: discrete latents (AIS), an estimate whose weights do not support "
        "every datum (jackknife, MLMC: refused), or no exact method of its own (more than two latent dims, nothing "
        "declared)."
    )
    return [*table_lines(heads, rows), "", note]


def _of_p(e: Estimate, exact: Tensor) -> float:
    """(mean p̂/p - 1) / SE; p̂/p has the relative variance that the weights tell."""
    ratio = (e.per_datum - exact).exp()
    assert e.ess is not None
    relative = (1 / e.ess - 1 / e.num_samples).clamp(min=0)  # variance of a mean weight over its square
    se = float((ratio.square() * relative).sum().sqrt()) / len(ratio)
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
    rows = []
    for name, theory in (("IS", -1), ("Jackknife", -2)):
        y, x = torch.tensor(found[name]).abs().log(), torch.tensor(ks, dtype=torch.float32).log()
        slope = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
        cells = [f"{b:.5f}".replace("-", "−") for b in found[name]]
        rows.append([f"{name} bias [nats]", *cells, f"−{-slope:.2f}", f"−{-theory}"])
    lines = table_lines(["", *(f"K = {k}" for k in ks), "slope", "theory"], rows)
    note = f"Lognormal weights, σ² = {sigma2}, {runs * num_data:,} data a point; slopes on log-log axes."
    return [*lines, "", note]


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
    heads = ("temperatures", "exact − forward", "reverse − exact", "gap")
    rows = [
        [str(b.effort), *(_mean(v) for v in (exact - b.lower, b.upper - exact, b.gap))] for b in sw.brackets
    ]
    note = f"Means ± SE in nats over {len(sw.x)} simulated data, 4 chains from the prior; all are ≥ 0, and close in."
    return [*table_lines(heads, rows, ()), "", note]


def certificate_rate(repeats: int, seed: int) -> list[str]:
    """How often the highest of m certificates exceeds the truth; Markdown.

    Beside a guide of infinite weight variance, weights for which Markov's inequality is as good as an equality: w =
    m/delta with probability delta/m, else next to nothing. There the certificates fail as often as they may.
    """
    truth, size = linear_gaussian(5, latent_dim=2, width=0.6, seed=seed), 5
    number = (1, 3, 10)
    x = truth.x.repeat(repeats * max(number), 1)
    e = pv.evidence(truth.model, truth.guide, x, estimators=[pv.IS(8)], seed=seed)["IS"]
    error = (
        (e.per_datum - truth.log_evidence.repeat(repeats * max(number))).reshape(repeats, -1, size).mean(2)
    )
    generator = torch.Generator().manual_seed(seed)
    heads = ("m", "δ", "narrow guide: violated", "worst case: violated", "at ln(1/δ)/N", "allowed")
    rows = []
    for m in number:
        for delta in (0.05, 0.2, 0.5):
            price = certificate(torch.zeros(1, dtype=F64), delta, m)  # of one datum
            narrow = (error[:, :m] + price / size > 0).any(1).double().mean()
            u = torch.rand(repeats, m, generator=generator, dtype=F64)
            worst = [
                (torch.where(u < delta / count, math.log(count / delta) + 1e-5, -99.0) + cost > 0)
                .any(1)
                .double()
                .mean()
                for count, cost in ((m, price), (1, -math.log(1 / delta)))
            ]
            shares = [f"{share:.4f}" for share in (narrow, *worst)]
            rows.append([str(m), str(delta), *shares, str(delta)])
    note = (
        f"{repeats:,} data sets; the highest of m certificates counts. Narrow guide: 5 data, IS with K = 8 and a guide "
        "narrower than the posterior (E w² = ∞). Worst case: one datum, w = m/δ with probability δ/m. At ln(1/δ)/N: "
        "the same without the price of the choice, w = 1/δ with probability δ."
    )
    return [*table_lines(heads, rows, ()), "", note]


@dataclass(frozen=True)
class Curves:
    """Points of the coverage figure, and the tables."""

    points: list[Coverage]
    rows: list[str]


LAWS = (
    *(lognormal(v) for v in (0.25, 0.5, 1.0, 2.0, 4.0, 9.0, 16.0)),
    *(pareto(k) for k in (0.3, 0.5, 0.7, 0.9)),
)
SAMPLES = (200, 1000, 5000)


def coverage_curves(
    repeats: int, seed: int, laws: Sequence[Law] = LAWS, samples: Sequence[int] = SAMPLES
) -> Curves:
    """Stated errors against true ones, and nominal 95 % intervals, on weights of known laws; Markdown."""
    heads = [f"{'σ²' if law.family == 'lognormal' else 'k'} = {law.parameter:g}" for law in laws]
    found = {
        k: interval_coverage(
            [pv.IS(k), pv.Jackknife(k), pv.MLMC(max(2, k // 16))],
            laws,
            num_samples=k,
            repeats=repeats if k < 5000 else max(10, repeats // 3),
            seed=seed,
        )
        for k in samples
    }
    columns: dict[str, Callable[[Coverage], str]] = {
        "stated error / true standard deviation": lambda c: _share(c.error_ratio, c.refused < 0.5),
        "coverage of the intervals given": lambda c: _share(c.covered, c.given * c.repeats >= 5, 3),
        "share of intervals given": lambda c: _share(c.given),
    }
    lines: list[str] = []
    for title, cell in columns.items():
        rows = [
            [f"{k:,}", name, *(cell(p) for p in points if p.estimator == name)]
            for k, points in found.items()
            for name in dict.fromkeys(p.estimator for p in points)
        ]
        lines += [f"**{title.capitalize()}**", "", *table_lines(["K", "", *heads], rows, (1,)), ""]
    lines.append(
        f"Lognormal weights of log-variance σ² and Pareto weights of tail index k; {repeats} runs a point (a third at "
        "K = 5,000), nominal 95 %. The ratio is of the root mean square of the stated errors. –: refused for half of "
        "the runs or more; fewer than five intervals given. MLMC has K / 16 replicates."
    )
    middle = samples[len(samples) // 2]
    return Curves(found[middle], lines)


def _share(value: float, known: bool = True, digits: int = 2) -> str:
    return f"{value:.{digits}f}" if known and not math.isnan(value) else NONE


def _mean(values: Tensor) -> str:
    return f"{float(values.mean()):.4f} ± {float(values.std()) / math.sqrt(len(values)):.4f}"
