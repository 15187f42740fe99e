"""What is logged of a program whatever trains it: the true ELBO and its terms, active units."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pyro
import torch
from torch import Tensor

from ..programs import Program, module_mode, seeded
from ..programs.site_means import site_means

# A latent dim is active where its posterior mean moves with the data (Burda et al. 2016).
ACTIVE_VARIANCE = 0.01


@dataclass(frozen=True)
class Metrics:
    """Means over data, in nats per datum, at beta = 1 and without scales.

    Attributes:
        elbo: reconstruction - kl.
        reconstruction: E_q[ln p(x | z)].
        kl: E_q[ln q(z | x) - ln p(z)], all latent sites.
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
    log_weights, reconstruction = torch.zeros(()), torch.zeros(())
    kl_sites: dict[str, Tensor] = {}
    terms: dict[str, Tensor] = {}
    means: dict[str, list[Tensor]] = {}
    count, split = 0, True
    with (
        torch.no_grad(),
        module_mode(program.model, program.guide, training=False),
        pyro.validation_enabled(False),
    ):
        for i, indices in enumerate(chunks):
            with seeded(seed, "metrics", i, device=args.x.device):
                sites = program.run(indices, num_samples)
            count += len(indices)
            log_weights = log_weights + sites.log_weights().double().mean(0).sum().cpu()
            split = split and sites.marginal is None
            for name, value in sites.likelihood.items():
                term = value.double().mean(0).sum().cpu()
                reconstruction = reconstruction + term
                terms[name] = terms.get(name, torch.zeros(())) + term
            for name, q in sites.guide.items():
                p = sites.prior.get(name, torch.zeros((), device=q.device))
                kl = (q - p).double().mean(0).sum().cpu()
                kl_sites[name] = kl_sites.get(name, torch.zeros(())) + kl
            particle_dim = -1 - program.max_plate_nesting
            found = {} if sites.traces is None else site_means(sites, program.plate, particle_dim)
            for name, (mean, _) in found.items():
                means.setdefault(name, []).append(mean[: len(indices)].double().cpu())
    elbo = float(log_weights) / count
    active = sum(int((torch.cat(m).var(0) > ACTIVE_VARIANCE).sum()) for m in means.values())
    return Metrics(
        elbo=elbo,
        reconstruction=float(reconstruction) / count if split else math.nan,
        kl=float(reconstruction) / count - elbo if split else math.nan,
        kl_sites={n: float(v) / count for n, v in kl_sites.items()},
        active_units=float(active) if means and count > 1 else math.nan,
        terms={n: float(v) / count for n, v in terms.items()},
    )
