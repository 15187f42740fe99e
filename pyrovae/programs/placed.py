"""Programs that were made on a CPU, run on another device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .layers import around
from .watch.reach import Reach
from .watch.reachable import search
from .watch.reading import Ran

Program = Callable[..., Any]


def placed(
    model: Program, guide: Program, device: torch.device, *, tensors: bool = False
) -> tuple[Program, Program]:
    """A pair for data on `device`: its modules are moved there, and its lines make their tensors there.

    A program is found as its author wrote it for a CPU: networks in closures or globals, `torch.zeros(2)` that names no
    device.

    Args:
        model, guide: whose modules are moved, in place, wherever they hold them.
        device: of the data.
        tensors: names of their code (globals, closures, attributes, elements) that stand for a tensor elsewhere stand
            for a copy there from now on. They may be names of other code, too.
    """
    held = search(Ran(None), {"model": model, "guide": guide})
    for module in held.modules:
        module.to(device)
    if tensors:
        _rename(held, device)
    if device.type == "cpu":
        return model, guide
    return _making_there(model, device), _making_there(guide, device)


def _rename(held: Reach, device: torch.device) -> None:
    copies = {key: _copy(t, device) for key, t in held.tensors.items() if t.device.type != device.type}
    for owner, name, _ in held.fields:
        there = copies.get(id(getattr(owner, name, None)))
        if there is not None:
            setattr(owner, name, there)
    for owner, keys, _ in held.places:
        named: Iterable[Any]
        if isinstance(owner, dict):
            named = list(owner) if keys is None else keys
        elif isinstance(owner, list):
            named = range(len(owner))
        else:
            continue
        for key in named:
            there = copies.get(id(owner[key]))
            if there is not None:
                owner[key] = there


def _copy(tensor: Tensor, device: torch.device) -> Tensor:
    there = tensor.detach().to(device)
    return (
        nn.Parameter(there)
        if isinstance(tensor, nn.Parameter)
        else there.requires_grad_(tensor.requires_grad)
    )


def _making_there(program: Program, device: torch.device) -> Program:
    def run(*args: Any, **kwargs: Any) -> Any:
        with torch.device(device):
            return program(*args, **kwargs)

    return around(program, run)
