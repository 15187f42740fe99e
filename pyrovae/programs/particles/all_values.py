"""p(x) of programs with few joint values of discrete latents: the sum over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..checks.contract import base_of
from ..inspection import PARTICLES, Program
from ..sites import reduce_to
from .discrete_values import listed, put


def joint_terms(program: Program, sites: Sequence[str], indices: Tensor, first: int, number: int) -> Tensor:
    """ln p(x, z) for the joint values numbered `first` to `first + number - 1` of bits and classes, `[number, n]`.

    The guide draws nothing but `sites`; it is asked for its densities at values that are put in the place of its draws,
    so that ln p(x, z) = ln w + ln q.
    """
    place = _Place(sites, program, first)
    with program.quiet(0, "all values"), place:
        log_weights = program.run(indices, number).log_weights().double()
    return (log_weights + torch.cat(place.log_mass))[:, : len(indices)]


class _Place(Messenger):
    """Puts joint value number `first` + k in the place of draw k; stands around guide and model.

    Attributes:
        log_mass: ln q of the values put, of each run, `[K, n]`.
    """

    def __init__(self, sites: Sequence[str], program: Program, first: int) -> None:
        super().__init__()
        self.program, self.first = program, first
        self.in_guide = dict.fromkeys(sites, False)  # guide and model have a site in turns
        self.seen: set[str] = set()
        self.stride = 1
        self.log_mass: list[Any] = []

    def _pyro_post_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name not in self.in_guide:
            return
        self.in_guide[name] = not self.in_guide[name]
        if not self.in_guide[name]:
            return
        fn = msg["fn"]
        values, log_q = listed(fn)
        frames = {f.name: f for f in msg["cond_indep_stack"] if f.vectorized}
        datum, particles = frames[self.program.plate], frames.get(PARTICLES)
        if not self.log_mass or name in self.seen:  # a new run: samples may run one at a time
            self.log_mass.append(0.0)
            self.seen, self.stride = set(), 1
        self.seen.add(name)
        outer, drawn = (
            (-1 - self.program.max_plate_nesting, 1) if particles is None else (particles.dim, particles.size)
        )
        shape, batch, number = log_q.shape[:-1], len(fn.batch_shape), log_q.shape[-1]
        own = [1 if d - batch in (outer, datum.dim) else size for d, size in enumerate(shape)]
        count = int(torch.tensor(own).prod())
        strides = self.stride * number ** torch.arange(count, device=log_q.device).reshape(own)
        self.stride *= number**count
        first = self.first + len(self.log_mass) - 1
        draw = (first + torch.arange(drawn, device=log_q.device)).reshape(
            [drawn if d - batch == outer else 1 for d in range(len(shape))]
        )
        at = ((draw // strides) % number).expand(shape)
        msg["value"] = put(fn, values, at, torch.ones_like(at, dtype=torch.bool), msg["value"])
        mass = base_of(fn).log_prob(msg["value"]).double().expand(shape)
        mass = mass.flatten(batch).sum(-1) if len(shape) > batch else mass
        self.log_mass[-1] = self.log_mass[-1] + reduce_to(mass, (outer, datum.dim), (drawn, datum.size))
