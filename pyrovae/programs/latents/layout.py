"""Latent sites as a flat vector of unconstrained coordinates."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..sites import sample_sites
from .supports import bijection


@dataclass(frozen=True)
class Slot:
    """Place of a latent site in the flat vector.

    Attributes:
        batch: its batch shape without the chains.
        event: its unconstrained event shape.
        axis: of the data plate, counted with chains first.
        event_dim: number of event dims of its constrained values.
        dtype: of its values.
    """

    batch: tuple[int, ...]
    event: tuple[int, ...]
    axis: int
    event_dim: int
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Unconstrained coordinates per chain and datum."""
        return math.prod(self.batch) // self.batch[self.axis - 1] * math.prod(self.event)

    def flat(self, u: Tensor) -> Tensor:
        """`[K, *batch, *event]` to `[K, n, size]`."""
        moved = u.movedim(self.axis, 1)
        return moved.reshape(*moved.shape[:2], -1)

    def unflat(self, u: Tensor) -> Tensor:
        """The way back."""
        rest = [s for i, s in enumerate(self.batch) if i != self.axis - 1]
        return u.reshape(*u.shape[:2], *rest, *self.event).movedim(1, self.axis).to(self.dtype)

    @classmethod
    def of(cls, site: Any, datum_dim: int) -> Slot:
        """The place that a site takes, from a trace in a plate of chains."""
        fn, depth = site["fn"], len(site["fn"].batch_shape)
        u = bijection(fn).inv(site["value"].expand(fn.shape()))
        return cls(
            tuple(fn.batch_shape[1:]), tuple(u.shape[depth:]), depth + datum_dim, fn.event_dim, u.dtype
        )

    def read(self, site: Any) -> Tensor:
        """A site's value as `[K, n, size]`; NaN where it lies outside of the site's support."""
        fn = site["fn"]
        transform, value = bijection(fn), site["value"].expand(fn.shape())
        u = transform.inv(value)
        # Inverses clamp what lies outside of an interval; a check alone would refuse what
        # rounding has put a hair off the simplex.
        near = (transform(u) - value).abs() <= 1e-5 * (1 + value.abs())
        inside = near.reshape(*fn.batch_shape, -1).all(-1)
        wide = inside.reshape(*inside.shape, *(1,) * (u.dim() - inside.dim()))
        return self.flat(torch.where(wide, u, torch.nan))


def latent_sites(trace: Any) -> Iterator[tuple[str, Any]]:
    """Layout of a model trace, in its order."""
    return ((n, s) for n, s in sample_sites(trace) if not s["is_observed"])


def refuse_discrete(trace: Any, summed: Collection[str] = ()) -> None:
    """Refuses latents that have no gradient, or no support to map from, but for those that are summed out.

    Raises:
        ValueError: naming them.
    """
    discrete, unknown = [], []
    for name, site in latent_sites(trace):
        if name in summed:
            continue
        try:
            support = site["fn"].support
            if support.is_discrete:
                discrete.append(name)
            else:
                bijection(site["fn"])
        except (NotImplementedError, AttributeError) as error:
            unknown.append(f"{name!r} ({error})")
    if discrete:
        raise ValueError(
            f"expected continuous latents alone, got discrete ones at {discrete}: Hamiltonian moves need gradients; "
            'try pv.IS, with infer={"enumerate": "parallel"} to sum them out'
        )
    if unknown:
        raise ValueError(
            f"expected latents with a support that maps to real numbers (biject_to), got {', '.join(unknown)}; "
            "try pv.IS, which needs no such map"
        )
