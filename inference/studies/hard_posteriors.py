"""Proposals of each datum's own on posteriors that amortised guides serve badly, against exact evidence."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import pyrovae as pv
from pyrovae.evidence import Estimate
from pyrovae.text import table_lines

F64 = torch.float64
NONE = "–"


@dataclass(frozen=True)
class Hard:
    """A pair with a poor guide, one datum, and its exact ln p(x).

    Attributes:
        name: in words.
        model, guide: the pair.
        x: one row.
        log_evidence: exact, or by quadrature to 1e-9, nats.
    """

    name: str
    model: Callable[[Tensor], Any]
    guide: Callable[[Tensor], Any]
    x: Tensor
    log_evidence: float


def hard_posteriors() -> list[Hard]:
    """All of them; in 1 to 200 dims."""
    return [
        bimodal(),
        funnel(),
        student(),
        logistic(),
        mixture_prior(),
        hierarchy(),
        *(correlated(d) for d in (2, 10, 50, 200)),
    ]


def _integral(log_density: Callable[[Tensor], Tensor], width: float = 40.0) -> float:
    """ln of an integral over the line, on an even grid: errors of smooth densities fall faster than any power."""
    z = torch.linspace(-width, width, 400_001, dtype=F64)
    return float(torch.logsumexp(log_density(z), 0)) + math.log(float(z[1] - z[0]))


def bimodal() -> Hard:
    """x ~ N(z^2, 0.3), under a guide at one of both modes."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z**2, 0.3), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.sqrt(), 0.2))

    x = torch.tensor([2.0], dtype=F64)
    exact = _integral(lambda z: dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z**2, 0.3).log_prob(x))
    return Hard("two modes, the guide at one", model, guide, x, exact)


def funnel() -> Hard:
    """v ~ N(0, 3), z ~ N(0, e^{v/2}) in 9 dims, x ~ N(z, 0.5)."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            v = pyro.sample("v", dist.Normal(x.new_zeros(()), 3.0))
            scale = (v / 2).exp().unsqueeze(-1).expand(*v.shape, 9)
            z = pyro.sample("z", dist.Normal(0.0, scale).to_event(1))
            pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("v", dist.Normal(x.new_zeros(len(x)), 2.0))
            pyro.sample("z", dist.Normal(0.5 * x, 0.6).to_event(1))

    x = torch.randn(1, 9, generator=torch.Generator().manual_seed(0), dtype=F64)

    def joint(v: Tensor) -> Tensor:
        marginal = dist.Normal(0.0, (v.exp() + 0.25).sqrt().unsqueeze(-1)).log_prob(x).sum(-1)
        return marginal + dist.Normal(0.0, 3.0).log_prob(v)

    return Hard("funnel", model, guide, x, _integral(joint))


def student() -> Hard:
    """A t_3 prior, under a normal guide."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.StudentT(x.new_tensor(3.0), 0.0, 1.0).expand([2]).to_event(1))
            pyro.sample("x", dist.Normal(z, 2.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.2 * x, 0.7).to_event(1))

    x = torch.tensor([[3.0, -6.0]], dtype=F64)

    def one(value: float) -> float:
        seen = torch.tensor(value, dtype=F64)
        return _integral(
            lambda z: (
                dist.StudentT(torch.tensor(3.0, dtype=F64)).log_prob(z) + dist.Normal(z, 2.0).log_prob(seen)
            )
        )

    return Hard("t₃ prior, normal guide", model, guide, x, one(3.0) + one(-6.0))


def logistic() -> Hard:
    """Counts of 10 with a logistic-normal probability."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 3.0))
            pyro.sample("x", dist.Binomial(10, logits=z), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.2 * x, 0.5))

    x = torch.tensor([10.0], dtype=F64)
    exact = _integral(lambda z: dist.Normal(0.0, 3.0).log_prob(z) + dist.Binomial(10, logits=z).log_prob(x))
    return Hard("logistic-normal", model, guide, x, exact)


def mixture_prior() -> Hard:
    """Four clusters in the plane, of which x, their sum with noise, tells two apart from the others."""
    means = torch.tensor([[3.0, 3.0], [-3.0, 3.0], [3.0, -3.0], [-3.0, -3.0]], dtype=F64)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            parts = dist.Independent(dist.Normal(means.to(x), 0.6), 1)
            z = pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(x.new_ones(4)), parts))
            pyro.sample("x", dist.Normal(z.sum(-1), 0.8), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.stack([x / 2, x / 2], -1), 1.0).to_event(1))

    x = torch.tensor([0.0], dtype=F64)
    marginal = dist.Normal(means.sum(-1), math.sqrt(0.8**2 + 2 * 0.6**2)).log_prob(x)
    return Hard("mixture prior", model, guide, x, float(torch.logsumexp(marginal, 0)) - math.log(4))


def hierarchy() -> Hard:
    """z2 ~ N(0, 1), z1 ~ N(z2, 0.5), x ~ N(z1, 0.3) in two dims each, under a guide that is too narrow."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(z2, 0.5).to_event(1))
            pyro.sample("x", dist.Normal(z1, 0.3).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(0.5 * x, 0.5).to_event(1))
            pyro.sample("z2", dist.Normal(0.3 * z1, 0.4).to_event(1))

    x = torch.tensor([[3.0, 2.0]], dtype=F64)
    exact = dist.Normal(0.0, math.sqrt(1 + 0.25 + 0.09)).log_prob(x).sum()
    return Hard("two levels", model, guide, x, float(exact))


def correlated(dim: int) -> Hard:
    """x ~ N(W z, 0.7) in 2 d dims: a full covariance, under a diagonal guide off its mark."""
    random = torch.Generator().manual_seed(dim)
    w = torch.randn(2 * dim, dim, generator=random, dtype=F64) / math.sqrt(dim)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(dim), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ w.to(x).T, 0.7).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.3 * (x @ w.to(x)), 0.7).to_event(1))

    z = torch.randn(1, dim, generator=random, dtype=F64)
    x = z @ w.T + 0.7 * torch.randn(1, 2 * dim, generator=random, dtype=F64)
    law = dist.MultivariateNormal(x.new_zeros(2 * dim), w @ w.T + 0.49 * torch.eye(2 * dim, dtype=F64))
    return Hard(f"correlated, d = {dim}", model, guide, x, float(law.log_prob(x)))


def hard_rows(num_samples: int, repeats: int, tolerance: float, seed: int) -> list[str]:
    """One row a posterior and estimator; Markdown.

    The same datum many times, each with a proposal of its own: the stated error over the true one, how many of the
    intervals given hold ln p(x), and how often the certificate of a single datum, ln p̂ - ln(1/0.05), is violated.
    """
    heads = [
        "posterior",
        "estimator",
        "error",
        "stated / true",
        "given",
        "covered",
        "certificate violated",
        "draws",
    ]
    rows = []
    for hard in hard_posteriors():
        # Fits in 200 dims take as long as all others together.
        copies = repeats if hard.x[0].numel() < 400 else max(8, repeats // 10)
        x = hard.x.repeat(copies, *[1] * (hard.x.dim() - 1))
        for estimator in (pv.IS(num_samples), pv.OwnIS(num_samples), pv.Adaptive(tolerance)):
            ev = pv.evidence(hard.model, hard.guide, x, estimators=[estimator], seed=seed, compile=False)
            rows.append([hard.name, *_cells(ev[estimator.name], hard.log_evidence)])
    note = (
        f"{repeats} independent runs (a tenth in 200 dims), K = {num_samples:,} for IS and OwnIS, tolerance "
        f"{tolerance} nats for Adaptive, seed {seed}. Error: root mean square, nats."
    )
    return [*table_lines(heads, rows, (0, 1)), "", note]


def _cells(e: Estimate, exact: float) -> list[str]:
    off = e.per_datum - exact
    rms = float(off.square().mean().sqrt())
    low, high = e.interval().unbind(-1)
    given = low.isfinite()
    covered = ((low <= exact) & (exact <= high))[given].double()
    draws = e.details.get("num_draws")
    return [
        e.name,
        f"{rms:.4f}",
        f"{float(e.variance.mean().sqrt()) / rms:.2f}",
        f"{float(given.double().mean()):.2f}",
        f"{float(covered.mean()):.2f}" if len(covered) >= 5 else NONE,
        f"{float((off > math.log(1 / 0.05)).double().mean()):.2f}",
        f"{e.num_samples:,}" if draws is None else f"{float(draws.mean()):,.0f}",
    ]
