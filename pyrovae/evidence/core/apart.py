"""Programs whose numbers for one sample depend on the others: seen among many draws, and refused."""

from __future__ import annotations

from torch import Tensor

from ...programs import Program
from ...programs.memory import bytes_per_pair
from ...programs.particles.alone import AloneError, agree
from ...programs.sites import Sites

# Looked at before anything is estimated, as far as they fit into so many bytes.
DATA, SAMPLES, FEW = 20, 1000, 8
BYTES = 2**28


class Apart:
    """Refuses a program whose numbers for one sample depend on the others that are run beside it.

    `inspect_program` compares a few draws; what goes by all of them at once (`if z.abs().max() > 3:`) shows among many.
    Compared are some samples of runs 1, 2, 4, ...; of every run where the program takes numbers into Python.

    Args:
        program: of `inspect_program`.
    """

    def __init__(self, program: Program) -> None:
        self.program, self.runs = program, 0

    def run(self, indices: Tensor, num_samples: int) -> Sites:
        """Runs as `program.run` does.

        Raises:
            ValueError: for such a program.
        """
        self.runs += 1
        sites = self.program.run(indices, num_samples)
        if self.program.vectorised and (self.program.takes or self.runs & (self.runs - 1) == 0):
            self._check(indices, sites, num_samples)
        return sites

    def _check(self, indices: Tensor, sites: Sites, count: int) -> None:
        if count < 2 or sites.traces is None:
            return
        try:
            right = agree(self.program, indices, sites, {0, count // 2, count - 1})
        except AloneError:
            right = False
        if not right:
            raise ValueError(
                f"expected a program whose log-density of one sample is its own, got other numbers among {count:,} "
                f"samples of {len(indices):,} data than alone: something in it goes by all of them at once, as a "
                "Python `if` on z.max() does; try torch.where, element by element"
            )


def check_apart(program: Program) -> None:
    """Holds a program that takes numbers into Python, as an `if` does, to what `Apart` asks, among many draws.

    Raises:
        ValueError: for a program whose numbers for one sample depend on the others.
    """
    if not program.takes:
        return
    rows = program.arguments.chunks(min(DATA, program.arguments.num_data))[0]
    with program.quiet(0, "apart"):
        fit = BYTES // (bytes_per_pair(program) * len(rows))
        Apart(program).run(rows, min(SAMPLES, max(FEW, fit)))
