"""ln p(x) of an unnormalised program, by an estimate of its ln Z."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from ...programs import Program, annealed_family, module_mode
from ..core.direction import REVERSED, Direction
from ..core.estimator import PerDatum
from ..core.execution import Execution
from .log_partition import LogPartition, log_partition, path_of

ROWS = 4096


@dataclass(frozen=True)
class Normalised:
    """ln p(x) = -F(x) - ln Z, with an estimate of ln Z: ITS direction, turned round.

    ln Z by AIS is too small on average, so ln p(x) is OVERSTATED (`">="`: printed as "≤"); by AIS backwards from exact
    draws it is understated (`"<="`); with an exact ln Z it is exact. One ln Ẑ serves all data: its error is that
    of their mean too, and no certificate is given, since the p̂(x_n) are not independent.

    Args:
        log_partition: of `pv.log_partition` or `RBM.exact_log_partition`; default: AIS, run here.
        betas, num_chains: of that.

    Raises:
        ValueError: fewer than 2 temperatures or chains.

    Example:
        >>> import pyrovae as pv
        >>> from pyrovae.models.boltzmann import RBM
        >>> import torch
        >>> machine, x = RBM(6, num_hidden=4), torch.zeros(3, 6)
        >>> evidence = pv.evidence(machine.model, machine.guide, x, estimators=[Normalised(betas=20, num_chains=10)])
        >>> evidence["Normalised"].symbol
        '≤'
    """

    name: ClassVar[str] = "Normalised"
    unbiased_for_p: ClassVar[bool] = False
    num_samples: ClassVar[int | None] = None
    draws_from_guide: ClassVar[bool] = False

    log_partition: LogPartition | None = field(default=None)
    betas: int = 10_000
    num_chains: int = 100

    def __post_init__(self) -> None:
        path_of(self.betas)
        if self.num_chains < 2:
            raise ValueError(f"expected at least 2 chains, which the error is made of, got {self.num_chains}")

    @property
    def direction(self) -> Direction:
        """Direction of -ln Ẑ."""
        return ">=" if self.log_partition is None else REVERSED[self.log_partition.direction]

    def normalises(self, program: Program) -> bool:
        """Whatever the program's density is."""
        return True

    def run(self, program: Program, execution: Execution) -> PerDatum:
        """All data, in their order.

        Raises:
            ValueError: a program that does not declare its annealed family.
        """
        found = self.log_partition
        if found is None:
            found = log_partition(
                program.model,
                betas=self.betas,
                num_chains=self.num_chains,
                seed=execution.seed,
                progress=execution.progress,
            )
        x = program.arguments.x
        with (
            annealed_family(program.model) as family,
            torch.no_grad(),
            module_mode(program.model, training=False),
        ):
            free = torch.cat([family.free_energy(rows).double() for rows in x.split(ROWS)])
        details: dict[str, Any] = {
            "method": found.method,
            "log_partition": found.value,
            "shared_error": found.error,
        }
        if found.num_chains:
            details |= {
                "num_temperatures": found.num_temperatures,
                "num_chains": found.num_chains,
                "partition_ess": found.ess,
            }
        zero = torch.zeros_like(free)
        unknown = torch.zeros_like(free) if found.direction == "~" else torch.full_like(free, torch.nan)
        return PerDatum(-free - found.value, zero, unknown, details=details)
