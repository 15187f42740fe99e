"""What the rows should show: ratios of minima, with the limits that the project set itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import importance
import scaling
import steps
import streaming
from settings import Settings
from timing import Row


@dataclass(frozen=True)
class Target:
    """`above` / `below`, rows of the cases whose name has `case` in it; at most, or at least, `limit`."""

    what: str
    case: str
    above: str
    below: str
    limit: float
    at_most: bool = True

    def measured(self, rows: list[Row]) -> Iterator[tuple[str, float]]:
        """`(case, ratio)` of each case that has both rows."""
        for case in dict.fromkeys(r.case for r in rows if self.case in r.case):
            least = {r.what: r.least for r in rows if r.case == case}
            above, below = least.get(self.above), least.get(self.below)
            if above is not None and below is not None:
                yield case, above / below

    def met(self, ratio: float) -> bool:
        return ratio <= self.limit if self.at_most else ratio >= self.limit


def targets(settings: Settings) -> list[Target]:
    """On this device. Ratios to peers and to the hand-written step are held at one size of network."""
    ours, compiled = settings.ours, importance.COMPILED
    step, eager, floor = "SVI step, 784", "pyro.infer.SVI, validation off", "products and Adam alone"
    ranks = "weak scaling, 2" if settings.device.type == "cpu" else "weak scaling"
    cuda = settings.device.type == "cuda"
    out = [
        Target("compiled step / by hand", step, ours, "PyTorch by hand, torch.compile", 1.05),
        Target("compiled step / by hand", "ladder", ours, "PyTorch by hand, torch.compile", 1.1),
        Target("compiled step / by hand", "diffusion", ours, "PyTorch by hand, torch.compile", 1.1),
        Target("watch / compiled step", step, steps.WATCH, ours, 0.01),
        Target("compiled step / NumPyro", step, ours, "NumPyro, jitted", 1.0),
        Target(
            "generic compiled route, share of the floor",
            "IS, decoder",
            importance.FLOOR,
            compiled,
            0.65,
            False,
        ),
        Target("Pyro's weights / ours", "IS, decoder", "vectorized_importance_weights", compiled, 1.7, False),
        Target("Pythae get_nll / ours", "IS, decoder", importance.PYTHAE, compiled, 25, False),
        Target("VampPrior / standard, compiled", "IS, decoder", importance.VAMP_COMPILED, compiled, 2.5),
        Target("VampPrior / standard, eager", "IS, decoder", importance.VAMP_EAGER, importance.EAGER, 2.5),
        Target("communication over the ceiling", ranks, scaling.TOGETHER, scaling.CEILING, 1.2),
        Target(
            "mapped data, share of in-memory speed",
            "streamed",
            streaming.MEMORY,
            streaming.MAPPED,
            0.9,
            False,
        ),
        Target(
            "worker's data, share of in-memory speed",
            "streamed",
            streaming.MEMORY,
            streaming.WORKER,
            0.9,
            False,
        ),
    ]
    if cuda:
        # As NumPyro's, whose losses nobody reads either.
        lazy = Target("compiled step, losses read later / NumPyro", step, steps.LAZY, "NumPyro, jitted", 1.0)
        return [Target("Pyro / compiled step", "SVI step, 784-400", eager, steps.LAZY, 40, False), lazy, *out]
    return [
        Target("Pyro / compiled step", "SVI step, 784-400", eager, ours, 1.9, False),
        Target("Pyro / compiled step", "SVI step, 784-200", eager, ours, 2.2, False),
        Target("compiled step / floor", "SVI step, 784-400", ours, floor, 1.25),
        *out,
    ]
