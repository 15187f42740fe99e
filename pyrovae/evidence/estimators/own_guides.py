"""Guides of each datum's own, optimised side by side: what they reach, as an estimator among others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...programs import Program, seeded
from ...programs.latents.densities import Densities
from ...programs.latents.local_guides import LocalGuide, refuse
from ...programs.memory import budget_on, bytes_per_pair
from ..chains.tuned_chunks import BACKWARD
from ..core.checks import check_density
from ..core.chunks import pairs_in
from ..core.compile_when import DRAWS, compiles
from ..core.direction import Direction
from ..core.estimate import TAIL, Estimate
from ..core.estimator import ChunkedEstimator, PerDatum, join
from ..core.execution import Execution
from ..core.log_weights import draw
from ..proposals.local_fit import LocalFit
from ..proposals.local_flow import LocalFlow
from ..proposals.local_steps import LocalSteps
from .elbo import ELBO
from .importance_sampling import IS

CHECKED = 128  # draws per datum that say whether the optimised guide is better than the amortised one
START = 512  # draws per datum that a flow starts at
_FIELDS = ("log_evidence", "variance", "bias", "ess", "khat")


@dataclass(frozen=True)
class OwnGuides(ChunkedEstimator):
    """ELBO and importance sampling from q*, the best member of the guide's families for each datum, and a richer one.

    The engine of `pv.gaps`, which explains it. Its own estimate is importance sampling from q*; `estimates_in` has
    the others.

    Args:
        fit: steps, draws a step and learning rate.
        flow: also optimise the richer family.
        num_samples: fresh draws per datum of each estimate.
    """

    name: ClassVar[str] = "own guides"
    direction: ClassVar[Direction] = "<="
    # The draws are made after the optimisation; but one among several bounds has no certificate.
    unbiased_for_p: ClassVar[bool] = False

    fit: LocalFit
    flow: bool
    num_samples: int

    def num_chunks(self, program: Program, budget: int | None) -> int:
        """Into how many chunks the data are divided; a chunk's result does not depend on the others."""
        return len(self._chunks(program, budget))

    def _chunks(self, program: Program, budget: int | None) -> list[Tensor]:
        check_density(program)
        refuse(program)
        LocalGuide(program, program.arguments.chunks(1)[0])  # refuses a family before anything is computed
        return list(program.arguments.chunks(_rows(program, self.fit, budget)))

    def run_chunks(
        self, program: Program, numbers: Iterable[int], execution: Execution
    ) -> Iterator[tuple[int, PerDatum]]:
        """Number and result of some chunks; progress is in optimisation steps. Raises as `pv.gaps`."""
        seed, budget = execution.seed, execution.budget
        chunks = self._chunks(program, budget)
        total = len(chunks) * self.fit.steps * (1 + self.flow)
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            execution.tell(done, total)

        draws = program.arguments.num_data * self.fit.steps * self.fit.num_particles
        steps = LocalSteps(self.fit.num_particles, compiles(execution.compile, draws, DRAWS), len(chunks[0]))
        for i in numbers:
            local = LocalGuide(program, chunks[i])
            put_back = _optimise(local, self.fit, steps, seed, i, advance)
            weights = {"local": _weights(local, self.num_samples, (seed, i), budget)}
            if self.flow:
                weights["flow"] = _flow_weights(
                    local, self.fit, steps, self.num_samples, (seed, i), advance, budget
                )
            yield i, self._result(weights, put_back)

    def _result(self, weights: dict[str, Tensor], put_back: Tensor) -> PerDatum:
        details: dict[str, Any] = {"kept": put_back.double()}
        for of, lw in weights.items():
            for estimator in (ELBO(), IS(self.num_samples)):
                part = join([estimator.estimate(lw)])
                values = {name: getattr(part, name) for name in _FIELDS} | {TAIL: part.details.get(TAIL)}
                details |= {f"{estimator.name}, {of}: {n}": v for n, v in values.items() if v is not None}
        own = {name: details[f"IS, local: {name}"] for name in _FIELDS}
        return PerDatum(**own, details=details | {TAIL: details[f"IS, local: {TAIL}"]})

    def estimates_in(self, details: dict[str, Any]) -> dict[str, Estimate]:
        """`"ELBO, local"`, `"IS, local"` and, with a flow, `"ELBO, flow"` and `"IS, flow"`, from a result's details."""
        found: dict[str, Estimate] = {}
        for of in ("local", "flow") if self.flow else ("local",):
            for estimator in (ELBO(), IS(self.num_samples)):
                name = f"{estimator.name}, {of}"
                fields: dict[str, Any] = {f: details.get(f"{name}: {f}") for f in _FIELDS}
                fields["per_datum"] = fields.pop("log_evidence")
                tail = details.get(f"{name}: {TAIL}")
                known = {} if tail is None else {TAIL: tail}
                found[name] = Estimate(name, estimator.direction, self.num_samples, **fields, details=known)
        return found


def _rows(program: Program, fit: LocalFit, budget: int | None) -> int:
    args = program.arguments
    if args.calling != "sliced":
        return args.num_data
    size = budget_on(args.x.device, budget)
    return max(1, min(args.num_data, size // (BACKWARD * bytes_per_pair(program) * fit.num_particles)))


def _optimise(
    local: LocalGuide,
    fit: LocalFit,
    steps: LocalSteps,
    seed: int,
    chunk: int,
    advance: Callable[[], None],
) -> Tensor:
    """Optimises in place; returns which data were put back to the amortised guide, `[n]`."""
    program, device = local.program, local.indices.device
    with program.quiet(seed, "gaps own", chunk, grad=True):
        fit.minimise(local.leaves, steps.own(local), advance)
    # Both on the same noise, which neither was optimised on.
    before = draw(local.given, local.indices, CHECKED, seed, "gaps check", chunk).double().mean(0)
    after = draw(program, local.indices, CHECKED, seed, "gaps check", chunk).double().mean(0)
    worse = ~(after >= before)
    rows = torch.zeros(local.rows, dtype=torch.bool, device=device)
    rows[: len(worse)] = worse
    local.reset(rows)
    return worse


def _weights(local: LocalGuide, num_samples: int, seed: tuple[int, int], budget: int | None) -> Tensor:
    size = max(1, min(num_samples, pairs_in(local.given, budget) // local.rows))
    program, stream = local.program, "gaps own draws"
    return torch.cat(
        [
            draw(program, local.indices, min(size, num_samples - at), seed[0], stream, seed[1], at).double()
            for at in range(0, num_samples, size)
        ]
    )


def _flow_weights(
    local: LocalGuide,
    fit: LocalFit,
    steps: LocalSteps,
    num_samples: int,
    seed: tuple[int, int],
    advance: Callable[[], None],
    budget: int | None,
) -> Tensor:
    """Log-weights `[K, n]` of the richer family, optimised from the moments of the guide's own."""
    device, n = local.indices.device, len(local.indices)
    with seeded(seed[0], "gaps flow", seed[1], device=device):
        wide = Densities(local.program, local.indices, START)
        flow = LocalFlow(wide.initial("guide", density=False).detach())
        fit.minimise(flow.leaves, steps.flow(flow, local.program, local.indices), advance)
    size = max(1, min(num_samples, pairs_in(local.given, budget) // local.rows))
    parts = []
    for at in range(0, num_samples, size):
        k = min(size, num_samples - at)
        with torch.no_grad(), seeded(seed[0], "gaps flow draws", seed[1], at, device=device):
            u, log_q = flow.draw(k, antithetic=False)
            terms = Densities(local.program, local.indices, k).terms(u)
        parts.append((terms.prior + terms.likelihood - log_q)[:, :n].double())
    return torch.cat(parts)
