"""A program's draws: its observed site, and the latents behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ROWS = 1024  # data run at once


@dataclass(frozen=True)
class Generated:
    """Draws of a program's observed site, and the latents behind them.

    Attributes:
        x: draws of the observed site, `[N, *event]`.
        mean: mean of its distribution given the latents; the draws where it has no mean.
        latents: name to `[N, *event]`.
    """

    x: Tensor
    mean: Tensor
    latents: dict[str, Tensor]

    def __repr__(self) -> str:
        latents = ", ".join(f"{n} {list(v.shape)}" for n, v in self.latents.items())
        return (
            f"Generated(x {list(self.x.shape)}, mean {list(self.mean.shape)}, latents: {latents or 'none'})"
        )

    def rows(self, indices: Tensor) -> Generated:
        """Results for those draws alone."""
        return Generated(
            self.x[indices], self.mean[indices], {n: v[indices] for n, v in self.latents.items()}
        )


def join(parts: Sequence[Generated]) -> Generated:
    """Several draws in one."""
    latents = {n: torch.cat([p.latents[n] for p in parts]) for n in parts[0].latents}
    return Generated(torch.cat([p.x for p in parts]), torch.cat([p.mean for p in parts]), latents)
