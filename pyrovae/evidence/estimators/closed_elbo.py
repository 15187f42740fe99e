"""The ELBO with its KL in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...programs import Program, seeded
from ...programs.latents.closed_kl import closed_sites, closed_terms
from ..core.checks import check_num_samples
from ..core.chunks import pairs_in
from ..core.direction import Direction
from ..core.estimator import PerDatum
from ..core.execution import Execution

ERRORS = 6  # standard errors by which a closed form may differ from the densities that it is of


@dataclass(frozen=True)
class ClosedELBO:
    """E_q[ln p(x|z)] - sum over sites of KL(q || p): the KL in closed form, the rest over draws.

    The bound of `TraceMeanField_ELBO`: that of `ELBO`, with a Monte-Carlo error that lacks the KL's. Sites
    without a closed form, and those of a bottom-up guide, keep ln q - ln p.

    Args:
        num_samples: K, draws per datum.

    Raises:
        ValueError: K < 1.

    Example:
        >>> import pyrovae as pv
        >>> from pyrovae.models.ground_truths import linear_gaussian
        >>> pair = linear_gaussian(8, latent_dim=2)
        >>> evidence = pv.evidence(pair.model, pair.guide, pair.x, estimators=[ClosedELBO(100)])
        >>> evidence["ELBO (closed KL)"].symbol
        '≥'
    """

    name: ClassVar[str] = "ELBO (closed KL)"
    direction: ClassVar[Direction] = "<="
    unbiased_for_p: ClassVar[bool] = False

    num_samples: int = 100

    def __post_init__(self) -> None:
        check_num_samples(self.num_samples)

    def run(self, program: Program, execution: Execution) -> PerDatum:
        """All data of the program, in their order; runs eagerly.

        Raises:
            ValueError: no site with a closed form; one whose closed form is not that of its densities (a
                distribution that inherits another's name but not its log_prob), which is named.
        """
        if program.enumerated:
            raise ValueError("expected continuous latents, got enumerated ones; try pv.ELBO")
        with seeded(execution.seed, "closed KL", device=program.arguments.x.device):
            sites = closed_sites(program)
        if not sites:
            raise ValueError("expected a latent site whose KL has a closed form, got none; try pv.ELBO")
        args = program.arguments
        k = self.num_samples if program.vectorised else 1
        size = max(1, pairs_in(program, execution.budget) // k) if args.calling == "sliced" else args.num_data
        changes: list[Tensor] = []
        elbos: list[Tensor] = []
        variances: list[Tensor] = []
        with program.quiet():
            for number, indices in enumerate(args.chunks(size)):
                with seeded(execution.seed, "closed KL", number, device=args.x.device):
                    # A program that does not broadcast runs draw by draw.
                    runs = [closed_terms(program, indices, k, sites) for _ in range(self.num_samples // k)]
                change = torch.cat([c for c, _ in runs], 1).double()
                lw = torch.cat([w for _, w in runs]).double()
                changes.append(change.mean(1))
                elbos.append(lw.mean(0))
                variances.append(lw.var(0) / len(lw) if len(lw) > 1 else torch.full_like(lw[0], torch.nan))
                execution.tell(int(indices[-1]) + 1, args.num_data)
        _check(torch.cat(changes, 1), sites)
        mean, variance = torch.cat(elbos), torch.cat(variances)
        details = {"closed": ", ".join(sites)}
        return PerDatum(mean, variance, bias=torch.full_like(mean, torch.nan), details=details)


def _check(changes: Tensor, sites: list[str]) -> None:
    """`[S, N]` means over draws: over the data they are zero within their errors, or KL is another's."""
    for change, name in zip(changes, sites, strict=True):
        change = change[torch.isfinite(change)]
        if len(change) < 8:
            continue
        mean, se = float(change.mean()), float(change.std()) / len(change) ** 0.5
        if abs(mean) > ERRORS * se + 1e-4:
            raise ValueError(
                f"expected the closed-form KL of site {name!r} to be that of its densities, got one that differs by "
                f"{mean:.3g} ± {se:.2g} nats from ln q - ln p; does a distribution there override log_prob? try pv.ELBO"
            )
