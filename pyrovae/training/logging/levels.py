"""Content of each level of a hierarchy: its KL, its active units, whether it has collapsed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...programs import inspect_program, module_mode, seeded
from ...programs.latents.site_means import site_means
from .metrics import ACTIVE_VARIANCE

# A level that says less than this of a datum, on average, is empty.
COLLAPSED_NATS = 0.01


@dataclass(frozen=True)
class Level:
    """One latent site, on data.

    Attributes:
        site: its name.
        width: numbers in it, a datum.
        kl: its rate, E_x E_q[ln q(z_t | ...) - ln p(z_t | ...)], nats per datum.
        se: standard error of that over data and draws.
        share: kl over the rate of all levels.
        active_units: dims with Var_x E[z | x] > 0.01.
        collapsed: no active unit, or a KL below 0.01 nats.
    """

    site: str
    width: int
    kl: float
    se: float
    share: float
    active_units: int
    collapsed: bool


def level_report(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    num_samples: int = 16,
    seed: int = 0,
    plate: str | None = None,
    rows: int = 4096,
) -> list[Level]:
    """The levels of any program, in the order in which its model draws them (the top one first).

    Their `kl` sum to the rate E_q[ln q(z | x) - ln p(z)] of the whole program. That of a level below the top
    is a mean over draws of the levels before it; what those draws leave in E[z | x] is taken off the variance
    by which a unit counts as active.

    Args:
        model, guide: a pair with one plate over data.
        x, *context: data.
        num_samples: draws a datum, at least 2.
        seed: of the noise.
        plate: name of the data plate.
        rows: (datum, draw) pairs run at once.

    Raises:
        ValueError: for fewer than 2 data or draws; a program that does not broadcast over draws, or whose discrete
            latents are summed out.

    Source:
        Importance Weighted Autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519
    """
    if num_samples < 2 or len(x) < 2:
        raise ValueError(f"expected at least 2 data and draws, got {len(x)} and {num_samples}")
    program = inspect_program(model, guide, x, *context, plate=plate)
    if program.enumerated or not program.vectorised:
        raise ValueError("expected a program that broadcasts over draws and sums no latents out, got another")
    kl: dict[str, list[Tensor]] = {}
    means: dict[str, list[tuple[Tensor, Tensor]]] = {}
    with torch.no_grad(), module_mode(model, guide, training=False):
        for i, indices in enumerate(program.arguments.chunks(max(1, rows // num_samples))):
            with seeded(seed, "levels", i, device=x.device):
                sites = program.run(indices, num_samples)
            for name, p in sites.prior.items():
                kl.setdefault(name, []).append((sites.guide[name].double() - p).mean(0).cpu())
            for name, (mean, noise) in site_means(
                sites, program.plate, -1 - program.max_plate_nesting
            ).items():
                n = len(indices)
                means.setdefault(name, []).append((mean[:n].double().cpu(), noise[:n].double().cpu()))
    total = sum(float(torch.cat(v).mean()) for v in kl.values())
    return [_level(name, torch.cat(values), means[name], total) for name, values in kl.items()]


def level_table(levels: Sequence[Level]) -> str:
    """The report as a Markdown table."""
    lines = ["| level | width | KL ± se | share | active units | |", "|---|---:|---:|---:|---:|---|"]
    for v in levels:
        state = "collapsed" if v.collapsed else ""
        lines.append(
            f"| {v.site} | {v.width} | {v.kl:.3f} ± {v.se:.3f} | {v.share:.1%} | {v.active_units} | {state} |"
        )
    return "\n".join(lines)


def _level(name: str, kl: Tensor, means: list[tuple[Tensor, Tensor]], total: float) -> Level:
    mean, noise = (torch.cat(parts) for parts in zip(*means, strict=True))
    active = int((mean.var(0) - noise.mean(0) > ACTIVE_VARIANCE).sum())
    value = float(kl.mean())
    return Level(
        site=name,
        width=mean.shape[1],
        kl=value,
        se=float(kl.std()) / math.sqrt(len(kl)),
        share=value / total if total else math.nan,
        active_units=active,
        collapsed=active == 0 or value < COLLAPSED_NATS,
    )
