"""Tensors with the strides of others: a kernel over several tensors walks all of them by one index."""

from __future__ import annotations

from torch import Tensor


def is_dense(tensor: Tensor) -> bool:
    """Whether its elements fill their memory, each place once, in whatever order of dims."""
    expected = 1
    for stride, size in sorted((s, n) for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def strided_like(value: Tensor, like: Tensor) -> Tensor:
    """`value` in the memory format of `like`, stride by stride; itself where it has it, or `like` is not dense."""
    if value.stride() == like.stride() or not is_dense(like):
        return value
    strides = like.stride()
    order = sorted(range(like.dim()), key=lambda d: (-strides[d], d))
    back = sorted(range(like.dim()), key=order.__getitem__)
    out = value.permute(order).contiguous().permute(back)
    # Strides of dims of size 1 mean nothing, and are compared all the same.
    return out if out.stride() == like.stride() else out.as_strided(like.shape, like.stride())
