"""A mixture of proposals, and the log-weights of its draws."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from ...programs import Program
from ...programs.latents.densities import Densities
from ...programs.latents.terms import Start, Terms
from ...programs.particles.rounding import peaked_at_ends
from ..core.checks import check_weights
from ..core.chunks import pairs_in
from ..core.estimator import PerDatum
from ..core.execution import Execution
from ..estimators.importance_sampling import IS
from ..weights.delete_one import stratified_variance

BY_CHANCE = 0.01  # share of coordinates whose two outermost draws may be equal
COARSE = 0.1  # nats by which a log-density may change from one number of a latent to the next


class Component(Protocol):
    """A density of unconstrained latents, one a datum, that can be drawn from."""

    def sample(self, num: int) -> Tensor:
        """Draws u `[num, n, D]` from torch's generator."""
        ...

    def log_prob(self, u: Tensor) -> Tensor:
        """ln q(u) at u `[K, n, D]`: `[K, n]`, nats."""
        ...

    def select(self, rows: Tensor) -> Component:
        """Selects some data, by their places among the n."""
        ...


class Proposal:
    """q_n(u) = sum_c b_c q_c(u): components of each datum's own, and a defensive share of guide and prior.

    Draws are shared out among components in fixed numbers, and all are weighed by the mixture (the balance heuristic,
    Veach & Guibas 1995, https://doi.org/10.1145/218380.218498; Hesterberg 1995, https://doi.org/10.2307/1269620;
    Owen & Zhou 2000, https://doi.org/10.1080/01621459.2000.10473909):

        w = p(x, z) / sum_c b_c q_c(z).

    The mean weight is unbiased for p(x) whatever the components are, if they are fixed before the draws. The prior's
    share bounds the weights by p(x|z) / b.

    Args:
        program: whose latents they are of.
        indices: the data.
        components: of each datum's own, with their shares of the draws.
        guide: share of the guide's draws; given to the prior where the guide has no density at any z.
        prior: share of the prior's draws. All shares add up to 1.
    """

    def __init__(
        self,
        program: Program,
        indices: Tensor,
        components: Sequence[tuple[Component, float]],
        guide: float,
        prior: float,
    ) -> None:
        self.program, self.indices = program, indices
        densities = Densities(program, indices, 1)
        if components and densities.masked:
            raise ValueError(
                f"expected latents without masks for proposals of each datum's own, got masks at {densities.masked}: "
                "where a latent is masked it has no density to propose from; try pv.IS or pv.AIS"
            )
        peaked = peaked_at_ends(program, indices)
        if peaked:
            raise ValueError(
                f"expected priors whose draws can be told from the ends of their support, got mass at {peaked} "
                "beyond the last number before an end: densities on the line do not hold it; try pv.IS or pv.Exact, or "
                "float64"
            )
        self.dtype = next(iter(densities.slots.values())).dtype
        known = guide > 0 and not program.narrower and densities.guide_has_density()
        self.components = [c for c, _ in components]
        self.has_guide = known
        rest = [guide, prior] if known else [guide + prior]
        self.shares = [*(share for _, share in components), *rest]

    def select(self, rows: Tensor) -> Proposal:
        """Selects some data, by their places among the indices."""
        rows = rows.to(self.indices.device)
        part = copy.copy(self)
        part.indices, part.components = self.indices[rows], [c.select(rows) for c in self.components]
        return part

    def estimate(
        self,
        num_samples: int,
        execution: Execution,
        stream: str,
        *counters: int,
        advance: Callable[[int], None] | None = None,
    ) -> PerDatum:
        """ln of the mean weight of fresh draws; noise depends on (seed, stream, counters)."""
        u, lw, strata = self.draws(num_samples, execution, stream, *counters, advance=advance)
        self._check_spacing(u, lw)
        lw = lw[:, : len(self.indices)]
        check_weights(lw, self.indices, self.program)
        return replace(IS(num_samples).estimate(lw), variance=stratified_variance(lw, strata))

    def draws(
        self,
        num_samples: int,
        execution: Execution,
        stream: str,
        *counters: int,
        advance: Callable[[int], None] | None = None,
        keep: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """u `[K, rows, D]` (without `keep` the first ones), ln w `[K, rows]`, float64, and each draw's component `[K]`.

        Rows are the data, and those that fill a plate of fixed size.

        Raises:
            ValueError: fewer than two draws of a component; a prior whose draws lie at the ends of the numbers.
        """
        size = max(1, min(num_samples, pairs_in(self.program, execution.budget) // len(self.indices)))
        order = self._order(num_samples)
        shares = self.shares_of(num_samples)
        us: list[Tensor] = []
        weights: list[Tensor] = []
        strata: list[Tensor] = []
        for block, own in enumerate(order.split(size)):
            with self.program.quiet(execution.seed, stream, *counters, block):
                # In any order: consecutive draws, of which L_k is made, are then of all components.
                own = own.sort().values[(places := torch.randperm(len(own), device="cpu"))]
                u, lw = self._block(own, places, shares)
            weights.append(lw)
            strata.append(own)
            if keep or not us:
                us.append(u)
            if advance is not None:
                advance(lw.numel())
        return torch.cat(us), torch.cat(weights), torch.cat(strata)

    @property
    def fewest(self) -> int:
        """Draws that give two at least to each component with a share."""
        return math.ceil(3 / min(share for share in self.shares if share))

    def shares_of(self, total: int) -> list[float]:
        """Shares of the components among so many draws, in whole numbers."""
        order = self._order(total)
        shares: list[float] = (torch.bincount(order, minlength=len(self.shares)).double() / total).tolist()
        return shares

    def _order(self, total: int) -> Tensor:
        """The component of each of all draws: fixed numbers of each, spread evenly."""
        ends = torch.tensor(
            [round(total * sum(self.shares[: i + 1])) for i in range(len(self.shares))], device="cpu"
        )
        stride = next(s for s in range(int(0.618 * total) + 1, 2 * total + 2) if math.gcd(s, total) == 1)
        order = torch.searchsorted(ends, torch.arange(total, device="cpu") * stride % total, right=True)
        counts = torch.bincount(order, minlength=len(self.shares))
        if any(share and count < 2 for share, count in zip(self.shares, counts.tolist(), strict=True)):
            raise ValueError(
                f"expected two draws at least of each component with a share, got {counts.tolist()} of {total}; "
                "try a larger num_samples, or another defensive share"
            )
        return order

    def _block(self, own: Tensor, places: Tensor, shares: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Draws of the components `own` `[k]`, whose order among sorted ones is `places`."""
        num = len(own)
        counts = torch.bincount(own, minlength=len(self.shares)).tolist()
        densities = Densities(self.program, self.indices, num)
        starts: tuple[Start, ...] = ("guide", "prior") if self.has_guide else ("prior",)
        parts = [c.sample(k) for c, k in zip(self.components, counts, strict=False) if k]
        for start, k in zip(starts, counts[len(self.components) :], strict=True):
            if k:
                part = densities if k == num else Densities(self.program, self.indices, k)
                parts.append(part.initial(start, density=False))
                if start == "prior":
                    self._check_ends(parts[-1])
        u = torch.cat([part.to(self.dtype) for part in parts])[places.to(self.indices.device)]
        dead = ~torch.isfinite(u).all(-1)  # a draw of the guide outside of the model's support
        u = torch.where(dead.unsqueeze(-1), 0.0, u)
        terms = densities.terms(u, guide=self.has_guide)
        log_q = self.log_density(u, terms, shares)
        lw = (terms.prior + terms.likelihood).double() - log_q
        self._check_prior(terms.prior, dead)
        return u, lw.masked_fill(dead, -torch.inf)

    def _check_prior(self, prior: Tensor, dead: Tensor) -> None:
        """Refuses a prior whose density on the line is infinite, or no number, at a draw: it lies at an end.

        A density on the line is finite, but where the number of z is that of the end, as exp(-800) is 0.
        """
        ended = ~(prior < torch.inf) & ~dead
        if bool(ended.any()):
            raise ValueError(
                f"expected a prior whose draws can be told from the ends of their support, got {int(ended.sum())} of "
                f"{ended.numel()} draws at an end in {self.dtype}, where the prior's density is no number: mass lies "
                "close to it; try pv.IS, pv.Exact, or float64 (of the prior's parameters too)"
            )

    def log_density(self, u: Tensor, terms: Terms, shares: Sequence[float]) -> Tensor:
        """ln q_n(u) at u `[K, rows, D]` of these shares: `[K, rows]`; `terms` are the densities of the pair there."""
        found = [c.log_prob(u).double() for c in self.components]
        if terms.guide is not None:
            found.append(terms.guide.double())
        found.append(terms.prior.double())
        mixed = [
            math.log(share) + part.nan_to_num(nan=-torch.inf)
            for share, part in zip(shares, found, strict=True)
            if share
        ]
        return torch.logsumexp(torch.stack(mixed), 0)

    def _check_ends(self, u: Tensor) -> None:
        """Refuses a prior with mass at an end of its support: draws without a place on the line, or several at one."""
        ended = ~torch.isfinite(u).all(-1)
        if len(u) > 2:
            for end in (u.amax(0), u.amin(0)):
                at_end = u == end
                number = at_end.sum(0).masked_fill(u.amax(0) == u.amin(0), 1)
                # Of many coordinates a few have two equal draws by chance: numbers of float32 are 1e-7 apart.
                tied = (number > 2) | ((number == 2) & ((number > 1).double().mean() > BY_CHANCE))
                ended |= (at_end & tied).any(-1)
        if bool(ended.any()):
            raise ValueError(
                f"expected a prior whose draws can be told from the ends of their support, got {int(ended.sum())} of "
                f"{ended.numel()} draws at an end in {self.dtype}: mass lies beyond the last number before it; try "
                "pv.IS, or float64"
            )

    def _check_spacing(self, u: Tensor, log_weights: Tensor) -> None:
        """Refuses a posterior whose width is that of the rounding of its coordinates: no density is right there."""
        best = log_weights[: len(u)].argmax(0)
        centre = u[best, torch.arange(u.shape[1], device=u.device)].unsqueeze(0)
        with self.program.quiet():
            values = []
            for step in (0.0, 1.0, -1.0):
                terms = Densities(self.program, self.indices, 1).terms(
                    centre * (1 + step * torch.finfo(u.dtype).eps)
                )
                values.append((terms.prior + terms.likelihood).double()[0])
        change = torch.maximum((values[1] - values[0]).abs(), (values[2] - values[0]).abs())
        if bool((change > COARSE).any()):
            worst = int(change.nan_to_num(0.0).argmax())
            raise ValueError(
                f"expected latents whose numbers are finer than the posterior, got a log-density that changes by "
                f"{float(change[worst]):.2g} nats from one number to the next in {u.dtype} (datum "
                f"{int(self.indices[min(worst, len(self.indices) - 1)])}); try float64 (x.double(), and .double() of "
                "the modules), or latents in other units"
            )
