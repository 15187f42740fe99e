"""Numbers of Python's that a graph takes as inputs: computed as Python computes them, or not at all."""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..watch.reading import Ran
from ..watch.undisturbed import UntraceableError
from .inputs import LARGEST

# Whole numbers are exact up to here.
_EXACT = 2**62
# Bound of a whole number that may be rounded, and of a number that is not whole.
_ROUNDED, _REAL = math.inf, None
_COMPARED = {"__eq__": "eq", "__ne__": "ne"}
_ALIASES = {
    "true_divide": "div",
    "__truediv__": "div",
    "__floordiv__": "floor_divide",
    "__mod__": "remainder",
    "positive": "pos",
    "__and__": "bitwise_and",
    "__or__": "bitwise_or",
    "__xor__": "bitwise_xor",
} | _COMPARED
# With their operands the other way round.
_SWAPPED = {
    "__rsub__": "sub",
    "rsub": "sub",
    "__rdiv__": "div",
    "__rtruediv__": "div",
    "__rpow__": "pow",
    "__rmod__": "remainder",
    "__rfloordiv__": "floor_divide",
    "__rand__": "bitwise_and",
    "__ror__": "bitwise_or",
    "__rxor__": "bitwise_xor",
}
_ORDER = {"eq", "ne", "lt", "le", "gt", "ge"}
# What Python's numbers answer and a tensor would answer otherwise.
_REFUSED = {
    "__repr__",
    "__str__",
    "__format__",
    "__round__",
    "__floor__",
    "__ceil__",
    "__trunc__",
    "__divmod__",
}
_REFUSED |= {"__lshift__", "__rlshift__", "__rshift__", "__rrshift__", "__invert__", "bitwise_not", "fmod"}
_BOUNDS: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "neg": lambda a: a,
    "pos": lambda a: a,
    "abs": lambda a: a,
    "remainder": lambda a, b: b,
    "floor_divide": lambda a, b: a,
    "bitwise_and": lambda a, b: 2 * max(a, b) + 1,
    "bitwise_or": lambda a, b: 2 * max(a, b) + 1,
    "bitwise_xor": lambda a, b: 2 * max(a, b) + 1,
}
_TABLE = {*_BOUNDS, *_ORDER, "div", "pow"}
_FINE = (torch.float64, torch.complex128)
_CLASSES = {"float", "int", "bool", "complex", "Number", "Real", "Integral", "Complex", "floating", "integer"}


class PythonNumbers(TorchFunctionMode):
    """Computes with some tensors as Python computes with the numbers that they stand for.

    Among themselves they are doubles and exact whole numbers; beside a tensor they take the dtype that a number
    takes there. What only Python's numbers can do (a look-up by value, a text) is refused.

    Args:
        numbers: tensors without dimensions, float64 or int64.
    """

    def __init__(self, numbers: Iterable[Tensor]) -> None:
        super().__init__()
        self._known: dict[int, tuple[Tensor, Any]] = {}
        for tensor in numbers:
            self._add(tensor, _REAL if tensor.is_floating_point() else LARGEST)
        self._former: Any = None

    def _add(self, tensor: Tensor, bound: Any) -> Tensor:
        self._known[id(tensor)] = (tensor, bound)
        return tensor

    def __enter__(self) -> Any:
        self._former = vars(FakeTensor).get("__hash__")
        # No mode sees a look-up.
        FakeTensor.__hash__ = self._hash()  # type: ignore[method-assign]
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        if self._former is None:
            del FakeTensor.__hash__
        else:
            FakeTensor.__hash__ = self._former  # type: ignore[method-assign]
        super().__exit__(*error)

    def _hash(self) -> Callable[[Any], int]:
        known = self._known

        def __hash__(self: Any) -> int:
            if id(self) in known and not _of_torch(sys._getframe(1)):
                raise UntraceableError("it looks a number up by its value")
            return id(self)

        return __hash__

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        flat, form = tree_flatten((args, kwargs))
        if not any(id(a) in self._known for a in flat):
            return func(*args, **kwargs)
        name = str(getattr(func, "__name__", ""))
        if name in _REFUSED:
            raise UntraceableError(f"it does with a number what no tensor does ({name.strip('_')})")
        if func == _DTYPE:
            return torch.get_default_dtype()
        plain = name.strip("_") if name.strip("_") in _TABLE else name.removesuffix("_")
        swapped = name in _SWAPPED
        plain = _SWAPPED.get(name) or _ALIASES.get(name, plain)
        if plain in _TABLE and not kwargs and all(self._is_number(a) for a in args):
            return self._compute(plain, args[::-1] if swapped else args)
        fine = any(isinstance(a, Tensor) and id(a) not in self._known and a.dtype in _FINE for a in flat)
        fine |= any(a in _FINE for a in flat if isinstance(a, torch.dtype))
        args, kwargs = tree_unflatten([a if fine else self._as_given(a) for a in flat], form)
        return func(*args, **kwargs)

    def _is_number(self, value: Any) -> bool:
        return id(value) in self._known or isinstance(value, int | float | np.integer | np.floating)

    def _as_given(self, value: Any) -> Any:
        """A number as torch takes it: of the default dtype, where it is not whole."""
        floating = id(value) in self._known and value.is_floating_point()
        return value.to(torch.get_default_dtype()) if floating else value

    def _bound(self, value: Any) -> Any:
        if id(value) in self._known:
            return self._known[id(value)][1]
        return abs(int(value)) if isinstance(value, int | np.integer) else _REAL

    def _compute(self, name: str, args: tuple[Any, ...]) -> Tensor:
        bounds = [self._bound(a) for a in args]
        values = [_widened(a) for a in args]
        if _ROUNDED in bounds and (
            name in _ORDER or name in ("remainder", "floor_divide") or "bitwise" in name
        ):
            raise UntraceableError("it computes with whole numbers beyond 2**62")
        whole = all(b is not None for b in bounds)
        if name in _ORDER:
            values = values if whole else [_real(v) for v in values]
            return self._add(_applied(name, values), 1)
        bound = self._bound_after(name, args, bounds) if whole else _REAL
        if bound is None or bound >= _EXACT:
            kind = _REAL if bound is None else _ROUNDED
            return self._add(_applied(name, [_real(v) for v in values]), kind)
        return self._add(_applied(name, values), bound)

    def _bound_after(self, name: str, args: tuple[Any, ...], bounds: list[Any]) -> Any:
        """Bound of the result of whole numbers; that of none where the result need not be whole."""
        if name == "div":
            return _REAL
        if name != "pow":
            return _BOUNDS[name](*bounds)
        power = args[1]
        if isinstance(power, int | np.integer):
            return _REAL if power < 0 else bounds[0] ** int(power) if power <= 64 else _ROUNDED
        return _ROUNDED


def refuse_classes(ran: Ran) -> None:
    """Refuses code that asks whether something is of a class of numbers: no tensor answers as a number does.

    Raises:
        UntraceableError: with its line.
    """
    for code, _ in ran.code or ():
        names = {*code.co_names}
        if names & {"isinstance", "issubclass", "type"} and names & _CLASSES:
            kind = sorted(names & _CLASSES)[0]
            raise UntraceableError(f"it may ask for the class of a number{ran.where(kind)}")


def _of_torch(frame: types.FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] in ("torch", "pyro")


def _widened(value: Any) -> Any:
    """A comparison's result counts as 0 or 1."""
    if isinstance(value, Tensor):
        return value.long() if value.dtype == torch.bool else value
    return (
        float(value)
        if isinstance(value, np.floating)
        else int(value)
        if isinstance(value, np.integer)
        else value
    )


def _real(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) else float(value)


def _applied(name: str, values: list[Any]) -> Tensor:
    device = next(v.device for v in values if isinstance(v, Tensor))
    dtypes = [torch.float64 if isinstance(v, float) else torch.int64 for v in values]
    made = [
        v if isinstance(v, Tensor) else torch.full((), v, dtype=dtype, device=device)
        for v, dtype in zip(values, dtypes, strict=True)
    ]
    if name == "floor_divide" and made[0].is_floating_point():
        # Generated code divides, and rounds the quotient down.
        return torch.round((made[0] - torch.remainder(*made)) / made[1])
    result: Tensor = made[0].clone() if name == "pos" else getattr(torch, name)(*made)
    return result


_DTYPE = Tensor.dtype.__get__  # type: ignore[attr-defined]
