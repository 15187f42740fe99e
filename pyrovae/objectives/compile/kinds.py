"""The kinds of arguments that a program is given, and the graph that serves each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ...programs.compile.inputs import Inputs
from .compiled import CompiledObjective

# Graphs of one program, each of which takes seconds to make.
GRAPHS = 4
# Kinds that are told apart.
KINDS = 16

Seen = tuple[Mapping[str, Tensor], list[nn.Module]]


class Kinds:
    """Graphs by the kind of arguments they serve: structure, shapes, and values of what is no number and no tensor.

    Attributes:
        graphs: the one that was used last comes first.
        tries: so many kinds were compiled, or found to be none that can be.
    """

    def __init__(self) -> None:
        self.graphs: list[CompiledObjective] = []
        self.tries = 0
        self._counts: dict[Any, int] = {}
        self._seen: dict[Any, Seen] = {}
        self._tried: set[Any] = set()
        self._last: dict[Any, Any] = {}
        self._more = False

    def graph_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> CompiledObjective | None:
        """The graph that serves these arguments."""
        for i, graph in enumerate(self.graphs):
            if graph.inputs.fits(args, kwargs):
                if i:
                    self.graphs.insert(0, self.graphs.pop(i))
                return graph
        return None

    def ran(self, args: tuple[Any, ...], kwargs: dict[str, Any], seen: Seen) -> None:
        """Counts an eager step, and the parameters and modules that were seen in it."""
        kind = self._kind(args, kwargs)
        if kind not in self._counts and len(self._counts) == KINDS:
            self._more = True
            return
        self._counts[kind] = self._counts.get(kind, 0) + 1
        self._seen[kind] = seen
        self._last[kind] = self._kind(args, kwargs, hold=True)

    def due(self, args: tuple[Any, ...], kwargs: dict[str, Any], after: int) -> tuple[Seen, bool] | None:
        """Parameters and modules for a graph of these arguments, and whether their whole numbers are as before.

        None before `after` steps of this kind, and where it was tried, or enough others.
        """
        kind = self._kind(args, kwargs)
        if self._counts.get(kind, 0) < after or self.tries == GRAPHS:
            return None
        held = self._kind(args, kwargs, hold=True)
        same = self._last.get(kind) == held
        if (kind if not same else held) in self._tried:
            return None
        self._tried |= {kind, held} if same else {kind}
        self.tries += 1
        return self._seen[kind], same

    def too_many(self) -> str | None:
        """Why some kinds are not compiled; None where all may be."""
        more = len(self._counts.keys() - self._tried) if self.tries == GRAPHS else 0
        if not more and not self._more:
            return None
        return (
            f"arguments of more than {GRAPHS if more else KINDS} kinds came (shapes, or values of what is neither a "
            "number nor a tensor), and steps of the others run eagerly; try fewer shapes, or numbers as tensors"
        )

    def _kind(self, args: tuple[Any, ...], kwargs: dict[str, Any], hold: bool = False) -> Any:
        lift = self.graphs[0].inputs.lift if self.graphs else "numbers"
        return Inputs(args, kwargs, lift, hold=hold).key
