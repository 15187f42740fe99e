"""ln p(x, z) of the model alone, as a function of unconstrained latents; discrete ones summed out."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from ..handlers.substitute import Substitute
from ..inspection import PARTICLES, Program
from ..particles.apart import refuse_mixed_elements
from ..particles.rounding import InFloat64, narrowest
from ..sites import collect, reduce_to, sample_sites
from .edges import AsGiven, log_density_of_u
from .supports import base_of, bijection
from .unequal_totals import up_to_the_largest

# A table of a program's discrete latents beyond this many entries a datum is not enumerated.
MAX_STATES = 2**20


@dataclass(frozen=True)
class _Part:
    """One continuous latent site: where its numbers stand in the flat vector."""

    name: str
    shape: tuple[int, ...]  # per (particle, datum), unconstrained, other dims in the site's order
    particle: int  # dims of the particles and the data in the unconstrained value
    datum: int
    mapped: bool  # whether the site's value is another number than the unconstrained one

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def flatten(self, u: Tensor, sizes: tuple[int, int]) -> Tensor:
        """`[K, n, size]` of a site's unconstrained value."""
        return u.movedim((self.particle, self.datum), (0, 1)).reshape(*sizes, self.size)

    def unflatten(self, flat: Tensor) -> Tensor:
        """The site's unconstrained value of `[K, n, size]`."""
        return flat.reshape(*flat.shape[:2], *self.shape).movedim((0, 1), (self.particle, self.datum))


class Joint:
    """ln p(x_n, u) = ln p(x_n, z(u)) + ln|dz/du|, `[K, n]`: z from u by the bijection onto its support.

    Discrete latents are summed out, all at once, by Pyro's tensor contraction, so that the integral
    over u in R^dim is p(x_n). Masks count for observed sites alone: a latent that a mask leaves out has its own
    factor, which integrates to one. The guide only says where to look (`draws`).

    All is computed in float64, whatever the program's tensors are stored in (they count as exact numbers), where its
    code allows that.

    Attributes:
        dim: number of unconstrained continuous numbers a datum has; 0 for a discrete program.
        discrete: names of the sites summed out.
        mapped: `[dim]`, whether a number's latent is another than itself: not one of the real line.
        wide: whether it runs in float64.
        dtype: of its numbers.

    Raises:
        ValueError: a discrete latent without a finite list of values, or too many values in all.
    """

    def __init__(self, program: Program) -> None:
        if not program.vectorised:
            raise ValueError(
                "expected a program that broadcasts over a particle plate, got one that does not"
            )
        self.program = program
        self._dim = -1 - program.max_plate_nesting
        rows = program.arguments.chunks(1)[0]
        trace = self._guide_and_prior(rows)[1]
        latents = {n: s for n, s in sample_sites(trace) if not s["is_observed"]}
        self.discrete = tuple(n for n, s in latents.items() if is_discrete(s))
        self._check_states({n: latents[n] for n in self.discrete})
        self._parts = [self._part(n, s) for n, s in latents.items() if n not in self.discrete]
        self.dim = sum(p.size for p in self._parts)
        self.mapped = torch.tensor(
            [p.mapped for p in self._parts for _ in range(p.size)], dtype=torch.bool, device="cpu"
        )
        model = program.model
        if self.discrete:
            model = pyro.infer.config_enumerate(model, default="parallel")
        refuse_mixed_elements(program, self.discrete)
        self._model = replace(program, model=model, guide=_nothing, enumerated=bool(self.discrete))
        self.wide = True
        self.dtype = torch.float64
        if not self._runs_in_float64(rows):
            self.wide, self.dtype = False, narrowest(program.run(rows, 1))

    def _runs_in_float64(self, rows: Tensor) -> bool:
        """Whether the model runs with all its numbers as float64; kernels and checks of dtypes may not."""
        try:
            nowhere = torch.zeros(1, len(rows), 0, dtype=torch.float64, device=rows.device)
            at = self.prior_draws(rows, 1) if self.dim else nowhere
            return self(rows, at).dtype == at.dtype == torch.float64
        except Exception:
            return False

    def _precision(self) -> Any:
        return InFloat64() if self.wide else nullcontext()

    def __call__(self, indices: Tensor, u: Tensor, temperature: float = 1.0) -> Tensor:
        """Log-density at u `[K, n, dim]`, for the data at `indices`.

        At a temperature T: ln sum p(x, z)^{1/T} + ln|dz/du|, the sum over discrete latents. The power
        is of the density of z: the integral over u is that of p(x, z)^{1/T} over z.
        """
        return self.with_prior(indices, u, temperature)[0]

    def with_prior(self, indices: Tensor, u: Tensor, temperature: float = 1.0) -> Tensor:
        """The same, and ln p(u) = ln p(z(u)) + ln|dz/du| at temperature 1: `[2, K, n]`."""
        at, values = 0, {}
        args = self.program.arguments
        if args.calling == "indexed" and args.subsample_size is not None:  # a fixed size repeats the last
            pad = args.subsample_size - len(indices)
            u = torch.cat([u, u[:, -1:].expand(-1, pad, -1)], 1)
        for part in self._parts:
            values[part.name] = part.unflatten(u[..., at : at + part.size])
            at += part.size
        given = Substitute(values, unconstrained=True)
        program = self._model
        # Outermost: what enumerates must have seen a site before its value is set.
        with self._precision(), program.on(indices) as arguments, given:
            traces = program.traces(arguments, len(u))
            jacobians = self._in_coordinates(traces[1], given, temperature)
            both = self._collected(traces, len(u), temperature)
        for name, jacobian in jacobians.items():
            datum = next(f.dim for f in traces[1].nodes[name]["cond_indep_stack"] if f.name == program.plate)
            both = both + reduce_to(jacobian, (self._dim, datum), (both.shape[1], both.shape[2]))
        return both[..., : len(indices)]

    def _in_coordinates(self, trace: Any, given: Substitute, temperature: float) -> dict[str, Tensor]:
        """Puts closed forms of densities of u in place of those of z that are at its edge no number; the Jacobians."""
        jacobians = dict(given.log_jacobian)
        for name in jacobians:
            site = trace.nodes[name]
            known = log_density_of_u(site["fn"], given.values[name])
            if known is not None and temperature == 1:
                site["fn"] = AsGiven(site["fn"], known)
                jacobians[name] = torch.zeros_like(known)
            elif known is not None:
                site["fn"] = AsGiven(site["fn"], known - jacobians[name])
        return jacobians

    def _collected(self, traces: Any, number: int, temperature: float) -> Tensor:
        """ln p(x, z)^{1/T} and ln p(z), `[2, K, n]`, without Jacobians."""
        options: dict[str, Any] = {"plate": self.program.plate, "particles": PARTICLES, "normalised": True}
        if self.discrete:
            total = collect(*traces, power=1 / temperature, **options).log_weights()
            for _, site in sample_sites(traces[1]):
                if site["is_observed"]:
                    site["mask"] = False
            prior = collect(*traces, **options).log_weights()
        else:
            sites = collect(*traces, **options)
            prior = _sum(sites.prior)
            total = (prior + _sum(sites.likelihood)) / temperature
        sizes = torch.broadcast_shapes(total.shape, prior.shape)
        return torch.stack([total.expand(sizes), prior.expand(sizes)])

    def draws(self, indices: Tensor, num_samples: int) -> Tensor:
        """The guide's draws as u, `[K, n, dim]`."""
        with self.program.on(indices) as given:
            guide_trace, model_trace = self.program.traces(given, num_samples)
        with self._precision():
            return self._read(guide_trace, model_trace, num_samples)[:, : len(indices)]

    def prior_draws(self, indices: Tensor, num_samples: int) -> Tensor:
        """Draws of the prior as u, `[K, n, dim]`; discrete latents are drawn too."""
        program = replace(self.program, guide=_nothing, enumerated=False)
        with self._precision(), program.on(indices) as given:
            _, trace = program.traces(given, num_samples)
            return self._read(trace, trace, num_samples)[:, : len(indices)]

    def _read(self, source: Any, model_trace: Any, num_samples: int) -> Tensor:
        out = []
        for part in self._parts:
            value = source.nodes[part.name]["value"]
            u = bijection(model_trace.nodes[part.name]["fn"]).inv(value)
            # The value has size 1 in dims that it is no function of, and more than the particles' where
            # it is one of a class that the guide enumerates: all of those are places to look at.
            lead = -part.particle
            u = u.reshape((1,) * (lead - u.dim()) + tuple(u.shape))
            u = u.expand(*u.shape[: u.dim() - lead], num_samples, *u.shape[u.dim() - lead + 1 :])
            u = u.reshape(-1, *u.shape[u.dim() - lead + 1 :])
            out.append(part.flatten(u, (len(u), u.shape[part.datum])))
        most = max(map(len, out))
        out = [u.repeat(most // len(u), 1, 1) for u in out]
        return torch.cat(out, -1)

    def _guide_and_prior(self, rows: Tensor) -> tuple[Any, Any]:
        with self.program.on(rows) as given:
            guide, model = self.program.guide, self.program.model
            return poutine.trace(guide).get_trace(*given), poutine.trace(model).get_trace(*given)

    def _part(self, name: str, site: Any) -> _Part:
        try:
            transform = bijection(site["fn"])
        except NotImplementedError as error:
            raise ValueError(
                f"expected latents with a support that maps to real numbers (biject_to), got {name!r} ({error}); try "
                "pv.IS, which needs no such map, or @program(log_evidence=...)"
            ) from None
        value = site["value"]
        u = transform.inv(value)
        mapped = u.shape != value.shape or not bool((u == value).all())
        event = u.dim() - len(site["fn"].batch_shape)
        datum = next(f.dim for f in site["cond_indep_stack"] if f.name == self.program.plate) - event
        shape = [size for i, size in enumerate(u.shape, start=-u.dim()) if i != datum]
        # All dims between the particles' and the value's own exist, if only of size 1.
        missing = -(self._dim - event) - 1 - u.dim()
        return _Part(name, (1,) * missing + tuple(shape), self._dim - event, datum, mapped)

    def _check_states(self, sites: dict[str, Any]) -> None:
        for name, site in sites.items():
            fn, listed = base_of(site["fn"]), up_to_the_largest(site["fn"])
            if site["fn"].event_shape:
                raise ValueError(
                    f"expected scalar discrete latents, got a vector of them at {name!r}; try pv.IS, or an "
                    "inner plate in place of .to_event() where the model keeps its elements apart"
                )
            if not listed.has_enumerate_support:
                raise ValueError(
                    f"expected discrete latents with a finite list of values, got {type(fn).__name__} at {name!r}; try "
                    "pv.IS (command line: is in place of exact)"
                )
            states = len(listed.enumerate_support(expand=False))
            if states > MAX_STATES:
                raise ValueError(
                    f"expected at most {MAX_STATES:,} values of a discrete latent, got {states:,} at {name!r}"
                )


def _sum(terms: dict[str, Tensor]) -> Tensor:
    return sum((v.double() for v in terms.values()), torch.zeros((), dtype=torch.float64, device="cpu"))


def is_discrete(site: Any) -> bool:
    """Whether a site's support is a discrete set."""
    support = getattr(site["fn"], "support", None)
    return bool(getattr(support, "is_discrete", False))


def _nothing(*_: Any) -> None:
    """A guide without sites: every latent is given or summed out."""
