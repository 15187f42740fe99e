"""Values of discrete latents that a guide's draws do not meet, and what they hold of p(x)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..inspection import Program
from ..plates import PARTICLES
from .discrete_values import discrete_latents, listed, put

EXPECTED = 5.0  # draws of a value: fewer are none at all with a probability above e^-5
DRAWS = 256  # with one such value in place: enough for each of some fifty
LOOK = 8  # of them, that tell whether there is any such value


def unreached_terms(
    program: Program, site: str, indices: Tensor, num_samples: int, samples: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields log-weights of draws with a rarely drawn value in place, and ln of what each stands for, `[k, n]`.

    A value u of one element of the site is rarely drawn where q(u) K < 5. Of these, U in number, each draw has one
    chosen at random in the place of its own; it stands for U q(u) of the guide's mass (-inf where U = 0), so that
    E[U q(u) w] is the part of p(x) at such values.

    Args:
        site: of the guide.
        num_samples: K.
        samples: run at once.
        seed: of the noise.
    """
    force, done = _Rare(site, num_samples, program.plate), 0
    for size in (LOOK, DRAWS - LOOK):
        for start in range(0, size, samples):
            force.log_shares = []
            k = min(samples, size - start)
            with program.quiet(seed, "unreached", int(indices[0]), done), force:
                weights = program.run(indices, k).log_weights()
            share = torch.cat(force.log_shares)[:, : len(indices)]
            yield weights, share.expand(weights.shape)
            done += k
            if done >= LOOK and not force.found:
                return


def unmet_mass(program: Program, num_samples: int) -> float:
    """Mean mass q(u|x_n) of values u that K draws of each of all N data are to meet fewer than 5 times in all.

    Of the site and element where it is largest. Draws of the guide say nothing of them, nor does their spread.
    """
    most = 0.0
    for site in discrete_latents(program).sites:
        total: Tensor | None = None
        for indices in program.arguments.chunks(max(1, min(1024, program.arguments.num_data))):
            with program.quiet(0, "unmet"), program.on(indices) as given:
                node: Any = poutine.trace(program.guide).get_trace(*given).nodes[site]
            fn = node["fn"]
            at = next(
                len(fn.batch_shape) + f.dim for f in node["cond_indep_stack"] if f.name == program.plate
            )
            log_q = listed(fn)[1]
            mass = log_q.double().exp().movedim(at, 0)[: len(indices)].sum(0).cpu()
            total = mass if total is None or total.shape != mass.shape else total + mass
        if total is not None:
            unmet = total.masked_fill(total * num_samples >= EXPECTED, 0.0).sum(-1)
            most = max(most, float(unmet.max()) / program.arguments.num_data)
    return most


class _Rare(Messenger):
    """Puts a value that the guide hardly ever draws in the place of its draw, in one element of a site.

    Stands around guide and model: what it puts is then in the guide's trace, and replayed.

    Attributes:
        log_shares: of each run, ln of U q(u), `[particles, n]`.
        found: whether any run has met such a value.
    """

    def __init__(self, site: str, num_samples: int, plate: str) -> None:
        super().__init__()
        self.site, self.num_samples, self.plate = site, num_samples, plate
        self.in_guide = False  # guide and model have the site in turns
        self.log_shares: list[Tensor] = []
        self.found = False

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] != self.site:
            return
        self.in_guide = not self.in_guide
        if not self.in_guide:
            return
        fn = msg["fn"]
        values, log_q = listed(fn)
        dims = {f.name: len(fn.batch_shape) + f.dim for f in msg["cond_indep_stack"] if f.vectorized}
        kept = [dims[name] for name in (PARTICLES, self.plate) if name in dims]
        order = kept + [d for d in range(log_q.dim()) if d not in kept]
        flat = log_q.permute(order).flatten(len(kept))
        rare = flat.isfinite() & (flat.exp() * self.num_samples < EXPECTED)
        at = torch.rand_like(flat).masked_fill(~rare, -1.0).argmax(-1, keepdim=True)
        some = rare.any(-1)
        self.found |= bool(some.any())
        share = rare.sum(-1).to(flat.dtype).log() + flat.gather(-1, at)[..., 0].masked_fill(~some, 0.0)
        self.log_shares.append((share if PARTICLES in dims else share.unsqueeze(0)).double())
        chosen = torch.zeros_like(rare).scatter(-1, at, rare.gather(-1, at))
        chosen = chosen.reshape([log_q.shape[d] for d in order]).permute(
            [order.index(d) for d in range(len(order))]
        )
        msg["value"] = put(fn, values, chosen.long().argmax(-1), chosen.any(-1), msg["value"])
