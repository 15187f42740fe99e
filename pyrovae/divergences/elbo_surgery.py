r"""ELBO surgery: the KL to the prior as mutual information plus the KL of the aggregate posterior."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..checking import checked
from ..evidence.core.checks import check_num_samples
from ..programs import Program, inspect_program, seeded
from ..programs.latents.pairwise import GuideDraws, PairwiseGuide
from ..programs.memory import budget_on

# (draw, datum) pairs whose densities are kept at once, whatever the budget: noise is drawn by chunk
KEPT = 2**23


@dataclass(frozen=True)
class Term:
    """A mean over data and draws, nats per datum.

    Attributes:
        value: the mean.
        se: its Monte-Carlo standard error over these very data.
        se_data: its standard error for the law of the data, Monte-Carlo noise included.
    """

    value: float
    se: float
    se_data: float = math.nan

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        return f"{self.value:.4f} ± {self.se_data:.4f} (data) ± {self.se:.4f} (MC)"


@dataclass(frozen=True, eq=False)
class ElboSurgery:
    """mean KL(q(z|x_n) ‖ p(z)) = I_q(x; z) + KL(q(z) ‖ p(z)), q(z) = (1/N) sum_n q(z|x_n).

    All terms are means over the same K draws for each datum, so that the identity holds to rounding, draw by draw.

    Attributes:
        log_own: ln q(z_nk | x_n), `[K, N]`, float64.
        log_prior: ln p(z_nk), `[K, N]`.
        log_likelihood: ln p(x_n | z_nk), `[K, N]`.
        log_aggregate: ln of the mean of q(z_nk | x_m) over the components, x_n among them, `[K, N]`.
        log_others: the same without x_n, `[K, N]`.
        num_components: M, how many data make up the aggregate; N: all, and it is exact.
        shares: c_m = sum_n mean_k q(z_nk | x_m) / sum_l q(z_nk | x_l): how many data's worth of draws fall to the
            posterior of x_m, `[N]`, of mean 1.

    Errors over data are by the infinitesimal jackknife (Jaeckel 1972; Efron 1982,
    https://doi.org/10.1137/1.9781611970319): a datum counts by its own draws and as a component of every other datum's
    aggregate, so that leaving x_m out moves the mean of ln q(z) by (g_m - mean g + c_m - 1) / N.
    """

    log_own: Tensor = field(repr=False)
    log_prior: Tensor = field(repr=False)
    log_likelihood: Tensor = field(repr=False)
    log_aggregate: Tensor = field(repr=False)
    log_others: Tensor = field(repr=False)
    num_components: int
    shares: Tensor = field(repr=False)

    @property
    def num_data(self) -> int:
        """N."""
        return self.log_own.shape[1]

    @property
    def exact_aggregate(self) -> bool:
        """Whether the aggregate is that of all data given."""
        return self.num_components == self.num_data

    @property
    def mean_kl(self) -> Term:
        """mean KL(q(z|x_n) ‖ p(z)): the rate, what the ELBO subtracts."""
        return _term(self.log_own - self.log_prior)

    @property
    def mutual_information(self) -> Term:
        """I_q(x; z) with x uniform over the N data, 0 ... ln N; of M < N components a lower bound of it.

        For the law of the data it is a lower bound, in expectation: N data tell apart at most ln N.
        """
        return _term(self.log_own - self.log_aggregate, -self.shares)

    @property
    def mutual_information_upper(self) -> Term:
        """The same with x_n left out of its aggregate: an upper bound of both, in expectation (Poole et al. 2019)."""
        return _term(self.log_own - self.log_others, -self.shares)

    @property
    def marginal_kl(self) -> Term:
        """KL(q(z) ‖ p(z)) of the aggregate posterior of these data; of M < N components an upper bound of it.

        For the law of the data it is an upper bound, in expectation.
        """
        return _term(self.log_aggregate - self.log_prior, self.shares)

    @property
    def marginal_kl_lower(self) -> Term:
        """mean KL - `mutual_information_upper`: a lower bound of both, in expectation; may be negative."""
        return _term(self.log_others - self.log_prior, self.shares)

    @property
    def reconstruction(self) -> Term:
        """mean E_q[ln p(x|z)]."""
        return _term(self.log_likelihood)

    @property
    def elbo(self) -> Term:
        """reconstruction - I - KL(q(z) ‖ p(z)), which is the ELBO."""
        return _term(self.log_likelihood + self.log_prior - self.log_own)

    @property
    def warnings(self) -> list[str]:
        """Warnings that belong to the numbers."""
        out, most = [], math.log(self.num_components)
        if float(self.mutual_information) > most - 0.7:  # half of the data are told apart
            out.append(
                f"I_q is within 0.7 nats of its ceiling ln {self.num_components:,} = {most:.2f}: the data are told "
                "apart almost surely, and for the law of the data I_q may be far larger, the marginal KL far smaller"
            )
        if not self.exact_aggregate:
            out.append(
                f"the aggregate is of {self.num_components} of {self.num_data} data: bounds of the terms of all data"
            )
        return out

    def __repr__(self) -> str:
        how = ("", "", "") if self.exact_aggregate else (" ≥", " ≤", f", {self.num_components} components")
        return (
            f"ElboSurgery(mean KL {self.mean_kl} = I_q{how[0]} {self.mutual_information} + KL(q(z) ‖ p(z)){how[1]} "
            f"{self.marginal_kl} nats; ln N = {math.log(self.num_data):.4f}, N={self.num_data}{how[2]})"
        )


@checked
def elbo_surgery(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    num_samples: int = 10,
    components: int | None = None,
    seed: int = 0,
    plate: str | None = None,
    budget: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ElboSurgery:
    r"""Splits the mean KL to the prior (Hoffman & Johnson 2016, http://approximateinference.org/accepted/HoffmanJohnson2016.pdf).

    Every draw of every datum is scored under the guide of every datum (or of `components` drawn at random, its own
    among them), in blocks: K N^2 densities, the encoder once a block. The first term measures how well z tells the
    data apart, the second what a better prior could still win.

    Args:
        model, guide, x, *context, seed, plate: as in `pv.log_weights`; any guide with a density of the
            model's latents, which may be discrete, constrained and in a hierarchy.
        num_samples: K draws for each datum.
        components: M >= 3 data, of which the aggregate of each block of data is made; default: all.
        budget: bytes of live tensors of a block; default 24 MiB on CPU, 2 GiB on CUDA.
        progress: called as `progress(done, total)` in (draw, datum) pairs.

    Raises:
        ValueError: K < 1, fewer than two data, M outside of 3 ... N; a guide without such a density; a prior that
            depends on the data or on their context, whose aggregate has no one p(z) to be compared with.
    """
    check_num_samples(num_samples)
    if len(x) < 2:
        raise ValueError(f"expected at least two data, of which an aggregate is made, got {len(x)}")
    count = len(x) if components is None else components
    if isinstance(count, bool) or not isinstance(count, int) or not min(3, len(x)) <= count <= len(x):
        raise ValueError(
            f"expected components to be a whole number in 3 ... {len(x)} (N), got {components!r}"
        )
    program = inspect_program(model, guide, x, *context, plate=plate)
    if program.arguments.calling == "whole":  # all data are run in any case
        count = len(x)
    if program.factors:
        raise ValueError(
            f"expected sites with densities alone, got pyro.factor at {list(program.factors)}: ln p(z) is not known"
        )
    pairwise = PairwiseGuide(program)
    budget = budget_on(x.device, budget)
    # A chunk's (draw, datum) matrix is kept, for the errors over data.
    rows = max(1, min(1024, KEPT // count) // num_samples)
    parts: list[tuple[Tensor, ...]] = []
    shares = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    pairs, done, total = 0, 0, num_samples * len(x) * count
    for i, indices in enumerate(program.arguments.chunks(rows)):
        draws = pairwise.draw(indices, num_samples, seed, i)
        if i == 0:
            pairs = max(1, budget // pairwise.bytes_per_pair(draws.values))
            _check_prior(pairwise, indices, draws)
        chosen = _components(len(x), count, indices, seed, i)
        size = max(1, min(len(chosen), pairs // max(1, min(draws.log_guide.numel(), 512))))
        # Of each draw: ln sum over components, with the own one and without it.
        owner = indices.repeat(num_samples)
        sums = torch.full((2, len(owner)), -torch.inf, dtype=torch.float64, device=x.device)
        kept, at = torch.empty(len(owner), len(chosen), dtype=torch.float64, device=x.device), 0
        for others in _blocks(program, chosen, size):
            step = max(1, pairs // len(others))
            for start in range(0, len(owner), step):
                part = slice(start, start + step)
                value = pairwise({m: v[part] for m, v in draws.values.items()}, others).double()
                kept[part, at : at + len(others)] = value
                own = owner[part].unsqueeze(-1) == others
                both = torch.stack([value, value.masked_fill(own, -torch.inf)]).logsumexp(-1)
                sums[:, part] = torch.logaddexp(sums[:, part], both)
                done += value.numel()
                if progress is not None:
                    progress(min(done, total), total)
            at += len(others)
        shape = draws.log_guide.shape
        # A random subset may lack a draw's own datum: it takes the place of one.
        inside = torch.isin(owner, chosen)
        own_log = draws.log_guide.reshape(-1)
        with_own = torch.where(inside, sums[0], torch.logaddexp(sums[0], own_log))
        size_with = torch.where(inside, len(chosen), len(chosen) + 1).to(sums)
        aggregate = with_own - size_with.log()
        rest = sums[1] - (size_with - 1).log()
        here = (kept - with_own.unsqueeze(-1)).exp_().sum(0) / num_samples
        shares.index_add_(0, chosen, here)
        parts.append(
            (
                draws.log_guide,
                draws.log_prior,
                draws.log_likelihood,
                aggregate.reshape(shape),
                rest.reshape(shape),
            )
        )
    own, prior, likelihood, aggregate, others = (torch.cat(v, 1).cpu() for v in zip(*parts, strict=True))
    return ElboSurgery(
        own, prior, likelihood, aggregate, others, count, shares.cpu() * (len(x) / shares.sum().cpu())
    )


def _components(num_data: int, count: int, indices: Tensor, seed: int, chunk: int) -> Tensor:
    """Indices of the data whose posteriors make up the aggregate for a chunk of data."""
    if count == num_data:
        return torch.arange(num_data, device=indices.device)
    with seeded(seed, "surgery", chunk):
        return torch.randperm(num_data)[: count - 1].sort().values.to(indices.device)


def _blocks(program: Program, chosen: Tensor, size: int) -> list[Tensor]:
    args = program.arguments
    if args.calling == "sliced":
        return list(chosen.split(size))
    if args.calling == "indexed":
        return list(chosen.split(args.subsample_size or len(chosen)))
    return [torch.arange(args.num_data, device=chosen.device)]


def _check_prior(pairwise: PairwiseGuide, indices: Tensor, draws: GuideDraws) -> None:
    other = (indices + 1) % pairwise.program.arguments.num_data
    elsewhere = pairwise.log_prior_elsewhere(draws, other).double()
    same = (elsewhere - draws.log_prior).abs() <= 1e-4 * (1 + draws.log_prior.abs())
    if not bool((same | (elsewhere == draws.log_prior)).all()):
        raise ValueError(
            "expected one prior p(z) for all data, got ln p(z) that changes with the datum or its context; the "
            "aggregate posterior of such data is comparable with none"
        )


def _term(values: Tensor, shares: Tensor | None = None) -> Term:
    """Mean of `[K, N]`, and both its errors; `shares` are those of a datum in the aggregate, with its sign."""
    k, n = values.shape
    se = float((values.var(0) / k).sum().sqrt()) / n if k > 1 else math.nan
    influence = values.mean(0)
    if shares is not None:
        influence = influence + shares
    return Term(float(values.mean()), se, float(influence.std()) / math.sqrt(n))
