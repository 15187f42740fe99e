"""Loss of the ELBO in nats: approximation and amortisation."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

from torch import Tensor

from ...checking import checked
from ...programs import inspect_program
from ...programs.latents.local_guides import conditional_sites
from ...progress import Progress, shows_progress
from ..core.checks import check_elbo
from ..core.compile_when import Compile
from ..core.estimate import Estimate
from ..core.estimator import ProgramEstimator, WeightEstimator
from ..estimators.elbo import ELBO
from ..estimators.importance_sampling import IS
from ..estimators.own_guides import OwnGuides
from ..evidence import evidence
from ..proposals.local_fit import LocalFit
from ..sharing.claims import Sharing
from .parts import Gaps


@checked
@shows_progress("gaps")
def gaps(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    estimators: Sequence[WeightEstimator | ProgramEstimator] = (IS(5000),),
    fit: LocalFit = LocalFit(),  # noqa: B008 - frozen
    flow: bool = True,
    num_samples: int = 1000,
    seed: int = 0,
    plate: str | None = None,
    budget: int | None = None,
    compile: Compile = "auto",
    progress: Progress = True,
    label: str | None = None,
    resume: str | os.PathLike[str] | None = None,
    sharing: Sharing | None = None,
    given: Mapping[str, Tensor] | None = None,
) -> Gaps:
    """ln p(x) - ELBO(q_phi) as approximation gap + amortisation gap, datum by datum (Cremer et al. 2018).

        amortisation  = ELBO(q*) - ELBO(q_phi)    what a guide of one's own for each datum would win
        approximation = ln p(x) - ELBO(q*)        what the guide's family cannot express

    q* is the best member of the guide's own families for this datum. It is found by optimising their
    parameters, started at the amortised ones, with fresh draws at every step; a datum for which that did not
    help keeps the amortised guide. A richer family (`LocalFlow`, on all latents together) then shows how
    much of the approximation gap a better family would win. All ELBOs are of draws made after, of noise
    that no optimisation has seen. https://arxiv.org/abs/1801.03558

    Directions: q* is at most as good as the best member, so the amortisation gap is a lower bound. The
    evidence is that of the highest lower bound (see `Gaps.evidence`), so the total is one too, up to its error and to
    what is left of the choice among bounds after looking, which weighs each less its error; their
    difference, the approximation gap, has no direction.

    Where a guide site depends on other draws (hierarchies), offsets are added to its parameters and the
    dependence itself stays amortised: there the amortisation gap is a lower bound for this reason as well.

    Args:
        model, guide, x, *context, seed, plate, budget, label, resume, sharing, given: as in `evidence`; the
            chunks of the optimisation are units like those of AIS.
        estimators: of ln p(x); the best of them serves, or importance sampling from the optimised guides.
        fit: steps, draws a step and learning rate.
        flow: also optimise the richer family.
        num_samples: draws per datum of each ELBO.
        compile: gradients and log-weights as compiled graphs, one for all chunks.
        progress: as in `evidence`; a function is called with (done, total) log-weights, then optimisation steps.

    Raises:
        ValueError: a guide's family without known parameters or pathwise gradients (it is named); discrete
            latents; a program that does not broadcast; a guide whose ELBO is -inf; more than 512 latent dims with
            flow=True; as `evidence`.

    Example:
        >>> from pyrovae.models.ground_truths import linear_gaussian
        >>> pair = linear_gaussian(8, latent_dim=2)
        >>> quick = LocalFit(steps=5, num_particles=4)
        >>> found = gaps(pair.model, pair.guide, pair.x, fit=quick, flow=False, num_samples=50)
        >>> len(found.total.per_datum)
        8
    """
    if not isinstance(fit, LocalFit):
        raise TypeError(f"expected fit to be a pv.LocalFit, got {fit!r}; try pv.LocalFit(steps=1000)")
    program = inspect_program(model, guide, x, *context, plate=plate, given=given)
    own = OwnGuides(fit, flow, num_samples)
    own.num_chunks(program, budget)  # refuses what it cannot serve, before anything is computed
    check_elbo(program, budget)
    others = [e for e in estimators if e.name != "ELBO"]
    first = evidence(
        model,
        guide,
        x,
        *context,
        estimators=[ELBO(num_samples), *others, own],
        seed=seed,
        plate=plate,
        budget=budget,
        compile=compile,
        progress=progress,
        label=label,
        resume=resume,
        sharing=sharing,
        given=given,
    )
    details = first[own.name].details
    parts = own.estimates_in(details)
    bounds = [first[e.name] for e in others]
    bounds += [e for name, e in parts.items() if name.startswith("IS")]
    attributes = first.attributes | {
        "narrower": program.narrower,
        "steps": fit.steps,
        "num_particles": fit.num_particles,
    }
    return Gaps(
        evidence=_best(bounds),
        elbo=first["ELBO"],
        elbo_local=parts["ELBO, local"],
        elbo_flow=parts.get("ELBO, flow"),
        bounds=tuple(bounds),
        conditional=tuple(conditional_sites(program)),
        attributes=attributes | {"kept": int(details["kept"].sum())},
        partials=first.partials,
    )


def _best(bounds: Sequence[Estimate]) -> Estimate:
    """Exact where it is; else, of the lower bounds, the highest mean less its error; else the first.

    The highest of several means is the one whose noise was luckiest, and above what it estimates. Each counts by the
    lower end of an interval (2.5 % over their number) instead: one that is higher by no more than its noise is not
    taken.
    """
    exact = [e for e in bounds if e.name == "Exact"]
    lower = [e for e in bounds if e.direction == "<="]
    z = NormalDist().inv_cdf(1 - 0.025 / max(1, len(lower)))

    def least(e: Estimate) -> float:
        low = e.log_evidence - z * e.se_mc
        return -math.inf if math.isnan(low) else low

    return exact[0] if exact else max(lower, key=least, default=bounds[0])
