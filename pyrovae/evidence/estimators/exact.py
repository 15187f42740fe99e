"""Exact evidence, where a program has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...programs import Program, seeded, store_of
from ...programs.latents.joint import Joint
from ..core.direction import Direction
from ..core.estimator import PerDatum
from ..core.execution import Execution
from ..quadrature.integrate import Integral, integrate
from .settled import OTHERWISE, check_by_draws, refuse_unsettled

# (datum, node) pairs of a chunk of data in its coarsest grid, and those evaluated at once, which caches hold.
PAIRS = 2**19
AT_ONCE = 2**15
SCOUTS = 64  # draws of the guide, and of the prior, that say where to integrate


@dataclass(frozen=True)
class Exact:
    """ln p(x) without Monte Carlo error: declared, enumerated, or by quadrature.

    1. Declared: `@program(log_evidence=...)`. Exact as far as the declaration is.
    2. All latents discrete: they are summed out. Exact to rounding. In an inner plate that is done one element after
       the other: a model that adds up (or multiplies, shifts) values along it is refused.
    3. One or two continuous latent dims (discrete ones beside them are summed out): adaptive quadrature in
       unconstrained space, which starts where draws of guide and prior lie. Not exact: `details["numerical_error"]`,
       per datum in nats, holds the rule's error, tails beyond the grid, the prior's mass that no node has met (the
       prior is integrated over the same panels, and must give 1) times the largest likelihood seen, and rounding.
       Peaks are searched for by Newton's steps from draws of both and from a grid; where densities have no gradients
       `details["method"]` says so. Importance sampling from prior and guide must not find more than the integral. A
       peak of the likelihood that no node, draw or climb has met, on a flank that falls off at once, is in no error.

    2 and 3 run in float64, and count the program's numbers as exact, where its code allows that.

    Args:
        tolerance: largest numerical error of a datum, nats, without rounding.

    Raises:
        ValueError: tolerance <= 0.

    Example:
        >>> import pyrovae as pv
        >>> from pyrovae.models.ground_truths import linear_gaussian
        >>> pair = linear_gaussian(8, latent_dim=2)
        >>> evidence = pv.evidence(pair.model, pair.guide, pair.x, estimators=[Exact()])
        >>> evidence["Exact"].symbol
        '≈'
    """

    name: ClassVar[str] = "Exact"
    direction: ClassVar[Direction] = "~"  # the value itself
    unbiased_for_p: ClassVar[bool] = False  # it is p(x), but no estimate: there is nothing to certify
    num_samples: ClassVar[int | None] = None  # none are drawn
    draws_from_guide: ClassVar[bool] = False  # it only says where to look

    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        if not self.tolerance > 0:
            raise ValueError(f"expected a tolerance > 0 nats, got {self.tolerance}")

    def normalises(self, program: Program) -> bool:
        """A declared log_evidence is ln p(x) itself, whatever the program's own density is."""
        return program.declaration.log_evidence is not None

    def run(self, program: Program, execution: Execution) -> PerDatum:
        """All data, in their order; variance and bias 0.

        Raises:
            ValueError: a program with no exact evidence, with the reason; an integral that is infinite, does not
                settle within the tolerance, or that draws contradict; a prior that is no density over its declared
                support; latents on a sphere; a declared evidence of another shape.
        """
        args = program.arguments
        with program.quiet():
            if program.declaration.log_evidence is not None:
                value, details = self._declared(program), {"method": "declared"}
                return _result(value, torch.zeros_like(value), details)
            with seeded(execution.seed, "exact", device=args.x.device):
                joint = Joint(program)
            if joint.dim > 2:
                raise ValueError(
                    f"expected 1-2 latent dims for quadrature, got {joint.dim}, and no exact evidence is declared; "
                    f"try {OTHERWISE}, or @program(log_evidence=...)"
                )
            found = []
            rows = max(1, PAIRS // 33**2) if joint.dim else PAIRS
            chunks = args.chunks(rows)
            for i, indices in enumerate(chunks):
                with seeded(execution.seed, "exact", i, device=args.x.device):
                    integral = self.integral(joint, indices)
                    refuse_unsettled(integral, indices, self.tolerance, joint=joint)
                    if joint.dim:
                        check_by_draws(joint, indices, integral, execution.seed, i)
                found.append(integral)
                execution.tell(int(indices[-1]) + 1, args.num_data)
        value, error = (torch.cat([getattr(part, name) for part in found]) for name in ("value", "error"))
        if not joint.dim:
            return _result(value, error, {"method": f"enumeration of {', '.join(joint.discrete)}"})
        method = f"quadrature, at most {max(part.nodes for part in found):,} nodes"
        if not all(part.climbed for part in found):
            method += ", no search for peaks: the densities have no gradients"
        return _result(value, error, {"method": method})

    def _declared(self, program: Program) -> Tensor:
        exact: Any = program.declaration.log_evidence
        store = store_of(program.model)
        value = (store.bind(exact) if store is not None else exact)(*program.arguments.whole())
        shape = (program.arguments.num_data,)
        if not isinstance(value, Tensor) or tuple(value.shape) != shape:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"expected the declared log_evidence to return {list(shape)}, got {got}")
        return value.double()

    def integral(self, joint: Joint, indices: Tensor, temperature: float = 1.0) -> Integral:
        """ln of the integral of p(x, z)^{1/T} over z, and its numerical error, `[n]`."""
        if not joint.dim:
            nowhere = torch.zeros(1, len(indices), 0, dtype=joint.dtype, device=indices.device)
            value = joint(indices, nowhere, temperature)[0].double()
            rounding = torch.finfo(joint.dtype).eps * (1 + torch.nan_to_num(value.abs(), posinf=0.0))
            return Integral(value, rounding, rounding, torch.zeros_like(value), 0)
        prior_draws = joint.prior_draws(indices, SCOUTS)
        guide_draws = _some(joint.draws(indices, SCOUTS))
        # A guide that reaches beyond the prior's support draws what has no place there.
        inside = guide_draws.isfinite().all(-1, keepdim=True)
        scouts = torch.stack([torch.where(inside, guide_draws, prior_draws), prior_draws])
        dtype, args = joint.dtype, joint.program.arguments
        normalised = not joint.program.factors and joint.program.declaration.density != "unnormalised"

        def log_densities(u: Tensor, rows: Tensor) -> Tensor:
            if args.calling != "sliced":  # its plate holds all data in any case
                whole = u.new_zeros(len(u), len(indices), u.shape[-1])
                whole[:, rows] = u
                u, given = whole, indices
            else:
                given = indices[rows]
            size = max(1, AT_ONCE // len(given))
            parts = [joint.with_prior(given, v.to(dtype), temperature) for v in u.split(size)]
            both = torch.cat(parts, 1)[: 1 + normalised]
            return both if args.calling == "sliced" else both[:, :, rows]

        scouts = scouts.double()
        mean = scouts[0].mean(0)
        spread = scouts[0] - mean
        covariance = torch.einsum("knd,kne->nde", spread, spread) / SCOUTS
        # A guide that has collapsed to a point still says where to look.
        floor = 1e-6 * (1 + mean.square().amax(-1))
        covariance = covariance + torch.diag_embed(floor.unsqueeze(-1).expand_as(mean))
        eps = torch.finfo(dtype).eps
        return integrate(
            log_densities,
            mean,
            covariance,
            self.tolerance,
            scouts,
            eps=eps,
            likelihood=temperature == 1,
            mapped=joint.mapped,
        )


def _some(draws: Tensor) -> Tensor:
    """Keeps as many draws as were asked for, where enumeration has made more."""
    return draws[:: len(draws) // SCOUTS][:SCOUTS]


def _result(value: Tensor, error: Tensor, details: dict[str, Any]) -> PerDatum:
    zero = torch.zeros_like(value)
    return PerDatum(value, zero, zero, details={**details, "numerical_error": error})
