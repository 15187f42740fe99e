"""K draws of every latent, scored by guide and model: what objectives made of weights stand on."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from ..checks.contract import data_frame
from ..inspection import PARTICLES
from ..plates import ChooseSubsample
from ..sites import collect, reduce_to, sample_sites, unscaled_log_prob
from .first_look import Seen, look
from .gradients import PathWeights, rescored, site_scale, weighted, with_draws


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of K draws for N data, `[K, N]`, unscaled, in nats.

    Attributes:
        joint: ln p(x|z) + beta ln p(z); beta is 1 unless a `BetaELBO` is around.
        guide: beta ln q(z|x).
        fixed: the same number with the draws held fixed: its gradient is the score of q (if asked for).
        scale: what plates that subsample (and `poutine.scale`) multiply each datum by: a number, or `[N]`.
            It stays outside of any log-sum-exp: inside there would be no bound.
        beta: KL weight.
    """

    joint: Tensor
    guide: Tensor
    fixed: Tensor
    scale: Any
    beta: Any

    @property
    def log_weights(self) -> Tensor:
        """ln p(x|z) + beta (ln p(z) - ln q(z|x)), `[K, N]`."""
        return self.joint - self.guide


class Particles:
    """Runs guide and model `num` times, in a particle plate or one by one.

    Args:
        num: K.
        plate: name of the data plate; None: as the model declares, else "data".
        vectorize: use a particle plate, which programs must broadcast over.
        fixed: also score the guide with its draws held fixed.
        name: of the objective, for errors.
    """

    def __init__(self, num: int, plate: str | None, vectorize: bool, fixed: bool, name: str) -> None:
        self.num, self.plate, self.vectorize, self.fixed, self.name = num, plate, vectorize, fixed, name
        self._seen: Seen | None = None

    def look(self, model: Any, guide: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Seen:
        """Looks at a program not seen yet."""
        if self._seen is None or not self._seen.is_of(model, guide):
            self._seen = look(model, guide, args, kwargs, plate=self.plate, name=self.name, fixed=self.fixed)
        return self._seen

    def run(
        self, model: Any, guide: Any, args: tuple[Any, ...], kwargs: dict[str, Any], path: PathWeights | None
    ) -> Scores:
        """Scores of fresh draws; refuses programs for which they would mean nothing (once a program)."""
        seen = self.look(model, guide, args, kwargs)
        if self.vectorize:
            dim = -1 - seen.depth
            model, guide = (pyro.plate(PARTICLES, self.num, dim=dim)(f) for f in (model, guide))
            return self._once(seen, model, guide, args, kwargs, path, None)[0]
        parts, indices = [], None
        for k in range(self.num):
            # All particles are of one subsample.
            with nullcontext() if indices is None else ChooseSubsample(seen.plate, indices):
                part, indices = self._once(seen, model, guide, args, kwargs, path, k)
            parts.append(part)
        joint, q, fixed = (torch.cat([getattr(p, n) for p in parts]) for n in ("joint", "guide", "fixed"))
        return Scores(joint, q, fixed, parts[0].scale, parts[0].beta)

    def _once(
        self,
        seen: Seen,
        model: Any,
        guide: Any,
        args: Any,
        kwargs: Any,
        path: PathWeights | None,
        k: int | None,
    ) -> tuple[Scores, Tensor | None]:
        plate, depth = seen.plate, seen.depth
        q = poutine.trace(guide).get_trace(*args, **kwargs)
        dim = data_frame(q, plate).dim
        given = q if path is None else with_draws(q, lambda v, e: path.on(v, e, dim, depth, k))
        p = poutine.trace(poutine.replay(model, trace=given)).get_trace(*args, **kwargs)
        sites = collect(q, p, plate=plate, particles=PARTICLES if k is None else None)
        outer = next(site_scale(s, dim) for _, s in sample_sites(p) if s["is_observed"])
        # What is left once the datum's own scale is divided out is the KL weight.
        prior = {n: site_scale(p.nodes[n], dim) / outer for n in sites.prior}
        own = {n: site_scale(q.nodes[n], dim) / outer for n in sites.guide}
        joint = sum(sites.likelihood.values()) + weighted(sites.prior, prior)
        log_q = weighted(sites.guide, own)
        fixed = log_q.detach()
        if self.fixed:
            again = rescored(guide, q, args, kwargs)
            dims, sizes = (-1 - depth, dim), tuple(joint.shape)
            values = {n: reduce_to(unscaled_log_prob(again.nodes[n]), dims, sizes) for n in sites.guide}
            fixed = weighted(values, own)
        indices = q.nodes[plate]["value"] if plate in q.nodes else None
        beta = next(iter(own.values()), 1.0)
        return Scores(joint, log_q, fixed, outer, beta), indices


def pair_of_traces(model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """(model trace, guide trace) of one run, in Pyro's order."""
    q = poutine.trace(guide).get_trace(*args, **kwargs)
    return poutine.trace(poutine.replay(model, trace=q)).get_trace(*args, **kwargs), q
