"""Rate, distortion and thermodynamics along the path from prior to posterior, from one AIS run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..checking import checked
from ..evidence.chains.hmc import Point
from ..evidence.core.compile_when import Compile
from ..evidence.core.execution import Execution
from ..evidence.estimators.ais import AIS
from ..evidence.weights.moments import weighted_moments
from ..programs import inspect_program
from ..progress import Progress, listener, shows_progress
from .prior_path import run_prior_path


@dataclass(frozen=True)
class RateDistortion:
    """The family pi_beta(z) = p(z) p(x|z)^beta / Z_beta(x), for T values of beta and N data, in nats.

    Energy is E(z) = -ln p(x|z), the distortion; beta multiplies it alone. (The family
    p(x, z)^{1/T}, whose free energy is that of the ELBO at a temperature, is another one.)
    Tensors are float64, `[T, N]` unless said.

    Attributes:
        betas: `[T]`, from 0 to 1.
        distortion: mean energy D = E_{pi_beta}[-ln p(x|z)], of the weighted chains.
        rate: -beta D - ln Z_beta, from the AIS estimate of ln Z_beta, which is low on average. So it
            bounds from above, in expectation and for any number of temperatures, the rate
            KL(q || p(z)) of the distribution q of the (resampled) chains, whose distortion is D:
            the point lies on or above the rate-distortion curve of this prior.
        rate_lower: -beta D - U_beta with U_beta = -sum (beta_t - beta_{t-1}) D_t >= ln Z_beta, as D falls
            with beta. A lower bound of the rate where every D is exact: not certified.
        log_normaliser: ln Z_beta, <= in expectation; its last row is AIS's estimate of ln p(x).
        energy_variance: Var_{pi_beta}(E) = -dD/dbeta.
        work: -ln w of each chain at beta = 1, `[K, N]`; E exp(-work) = p(x) (Jarzynski 1997).
        acceptance: of HMC moves, `[N]`.
        variances: Monte-Carlo variances of distortion, energy_variance and heat_capacity, `[T, N]`, by name
            (jackknife over chains).
    """

    betas: Tensor
    distortion: Tensor
    rate: Tensor
    rate_lower: Tensor
    log_normaliser: Tensor
    energy_variance: Tensor
    work: Tensor
    acceptance: Tensor = field(repr=False)
    variances: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def entropy(self) -> Tensor:
        """-KL(pi_beta || p(z)) = ln Z_beta + beta D, `[T, N]`: minus the rate, 0 at beta = 0."""
        return -self.rate

    @property
    def free_energy(self) -> Tensor:
        """-ln Z_beta, `[T, N]`; d/dbeta is the mean energy."""
        return -self.log_normaliser

    @property
    def heat_capacity(self) -> Tensor:
        """beta^2 Var(E), `[T, N]`: how fast entropy changes with ln beta."""
        return self.betas.square().unsqueeze(-1) * self.energy_variance

    @property
    def log_evidence(self) -> Tensor:
        """AIS: ln p(x_n) >= this in expectation, `[N]`."""
        return self.log_normaliser[-1]

    @property
    def thermodynamic_integration(self) -> Tensor:
        """-integral of D over beta by the trapezoid rule, `[N]`: ln p(x_n), a check without direction."""
        return -torch.trapezoid(self.distortion, self.betas, dim=0)

    @property
    def dissipated_work(self) -> Tensor:
        """work - free energy at beta = 1, `[K, N]`: >= 0 on average, 0 for an infinitely slow path."""
        return self.work + self.log_evidence

    def curve(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean over data and its standard error, of distortion, rate and rate_lower, `[T]` each."""
        root = math.sqrt(self.distortion.shape[1])
        return {
            name: (values.mean(1), values.std(1) / root)
            for name, values in (
                ("distortion", self.distortion),
                ("rate", self.rate),
                ("rate_lower", self.rate_lower),
            )
        }

    def __repr__(self) -> str:
        t, n = self.distortion.shape
        return (
            f"RateDistortion({t} betas, N={n}: rate 0 … {self.rate[-1].mean():.3f}, distortion "
            f"{self.distortion[0].mean():.3f} … {self.distortion[-1].mean():.3f} nats)"
        )


@checked
@shows_progress("chains")
def rate_distortion(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    ais: AIS = AIS(start="prior"),  # noqa: B008
    seed: int = 0,
    plate: str | None = None,
    budget: int | None = None,
    compile: Compile = False,
    progress: Progress = True,
) -> RateDistortion:
    """The rate-distortion curve of a prior and decoder, from one AIS run (Huang, Cao & Grosse 2020).

    With K chains at beta_t, weights w_k so far and states z_k, w_k are proper weights for
    pi_{beta_t}. For q the law of one z resampled by its weight, KL(q || pi_beta) <= ln Z_beta - E ln (1/K) sum w
    (Burda et al. 2016's bound on the extended space), hence KL(q || p(z)) <= -beta D - E ln (1/K) sum w.
    The guide takes no part: one decoder has one curve. https://arxiv.org/abs/2008.06653

    Args:
        model, guide, x, *context, seed, plate, budget, compile, progress: as in `evidence`.
        ais: chains, temperatures and leapfrog steps; `start="prior"`.

    Raises:
        ValueError: `ais` that starts from the guide; what `AIS` refuses.
    """
    program = inspect_program(model, guide, x, *context, plate=plate)
    execution = Execution(seed, budget, compile, listener(progress))
    path = run_prior_path(program, ais, lambda _: Records(), execution)
    grid, (distortion, variance, log_z, distortion_error, variance_error) = path.betas, path.recorded
    high = -(grid.diff().unsqueeze(-1) * distortion[1:]).cumsum(0)
    high = torch.cat([torch.zeros_like(high[:1]), high])
    energy = torch.where(grid.unsqueeze(-1) == 0, 0.0, grid.unsqueeze(-1) * distortion)  # 0 inf = 0
    return RateDistortion(
        betas=grid,
        distortion=distortion,
        rate=-energy - log_z,
        rate_lower=-energy - high,
        log_normaliser=log_z,
        energy_variance=variance,
        work=path.work,
        acceptance=path.acceptance.mean(0),
        variances={
            "distortion": distortion_error,
            "energy_variance": variance_error,
            "heat_capacity": grid.pow(4).unsqueeze(-1) * variance_error,
        },
    )


class Records:
    """Weighted moments of the energy, and the normaliser, at every temperature."""

    def __init__(self) -> None:
        self.rows: list[tuple[Tensor, ...]] = []

    def __call__(self, t: int, point: Point, log_weights: Tensor) -> None:
        """Takes the states at a temperature and their weights so far."""
        total = log_weights.logsumexp(0)
        found = weighted_moments(log_weights, -point.slope.double())
        mean = torch.where(total == -torch.inf, torch.inf, found.mean)
        log_z = total - math.log(len(log_weights))
        self.rows.append((mean, found.variance, log_z, found.mean_error, found.variance_error))

    def stacked(self) -> list[Tensor]:
        """Mean, variance and ln Z, and the Monte-Carlo variances of mean and variance, `[T, n]` each."""
        return [torch.stack(column) for column in zip(*self.rows, strict=True)]
