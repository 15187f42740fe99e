"""Noise of a traced computation: taken out of it, and drawn before it runs.

torch's generator draws normals five times faster than generated code does, and a graph without hidden state can be
captured, compared and replayed. A draw whose law the computation gives (a Gamma's concentration) becomes an input
as well: what its law depends on runs before it, so that all is drawn in the order of an eager run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from ..watch.undisturbed import UntraceableError

aten = torch.ops.aten

# How `draw(out)` fills a tensor in place, where numbers alone say its law.
_LIFTED: dict[Any, Callable[..., Tensor]] = {
    aten.normal_.default: Tensor.normal_,
    aten.randn.default: Tensor.normal_,
    aten.randn_like.default: Tensor.normal_,
    aten.uniform_.default: Tensor.uniform_,
    aten.rand.default: Tensor.uniform_,
    aten.rand_like.default: Tensor.uniform_,
    aten.bernoulli_.float: Tensor.bernoulli_,
    aten.exponential_.default: Tensor.exponential_,
    aten.cauchy_.default: Tensor.cauchy_,
    # A plate's subsample: drawn also where a program does not use the indices.
    aten.randperm.default: lambda out: torch.randperm(len(out), out=out),
}
_BOUNDED = {aten.normal_.default, aten.uniform_.default, aten.bernoulli_.float}
_BOUNDED |= {aten.exponential_.default, aten.cauchy_.default}


def _draw_within(draw: Callable[..., Tensor], bounds: tuple[float, ...], out: Tensor) -> Tensor:
    return draw(out, *bounds)


@dataclass(frozen=True)
class Noise:
    """One draw: a tensor to be filled before each run of the graph.

    Attributes:
        like: a tensor of its shape.
        draw: fills a tensor in place, where numbers alone say its law.
        law: draws from the graph's inputs before it and the noise before it, where those say its law.
    """

    like: Tensor
    draw: Callable[[Tensor], Tensor] = Tensor.normal_
    law: fx.GraphModule | None = None

    def buffer(self) -> Tensor:
        """A tensor of its shape, to be filled in place."""
        return torch.empty(self.like.shape, dtype=self.like.dtype, device=self.like.device)

    def fill(self, buffer: Tensor, before: Sequence[Tensor]) -> None:
        """Draws into a buffer; `before` are the graph's inputs but for the noise from here on."""
        if self.law is None:
            self.draw(buffer)
        else:
            buffer.copy_(self.law(*before))

    def about(self) -> tuple[Any, ...]:
        """All that it depends on, for a comparison."""
        draw: Any = self.draw
        how = (draw.func, draw.args) if isinstance(draw, functools.partial) else draw
        law = None if self.law is None else self.law.code
        return self.like.shape, self.like.dtype, self.like.device, how, law


def new_input(module: fx.GraphModule, name: str, instead: fx.Node) -> fx.Node:
    """A further input of a graph in the place of a node, which is left without a use."""
    last = [n for n in module.graph.nodes if n.op == "placeholder"][-1]
    with module.graph.inserting_after(last):
        node = module.graph.placeholder(name)
    node.meta = dict(instead.meta)
    instead.replace_all_uses_with(node)
    return node


def lift_noise(module: fx.GraphModule, places: Mapping[Any, str], laws: bool) -> list[Noise]:
    """Makes each draw of a graph an input of it; in the order in which an eager run draws.

    Args:
        module: whose last inputs become the noise.
        places: of operations that draw, where the program draws by them.
        laws: draws may have a law that the graph computes.

    Raises:
        UntraceableError: for a draw that cannot be made before the graph runs.
    """
    drawn: list[tuple[fx.Node, Any, fx.Node]] = []
    for node in list(module.graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        if torch.Tag.nondeterministic_seeded not in node.target.tags:
            continue
        draw = _LIFTED.get(node.target)
        bounds = node.args[1:] if node.target in _BOUNDED else ()
        if node.kwargs.get("generator") is not None:
            raise UntraceableError("it draws from a generator of its own")
        if draw is None or not all(isinstance(b, int | float) for b in bounds):
            if not laws or node.target._schema.is_mutable or not isinstance(node.meta["val"], Tensor):
                at = places.get(node.target, "")
                raise UntraceableError(
                    f"it draws by {node.target}{at}, which cannot be drawn before a graph runs"
                )
            draw = None
        elif bounds:  # (mean, std) of a normal, (low, high) of a uniform
            draw = functools.partial(_draw_within, draw, bounds)
        drawn.append((node, draw, new_input(module, f"noise_{len(drawn) + 1}", node)))
    inputs = [n for n in module.graph.nodes if n.op == "placeholder"]
    noise = []
    for node, draw, taken in drawn:
        like = node.meta["val"]
        if draw is None:
            noise.append(Noise(like, law=_law(module, node, inputs[: inputs.index(taken)])))
        else:
            noise.append(Noise(like, draw))
    for node, _, _ in reversed(drawn):
        module.graph.erase_node(node)
    # What made the tensor that was filled is of no use now.
    for node in reversed(list(module.graph.nodes)):
        if node.target is aten.empty.memory_format and not node.users:
            module.graph.erase_node(node)
    return noise


def _law(module: fx.GraphModule, node: fx.Node, inputs: Sequence[fx.Node]) -> fx.GraphModule:
    """The draw alone, from the inputs of the graph that come before it."""
    wanted, waiting = {node}, [node]
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source not in wanted:
                wanted.add(source)
                waiting.append(source)
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {place: graph.placeholder(place.name) for place in inputs}
    for each in module.graph.nodes:
        if each in wanted and each not in copies:
            copies[each] = graph.node_copy(each, copies.__getitem__)
    graph.output(copies[node])
    return fx.GraphModule(module, graph)
