"""Exact evidence, where a program has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pyro
import torch
from torch import Tensor

from ..programs import Program, module_mode, seeded, store_of
from ..programs.joint import Joint
from .estimators import Direction, PerDatum
from .quadrature import integrate

# (datum, node) pairs evaluated at once.
PAIRS = 2**19
SCOUTS = 64  # draws of the guide that say where to integrate


@dataclass(frozen=True)
class Exact:
    """ln p(x) without Monte Carlo: declared, enumerated, or by quadrature.

    1. Declared: `@program(log_evidence=...)`.
    2. All latents discrete: they are summed out.
    3. One or two continuous latent dims (discrete ones beside them are summed out): the trapezoidal
       rule in unconstrained space, centred where the guide looks. `details["numerical_error"]` is the
       change from half as many nodes, per datum.

    Args:
        tolerance: largest numerical error of a datum, nats.

    Raises:
        ValueError: tolerance <= 0.
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

    def run(
        self,
        program: Program,
        *,
        seed: int,
        budget: int | None = None,
        compile: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> PerDatum:
        """All data, in their order; variance and bias 0.

        Raises:
            ValueError: a program with no exact evidence, with the reason; an integral that does not
                settle within the tolerance; a declared evidence of another shape.
        """
        args = program.arguments
        with (
            torch.no_grad(),
            module_mode(program.model, program.guide, training=False),
            pyro.validation_enabled(False),
        ):
            if program.declaration.log_evidence is not None:
                value, details = self._declared(program), {"method": "declared"}
                return _result(value, torch.zeros_like(value), details)
            with seeded(seed, "exact", device=args.x.device):
                joint = Joint(program)
            if joint.dim > 2:
                raise ValueError(
                    f"expected 1-2 latent dims for quadrature, got {joint.dim}, and no exact evidence is declared; "
                    "try pv.IS, pv.AIS, or @program(log_evidence=...)"
                )
            values, errors, nodes = [], [], 0
            rows = max(1, PAIRS // 33**2) if joint.dim else PAIRS
            chunks = args.chunks(rows)
            for i, indices in enumerate(chunks):
                with seeded(seed, "exact", i, device=args.x.device):
                    value, error, used = self.integral(joint, indices)
                values.append(value)
                errors.append(error)
                nodes = max(nodes, used)
                if progress is not None:
                    progress(int(indices[-1]) + 1, args.num_data)
        value, error = torch.cat(values), torch.cat(errors)
        if not joint.dim:
            return _result(value, error, {"method": f"enumeration of {', '.join(joint.discrete)}"})
        bad = ~(error <= self.tolerance)
        if bool(bad.any()):
            worst = int(torch.nan_to_num(error, nan=torch.inf).argmax())
            raise ValueError(
                f"expected an integral that settles within {self.tolerance:g} nats, got a change of "
                f"{error[worst]:.2g} nats for datum {worst} ({int(bad.sum())} of {len(bad)} data) with {nodes} "
                "nodes a dim; try a guide that is closer to the posterior, or a larger tolerance"
            )
        return _result(value, error, {"method": f"quadrature, {nodes} nodes a dim"})

    def _declared(self, program: Program) -> Tensor:
        exact: Any = program.declaration.log_evidence
        store = store_of(program.model)
        value = (store.bind(exact) if store is not None else exact)(*program.arguments.whole())
        shape = (program.arguments.num_data,)
        if not isinstance(value, Tensor) or tuple(value.shape) != shape:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"expected the declared log_evidence to return {list(shape)}, got {got}")
        return value.double()

    def integral(self, joint: Joint, indices: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor, int]:
        """ln of the integral of p(x, z)^{1/T} over z, its numerical error, both `[n]`, and nodes a dim."""
        if not joint.dim:
            nowhere = torch.zeros(1, len(indices), 0, device=indices.device)
            value = joint(indices, nowhere, temperature).double()[0]
            return value, torch.zeros_like(value), 0
        draws = joint.draws(indices, SCOUTS)
        dtype = draws.dtype

        def log_density(u: Tensor) -> Tensor:
            size = max(1, PAIRS // len(indices))
            return torch.cat([joint(indices, part.to(dtype), temperature) for part in u.split(size)])

        mean = draws.double().mean(0)
        spread = draws.double() - mean
        covariance = torch.einsum("knd,kne->nde", spread, spread) / SCOUTS
        # A guide that has collapsed to a point still says where to look.
        floor = 1e-6 * (1 + mean.square().amax(-1))
        covariance = covariance + torch.diag_embed(floor.unsqueeze(-1).expand_as(mean))
        integral = integrate(log_density, mean, covariance, self.tolerance)
        return integral.value, integral.error, integral.nodes


def _result(value: Tensor, error: Tensor, details: dict[str, Any]) -> PerDatum:
    zero = torch.zeros_like(value)
    return PerDatum(value, zero, zero, details={**details, "numerical_error": error})
