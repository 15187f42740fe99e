"""Values of discrete latents, and what a guide's law gives each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ...devices import as_tensor
from ..checks.agreement import is_enumerated
from ..inspection import PARTICLES, Program
from ..latents.supports import base_of
from ..sites import sample_sites

MOST_VALUES = 1024  # of an element: more are not looked at
_LISTED = (
    torch.distributions.Bernoulli
    | torch.distributions.Categorical
    | torch.distributions.OneHotCategorical
    | torch.distributions.Binomial
    | dist.BetaBinomial
)
# Without a largest value: the first ones are looked at.
_ENDLESS = torch.distributions.Poisson | torch.distributions.Geometric | torch.distributions.NegativeBinomial
FIRST = 50
# Laws whose values have names alone, or a sign: all may be turned into others.
TURNED = (
    torch.distributions.Bernoulli | torch.distributions.Categorical | torch.distributions.OneHotCategorical
)
MOST_JOINT = 1e6


@dataclass(frozen=True)
class DiscreteLatents:
    """Sites that a guide draws from laws on a list of values (bits, categories, counts).

    Attributes:
        sites: their names.
        num_elements: elements of a datum, of all sites.
        num_values: values of all these elements, of the site that has most.
        alone: whether the guide draws nothing else.
        num_joint: values of all elements together, where all are bits or classes; None: others, or too many to count.
    """

    sites: tuple[str, ...]
    num_elements: int
    num_values: int
    alone: bool
    num_joint: int | None


def discrete_latents(program: Program) -> DiscreteLatents:
    """The discrete latents that the guide draws."""
    with program.quiet(0, "unreached"):
        traces = program.run(program.arguments.chunks(1)[0], 1).traces
    assert traces is not None
    names, elements, values, alone = [], 0, 0, True
    log_joint = 0.0
    for name, site in sample_sites(traces[0]):
        base = base_of(site["fn"])
        if site["is_observed"] or is_enumerated(site):
            continue
        rows = next((f.size for f in site["cond_indep_stack"] if f.name == program.plate), None)
        if rows is None or name not in traces[1] or not isinstance(base, _LISTED | _ENDLESS):
            alone = False
        else:
            names.append(name)
            shape = listed(site["fn"])[1].shape
            elements += math.prod(shape[:-1]) // rows
            values = max(values, math.prod(shape) // rows)
            named = isinstance(base, TURNED) and shape[-1] < MOST_VALUES
            log_joint += (math.prod(shape[:-1]) // rows) * math.log(shape[-1]) if named else math.inf
    joint = round(math.exp(log_joint)) if log_joint < math.log(MOST_JOINT) else None
    return DiscreteLatents(tuple(names), elements, values, alone, joint)


def listed(fn: Any) -> tuple[Tensor, Tensor]:
    """Values `[V, 1.., *event]` that a law of discrete numbers can draw, and ln q of each, `[*batch, *elements, V]`.

    `batch` is that of the law, `elements` are those that `.to_event` declares one draw. Of counts that are too many, or
    whose number differs, the first ones.
    """
    base = base_of(fn)
    values = _values(base)
    log_q = base.log_prob(values).movedim(0, -1)
    return values, log_q.expand(*fn.batch_shape, *log_q.shape[len(fn.batch_shape) :])


def put(fn: Any, values: Tensor, at: Tensor, where: Tensor, draw: Tensor) -> Tensor:
    """A draw with the values numbered `at`, `[*batch, *elements]`, in place of its own elements `where`."""
    event = base_of(fn).event_shape
    chosen = values.reshape(-1, *event)[at].to(draw.dtype)
    return torch.where(where.reshape(*where.shape, *(1,) * len(event)), chosen, draw)


def number_of(fn: Any, draw: Tensor) -> Tensor:
    """Places of a draw's elements among the values of their law, `[*batch, *elements]`."""
    return (draw.argmax(-1) if base_of(fn).event_shape else draw).long()


def _values(base: Any) -> Tensor:
    """`[values, 1.., *event]` that a law can draw; the first of counts that are too many, or differ in number."""
    if isinstance(base, _ENDLESS):
        return _counts(base, FIRST)
    if hasattr(base, "total_count"):
        least, most = as_tensor(base.total_count).aminmax()
        if least != most or most >= MOST_VALUES:
            return _counts(base, min(FIRST, int(least) + 1))
    values: Tensor = base.enumerate_support(expand=False)
    return values[:MOST_VALUES]


def _counts(base: Any, number: int) -> Tensor:
    like = base.mean
    return torch.arange(number, dtype=like.dtype, device=like.device).reshape(-1, *(1,) * like.dim())


class PutInGuide(Messenger):
    """Puts values in the place of a guide's draws of some sites; stands around both guide and model."""

    def __init__(self, sites: Sequence[str], program: Program) -> None:
        super().__init__()
        self.program = program
        self.in_guide = dict.fromkeys(sites, False)  # guide and model have a site in turns
        self.seen: set[str] | None = None  # sites of this run

    def begin(self, sizes: tuple[int, int], device: torch.device) -> None:
        """Begins a run of `sizes` (draws, data): samples may run one at a time."""
        raise NotImplementedError

    def put(self, msg: Any, dims: tuple[int, int], sizes: tuple[int, int]) -> None:
        """Changes a draw whose (sample, datum) are these dims of its batch."""
        raise NotImplementedError

    def _pyro_post_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name not in self.in_guide:
            return
        self.in_guide[name] = not self.in_guide[name]
        if not self.in_guide[name]:
            return
        frames = {f.name: f for f in msg["cond_indep_stack"] if f.vectorized}
        datum, particles = frames[self.program.plate], frames.get(PARTICLES)
        sizes = (1 if particles is None else particles.size, datum.size)
        if self.seen is None or name in self.seen:
            self.seen = set()
            self.begin(sizes, msg["value"].device)
        self.seen.add(name)
        self.put(msg, (-1 - self.program.max_plate_nesting, datum.dim), sizes)
