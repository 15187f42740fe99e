"""The user's own data: an array, a file, a dictionary of splits, or a torch Dataset."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import check_event, to_labels, to_real
from ..raw import Raw, Request, Size
from ..splitting import split_rows
from ..tables.columns import Column, features
from ..tables.reading import read_columns, table_of
from .frames import Columns, is_frame, row_names, to_array, warn_constant, warn_numbering
from .keys import renamed
from .labels import label_taken, to_codes
from .opening import opened
from .sequences import is_sequences, load_sequences

SPLITS = ("train", "valid", "test")
LABELS = ("y", "labels")
DEFAULT_SIZES: dict[str, Size] = {"valid": 0.1, "test": 0.2}


def from_object(source: Any, request: Request) -> Raw:
    """Splits of a user's data.

    Args:
        source: Path to a file; a tensor or numpy array `[N, *event]`, a table, a sparse matrix; a mapping
            from "train" (and "valid", "test") or "x" (and "y" or "labels") to them; or a torch `Dataset`.
        request: Sizes of the splits that the source does not bring, and the seed of their shuffle.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If the source cannot be understood.
    """
    name, source = opened(source, request.layer, request.label_column, needed=True)
    if isinstance(source, torch.utils.data.Dataset):
        return _one_array(name, *_stacked(source), request)
    if isinstance(source, Tensor | np.ndarray) or is_frame(source) or hasattr(source, "toarray"):
        return _one_array(name, source, None, request)
    if isinstance(source, Mapping) and is_sequences(source):
        return load_sequences(name, source, request)
    if isinstance(source, Mapping):
        return _from_mapping(name, source, request)
    raise ValueError(
        "expected the name of a data set, a path, a tensor, a numpy array, a table, a mapping of arrays or a torch "
        f"Dataset, got {name}"
    )


def _one_array(name: str, array: Any, labels: Any, request: Request) -> Raw:
    table, names = None, row_names(array)
    array, labels = label_taken(array, labels, request.label_column, repr(name))
    if request.columns is None:
        x, columns = to_array(array, repr(name), request.missing)
    else:
        table = table_of(_named_columns(array, repr(name)), request.columns, repr(name))
        x, columns, labels = _by_roles(array, table, labels, repr(name), request)
    check_event(x, repr(name))
    codes, classes = to_codes({} if labels is None else {"": labels})
    y = None if labels is None else to_labels(codes[""], len(x), repr(name))
    sizes = {
        s: default if getattr(request, s) is None else getattr(request, s)
        for s, default in DEFAULT_SIZES.items()
    }
    rows = split_rows(len(x), sizes, request.seed)
    named = None if names is None else {s: tuple(names[i] for i in row) for s, row in rows.items()}
    return Raw(
        name,
        splits={split: x[row] for split, row in rows.items()},
        labels=None if y is None else {split: y[row] for split, row in rows.items()},
        rows=rows,
        columns=columns,
        table=table,
        classes=classes,
        label_column=request.label_column,
        names=named,
    )


def _named_columns(array: Any, name: str) -> Any:
    if not is_frame(array):
        raise ValueError(
            f"expected a table with named columns, to say what they are, got {name} without names; try "
            "pandas.DataFrame(array, columns=[...]), or without columns="
        )
    return array


def _by_roles(
    frame: Any, table: tuple[Column, ...], labels: Any, name: str, request: Request
) -> tuple[Tensor, Columns, Any]:
    x, own = read_columns(_named_columns(frame, name), table, name, request.missing)
    if own is not None and labels is not None:
        raise ValueError(f"expected labels of {name} in a column or beside it, got both")
    names = tuple(c.name for c in features(table))
    dense = [i for i, c in enumerate(features(table)) if c.role in ("real", "positive")]
    if dense and len(x):
        warn_constant(x[:, dense], [names[i] for i in dense], name)
    guessed = [i for i, c in enumerate(features(table)) if c.guessed]
    warn_numbering(x[:, guessed], [names[i] for i in guessed], name)
    return x, names, labels if own is None else own


def _from_mapping(name: str, source: Mapping[Any, Any], request: Request) -> Raw:
    source = renamed(source)
    keys = {str(key) for key in source}
    if "train" in keys and keys <= {*SPLITS, *(f"{s}_labels" for s in SPLITS)}:
        return _from_splits(name, source, request)
    given = [key for key in LABELS if key in keys]
    if "x" in keys and keys <= {"x", *LABELS} and len(given) <= 1:
        return _one_array(name, source["x"], source[given[0]] if given else None, request)
    if len(keys) == 1:
        return _one_array(name, next(iter(source.values())), None, request)
    raise ValueError(
        f"expected {name!r} to have one array, or the keys train (and valid, test, and train_labels, "
        "valid_labels, test_labels), or the key x (and y or labels), got the keys "
        f"{sorted(keys)}; try to rename them"
    )


def _from_splits(name: str, source: Mapping[Any, Any], request: Request) -> Raw:
    table, source = None, dict(source)
    given_names = {s: row_names(source[s]) for s in SPLITS if s in source}
    for s in [s for s in SPLITS if s in source and request.label_column is not None]:
        source[s], own = label_taken(
            source[s], source.get(f"{s}_labels"), request.label_column, f"split {s!r}"
        )
        source[f"{s}_labels"] = own
    if request.columns is None:
        found = {s: to_array(source[s], f"split {s!r}", request.missing) for s in SPLITS if s in source}
        splits, columns = {s: x for s, (x, _) in found.items()}, _same_columns(found)
    else:
        table = table_of(_named_columns(source["train"], "split 'train'"), request.columns, "split 'train'")
        splits = {}
        for s in [s for s in SPLITS if s in source]:
            own = source.get(f"{s}_labels")
            splits[s], columns, own = _by_roles(source[s], table, own, f"split {s!r}", request)
            if own is not None:
                source[f"{s}_labels"] = own
    for split, x in splits.items():
        check_event(x, f"split {split!r}")
    named: dict[str, Columns] = {}
    if any(given_names.values()):
        named = {s: names or tuple(map(str, range(len(splits[s])))) for s, names in given_names.items()}
    codes, classes = to_codes({s: source[f"{s}_labels"] for s in splits if f"{s}_labels" in source})
    labels = {s: to_labels(y, len(splits[s]), f"split {s!r}") for s, y in codes.items()}
    if {f"{s}_labels" for s in labels} != {str(k) for k in source if str(k).endswith("_labels")} or (
        labels and labels.keys() != splits.keys()
    ):
        raise ValueError(
            f"expected labels for all splits of {name!r} or for none, got them for {sorted(labels)}"
        )
    request.refuse_sizes(name, *(s for s in splits if s != "train"))
    sizes: dict[str, Size] = {}
    for split, default in DEFAULT_SIZES.items():
        if split not in splits:
            asked = getattr(request, split)
            sizes[split] = default if asked is None else asked
    rows = None
    if sizes:
        parts = split_rows(len(splits["train"]), sizes, request.seed)
        given, given_labels = splits["train"], labels.get("train")
        splits |= {split: given[row] for split, row in parts.items()}
        if named:
            own_names = named["train"]
            named |= {split: tuple(own_names[i] for i in row) for split, row in parts.items()}
        if given_labels is not None:
            labels |= {split: given_labels[row] for split, row in parts.items()}
        rows = {s: parts.get(s, torch.arange(len(x), device="cpu")) for s, x in splits.items()}
    return Raw(
        name,
        {s: splits[s] for s in SPLITS},
        labels=labels or None,
        rows=rows,
        columns=columns,
        table=table,
        classes=classes,
        label_column=request.label_column,
        names=named or None,
    )


def _same_columns(found: Mapping[str, tuple[Tensor, Columns | None]]) -> Columns | None:
    first = found["train"][1]
    for split, (_, columns) in found.items():
        if columns != first:
            raise ValueError(
                f"expected the columns of split 'train' in the same order in all splits, {first}, got {columns} in "
                f"split {split!r}; try table[list(train.columns)]"
            )
    return first


def _stacked(source: Any) -> tuple[Tensor, list[int] | None]:
    if isinstance(source, torch.utils.data.IterableDataset) or not hasattr(source, "__len__"):
        raise ValueError(
            "expected a torch Dataset with a length, got an iterable one; try a tensor of its items"
        )
    events: list[Tensor] = []
    labels: list[Any] = []
    for i in range(len(source)):
        item = source[i]
        event, *rest = item if isinstance(item, tuple | list) else (item,)
        # as numpy first: an image of PIL has no way into torch of its own
        events.append(to_real(event if isinstance(event, Tensor) else np.asarray(event), f"item {i}"))
        if events[i].shape != events[0].shape:
            raise ValueError(
                f"expected items of one shape, got {tuple(events[0].shape)} at 0 and "
                f"{tuple(events[i].shape)} at {i}"
            )
        if rest:
            labels.append(rest[0])
    if not events:
        raise ValueError("expected at least one datum in every split, got an empty torch Dataset")
    integer = len(labels) == len(events) and all(_is_integer(y) for y in labels)
    return torch.stack(events), [int(y) for y in labels] if integer else None


def _is_integer(y: Any) -> bool:
    if isinstance(y, Tensor):
        return y.dim() == 0 and not y.dtype.is_floating_point and not y.dtype.is_complex
    return isinstance(y, int | np.integer)
