"""A mixture of proposals, and the log-weights of its draws."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from ...programs import Program
from ...programs.latents.densities import Densities
from ..core.chunks import pairs_in


class Component(Protocol):
    """A density of unconstrained latents, one a datum, that can be drawn from."""

    def sample(self, num: int) -> Tensor:
        """Draws u `[num, n, D]` from torch's generator."""
        ...

    def log_prob(self, u: Tensor) -> Tensor:
        """ln q(u) at u `[K, n, D]`: `[K, n]`, nats."""
        ...

    def select(self, rows: Tensor) -> Component:
        """Those of some data, by their places among the n."""
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
        known = guide > 0 and not program.narrower and Densities(program, indices, 1).guide_has_density()
        self.components = [c for c, _ in components]
        self.has_guide = known
        rest = [guide, prior] if known else [guide + prior]
        self.shares = [*(share for _, share in components), *rest]

    def select(self, rows: Tensor) -> Proposal:
        """Those of some data, by their places among the indices."""
        rows = rows.to(self.indices.device)
        part = copy.copy(self)
        part.indices, part.components = self.indices[rows], [c.select(rows) for c in self.components]
        return part

    def log_weights(
        self,
        num_samples: int,
        seed: int,
        stream: str,
        *counters: int,
        budget: int | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> Tensor:
        """ln w `[K, n]` of fresh draws, float64, nats."""
        return self.draws(num_samples, seed, stream, *counters, budget=budget, advance=advance)[1]

    def draws(
        self,
        num_samples: int,
        seed: int,
        stream: str,
        *counters: int,
        budget: int | None = None,
        advance: Callable[[int], None] | None = None,
        keep: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """u `[K, n, D]` (empty without `keep`) and ln w `[K, n]`, float64.

        A draw where the densities are no numbers has no weight: the estimate stays a lower bound.
        """
        size = max(1, min(num_samples, pairs_in(self.program, budget) // len(self.indices)))
        us, weights = [], []
        for block, start in enumerate(range(0, num_samples, size)):
            stop = min(start + size, num_samples)
            with self.program.quiet(seed, stream, *counters, block):
                u, lw = self._block(self._counts(num_samples, start, stop), num_samples)
            weights.append(lw)
            if keep:
                us.append(u)
            if advance is not None:
                advance((stop - start) * len(self.indices))
        return torch.cat(us) if keep else weights[0].new_empty(0), torch.cat(weights)

    def _counts(self, total: int, start: int, stop: int) -> list[int]:
        """Draws of each component in a block; over all blocks those of `total`, differing by one at most."""
        ends = [0, *(round(total * sum(self.shares[: i + 1])) for i in range(len(self.shares)))]
        whole = [b - a for a, b in pairwise(ends)]
        own = [k * stop // total - k * start // total for k in whole[:-1]]
        return [*own, stop - start - sum(own)]

    def _block(self, counts: Sequence[int], total: int) -> tuple[Tensor, Tensor]:
        num, own, n = sum(counts), len(self.components), len(self.indices)
        densities = Densities(self.program, self.indices, num)
        starts = ("guide", "prior") if self.has_guide else ("prior",)
        parts = [c.sample(k) for c, k in zip(self.components, counts, strict=False) if k]
        for start, k in zip(starts, counts[own:], strict=True):
            if k:
                part = densities if k == num else Densities(self.program, self.indices, k)
                parts.append(part.initial(start, density=False))  # type: ignore[arg-type]
        # In any order: consecutive draws, of which L_k is made, are then of all components.
        u = torch.cat([part.to(parts[-1].dtype) for part in parts])[torch.randperm(num)]
        dead = ~torch.isfinite(u).all(-1)  # a draw of the guide outside of the model's support
        u = torch.where(dead.unsqueeze(-1), 0.0, u)
        terms = densities.terms(u, guide=self.has_guide)
        found = [c.log_prob(u).double() for c in self.components]
        if terms.guide is not None:
            found.append(terms.guide.double())
        found.append(terms.prior.double())
        shares = [k / total for k in self._counts(total, 0, total)]  # as the draws really have them
        mixed = [
            math.log(share) + part[:, :n].nan_to_num(nan=-torch.inf)
            for share, part in zip(shares, found, strict=True)
            if share
        ]
        log_q = torch.logsumexp(torch.stack(mixed), 0)
        lw = (terms.prior + terms.likelihood)[:, :n].double() - log_q
        return u[:, :n], lw.masked_fill(dead[:, :n] | lw.isnan(), -torch.inf)
