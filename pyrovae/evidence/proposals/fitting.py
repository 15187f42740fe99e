"""Fit of proposals to each datum, one chunk of data after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

import pyro
import torch
from torch import Tensor

from ...programs import Program, module_mode, seeded
from ...programs.latents.densities import Densities
from ...programs.memory import budget_on, bytes_per_pair
from ..chains.tuned_chunks import BACKWARD
from ..core.checks import check_density
from ..core.compile_when import DRAWS, compiles
from ..core.direction import Direction
from ..core.estimator import ChunkedEstimator
from ..core.execution import Execution
from .local_fit import LocalFit
from .local_flow import LocalFlow
from .local_steps import LocalSteps
from .proposal import Component, Proposal
from .student_mixture import StudentMixture

START = 512  # draws per datum that a flow starts at
CHECKED = 512  # draws per datum by which one of two flows is taken
ADAPTED = 3000  # draws per datum that a mixture is fitted to
MOST_COORDINATES = 16  # of a mixture's covariances
FULL_RATE = 50  # latent dims up to which a learning rate is taken as it is given
NUM_COMPONENTS = 4
MOST_ROWS = 256


@dataclass(frozen=True)
class ProposalFit:
    """How proposals are fitted to each datum.

    A flow (full covariance, skewness and tail weights in unconstrained space) starts at the moments of the amortised
    guide. It is fitted to the ELBO, then to L_K of `even.num_particles` draws, which evens the weights; of the two the
    one with the smaller second moment of the weights is taken. For up to 16 latent dims a mixture of Student-t
    densities is fitted beside it by adaptive importance sampling, in two rounds whose draws come from the prior as
    well: it finds modes that the guide leaves out, if the prior's draws find them.

    Args:
        elbo: steps, draws a step and learning rate of the first stage. Rates are for up to 50 latent dims D; beyond,
            they are multiplied by 50 / D.
        even: of the second.
        defensive: share of the draws that guide and prior get, half each, in [0, 1).

    Raises:
        ValueError: a share outside of [0, 1).

    Example:
        >>> ProposalFit().elbo.steps
        800
    """

    elbo: LocalFit = field(default_factory=lambda: LocalFit(steps=800, num_particles=16))
    even: LocalFit = field(default_factory=lambda: LocalFit(steps=400, num_particles=32, lr=0.005))
    defensive: float = 0.1

    def __post_init__(self) -> None:
        for name in ("elbo", "even"):
            if not isinstance(getattr(self, name), LocalFit):
                raise TypeError(f"expected {name} to be a pv.LocalFit, got {getattr(self, name)!r}")
        if not isinstance(self.defensive, int | float) or not 0 <= self.defensive < 1:
            raise ValueError(f"expected a defensive share in [0, 1), got {self.defensive!r}")

    @property
    def steps(self) -> int:
        """Steps of both stages."""
        return self.elbo.steps + self.even.steps


class Fitter:
    """Fits proposals to chunk after chunk of data; full chunks run one compiled graph where that pays.

    Args:
        program: whose latents are continuous, or summed out in the model.
        fit: how.
        execution: seed, memory and compilation.
        rows: data of a full chunk.
    """

    def __init__(self, program: Program, fit: ProposalFit, execution: Execution, rows: int) -> None:
        self.program, self.fit, self.execution, self.rows = program, fit, execution, rows
        draws = program.arguments.num_data * fit.steps * fit.elbo.num_particles
        compile = compiles(execution.compile, draws, DRAWS)
        self._elbo = LocalSteps(fit.elbo.num_particles, compile, rows)
        self._even = LocalSteps(fit.even.num_particles, compile, rows)

    def __call__(self, indices: Tensor, chunk: int, advance: Callable[[], None] | None = None) -> Proposal:
        """The proposal for these data; its noise depends on the number of the chunk and on how many they are."""
        program, seed, fit = self.program, self.execution.seed, self.fit
        missing = self.rows - len(indices)
        if 0 < missing <= len(indices) and program.arguments.calling == "sliced":
            # Filled up with its last datum, more than half a chunk fits the graph that is there.
            whole = self(torch.cat([indices, indices[-1:].expand(missing)]), chunk, advance)
            return whole.select(torch.arange(len(indices), device="cpu"))
        flow = self._flow(indices, chunk, advance)
        rest = fit.defensive
        if flow.own[0].shape[-1] > MOST_COORDINATES:
            return Proposal(program, indices, [(flow, 1 - rest)], rest / 2, rest / 2)
        first: list[tuple[Component, float]] = [(flow, 0.5)]
        pilot = Proposal(program, indices, first, 0.25, 0.25)
        mixture = None
        for again in range(2):
            u, lw, _ = pilot.draws(ADAPTED, self.execution, "own adapt", chunk, again, keep=True)
            with seeded(seed, "own mixture", chunk, again, device=u.device):
                mixture = StudentMixture(u, lw, NUM_COMPONENTS)
            pilot = Proposal(program, indices, [(flow, 0.3), (mixture, 0.4)], 0.15, 0.15)
        assert mixture is not None
        own: list[tuple[Component, float]] = [(flow, (1 - rest) / 2), (mixture, (1 - rest) / 2)]
        return Proposal(program, indices, own, rest / 2, rest / 2)

    def _flow(self, indices: Tensor, chunk: int, advance: Callable[[], None] | None) -> LocalFlow:
        program, seed, fit = self.program, self.execution.seed, self.fit
        device = indices.device
        with (
            module_mode(program.model, program.guide, training=False),
            pyro.validation_enabled(False),
        ):
            with seeded(seed, "own start", chunk, device=device):
                wide = Densities(program, indices, START)
                flow = LocalFlow(wide.initial("guide", density=False).detach())
            # Each of D^2 numbers is moved by about a rate, and what they do together grows with D.
            rate = min(1.0, FULL_RATE / flow.own[0].shape[-1])
            elbo, even = (replace(part, lr=part.lr * rate) for part in (fit.elbo, fit.even))
            with seeded(seed, "own elbo", chunk, device=device):
                elbo.minimise(flow.leaves, self._elbo.landing(flow, program, indices), advance)
            first = flow.select(slice(None))
            with seeded(seed, "own even", chunk, device=device):
                even.minimise(flow.leaves, self._even.even(flow, program, indices), advance)
        moments = _second_moments(program, indices, (first, flow), seed, chunk)
        worse = ~(moments[1] <= moments[0])
        flow.put_back(worse, first)
        return flow


def _second_moments(
    program: Program, indices: Tensor, flows: tuple[LocalFlow, LocalFlow], seed: int, chunk: int
) -> Tensor:
    """ln E_q[w^2] of two flows up to a constant, on draws of both: `[2, rows]`."""
    with program.quiet(seed, "own moments", chunk):
        u = torch.cat([flow.sample(CHECKED) for flow in flows])
        terms = Densities(program, indices, len(u)).terms(u)
        log_p = (terms.prior + terms.likelihood).double().nan_to_num(nan=-torch.inf)
        log_q = torch.stack([flow.log_prob(u).double() for flow in flows])
        mixed = torch.logsumexp(log_q, 0)
        return torch.logsumexp(2 * log_p - log_q - mixed, 1)


class FittedEstimator(ChunkedEstimator):
    """Base of estimators whose draws are of proposals fitted to each datum: `fit` says how."""

    direction: ClassVar[Direction] = "<="  # a lower bound, in expectation
    unbiased_for_p: ClassVar[bool] = True  # E exp(estimate) = p(x)
    draws_from_guide: ClassVar[bool] = False  # a share of the draws is the prior's

    fit: ProposalFit

    def check_fit(self) -> None:
        """Raises TypeError unless `fit` says how proposals are fitted."""
        if not isinstance(self.fit, ProposalFit):
            raise TypeError(f"expected fit to be a pv.ProposalFit, got {self.fit!r}; try pv.ProposalFit()")

    def num_chunks(self, program: Program, budget: int | None) -> int:
        """Into how many chunks the data are divided."""
        return len(self.chunks(program, budget))

    def chunks(self, program: Program, budget: int | None) -> list[Tensor]:
        """Data fitted side by side.

        Raises:
            ValueError: discrete latents that are drawn, more than 512 latent dims, a program that does not broadcast, a
                density that is no density; before anything is computed.
        """
        check_density(program)
        args = program.arguments
        Densities(program, args.chunks(1)[0], 1)  # refuses before memory is measured on it
        if args.calling != "sliced":
            return list(args.chunks(args.num_data))
        rows = budget_on(args.x.device, budget) // (
            BACKWARD * bytes_per_pair(program) * max(self.fit.elbo.num_particles, self.fit.even.num_particles)
        )
        return list(args.chunks(max(1, min(args.num_data, rows, MOST_ROWS))))
