"""Latents that masks leave without a density: nothing that counts may depend on them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyro.distributions as dist
import torch

from ...devices import as_tensor
from ..handlers.substitute import Substitute
from ..latents.supports import base_of
from ..seeds import seeded
from ..sites import collect, is_factor, sample_sites
from .agreement import is_enumerated, mask_of


def has_masks(*traces: Any) -> bool:
    """Whether a latent has a mask on any side, whatever it holds."""
    sites = [s for trace in traces for _, s in sample_sites(trace)]
    return any(mask_of(s) is not True for s in sites if not s["is_observed"] and not is_enumerated(s))


def counted_share(program: Any, rows: int) -> float:
    """Share of the observed numbers of all data that no mask leaves out, as paddings of sequences; 1 without masks.

    Args:
        program: the `Program`.
        rows: data run at once.
    """
    counted = total = 0.0
    for size in (1, rows):
        for indices in program.arguments.chunks(size):
            with program.quiet(0, "counted"), program.on(indices) as given:
                _, trace = program.traces(given, None)
            found = [s for _, s in sample_sites(trace) if s["is_observed"] and not is_factor(s)]
            masks = [mask_of(s) for s in found]
            if size == 1:
                if all(m is True for m in masks):
                    return 1.0
                break  # there are masks: all data are looked at
            for site, mask in zip(found, masks, strict=True):
                held, _ = torch.broadcast_tensors(
                    torch.as_tensor(mask, device=site["value"].device), site["value"]
                )
                counted += float(held.double().mean()) * site["value"].numel()
                total += site["value"].numel()
    return counted / total if total else 1.0


def check_masked(program: Any, given: tuple[Any, ...], traces: tuple[Any, Any]) -> None:
    """Draws masked latents anew and refuses log-weights that change.

    ln p - ln q of a masked value is 0 on both sides, so E_q[w] would hold the guide's law in place of the prior's for
    whatever depends on the value.

    Args:
        program: the `Program`.
        given: its arguments.
        traces: (guide trace, model trace) of a run on them, without a particle plate.

    Raises:
        ValueError: naming the masked latents.
    """
    drawn = {
        name: site
        for name, site in sample_sites(traces[0])
        if not site["is_observed"]
        and not is_enumerated(site)
        and not isinstance(base_of(site["fn"]), dist.Delta)
    }
    masked = {n: m for n, s in drawn.items() if not as_tensor(m := mask_of(s)).all()}
    if not masked:
        return
    with seeded(1, "masked", device=program.arguments.x.device):
        other = program.traces(given, None)[0].nodes
    values = {n: s["value"] for n, s in drawn.items()}
    for name, mask in masked.items():
        value = values[name]
        values[name] = torch.where(torch.as_tensor(mask, device=value.device), value, other[name]["value"])
    with seeded(1, "masked", device=program.arguments.x.device):
        again = replace(program, guide=Substitute(values)(program.guide)).traces(given, None)
    before, after = (collect(*t, plate=program.plate, particles=None).log_weights() for t in (traces, again))
    same = (after - before).abs() <= 1e-3 * before.abs().clamp(min=1.0)
    same |= (after == before) | (after.isnan() & before.isnan())
    if not same.all():
        raise ValueError(
            f"expected nothing that counts to depend on masked latents, got log-weights that change when "
            f"{sorted(masked)} are drawn anew where they are masked: the guide's law would stand for the prior's; "
            "mask what depends on them too, or take the mask off on both sides"
        )
