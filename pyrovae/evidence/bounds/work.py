"""Work done on chains from prior or guide to posterior, and on the way back, on simulated data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...checking import checked
from ...programs import seeded
from ...progress import Progress, listener, shows_progress
from ..chains.hmc import Point, move
from ..chains.tuned_chunks import Ticks, TunedChunk, chunks
from ..core.compile_when import Compile
from ..core.execution import Execution
from ..estimators.ais import AIS
from ..weights.narrower_guides import warn_narrower
from .bennett import MIN_OVERLAP, Bennett, CrooksFit, bennett_acceptance_ratio, crooks_fit, overlap
from .sandwich import simulated_program


@dataclass(frozen=True, eq=False)
class WorkDistributions:
    """Works W = -ln w of AIS forward, and of its reverse, on data SIMULATED from the model; nats.

    With Delta F = -ln p(x): E_F e^{-W} = p(x) (Jarzynski 1997), p_F(W) / p_R(-W) = e^{W - Delta F} (Crooks 1999), so
    the densities of W forward and of -W on the way back cross at Delta F, however fast the path.

    Attributes:
        forward: W_F, `[K, N]`, float64; from exact draws of prior or guide.
        reverse: W_R, `[K, N]`; from draws of the posterior.
        x: the simulated data.
        acceptance: of HMC moves, `[N]`.
        attributes: N, K, temperatures, start, moves, seed.

    Example:
        >>> import pyrovae as pv
        >>> from pyrovae.models.ground_truths import linear_gaussian
        >>> pair = linear_gaussian(8, latent_dim=2)
        >>> works = pv.work_distributions(pair.model, pair.guide, pair.x, simulate=3, ais=pv.AIS(8, 10), moves=2)
        >>> works.forward.shape == works.reverse.shape
        True
    """

    forward: Tensor
    reverse: Tensor
    x: Tensor = field(repr=False)
    acceptance: Tensor = field(repr=False)
    attributes: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def lower(self) -> Tensor:
        """ln mean e^{-W_F}, `[N]`: AIS's lower bound of ln p(x), in expectation."""
        return (-self.forward).logsumexp(0) - math.log(len(self.forward))

    @property
    def upper(self) -> Tensor:
        """-ln mean e^{-W_R}, `[N]`: the upper bound of the reverse run."""
        return math.log(len(self.reverse)) - (-self.reverse).logsumexp(0)

    @cached_property
    def bar(self) -> Bennett:
        """ln p(x) by Bennett's acceptance ratio, of both directions, `[N]`; consistent, no bound.

        NaN for data whose works do not overlap.

        Raises:
            ValueError: where no datum's do.
        """
        return bennett_acceptance_ratio(self.forward, self.reverse)

    @cached_property
    def crooks(self) -> CrooksFit:
        """The check: slope 1, crossing -ln p(x)."""
        return crooks_fit(self.forward, self.reverse)

    @property
    def dissipated(self) -> tuple[Tensor, Tensor]:
        """(W_F - Delta F, W_R + Delta F), `[K, N]` each, Delta F by BAR: both >= 0 on average, 0 for a slow path."""
        return self.forward + self.bar.log_ratio, self.reverse - self.bar.log_ratio

    def histogram(self, datum: int = 0, bins: int = 40) -> tuple[Tensor, Tensor, Tensor]:
        """(density of W forward, density of -W on the way back, `[bins]` each; edges `[bins + 1]`) of a datum.

        Edges leave out the lowest hundredth of all works and the highest twentieth: long tails would hide where
        the two cross. Densities count what is left out, so they integrate to less than 1.
        """
        forward, reverse = self.forward[:, datum].cpu(), -self.reverse[:, datum].cpu()
        every = torch.cat([forward, reverse])
        every = every[torch.isfinite(every)]
        low, high = (float(every.quantile(p)) for p in (0.01, 0.95))
        edges = torch.linspace(low, max(high, low + 1e-6), bins + 1, dtype=torch.float64, device="cpu")
        counts = (torch.histogram(v[torch.isfinite(v)], edges)[0] for v in (forward, reverse))
        width = edges[1] - edges[0]
        one, other = (c / (len(self.forward) * width) for c in counts)
        return one, other, edges

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Both histograms of a datum; see `pyrovae.plots.plot_work`."""
        from ...plots import plot_work

        return plot_work(self, ax, **options)

    def __repr__(self) -> str:
        k, n = self.forward.shape
        ends = f"WorkDistributions(ln p(x): {self.lower.mean():.4f} ≤, ", f"≤ {self.upper.mean():.4f} nats; "
        counts = f"K={k}, N={n} simulated data)"
        if not bool((overlap(self.forward, self.reverse) >= MIN_OVERLAP).any()):
            return f"{ends[0]}{ends[1]}works do not overlap: no BAR, no Crooks slope; {counts}"
        good = torch.isfinite(self.bar.log_ratio)
        m = int(good.sum())
        of = "" if m == n else f" (both of the {m} data whose works overlap)"
        se = self.bar.variance[good].sum().sqrt() / m
        slope_se = self.crooks.slope_variance[good].sum().sqrt() / m
        return (
            f"{ends[0]}BAR {self.bar.log_ratio[good].mean():.4f} ± {se:.4f}, {ends[1]}Crooks slope "
            f"{self.crooks.slope[good].mean():.3f} ± {slope_se:.3f}{of}; {counts}"
        )


@checked
@shows_progress("chains")
def work_distributions(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *like: Any,
    simulate: int = 16,
    ais: AIS = AIS(20, 200),  # noqa: B008
    moves: int = 20,
    seed: int = 0,
    plate: str | None = None,
    budget: int | None = None,
    compile: Compile = False,
    progress: Progress = True,
) -> WorkDistributions:
    """Forward and reverse AIS of K chains for each datum drawn from the model.

    The reverse chains of a datum leave from copies of the one exact posterior draw that came with it, each moved by
    `moves` HMC steps of its own that leave the posterior invariant: each copy is still an exact draw, and copies
    forget that they were one. Errors take them as independent; with `moves=0` they are the same state, and the errors
    are too small (the bounds hold). Sources: Jarzynski (1997), https://doi.org/10.1103/PhysRevLett.78.2690; Crooks
    (1999), https://doi.org/10.1103/PhysRevE.60.2721; Grosse et al. (2015), https://arxiv.org/abs/1511.02543.

    Args:
        model, guide, *like, simulate: as in `sandwich`.
        ais: chains K, temperatures, start, leapfrog steps.
        moves: HMC moves of each copy before its way back.
        seed, plate, budget, compile, progress: as in `evidence`.

    Raises:
        ValueError: as `sandwich`; fewer than two chains, moves < 0.

    Example:
        >>> from pyrovae.models.ground_truths import linear_gaussian
        >>> pair = linear_gaussian(8, latent_dim=2)
        >>> works = work_distributions(pair.model, pair.guide, pair.x, simulate=3, ais=AIS(8, 10), moves=2)
        >>> works.forward.shape
        torch.Size([10, 3])
    """
    if ais.num_chains < 2:
        raise ValueError(f"expected at least 2 chains, for two distributions, got {ais.num_chains}")
    if not isinstance(moves, int) or isinstance(moves, bool) or moves < 0:
        raise ValueError(f"expected moves to be a whole number >= 0, got {moves!r}")
    drawn, program = simulated_program(model, guide, like, simulate, seed, plate)
    if ais.draws_from_guide:
        warn_narrower(program)
    execution = Execution(seed, budget, compile, listener(progress))
    ticks = Ticks(execution, simulate * ais.num_chains, 2 * (ais.num_temperatures - 1))
    parts: list[list[Tensor]] = []
    for chunk in chunks(program, ais, execution):
        betas, n = chunk.betas(ais.num_temperatures), chunk.num_data
        device = chunk.indices.device
        advance = ticks.of(n * ais.num_chains)
        with seeded(seed, "work forward", chunk.number, device=device):
            there = chunk.anneal(betas, advance=advance)
        with seeded(seed, "work reverse", chunk.number, device=device):
            point = _posterior(chunk, drawn.latents, moves)
            back = chunk.anneal(betas[::-1], point, advance=advance)
        found = [-there.log_weights, -back.log_weights, 0.5 * (there.acceptance + back.acceptance)]
        parts.append([v[:, :n].cpu() for v in found])
    forward, reverse, acceptance = (torch.cat(v, 1) for v in zip(*parts, strict=True))
    attributes = {
        "num_data": simulate,
        "num_chains": ais.num_chains,
        "num_temperatures": ais.num_temperatures,
        "start": ais.start,
        "moves": moves,
        "seed": seed,
    }
    return WorkDistributions(forward, reverse, drawn.args[0], acceptance.mean(0), attributes)


def _posterior(chunk: TunedChunk, latents: dict[str, Tensor], moves: int) -> Point:
    point = Point.at(chunk.evaluate, chunk.densities.from_latents(latents))
    step = chunk.tuning.steps(1.0)
    for _ in range(moves):
        point, _ = move(chunk.evaluate, point, 1.0, step, chunk.ais.leapfrog)
    return point
