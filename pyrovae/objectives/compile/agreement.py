"""Whether a compiled step is the program's own: loss and gradients beside eager ones under the same noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

# Sums are rounded in another order: so many units of the last place, of the loss and of a gradient's norm.
LOSS, GRADIENT = 1e3, 1e4
# Times what moving all numbers by half a unit in the last place changes.
MOVED = 32.0
# TensorFloat-32 keeps 10 bits of each factor.
TF32 = 2.0**-15

Moved = Callable[[], tuple[Tensor, list[Tensor]]]


def is_due(step: int) -> bool:
    """Whether a compiled step, counted from 1, is compared: 1, 2, 4, ... 512, then every 1,000th."""
    return step % 1000 == 0 if step >= 1000 else step & (step - 1) == 0


def disagreement(
    eager: tuple[float, Mapping[int, Tensor | None]],
    compiled: tuple[Tensor, Sequence[Tensor]],
    used: Sequence[Tensor],
    moved: Moved,
) -> str | None:
    """Difference beyond rounding, in words; None where the two agree.

    Args:
        eager: loss, and gradients by the id of their leaf.
        compiled: loss, and gradients of `used`.
        used: leaves.
        moved: the compiled loss and gradients with all numbers moved by rounding: asked where a fixed
            tolerance is not enough, since a sum may cancel.
    """
    loss, gradients = eager
    value = float(compiled[0])
    if not math.isfinite(value) or not math.isfinite(loss):
        return None  # such a step is taken eagerly
    eps = _eps([compiled[0], *compiled[1]])
    if abs(value - loss) > LOSS * eps * abs(loss):
        reach = abs(float(moved()[0]) - value)
        if not abs(value - loss) <= MOVED * reach + LOSS * eps * abs(loss):
            return f"its loss is {value:.7g} where the program as it is now gives {loss:.7g}"
    missing = set(gradients) - {id(p) for p in used}
    if any(_norm(gradients[i]) > 0 for i in missing if gradients[i] is not None):
        return "the program as it is now gives gradients to parameters that had none"
    sizes = [_norm(gradients.get(id(p))) for p in used]
    largest = max(sizes, default=0.0)
    for i, (p, size, ours) in enumerate(zip(used, sizes, compiled[1], strict=True)):
        theirs = gradients.get(id(p))
        gap = _norm(ours if theirs is None else ours.double() - theirs.double())
        allowed = GRADIENT * eps * size + 10 * eps * largest
        if gap > allowed and not gap <= allowed + MOVED * _norm(moved()[1][i].double() - ours.double()):
            return (
                f"its gradient of a parameter {tuple(p.shape)} is off by {gap:.3g} from that of the program as it is "
                f"now, of norm {size:.3g}"
            )
    return None


def _norm(tensor: Tensor | None) -> float:
    return 0.0 if tensor is None else float(torch.linalg.vector_norm(tensor.double()))


def _eps(tensors: Sequence[Tensor]) -> float:
    eps = max(torch.finfo(t.dtype).eps for t in tensors)
    return TF32 / 10 if torch.backends.cuda.matmul.allow_tf32 and tensors[0].is_cuda else eps
