"""Checks of data: numeric, finite, of one shape; and the support that their values have."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .spec import Support

MAX_LEVEL = 255
_UNSEEN = ", or missing='ignore' (command line: --missing ignore), by which NaN is what was not observed"


def to_real(x: Any, name: str) -> Tensor:
    """Copy of an array as a contiguous tensor on the CPU, detached from any graph: float64 if it was, else float32.

    Raises:
        ValueError: If the dtype is not a real number's, the tensor is sparse, values are masked, or
            integers are too large for float32.
    """
    if isinstance(x, Tensor):
        if x.layout is not torch.strided:
            raise ValueError(f"expected a dense tensor for {name}, got layout {x.layout}; try .to_dense()")
        numeric = not (x.dtype.is_complex or x.is_quantized)
        integer = numeric and not x.dtype.is_floating_point
        dtype: Any = x.dtype
    else:
        if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
            raise ValueError(
                f"expected {name} without missing values, got a masked array; try .filled() on it"
            )
        x = np.asarray(x)
        numeric, integer, dtype = x.dtype.kind in "buif", x.dtype.kind in "bui", x.dtype
    if not numeric:
        raise ValueError(f"expected real numbers for {name}, got dtype {dtype}; try to convert it to float32")
    if integer and 0 not in x.shape and _too_large(x):
        raise ValueError(
            f"expected integers of magnitude <= 2**24 for {name}, which float32 holds exactly, "
            "got larger ones; try to rescale them"
        )
    # `rounded` makes float32 of them when the spread of all data is known.
    if isinstance(x, Tensor):
        own = torch.float64 if dtype == torch.float64 else torch.float32
        return x.detach().to(device="cpu", dtype=own, copy=True).contiguous()
    wide = x.dtype.kind == "f" and x.dtype.itemsize > 4
    with np.errstate(over="ignore"):  # overflow becomes inf, which `check_splits` reports
        return torch.from_numpy(np.array(x, dtype=np.float64 if wide else np.float32, order="C"))


def _too_large(x: Any) -> bool:
    # in float64, since torch has no maximum of its unsigned types
    y = x.to(torch.float64) if isinstance(x, Tensor) else x.astype(np.float64)
    return bool(abs(y).max() > 2**24)


def to_labels(y: Any, n: int, name: str) -> Tensor:
    """Copy of classes as an int64 tensor `[n]`.

    Raises:
        ValueError: If they are not integers, or not one for each of the `n` data.
    """
    y = (
        torch.from_numpy(np.array(y))
        if not isinstance(y, Tensor) and np.asarray(y).dtype.kind in "bui"
        else y
    )
    if not isinstance(y, Tensor) or y.dtype.is_floating_point or y.dtype.is_complex:
        raise ValueError(f"expected integer labels for {name}, got {getattr(y, 'dtype', type(y).__name__)}")
    if y.shape != (n,):
        raise ValueError(f"expected one label for each of the {n} data of {name}, got shape {tuple(y.shape)}")
    return y.detach().to(device="cpu", dtype=torch.int64, copy=True)


def check_event(x: Tensor, name: str) -> None:
    """Refuse an array that is not `[N, *event]`.

    Raises:
        ValueError: If it has fewer than two dimensions, or an event without elements.
    """
    if x.dim() < 2 or 0 in x.shape[1:]:
        raise ValueError(
            f"expected {name} to have the shape [N, *event], got {tuple(x.shape)}; "
            "try x[:, None] where every datum is one number"
        )


def check_splits(
    splits: dict[str, Tensor], rows: dict[str, Tensor] | None = None, missing: bool = False
) -> None:
    """Refuse splits that are empty, differ in event shape, or hold NaN or infinity.

    Args:
        splits: Split -> data `[N, *event]`.
        rows: Split -> row of each datum in the user's array, where it was shuffled; for the message.
        missing: Let NaN pass, which stands for what is not observed.

    Raises:
        ValueError: Naming the split.
    """
    for name, x in splits.items():
        check_event(x, f"split {name!r}")
        if len(x) == 0:
            raise ValueError(f"expected at least one datum in every split, got an empty split {name!r}")
    shapes = {name: tuple(x.shape[1:]) for name, x in splits.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"expected one event shape in all splits, got {shapes}")
    for name, x in splits.items():
        bad = x.isinf() if missing else ~torch.isfinite(x)
        if bad.any():
            first = bad.nonzero()[0].tolist()
            origin = "" if rows is None else f" (row {int(rows[name][first[0]])} of the array that was given)"
            raise ValueError(
                f"expected finite data, got {int(bad.sum())} values that are NaN or infinite (in float32) in "
                f"split {name!r}, the first at index {first}{origin}; try to drop or impute them"
                + ("" if missing or not bool(x[bad].isnan().any()) else _UNSEEN)
            )


def detect_support(splits: dict[str, Tensor]) -> tuple[Support, int | None]:
    """Support of the values, and the number of levels where it is "levels".

    Only 0 and 1 are "binary"; integers from 0 to at most 255 are "levels", larger ones
    "nonnegative_integer"; other values within [0, 1] are "unit_interval", all else "real".
    """
    splits = {name: x[~x.isnan()] if bool(x.isnan().any()) else x for name, x in splits.items()}
    splits = {name: x for name, x in splits.items() if x.numel()}  # all of a small split may be missing
    low = min(float(x.min()) for x in splits.values())
    high = max(float(x.max()) for x in splits.values())
    if low < 0:
        return "real", None
    if all(bool((x == x.floor()).all()) for x in splits.values()):
        if high <= 1:
            return "binary", None
        return ("levels", int(high) + 1) if high <= MAX_LEVEL else ("nonnegative_integer", None)
    return ("unit_interval", None) if high <= 1 else ("real", None)
