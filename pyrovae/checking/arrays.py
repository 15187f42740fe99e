"""NumPy arrays taken as tensors."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch


def as_tensor(value: Any, name: str) -> Any:
    """A numpy array as a tensor of the default dtype; anything else as it is.

    Raises:
        ValueError: for an array that is not of numbers.
    """
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind not in "fiub":
        raise ValueError(f"expected {name} to hold numbers, got an array of {value.dtype}")
    return torch.from_numpy(np.ascontiguousarray(value)).to(torch.get_default_dtype())


def as_tensors(value: Any) -> Any:
    """Context with numpy arrays in it as tensors: of real numbers in the default dtype, others as they are.

    Raises:
        ValueError: for an array that is not of numbers.
    """
    if dataclasses.is_dataclass(value) and hasattr(value, "per_datum"):  # marked
        marked: Any = value
        return dataclasses.replace(marked, value=as_tensors(marked.value))
    if isinstance(value, dict):
        return {k: as_tensors(v) for k, v in value.items()}
    if type(value) in (tuple, list):
        return type(value)(map(as_tensors, value))
    if hasattr(value, "to_numpy"):  # its rows would not be known to be of the data
        raise TypeError(
            f"expected context of tensors, numpy arrays, lists and numbers, got a {type(value).__name__}; try "
            ".to_numpy(), or .to_list() for texts"
        )
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind not in "fiub":
        raise ValueError(
            f"expected context of numbers, got an array of {value.dtype}; try a list of its items"
        )
    found = torch.from_numpy(np.ascontiguousarray(value))
    return found.to(torch.get_default_dtype()) if found.is_floating_point() else found
