"""A traced graph that stays on its device: what a program made on the CPU is made there from the start."""

from __future__ import annotations

import torch
from torch import Tensor, fx


def stay_on(module: fx.GraphModule, device: torch.device) -> None:
    """Moves literals and tensors that the graph makes to `device`, and drops what nobody uses.

    Pyro adds to zeros of the CPU, and programs write `torch.tensor(0.5)`: eagerly a number that is copied at each use,
    in a captured graph a copy that is not allowed. All inputs are on `device`, so nothing else is left on a CPU.
    """
    module.graph.eliminate_dead_code()
    if device.type != "cpu":
        for node in module.graph.nodes:
            if "device" in node.kwargs:
                node.kwargs = {**node.kwargs, "device": device}
            literal = getattr(module, str(node.target)) if node.op == "get_attr" else None
            if isinstance(literal, Tensor):
                setattr(module, str(node.target), literal.to(device))
    module.recompile()
