"""Names that others give to the arrays of a file, in those of `load`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SPLITS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
ALIASES = {
    alias: split
    for word, split in SPLITS.items()
    for stem in ("x", "X")
    for alias in (f"{stem}_{word}", f"{word}_{stem}")
} | {
    alias: f"{split}_labels"
    for word, split in SPLITS.items()
    for stem in ("y", "Y")
    for alias in (f"{stem}_{word}", f"{word}_{stem}")
}
WHOLE = {"X": "x", "data": "x", "target": "y", "targets": "y"}


def renamed(source: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """The mapping with `x_train`, `X`, `data`, `target` and their like as `train`, `x` and `y`.

    Unchanged where not all keys are known so, or two would become one.
    """
    for table in (ALIASES, WHOLE | {"x": "x", "y": "y", "labels": "labels"}):
        if source and set(source) <= set(table):
            new = [table[key] for key in source]
            return dict(zip(new, source.values(), strict=True)) if len(set(new)) == len(new) else source
    return source
