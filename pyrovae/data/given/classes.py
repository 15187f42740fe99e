"""Classes of labels: 0 ... C - 1 of those that training data have, with the names that they came by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ..dataset import Dataset
from ..sources.labels import as_array, is_missing
from ..tables.columns import LABEL_NAMES
from ..tables.values import word_of

UNKNOWN = -1
MOST = 10_000


def with_classes(data: Dataset) -> Dataset:
    """The same data with labels 0 ... C - 1, C the number of classes that training data have; -1 where not known.

    Labels 1 ... C would else make a class 0 without a datum. What the classes came by stands in `Dataset.classes` and
    `DataSpec.classes`.

    Raises:
        ValueError: no labels, fewer than two classes or more than 10,000, or one that training data do not have.
    """
    labels = labels_of(data)
    known = labels["train"][labels["train"] >= 0].unique()  # sorted
    if not 2 <= len(known) <= MOST:
        raise ValueError(
            f"expected 2 to {MOST:,} classes among the training labels (0, 1, ...; below 0: not known) of "
            f"{data.spec.name}, got {len(known):,}"
        )
    names = [data.classes[i] if data.classes else str(i) for i in known.tolist()]
    for split, y in labels.items():
        odd = y[(y >= 0) & ~torch.isin(y, known)].unique().tolist()
        if odd:
            word = repr(data.classes[odd[0]]) if data.classes else str(odd[0])
            raise ValueError(
                f"expected the classes of the training data ({', '.join(names[:8])}) in split {split!r} of "
                f"{data.spec.name}, got {word}, of which nothing would be learnt; try another seed of the splits "
                "(seed=, --data-seed), or to leave its rows out"
            )
    codes = {
        s: torch.where(y >= 0, torch.searchsorted(known, y.clamp(min=int(known[0]))), UNKNOWN)
        for s, y in labels.items()
    }
    spec = replace(data.spec, classes=tuple(names))
    return replace(data, labels=codes, classes=tuple(names), spec=spec)


def one_hot_labels(data: Dataset) -> dict[str, Tensor]:
    """Classes of each split as 0/1 columns `[N, C]`, of data `with_classes`.

    Raises:
        ValueError: a label that is missing.
    """
    labels = labels_of(data)
    for split, y in labels.items():
        if bool((y < 0).any()):
            raise ValueError(
                f"expected a label for each datum to condition on it, got {int((y < 0).sum())} missing (below 0) in "
                f"split {split!r}; try --model semi-supervised, which sums over them"
            )
    return {s: one_hot(y, num_classes(data)).to(data.split(s).dtype) for s, y in labels.items()}


def class_columns(labels: Any, rows: Sequence[str], classes: Sequence[str], name: str, column: str) -> Tensor:
    """Labels of new rows as 0/1 columns `[N, C]`, by the names of the classes.

    Args:
        labels: of the rows, as they came; None for none.
        rows: names of the rows.
        classes: their names.
        name, column: of the rows' source and of its labels, for errors.

    Raises:
        ValueError: no labels, another number of them, one that is missing, or a class that was not trained on.
    """
    if labels is None:
        raise ValueError(
            f"expected a label for each row of {name}, since the program is of p(x | label), got none; try the key y "
            f"beside x, or a column {column!r}"
        )
    values = labels if isinstance(labels, Tensor) else as_array(labels)
    if values.shape != (len(rows),):
        raise ValueError(f"expected one label for each of the {len(rows)} rows of {name}, got {values.shape}")
    found = ["" if is_missing(v) else word_of(v) for v in values.tolist()]
    gone = [row for row, word in zip(rows, found, strict=True) if word in ("", str(UNKNOWN))]
    if gone:
        raise ValueError(
            f"expected a label for each row of {name}, since the program is of p(x | label), got none in row "
            f"{gone[0]!r} ({len(gone):,} such); try to leave them out"
        )
    places = {word_of(c): i for i, c in enumerate(classes)}
    unseen = sorted(set(found) - set(places))
    if unseen:
        raise ValueError(
            f"expected the classes of the training data, {', '.join(classes[:12])}, as labels of {name}, got "
            f"{', '.join(unseen[:6])}, of which nothing was learnt"
        )
    return one_hot(torch.tensor([places[word] for word in found], device="cpu"), len(classes)).float()


def labels_of(data: Dataset) -> dict[str, Tensor]:
    """Labels of all splits.

    Raises:
        ValueError: data without them.
    """
    if data.labels is None:
        own = next((c for c in data.spec.columns or () if c.lower() in LABEL_NAMES), None)
        hint = (
            "an .npz file with the keys x and y, or {'x': table, 'y': column}"
            if data.spec.columns is None
            else f"to say which column it is (columns={{{own or 'name'!r}: 'label'}}, --columns)"
        )
        raise ValueError(f"expected data with labels, got {data.spec.name} without; try {hint}")
    return data.labels


def num_classes(data: Dataset) -> int:
    """Number of classes of data `with_classes`."""
    assert data.spec.classes is not None
    return len(data.spec.classes)


def classes_text(data: Dataset) -> str:
    """One line: what the classes are, and how many training data have one; empty where no label is given."""
    names = data.spec.classes
    if names is None or data.labels is None:
        return ""
    y = data.labels["train"]
    known = int((y >= 0).sum())
    plain = names == tuple(map(str, range(len(names))))
    codes = "" if plain else f" as classes 0 ... {len(names) - 1}"
    shown = ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")
    gaps = f"; {len(y) - known:,} of {len(y):,} training data have none" if known < len(y) else ""
    return f"labels {shown}{codes}{gaps}"
