"""State that no comparison can watch."""

from __future__ import annotations

import types
from collections.abc import Iterable

from torch import Tensor

from .ambient import hooks_of_all_modules
from .reach import Reach
from .reading import Ran
from .trust import CLOCKS

# Bytes of NumPy arrays that are compared at each step.
SMALL = 4096
# Numbers of a tensor that are compared at each step, where they were taken into Python.
NUMBERS = 256
# Where a program reads what only a comparison with an eager step shows.
_ENVIRONMENT = {"environ", "getenv"}


def unwatchable(ran: Ran, reach: Reach, trained: Iterable[Tensor]) -> str | None:
    """Why no comparison can show whether this program is as it was; None where one can."""
    if reach.full:
        return "it can reach more of Python's objects than can be compared at each step"
    if reach.opaque:
        name = reach.opaque[0][1]
        return f"it reads {name!r}, which gives something else each time{ran.where(name.split('.')[-1])}"
    if reach.sealed:
        value, name = reach.sealed[0]
        where = ran.where(name.split(".")[-1])
        return f"it reads {name!r}, a {type(value).__name__}, which no comparison can watch{where}"
    if reach.large:
        value, name = reach.large[0]
        what = f"a {type(value).__name__} of {len(value)} elements"
        return f"it reads {name!r}, {what}{ran.where(name.split('.')[-1])}: too many to compare at each step"
    clocks = sorted(CLOCKS & ran.names & _modules_named(ran))
    if clocks:
        return f"it uses the module {clocks[0]!r}, whose values no graph can know{ran.where(clocks[0])}"
    environment = sorted(_ENVIRONMENT & ran.names)
    if environment:
        return f"it reads the environment{ran.where(environment[0])}; try an argument"
    if any(p._backward_hooks or p._post_accumulate_grad_hooks for p in trained):
        return "a parameter has a hook, which changes its gradient"
    if hooks_of_all_modules():
        return "a hook stands around the calls of all modules"
    for t in ran.values:
        if t.numel() > NUMBERS or t.is_cuda:
            return f"it takes the numbers of a tensor {tuple(t.shape)} into Python; try tensors throughout"
    large = [(a, name) for a, name in reach.arrays if a.nbytes > SMALL]
    if large:
        array, name = large[0]
        where = ran.where(name.split(".")[-1])
        return f"it reads {name!r}, a NumPy array of shape {array.shape}{where}; try a tensor"
    return None


def _modules_named(ran: Ran) -> set[str]:
    """Names in the code that ran that stand for a module of that name."""
    return {
        value.__name__
        for code, space in ran.code or ()
        for name in code.co_names
        for value in (space.get(name),)
        if isinstance(value, types.ModuleType)
    }
