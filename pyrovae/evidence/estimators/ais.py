"""Annealed importance sampling."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ...programs import Program, seeded
from ...programs.latents.terms import Start
from ..chains.annealed_path import Resample, check_num_temperatures, check_schedule
from ..chains.hmc import Point
from ..chains.tuned_chunks import Ticks, chunks, split
from ..core.checks import check_count, check_density
from ..core.direction import Direction
from ..core.estimator import ChunkedEstimator, PerDatum
from ..core.execution import Execution
from .importance_sampling import IS


@dataclass(frozen=True)
class AIS(ChunkedEstimator):
    """ln p(x) >= E ln (1/K) sum_k w_k, with w = prod_t pi_{beta_t}(z_{t-1}) / pi_{beta_{t-1}}(z_{t-1}).

    Chains go from the prior, pi_beta = p(z) p(x|z)^beta, or from the guide,
    pi_beta = q(z|x)^{1-beta} p(x,z)^beta, to the posterior: at each temperature the weight is
    taken first, then one HMC move is made. E[w] = p(x) for any number of temperatures (Neal
    2001; on decoders Wu et al. 2017): exp of the estimate is unbiased for p(x), and the
    estimate a lower bound of ln p(x) in expectation.

    A pilot run, on draws of its own, tunes a step size per datum, coordinate and temperature, and the
    temperatures. Both are frozen in the measured run: adapting on the chains that are measured
    would bias Z. Latents are moved in unconstrained space.
    https://arxiv.org/abs/physics/9803008, https://arxiv.org/abs/1611.04273

    Args:
        num_temperatures: T, both ends counted; 2 is importance sampling.
        num_chains: K.
        start: `"guide"` or `"prior"`. A guide that misses a mode is seldom found out by its
            chains; the prior misses none, and has a longer way to go.
        leapfrog: steps of one HMC move.
        schedule: temperatures from 0 to 1; default: tuned by the pilot.
        target_acceptance: aimed at by the pilot.

    Raises:
        ValueError: fewer than two temperatures, no chains, no leapfrog step, a schedule that does not
            rise from 0 to 1 in `num_temperatures` values.

    Example:
        >>> import pyrovae as pv
        >>> from pyrovae.models.ground_truths import linear_gaussian
        >>> pair = linear_gaussian(8, latent_dim=2)
        >>> evidence = pv.evidence(pair.model, pair.guide, pair.x, estimators=[AIS(num_temperatures=5, num_chains=4)])
        >>> evidence["AIS"].symbol
        '≥'
    """

    direction: ClassVar[Direction] = "<="  # a lower bound, in expectation
    unbiased_for_p: ClassVar[bool] = True  # E exp(estimate) = p(x)

    num_temperatures: int = 500
    num_chains: int = 16
    start: Start = "guide"
    leapfrog: int = 8
    schedule: Sequence[float] | Tensor | None = None
    target_acceptance: float = 0.7

    def __post_init__(self) -> None:
        check_num_temperatures(self.num_temperatures)
        for name in ("num_chains", "leapfrog"):
            check_count(name, getattr(self, name))
        if self.start not in ("prior", "guide"):
            raise ValueError(f"expected start to be 'prior' or 'guide', got {self.start!r}")
        if not 0 < self.target_acceptance < 1:
            raise ValueError(f"expected target_acceptance in (0, 1), got {self.target_acceptance}")
        if self.schedule is not None:
            values = check_schedule([float(b) for b in self.schedule])
            if len(values) != self.num_temperatures:
                raise ValueError(
                    f"expected a schedule of num_temperatures = {self.num_temperatures} values, got {len(values)}"
                )
            object.__setattr__(self, "schedule", values)

    @property
    def name(self) -> str:
        """Key in the results."""
        return "AIS" if self.start == "guide" else "AIS (prior)"

    @property
    def draws_from_guide(self) -> bool:
        """Whether chains start at the guide, whose reach is then theirs."""
        return self.start == "guide"

    @property
    def num_samples(self) -> int:
        """K, the chains."""
        return self.num_chains

    def num_chunks(self, program: Program, budget: int | None) -> int:
        """Into how many chunks the data are divided; a chunk's result does not depend on the others."""
        check_density(program)
        return len(split(program, self, budget))

    def run_chunks(
        self, program: Program, numbers: Iterable[int], execution: Execution
    ) -> Iterator[tuple[int, PerDatum]]:
        """Number and result of some chunks: ln of the mean weight per datum.

        The variance is by leaving out one chain, the bias as of the jackknife.
        Details: `acceptance` and that of the worst chain `[N]`, `thermodynamic_integration` `[N]`
        (trapezoid over beta of the mean slope of the weighted chains, which stand for pi_beta however fast the path
        is: a check without direction).

        Raises:
            ValueError: discrete latents that are drawn, auxiliary guide sites (from the guide), a
                program that does not broadcast, a density that is no density.
        """
        check_density(program)
        ticks = Ticks(execution, program.arguments.num_data * self.num_chains, self.num_temperatures - 1)
        for chunk in chunks(program, self, execution, numbers=numbers):
            means: list[Tensor] = []
            betas = chunk.betas(self.num_temperatures)
            with seeded(execution.seed, "ais", chunk.number, device=program.arguments.x.device):
                run = chunk.anneal(
                    betas,
                    observe=lambda t, point, lw: means.append(_weighted_slope(point, lw)),  # noqa: B023
                    advance=ticks.of(chunk.num_data * self.num_chains),
                    resample=self._resampling(),
                )
            grid = run.log_weights.new_tensor(betas)
            integral = torch.trapezoid(torch.stack(means), grid, dim=0)
            n = chunk.num_data
            yield chunk.number, self._result(run.log_weights[:, :n], run.acceptance[:, :n], integral[:n])

    def _resampling(self) -> Resample | None:
        """Between weighing and moving; none here."""
        return None

    def _result(self, lw: Tensor, acceptance: Tensor, integral: Tensor) -> PerDatum:
        part = IS(len(lw)).estimate(lw)
        return replace(
            part,
            curve={},
            details={
                **part.details,
                "num_temperatures": self.num_temperatures,
                "start": self.start,
                "acceptance": acceptance.mean(0).cpu(),
                "acceptance_worst_chain": acceptance.min(0).values.cpu(),
                "thermodynamic_integration": integral.cpu(),
            },
        )


def _weighted_slope(point: Point, log_weights: Tensor) -> Tensor:
    """Self-normalised mean of d ln pi / d beta, `[n]`; a chain without weight does not count."""
    share = log_weights.softmax(0)
    return torch.where(share == 0, 0.0, share * point.slope.double()).sum(0)
