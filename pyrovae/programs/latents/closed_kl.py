"""ln p(x, z) - ln q(z | x) with ln q - ln p of a site in closed form, where it is known."""

from __future__ import annotations

import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from ..checks.contract import data_frame
from ..checks.dependencies import mean_field_breaches
from ..checks.validity import closed_form_kl
from ..inspection import Program
from ..sites import Sites, reduce_to


def closed_sites(program: Program) -> list[str]:
    """Latent sites whose KL(q || p) is in closed form, and may be taken given the draws upstream.

    Not those of a bottom-up guide: there the model's parents of z are drawn from z, and the KL given them
    is not the KL.
    """
    breached = {z for z, _ in mean_field_breaches(program)}
    return [name for name in closed_form_kl(program) if name not in breached]


def closed_terms(
    program: Program, indices: Tensor, num_samples: int, sites: list[str]
) -> tuple[Tensor, Tensor]:
    """One run: what the closed form changes at each of `sites`, `[S, K, n]`, and ln w with it, `[K, n]`.

    The change is (ln q - ln p) - KL(q || p) at the draws; its mean is zero where the closed form is right.
    """
    run = program.run(indices, num_samples)
    changes = torch.stack(
        [run.guide[n].double() - run.prior[n] - _kl(run, program, n, num_samples) for n in sites]
    )
    return changes, run.log_weights().double() + changes.sum(0)


def _kl(run: Sites, program: Program, name: str, num_samples: int) -> Tensor:
    assert run.traces is not None
    guide, model = run.traces
    q, p = guide.nodes[name], model.nodes[name]
    kl = scale_and_mask(torch.distributions.kl_divergence(q["fn"], p["fn"]), 1.0, q["mask"])
    frame = data_frame(model, program.plate)
    terms = reduce_to(kl, (-1 - program.max_plate_nesting, frame.dim), (num_samples, frame.size))
    return terms[:, : run.guide[name].shape[1]]
