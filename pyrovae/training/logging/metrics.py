"""Metrics logged of a program whatever trains it: the true ELBO and its terms, active units."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...programs import Program, seeded
from ...programs.latents.site_means import site_means
from ...programs.sites import sample_sites

# A latent dim is active where its posterior mean moves with the data (Burda et al. 2016).
ACTIVE_VARIANCE = 0.01


@dataclass(frozen=True)
class Metrics:
    """Means over data, in nats per datum, at beta = 1 and without scales.

    Attributes:
        elbo: reconstruction - kl; where discrete latents are summed out, the mean of ln w.
        reconstruction: E_q[ln p(x | z)]; NaN where discrete latents are summed out, which leaves one sum of all
            terms that touch them.
        kl: E_q[ln q(z | x) - ln p(z)], the sum of `kl_sites`. Never reconstruction - elbo, which would cancel: a
            reconstruction of 1e9 nats holds no KL of 80. NaN as above.
        kl_sites: the same, site by site.
        active_units: latent dims with Var_x E[z | x] > 0.01; NaN where it cannot be told.
        terms: `reconstruction` by observed site and `pyro.factor`, where there are several (the terms of a
            diffusion).
    """

    elbo: float
    reconstruction: float
    kl: float
    kl_sites: dict[str, float]
    active_units: float
    terms: dict[str, float] = field(default_factory=dict)

    def row(self, prefix: str = "") -> dict[str, float]:
        """Flat, for a table; per-site KL only where there are several sites."""
        out = {
            "elbo": self.elbo,
            "reconstruction": self.reconstruction,
            "kl": self.kl,
            "active_units": self.active_units,
        }
        if len(self.kl_sites) > 1:
            out |= {f"kl_{name}": v for name, v in self.kl_sites.items()}
        if len(self.terms) > 1:
            out |= {f"term_{name}": v for name, v in self.terms.items()}
        return {prefix + k: v for k, v in out.items()}


def measure(
    program: Program, *, num_samples: int = 1, seed: int = 0, max_data: int | None = None, rows: int = 4096
) -> Metrics:
    """Monte-Carlo estimate of the ELBO's terms on the program's data.

    Args:
        program: from `inspect_program`.
        num_samples: per datum.
        seed: of the noise.
        max_data: only the first so many data.
        rows: (datum, sample) pairs run at once.
    """
    args = program.arguments
    size = max(1, rows // num_samples)
    chunks = args.chunks(size if max_data is None else min(size, max_data))
    if max_data is not None:
        chunks = chunks[: max(1, math.ceil(max_data / len(chunks[0])))]
    log_weights = 0.0
    kl_sites: dict[str, float] = {}
    terms: dict[str, float] = {}
    means: dict[str, list[Tensor]] = {}
    count, split, nothing = 0, True, torch.zeros((), device=args.x.device)
    with program.quiet():
        for i, indices in enumerate(chunks):
            with seeded(seed, "metrics", i, device=args.x.device):
                sites = program.run(indices, num_samples)
            count += len(indices)
            split = split and sites.marginal is None
            if not split:
                log_weights += _total(sites.log_weights())
            for name, value in sites.likelihood.items():
                terms[name] = terms.get(name, 0.0) + _total(value)
            for name in {**sites.prior, **sites.guide}:  # auxiliary sites of the guide have no prior
                q, p = (s.get(name, nothing) for s in (sites.guide, sites.prior))
                kl_sites[name] = kl_sites.get(name, 0.0) + _total(q.double() - p)
            particle_dim = -1 - program.max_plate_nesting
            told = sites.traces is not None and not _enumerates(sites.traces[0])
            found = site_means(sites, program.plate, particle_dim) if told else {}
            for name, (mean, _) in found.items():
                means.setdefault(name, []).append(mean[: len(indices)].double().cpu())
    active = sum(int((torch.cat(m).var(0, correction=0) > ACTIVE_VARIANCE).sum()) for m in means.values())
    reconstruction, kl = (sum(v.values()) / count if split else math.nan for v in (terms, kl_sites))
    return Metrics(
        elbo=reconstruction - kl if split else log_weights / count,
        reconstruction=reconstruction,
        kl=kl,
        kl_sites={n: v / count for n, v in kl_sites.items()},
        # A latent under each value of one that is summed out would count once for each.
        active_units=float(active) if means and count > 1 and split else math.nan,
        terms={n: v / count for n, v in terms.items()},
    )


def _enumerates(guide_trace: Any) -> bool:
    """Whether the guide sums over values of a site: others then have a mean for each value, and none of their own."""
    return any(site["infer"].get("_enumerate_dim") is not None for _, site in sample_sites(guide_trace))


def _total(values: Tensor) -> float:
    """Sum over data of the mean over draws of `[K, N]`, in float64."""
    return float(values.double().mean(0).sum())
