"""The family p(z) p(x|z)^beta: thermodynamic integration and heat capacity, with errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..checking import checked
from ..evidence.chains.hmc import Point
from ..evidence.core.compile_when import Compile
from ..evidence.core.execution import Execution
from ..evidence.estimators.ais import AIS
from ..evidence.weights.diagnostics import effective_sample_size
from ..programs import inspect_program
from ..progress import Progress, listener, shows_progress
from .free_energy import check_rising
from .prior_path import run_prior_path
from .rate_distortion import Records


@dataclass(frozen=True, eq=False)
class TemperedLikelihood:
    """pi_beta(z) = p(z) p(x|z)^beta / Z_beta for T values of beta and N data, in nats, float64.

    The energy here is -ln p(x|z) alone, the prior is the measure: NOT the family p(x, z)^{1/T} of
    `free_energy`, which tempers the prior too. ln Z_0 = 0 and ln Z_1 = ln p(x).

    Attributes:
        betas: `[T]`, from 0 to 1.
        energy: U(beta) = -<ln p(x|z)>_beta of the weighted chains, `[T, N]`; falls with beta.
        energy_variance: Var_beta(ln p(x|z)) = -dU/dbeta, `[T, N]`.
        log_normaliser: ln Z_beta by AIS, `[T, N]`; <= in expectation.
        integral: ln Z_beta by thermodynamic integration, -int_0^beta U, trapezoid, `[T, N]`.
        lower, upper: Riemann sums of the last integral, U at the left and at the right ends, `[N]`: as U
            falls they enclose it where every U is exact; the rule's error, not that of the chains.
        variances: Monte-Carlo variances of energy, log_normaliser, integral, energy_variance and heat_capacity,
            `[T, N]`, by name. Chains are independent; that one chain stays near itself along the path is accounted for.
        work: -ln w of each chain at beta = 1, `[K, N]`.
        acceptance: of HMC moves, `[N]`.
    """

    betas: Tensor
    energy: Tensor
    energy_variance: Tensor
    log_normaliser: Tensor
    integral: Tensor
    lower: Tensor
    upper: Tensor
    variances: dict[str, Tensor] = field(repr=False)
    work: Tensor = field(repr=False)
    acceptance: Tensor = field(repr=False)

    @property
    def temperatures(self) -> Tensor:
        """1 / beta, `[T]`, from infinity (the prior) to 1 (the posterior)."""
        return 1 / self.betas

    @property
    def heat_capacity(self) -> Tensor:
        """C = dU/dT at T = 1/beta, that is beta^2 Var_beta(ln p(x|z)), `[T, N]`, in units of k_B; 0 at beta = 0."""
        return self.betas.square().unsqueeze(-1) * self.energy_variance

    @property
    def entropy(self) -> Tensor:
        """-KL(pi_beta ‖ p(z)) = beta U + ln Z_beta by AIS, `[T, N]`; 0 at beta = 0."""
        energy = torch.where(self.betas.unsqueeze(-1) == 0, 0.0, self.betas.unsqueeze(-1) * self.energy)
        return energy + self.log_normaliser

    @property
    def log_evidence(self) -> Tensor:
        """ln p(x) by AIS, `[N]`; <= in expectation."""
        return self.log_normaliser[-1]

    @property
    def thermodynamic_integration(self) -> Tensor:
        """ln p(x) by the trapezoid rule, `[N]`; without direction."""
        return self.integral[-1]

    @property
    def corrected_integration(self) -> Tensor:
        """The same with the rule's first error taken off, by -(delta beta)^2 / 12 times the change of variance, `[N]`.

        Friel, Hurn & Wyse (2014), https://doi.org/10.1007/s11222-013-9397-1.
        """
        step = self.betas.diff().unsqueeze(-1).square()
        return self.integral[-1] - (step * self.energy_variance.diff(dim=0) / 12).sum(0)

    def mean(self, name: str) -> tuple[Tensor, Tensor]:
        """(mean over data, its Monte-Carlo standard error) of a field with one in `variances`, `[T]`.

        Raises:
            ValueError: for another name.
        """
        if name not in self.variances:
            raise ValueError(f"expected one of {list(self.variances)}, got {name!r}")
        n = self.energy.shape[-1]
        return getattr(self, name).mean(-1), self.variances[name].sum(-1).sqrt() / n

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """<ln p(x|z)> against beta; see `pyrovae.plots.plot_thermodynamic_integration`."""
        from ..plots import plot_thermodynamic_integration

        return plot_thermodynamic_integration(self, ax, **options)

    def __repr__(self) -> str:
        (ti, ti_se), (ais, ais_se) = (
            (float(v[-1]) for v in self.mean(n)) for n in ("integral", "log_normaliser")
        )
        t, n = self.energy.shape
        return (
            f"TemperedLikelihood(ln p(x): integration {ti:.4f} ± {ti_se:.4f} in [{self.lower.mean():.4f}, "
            f"{self.upper.mean():.4f}], AIS ≥ {ais:.4f} ± {ais_se:.4f} nats; {t} betas, N={n})"
        )


@checked
@shows_progress("chains")
def tempered_likelihood(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    temperatures: Sequence[float] | Tensor | None = None,
    ais: AIS = AIS(100, start="prior"),  # noqa: B008
    seed: int = 0,
    plate: str | None = None,
    budget: int | None = None,
    compile: Compile = False,
    progress: Progress = True,
) -> TemperedLikelihood:
    """ln p(x) = integral from 0 to 1 of <ln p(x|z)>_beta dbeta, from the chains of one AIS run.

    Weighted chains stand at each beta for pi_beta, so no equilibrium is waited for; AIS's own estimate, of the same
    chains, is beside it. The guide takes no part. Sources: Kirkwood (1935), https://doi.org/10.1063/1.1749657;
    Friel & Pettitt (2008), https://doi.org/10.1111/j.1467-9868.2007.00650.x.

    Args:
        model, guide, x, *context, seed, plate, budget, compile, progress: as in `evidence`.
        temperatures: T = 1/beta, rising from 1 to infinity, in place of the schedule of `ais`; default: that
            schedule, else tuned by AIS's pilot.
        ais: chains, number of temperatures and leapfrog steps; `start="prior"`.

    Raises:
        ValueError: temperatures that are not positive and rising, or do not go from 1 to infinity; both they and a
            schedule; `ais` that starts from the guide, or has one chain; what `AIS` refuses.
    """
    if ais.num_chains < 2:
        raise ValueError(f"expected at least 2 chains, for variances and errors, got {ais.num_chains}")
    if temperatures is not None:
        if ais.schedule is not None:
            raise ValueError("expected either temperatures or a schedule of ais, got both")
        values = check_rising(temperatures)
        if values[0] != 1 or values[-1] != math.inf:
            raise ValueError(
                "expected temperatures from 1 (the posterior, beta = 1) to math.inf (the prior, beta = 0), between "
                f"which ln p(x) is the integral, got {values[0]:g} ... {values[-1]:g}"
            )
        ais = replace(ais, num_temperatures=len(values), schedule=[1 / t for t in reversed(values)])
    program = inspect_program(model, guide, x, *context, plate=plate)
    path = run_prior_path(program, ais, _Errors, Execution(seed, budget, compile, listener(progress)))
    energy, variance, log_z, energy_error, variance_error, log_z_error, integral_error = path.recorded
    step = path.betas.diff().unsqueeze(-1)
    rule = (-0.5 * step * (energy[1:] + energy[:-1])).cumsum(0)
    return TemperedLikelihood(
        betas=path.betas,
        energy=energy,
        energy_variance=variance,
        log_normaliser=log_z,
        integral=torch.cat([torch.zeros_like(rule[:1]), rule]),
        lower=-(step * energy[:-1]).sum(0),
        upper=-(step * energy[1:]).sum(0),
        variances={
            "energy": energy_error,
            "log_normaliser": log_z_error,
            "integral": integral_error,
            "energy_variance": variance_error,
            "heat_capacity": path.betas.pow(4).unsqueeze(-1) * variance_error,
        },
        work=path.work,
        acceptance=path.acceptance.mean(0),
    )


class _Errors(Records):
    """Beside the moments: variances of energy, ln Z and of the integral so far."""

    def __init__(self, betas: Tensor) -> None:
        super().__init__()
        self.betas = betas.tolist()
        self.errors: list[tuple[Tensor, Tensor]] = []
        self.before: Tensor | None = None  # what each chain adds to the last mean energy, `[K, n]`
        self.path: Tensor | None = None  # and to the integral so far

    def __call__(self, t: int, point: Point, log_weights: Tensor) -> None:
        """Takes the states at a temperature and their weights so far."""
        super().__call__(t, point, log_weights)
        k = len(log_weights)
        share = (log_weights - log_weights.logsumexp(0)).exp()
        energy = -point.slope.double()
        now = torch.where(share == 0, 0.0, share * (energy - self.rows[-1][0]))
        if self.before is None or self.path is None:
            self.path = torch.zeros_like(now)
        else:
            self.path = self.path - 0.5 * (self.betas[t] - self.betas[t - 1]) * (now + self.before)
        self.before = now
        weights = (1 / effective_sample_size(log_weights) - 1 / k).clamp(min=0.0)
        correct = k / (k - 1)  # deviations are from the chains' own mean
        self.errors.append((weights, correct * self.path.square().sum(0)))

    def stacked(self) -> list[Tensor]:
        """Mean, variance, ln Z, and the variances of these and of the integral, `[T, n]` each."""
        return [*super().stacked(), *(torch.stack(column) for column in zip(*self.errors, strict=True))]
