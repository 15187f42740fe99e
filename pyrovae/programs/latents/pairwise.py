"""ln q(z_j | x_m) for draws z_j of any data and any other data x_m: what an aggregate posterior is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from ..checks.contract import data_frame
from ..checks.support import check_support
from ..handlers.substitute import Substitute
from ..inspection import PARTICLES, Program
from ..memory import bytes_of_one_more
from ..sites import Sites, is_factor, reduce_to, sample_sites, unscaled_log_prob


@dataclass(frozen=True)
class GuideDraws:
    """K draws for each of n data, side by side: J = K n, draw k of datum i at place k n + i.

    Attributes:
        values: latent site to `[J, *rest]`, rest being its batch dims without chains and data, then its event.
        log_guide, log_prior, log_likelihood: ln q(z|x), ln p(z) and ln p(x|z) at the draw's own datum, `[K, n]`.
    """

    values: dict[str, Tensor]
    log_guide: Tensor
    log_prior: Tensor
    log_likelihood: Tensor


class PairwiseGuide:
    """The density of a guide's draws under other data than their own.

    Args:
        program: any pair whose guide has a density of the model's latents.

    Raises:
        ValueError: a latent that the guide does not draw (enumerated in the model), auxiliary guide sites or
            factors, whose density at a given z cannot be computed.
    """

    def __init__(self, program: Program) -> None:
        # An enumerated site is drawn here: the aggregate is one of all latents.
        self.program = replace(program, enumerated=False)
        rows = program.arguments.chunks(1)[0]
        with program.quiet(0, "pairwise"), program.on(rows) as given:
            guide = poutine.trace(program.guide).get_trace(*given)
            model = poutine.trace(poutine.replay(program.model, trace=guide)).get_trace(*given)
        drawn = {n: s for n, s in sample_sites(guide)}
        latents = [n for n, s in sample_sites(model) if not s["is_observed"]]
        missing = [n for n in latents if n not in drawn]
        if missing:
            raise ValueError(
                f"expected a guide that draws every latent, got {missing} summed out in the model; try to sample "
                "them in the guide"
            )
        extra = [n for n, s in drawn.items() if n not in latents or is_factor(s)]
        if extra:
            raise ValueError(
                f"expected a guide with a density of the latents alone, got the sites {extra} beside them: ln q(z|x) "
                "at a given z cannot be computed"
            )
        self.latents = tuple(latents)
        # Of a site: where its data are, from the right, and how many event dims it has.
        frame = data_frame(model, program.plate).dim
        self._place = {n: (frame, drawn[n]["fn"].event_dim) for n in latents}

    def draw(self, indices: Tensor, num_samples: int, seed: int, *counters: int) -> GuideDraws:
        """K draws for the data at `indices`; counters go into the seed."""
        if not self.program.vectorised:  # the traces kept would be of the first draw alone
            return self._one_by_one(indices, num_samples, seed, *counters)
        with self.program.quiet(seed, "pairwise", *counters):
            sites = self.program.run(indices, num_samples)
        traces = sites.traces
        assert traces is not None
        check_support(traces[1])
        n = len(indices)
        values = {
            name: self._flat(traces[0].nodes[name], num_samples)[:, :n].flatten(0, 1) for name in self.latents
        }
        return GuideDraws(values, *_sums(sites))

    def log_prior_elsewhere(self, draws: GuideDraws, indices: Tensor) -> Tensor:
        """ln p(z) of the draws where the model is given the data at `indices`, in place of their own, `[K, n]`."""
        k, n = draws.log_guide.shape
        out = []
        for i in range(k):  # one draw of each datum at a time: no chains are needed
            each = {m: v.unflatten(0, (k, n))[i] for m, v in draws.values.items()}
            values = {m: self._alone(m, v, len(indices)) for m, v in each.items()}
            with self.program.quiet(0, "pairwise"), self.program.on(indices) as given:
                trace = poutine.trace(Substitute(values)(self.program.model)).get_trace(*given)
                dims = (-1 - self.program.max_plate_nesting, data_frame(trace, self.program.plate).dim)
                size = data_frame(trace, self.program.plate).size
                prior = [
                    reduce_to(unscaled_log_prob(s), dims, (1, size))
                    for _, s in sample_sites(trace)
                    if not s["is_observed"]
                ]
            out.append(torch.stack(prior).sum(0)[0, :n])
        return torch.stack(out)

    def __call__(self, values: dict[str, Tensor], indices: Tensor) -> Tensor:
        """ln q(z_j | x_m), `[J, n]`, for values `[J, *rest]` by site and the data at `indices`."""
        program, n = self.program, len(indices)
        count = len(next(iter(values.values())))
        if not program.vectorised and count > 1:
            each = ({m: v[j : j + 1] for m, v in values.items()} for j in range(count))
            return torch.cat([self(one, indices) for one in each])
        particle = -1 - program.max_plate_nesting
        guide: Any = program.guide
        if program.vectorised:
            guide = pyro.plate(PARTICLES, count, dim=particle)(guide)
        with program.quiet(0, "pairwise"), program.on(indices) as given:
            size = (program.arguments.subsample_size or n) if program.arguments.calling == "indexed" else n
            wide = {m: self._wide(m, v, size) for m, v in values.items()}
            trace = poutine.trace(Substitute(wide)(guide)).get_trace(*given)
            frame = data_frame(trace, program.plate)
            found = [
                reduce_to(unscaled_log_prob(s), (particle, frame.dim), (count, frame.size))
                for _, s in sample_sites(trace)
            ]
        return torch.stack(found).sum(0)[:, :n]

    def bytes_per_pair(self, values: dict[str, Tensor]) -> int:
        """Live bytes that one more (draw, datum) pair takes, at least 1."""
        rows = self.program.arguments.chunks(1)[0]

        def run(size: int) -> Tensor:
            return self({m: v[:1].expand(size, *v.shape[1:]) for m, v in values.items()}, rows)

        return max(1, bytes_of_one_more(run, 16) // len(rows))

    def _flat(self, site: Any, num_samples: int) -> Tensor:
        """`[K, n, *rest]` of a site of a vectorised trace."""
        frame, event = self._place[site["name"]]
        particle = -1 - self.program.max_plate_nesting
        value = site["value"].expand(site["fn"].shape())
        value = value.reshape((1,) * (event - particle - value.dim()) + tuple(value.shape))
        value = value.expand(num_samples, *value.shape[1:])
        return value.movedim((particle - event, frame - event), (0, 1))

    def _wide(self, name: str, value: Tensor, size: int) -> Tensor:
        """The site's shape with draws along the chains, the same for all `size` data."""
        frame, event = self._place[name]
        # [J, *rest] -> [J, *batch with the data in their place, *event]
        wide = value.unsqueeze(frame - event)
        shape = list(wide.shape)
        shape[frame - event] = size
        wide = wide.expand(shape)
        return wide if self.program.vectorised else wide[0]

    def _alone(self, name: str, value: Tensor, size: int) -> Tensor:
        """`[n, *rest]` as the site's shape without chains; the last row again where a plate of fixed size asks."""
        frame, event = self._place[name]
        args = self.program.arguments
        rows = (args.subsample_size or size) if args.calling == "indexed" else size
        value = torch.cat([value, value[-1:].expand(rows - len(value), *value.shape[1:])])
        return value.movedim(0, frame - event)

    def _one_by_one(self, indices: Tensor, num_samples: int, seed: int, *counters: int) -> GuideDraws:
        parts: list[tuple[dict[str, Tensor], tuple[Tensor, Tensor, Tensor]]] = []
        for k in range(num_samples):
            with self.program.quiet(seed, "pairwise", *counters, k):
                sites = self.program.run(indices, 1)
            assert sites.traces is not None
            check_support(sites.traces[1])
            values = {}
            for name in self.latents:
                frame, event = self._place[name]
                value = sites.traces[0].nodes[name]["value"]
                values[name] = value.movedim(frame - event, 0)[: len(indices)]
            parts.append((values, _sums(sites)))
        every = {n: torch.cat([v[n] for v, _ in parts]) for n in self.latents}
        return GuideDraws(every, *(torch.cat(s) for s in zip(*(s for _, s in parts), strict=True)))


def _sums(sites: Sites) -> tuple[Tensor, Tensor, Tensor]:
    guide, prior, likelihood = (
        torch.stack([*group.values()]).double().sum(0)
        for group in (sites.guide, sites.prior, sites.likelihood)
    )
    return guide, prior, likelihood
