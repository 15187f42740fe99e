"""A batch divided into micro-batches, some of them on other ranks, that makes the step of the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..objectives.compile.compiled import CompiledObjective
from ..objectives.free_bits import FreeBits
from ..programs import seeded
from ..programs.compile.inputs import signature
from .bucket import Bucket
from .noise import WholeNoise, datum_dims
from .world import World

# Sizes of batches on which a program shows how it treats data, before anything is trained.
LOOK = (3, 6)
Make = Callable[[tuple[Any, ...], bool], CompiledObjective]  # for rows of these shapes; with generated code?


@dataclass(frozen=True)
class Split:
    """How a batch is divided.

    Args:
        world: the ranks; default: this process alone.
        accumulate: micro-batches of each rank, one after the other, for batches that do not fit.
        bitwise: add up micro-batches in a fixed order. A run is then bit for bit the same for every
            number of ranks with the same `world.size * accumulate` (and threads a rank); else equal to rounding.

    Raises:
        ValueError: accumulate < 1.
    """

    world: World = field(default_factory=World)
    accumulate: int = 1
    bitwise: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.accumulate, int) or self.accumulate < 1:
            raise ValueError(f"expected accumulate to be a whole number >= 1, got {self.accumulate!r}")

    @property
    def parts(self) -> int:
        """Micro-batches of a batch."""
        return self.world.size * self.accumulate

    @property
    def about(self) -> dict[str, Any]:
        """Settings that all ranks must have in common; the order of sums within a product is the threads'."""
        threads = torch.get_num_threads() if self.bitwise else None
        return {
            "number of ranks": self.world.size,
            "accumulate": self.accumulate,
            "bitwise": self.bitwise,
            "threads": threads,
        }

    def check_batch(self, batch_size: int) -> None:
        """Refuses batches with less than one datum a micro-batch.

        Raises:
            ValueError: naming both.
        """
        if batch_size < self.parts:
            raise ValueError(
                f"expected a batch of at least one datum for each of {self.parts} micro-batches "
                f"({self.world.size} ranks x accumulate {self.accumulate}), got batch_size={batch_size}; try a larger "
                "batch, or fewer ranks"
            )

    def pieces(self, size: int) -> list[tuple[int, int]]:
        """(start, number of data) of each micro-batch of a batch of `size`, on all ranks in turn."""
        each, more = divmod(size, self.parts)
        sizes = [each + (i < more) for i in range(self.parts)]
        return [(sum(sizes[:i]), n) for i, n in enumerate(sizes)]

    def own(self, size: int) -> list[tuple[int, int]]:
        """Places and sizes of this rank's pieces."""
        first = self.world.rank * self.accumulate
        return self.pieces(size)[first : first + self.accumulate]


class SplitObjective:
    """Loss and gradients of a whole batch from this rank's rows of it: a `CompiledObjective` for a step.

    Noise is drawn for the whole batch on each rank, and the part of this rank's data is used: the sum
    over micro-batches is that of the undivided batch under the same seed.

    Args:
        make: the objective for rows of given shapes.
        rows: `(x, *context)` of a whole batch.
        split: how it is divided.
        dims: of its noise; see `look`.
        scaled: whether the program scales its loss from the batch to all data, so that a micro-batch
            counts by its share of the batch.
        bucket: shared by batches of all sizes.
        beta: likewise.

    Attributes:
        size: of a whole batch.
        own: this rank's rows of it.
        key, parameters, beta: as of `CompiledObjective`, of whole batches.
        generated: whether its graphs run as generated code, or as they were traced.
    """

    def __init__(
        self,
        make: Make,
        rows: tuple[Any, ...],
        split: Split,
        dims: Sequence[int | None],
        scaled: bool,
        compile: bool,
        former: SplitObjective | None = None,
    ) -> None:
        size = self.size = len(rows[0])
        pieces = split.own(size)
        begin = pieces[0][0]
        self.own = slice(begin, pieces[-1][0] + pieces[-1][1])
        self.key = signature(rows)
        self.generated = compile
        self._pieces = [(part, start, n) for part, (start, n) in enumerate(pieces) if n]
        self._shares = {n: n / size if scaled else 1.0 for _, _, n in self._pieces}
        sizes = sorted({n for _, _, n in self._pieces}) or [1]  # a rank may have no row of a last batch
        self._of = {n: make(tuple(r[:n] for r in rows), compile) for n in sizes}
        some = self._of[sizes[0]]
        self.parameters = some.parameters
        self.bucket: Bucket
        if former is None:
            self.bucket = Bucket(self.parameters, split.world, split.accumulate, split.bitwise)
        else:
            self.bucket = former.bucket
        source = some if former is None else next(iter(former._of.values()))
        self.beta = source.beta
        for each in self._of.values():
            each.share_beta(source)
        self._fill = source.fill_beta
        self.noise = WholeNoise(some.graph.graph.noise, dims, size)

    def changed(self) -> str | None:
        """Difference of what the program reads from what it read when it was compiled; None without one."""
        return next(filter(None, (each.changed() for each in self._of.values())), None)

    def parts(self, rows: tuple[Any, ...]) -> list[tuple[CompiledObjective, tuple[Any, ...]]]:
        """Each graph, and rows of its size."""
        return [(each, tuple(r[:n] for r in rows)) for n, each in self._of.items()]

    def fill_beta(self) -> None:
        """Puts the objective's KL weight of now into the graphs'."""
        self._fill()

    def at_beta(self, *args: Any) -> Tensor:
        """The whole batch's loss from this rank's rows; gradients go into `.grad`."""
        self.noise.draw()
        self.bucket.clear()
        begin = self.own.start
        for part, start, n in self._pieces:
            graph = self._of[n]
            self.noise.into(graph.graph.noise, start, n)
            loss, gradients = graph.evaluate(*(a[start - begin : start - begin + n] for a in args))
            self.bucket.add(part, loss, gradients, self._shares[n])
        self.bucket.reduce()
        for p, gradient in zip(self.parameters, self.bucket.gradients, strict=True):
            p.grad = gradient
        return self.bucket.loss


def look(make: Make, rows: tuple[Any, ...], objective: Any, scaled: bool) -> list[int | None]:
    """Finds the dim of each draw that is the data's, and checks that a batch's loss is the sum of its parts'.

    Raises:
        ValueError: for free bits, a program whose data are not independent given their noise, or
            draws that cannot be divided.
    """
    at: Any = objective
    while at is not None:
        if isinstance(at, FreeBits):
            raise ValueError(
                "expected a loss that is a sum over data for several ranks or micro-batches, got free bits, whose "
                "maximum is of the whole batch; try free_bits=0, or one rank without accumulation"
            )
        at = getattr(at, "base", None)
    few, many = LOOK
    rows = tuple(r[torch.arange(many, device=r.device) % len(r)] for r in rows)
    whole, half = make(rows, False), make(tuple(r[:few] for r in rows), False)
    dims = datum_dims(half.graph.graph.noise, whole.graph.graph.noise, LOOK)
    noise = WholeNoise(half.graph.graph.noise, dims, many)
    with seeded(0, "split", device=rows[0].device):
        noise.draw()
    sums: list[list[Tensor]] = []
    for graph, n in ((whole, many), (half, few)):
        graph.fill_beta()
        parts = []
        for start in range(0, many, n):
            noise.into(graph.graph.noise, start, n)
            loss, gradients = graph.evaluate(*(r[start : start + n] for r in rows))
            share = n / many if scaled else 1.0
            parts.append([share * t.double() for t in (loss, *gradients)])
        sums.append([torch.stack(p).sum(0) for p in zip(*parts, strict=True)])
    for one, other in zip(*sums, strict=True):
        size = max(float(one.abs().max()), 1e-3)
        if not float((one - other).abs().max()) <= 1e-3 * size:
            raise ValueError(
                "expected a loss that is a sum over data, so that a batch can be divided, got one that is not: its "
                "data know of each other (normalisation over the batch, a mean in place of a sum); try one rank "
                "without accumulation"
            )
    return dims
