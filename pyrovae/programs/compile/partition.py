"""Splits a traced computation by what its parts depend on, so that each part runs only as often as it must.

Of `ln w` for K samples of n data, the encoder depends on the data and the parameters alone, a
VampPrior's encoded pseudo-inputs on the parameters alone; what depends on the noise is the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx


@dataclass(frozen=True)
class Stage:
    """One part of a computation.

    Attributes:
        module: called with the values named in `inputs`; returns those named in `outputs`.
        inputs, outputs: names of values of the whole graph.
    """

    module: fx.GraphModule
    inputs: list[str]
    outputs: list[str]

    def run(self, known: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Its outputs by name, from values by name."""
        out = self.module(*(known[name] for name in self.inputs))
        return dict(zip(self.outputs, out, strict=True))


def placeholders(module: fx.GraphModule) -> list[str]:
    """Names of a flat graph's inputs, in order."""
    return [n.name for n in module.graph.nodes if n.op == "placeholder"]


def partition(module: fx.GraphModule, levels: Sequence[int]) -> list[Stage]:
    """Splits a flat graph into stages, each of which depends on no more inputs than it must.

    A node goes to the highest level among what it is made of. What only spreads a small value
    over more elements (an expansion over samples) stays with those who use it: it is cheaper to
    spread again than to keep.

    Args:
        module: flat tensors in, a flat list of tensors out.
        levels: of each placeholder: 0 for what changes least.

    Returns:
        One stage for each level from 0 to the highest.
    """
    nodes = list(module.graph.nodes)
    last = max(levels)
    level: dict[fx.Node, int] = {}
    holders = iter(levels)
    # What is written to in place must not be read at another time: such a graph stays in one piece.
    whole = any(getattr(getattr(n.target, "_schema", None), "is_mutable", False) for n in nodes)
    for node in nodes:
        if node.op == "placeholder":
            level[node] = next(holders)
        elif node.op == "output":
            continue
        elif whole:
            level[node] = last
        else:
            above = [level[a] for a in node.all_input_nodes]
            # A literal is a constant; what is made in the graph costs nothing, and may be large.
            literal = node.op == "get_attr" or _numel(node) <= 1
            own = max(above) if above else 0 if literal else last
            level[node] = last if _spreads(node) else own
    final = _flat(nodes[-1].args[0])
    stages = []
    for at in range(last + 1):
        wanted = {
            n
            for n in nodes
            if n.op not in ("placeholder", "output")
            and level[n] == at
            and (any(u.op != "output" and level[u] > at for u in n.users) or (at < last and n in final))
        }
        stages.append(
            _extract(module, nodes, level, at, final if at == last else sorted(wanted, key=nodes.index))
        )
    return stages


def _flat(value: object) -> list[fx.Node]:
    return [v for v in (value if isinstance(value, list | tuple) else [value]) if isinstance(v, fx.Node)]


def _numel(node: fx.Node) -> int:
    value = node.meta.get("val")
    return math.prod(value.shape) if isinstance(value, Tensor) else 0


_PRODUCTS = {
    getattr(torch.ops.aten, name).default
    for name in (
        "mm",
        "addmm",
        "bmm",
        "baddbmm",
        "convolution",
        "linalg_cholesky_ex",
        "linalg_solve_triangular",
    )
}


def _spreads(node: fx.Node) -> bool:
    """Whether a node's result is larger than all it is made of, without being worth keeping."""
    inputs = node.all_input_nodes
    # What returns several tensors has no size of its own, and its elements stay with it.
    if (
        not inputs
        or node.target in _PRODUCTS
        or not all(isinstance(n.meta.get("val"), Tensor) for n in inputs)
    ):
        return False
    return _numel(node) > sum(map(_numel, inputs))


def _extract(
    module: fx.GraphModule,
    nodes: list[fx.Node],
    level: dict[fx.Node, int],
    at: int,
    outputs: Sequence[fx.Node],
) -> Stage:
    graph = fx.Graph()
    own = [n for n in nodes if n.op not in ("placeholder", "output") and level[n] == at]
    needed = dict.fromkeys(
        a for n in own for a in n.all_input_nodes if a.op == "placeholder" or level[a] != at
    )
    needed |= dict.fromkeys(o for o in outputs if o.op == "placeholder" or level[o] != at)
    copies: dict[fx.Node, fx.Node] = {}
    for node in needed:
        copies[node] = graph.placeholder(node.name)
        copies[node].meta = dict(node.meta)
    for node in own:
        copies[node] = graph.node_copy(node, lambda n: copies[n])
    graph.output([copies[o] for o in outputs])
    graph.lint()
    part = fx.GraphModule(module, graph)
    return Stage(part, [n.name for n in needed], [o.name for o in outputs])
