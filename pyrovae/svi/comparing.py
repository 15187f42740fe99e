"""A compiled step beside an eager one, under the same noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.infer.util import torch_item
from torch import Tensor

from ..devices import noise_state, put_back
from ..objectives.compile.agreement import disagreement
from ..objectives.compile.compiled import CompiledObjective

Eager = Callable[[tuple[Any, ...], dict[str, Any]], tuple[Any, list[Tensor]]]


def compared(
    compiled: CompiledObjective, eager: Eager, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> str | None:
    """Difference in loss, gradients or noise between the compiled step and the program; None where they agree.

    Generators and gradients are after as they were before.

    Args:
        compiled: loss and gradients in one graph.
        eager: gives the program's loss, and the parameters that it asked for, with gradients in `.grad`.
        args, kwargs: of both.
    """
    device, grads = compiled.device, {p: p.grad for p in compiled.graph.leaves}
    state = noise_state(device)
    for p in grads:
        p.grad = None
    try:
        loss, used = eager(args, kwargs)
        theirs = {id(p): p.grad for p in {*used, *grads}}
        after = noise_state(device)
        put_back(state, device)
        tensors = compiled.inputs.tensors(args, kwargs)
        compiled.fill_beta()
        compiled.draw(*tensors)
        ours = compiled.evaluate(*tensors)
        drawn = noise_state(device)
        why = disagreement(
            (torch_item(loss), theirs), ours, compiled.graph.used, lambda: compiled.moved(*tensors)
        )
        if why is None and not all(map(torch.equal, after, drawn)):
            why = "the program as it is now draws other random numbers"
    finally:
        put_back(state, device)
        for p, grad in grads.items():
            p.grad = grad
    return why
