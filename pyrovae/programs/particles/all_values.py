"""p(x) of programs with few joint values of discrete latents: the sum over all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..inspection import Program
from ..latents.supports import base_of
from ..sites import reduce_to
from .discrete_values import PutInGuide, listed, put


def joint_terms(program: Program, sites: Sequence[str], indices: Tensor, first: int, number: int) -> Tensor:
    """ln p(x, z) for the joint values numbered `first` to `first + number - 1` of bits and classes, `[number, n]`.

    The guide draws nothing but `sites`; it is asked for its densities at values that are put in the place of its draws,
    so that ln p(x, z) = ln w + ln q.
    """
    place = _Place(sites, program, first)
    with program.quiet(0, "all values"), place:
        log_weights = program.run(indices, number).log_weights().double()
    # A plate of a fixed size is filled up.
    return log_weights + torch.cat(place.log_mass)[:, : len(indices)]


class _Place(PutInGuide):
    """Puts joint value number `first` + k in the place of draw k.

    Attributes:
        log_mass: ln q of the values put, of each run, `[K, n]`.
    """

    def __init__(self, sites: Sequence[str], program: Program, first: int) -> None:
        super().__init__(sites, program)
        self.next, self.stride = first, 1
        self.log_mass: list[Tensor] = []

    def begin(self, sizes: tuple[int, int], device: torch.device) -> None:
        self.numbers = self.next + torch.arange(sizes[0], device=device)
        self.next, self.stride = self.next + sizes[0], 1
        self.log_mass.append(torch.zeros(sizes, dtype=torch.float64, device=device))

    def put(self, msg: Any, dims: tuple[int, int], sizes: tuple[int, int]) -> None:
        fn = msg["fn"]
        values, log_q = listed(fn)
        shape, batch, number = log_q.shape[:-1], len(fn.batch_shape), log_q.shape[-1]
        own = [1 if d - batch in dims else size for d, size in enumerate(shape)]
        count = math.prod(own)
        strides = self.stride * number ** torch.arange(count, device=log_q.device).reshape(own)
        self.stride *= number**count
        draws = self.numbers.reshape([sizes[0] if d - batch == dims[0] else 1 for d in range(len(shape))])
        at = ((draws // strides) % number).expand(shape)
        msg["value"] = put(fn, values, at, torch.ones_like(at, dtype=torch.bool), msg["value"])
        mass = base_of(fn).log_prob(msg["value"]).double().expand(shape)
        mass = mass.flatten(batch).sum(-1) if len(shape) > batch else mass
        self.log_mass[-1] = self.log_mass[-1] + reduce_to(mass, dims, sizes)
