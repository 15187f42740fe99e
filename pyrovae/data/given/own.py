"""Context of one's own beside data that were loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ...devices import as_tensor
from ..dataset import SPLITS, Dataset
from ..spec import KNOWN
from .conditioned import LABEL, LENGTHS, put_context, refuse_given


def with_context(data: Dataset, *context: Any, names: Sequence[str] = ()) -> Dataset:
    """The same data with what programs take after x: `model(x, *context)`, whose evidence is ln p(x | context).

    Args:
        data: of `load`.
        *context: tensors or arrays `[N, ...]` with a row for each row of what was loaded, in its order; or, of data
            that came in splits, mappings of "train", "valid" and "test" to such arrays.
        names: of each, for titles; default: "context", or "context 1", "context 2", ...

    Raises:
        ValueError: no context, or one that is there already; another number of rows or names; names of columns, or of
            what is given otherwise; values that are not finite; one array for data that came in splits.

    Example:
        >>> import torch
        >>> from pyrovae.data import load
        >>> data = with_context(load(torch.randn(50, 3)), torch.arange(50.0).unsqueeze(1), names=["time"])
        >>> data.spec.given, len(data.arguments("test"))
        (('time',), 2)
    """
    if not context:
        raise ValueError("expected a context, got none; try with_context(data, c)")
    refuse_given(data)
    numbered = [f"context {i}" for i in range(1, len(context) + 1)] if len(context) > 1 else ["context"]
    given = tuple(names) or tuple(numbered)
    taken = {LABEL, KNOWN, LENGTHS, *(data.spec.columns or ())} & set(given)
    if isinstance(names, str) or len(set(given)) < len(given) or len(given) != len(context) or taken:
        raise ValueError(
            f"expected {len(context)} name(s) of what is given, each once and none of a column of x, 'label', "
            f"'lengths' or 'known labels', got {names!r}"
        )
    parts = [_split(data, value, name) for name, value in zip(given, context, strict=True)]
    return put_context(data, {s: tuple(p[s] for p in parts) for s in SPLITS}, given)


def own_context(context: Sequence[Any], trained: Sequence[Tensor], num_rows: int) -> tuple[Tensor, ...]:
    """Context of new rows in the form of the one `trained` with.

    Raises:
        ValueError: another number of contexts or rows, or another shape; values that are not finite numbers.
    """
    if len(context) != len(trained):
        raise ValueError(f"expected {len(trained)} context(s), as in training, got {len(context)}")
    found = tuple(_tensor(c, f"context {i}") for i, c in enumerate(context, 1))
    for i, (new, old) in enumerate(zip(found, trained, strict=True), 1):
        wanted = [num_rows, *old.shape[1:]]
        if list(new.shape) != wanted or new.is_floating_point() > old.is_floating_point():
            raise ValueError(
                f"expected context {i} of shape {wanted} and {old.dtype}, a row for each new one, got "
                f"{list(new.shape)} of {new.dtype}"
            )
    return tuple(new.to(old.dtype) for new, old in zip(found, trained, strict=True))


def _split(data: Dataset, value: Any, name: str) -> dict[str, Tensor]:
    """Rows of one context for each split, on the device of the data."""
    if isinstance(value, Mapping):
        if set(value) != set(SPLITS):
            raise ValueError(f"expected {name!r} for {', '.join(SPLITS)}, got {', '.join(map(str, value))}")
        found = {s: _tensor(value[s], name) for s in SPLITS}
    else:
        if data.rows is None:
            raise ValueError(
                f"expected {name!r} for each split of {data.spec.name}, which came in splits, got one array; try "
                "{'train': ..., 'valid': ..., 'test': ...}"
            )
        whole, total = _tensor(value, name), sum(map(len, data.rows.values()))
        if len(whole) != total:
            raise ValueError(
                f"expected {total} rows of {name!r}, one for each that was loaded, got {len(whole)}"
            )
        found = {s: whole[rows.to(whole.device)] for s, rows in data.rows.items()}
    for split, rows in found.items():
        if len(rows) != len(data.split(split)):
            raise ValueError(
                f"expected {len(data.split(split))} rows of {name!r} in split {split!r}, got {len(rows)}"
            )
    return {s: rows.to(data.train.device) for s, rows in found.items()}


def _tensor(value: Any, name: str) -> Tensor:
    try:
        tensor = value if isinstance(value, Tensor) else as_tensor(np.asarray(value))
    except TypeError:
        raise ValueError(f"expected numbers in {name!r}, got {type(value).__name__} of others") from None
    if tensor.dim() < 1:
        raise ValueError(f"expected {name!r} with a row for each datum, got one number")
    if tensor.is_floating_point():
        tensor = tensor.float()  # as the data are
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"expected finite numbers in {name!r}, got NaN or infinity; try to fill them in")
    return tensor
