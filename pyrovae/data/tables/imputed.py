"""Imputed rows as frames: whole rows, and a line for each value that was missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ..spec import DataSpec
from .columns import COUNTED, NAMED, Column, features
from .rows import as_frame


class Imputed(Protocol):
    """Results of `pyrovae.impute`, as these frames need them."""

    @property
    def x(self) -> Tensor:
        """Data, NaN where a value is missing."""

    @property
    def missing(self) -> Tensor:
        """Where."""

    @property
    def draws(self) -> Tensor:
        """Whole data, `[M, N, D]`."""

    @property
    def mean(self) -> Tensor:
        """Whole data, posterior means."""

    @property
    def low(self) -> Tensor:
        """Lower ends of intervals."""

    @property
    def high(self) -> Tensor:
        """Upper ends of intervals."""

    @property
    def khat(self) -> Tensor:
        """k-hat of the weights of each row."""


def imputed_frames(found: Imputed, spec: DataSpec, names: Sequence[Any] | None = None) -> tuple[Any, Any]:
    """Whole rows, and the missing values one by one, as two data frames of pandas.

    A number is given by its posterior mean (a count, among whole rows, by the whole number next to it), bits and
    categories by the most probable one.

    Args:
        found: of `pyrovae.impute`.
        spec: of the data.
        names: of the rows; default: their numbers.

    Returns:
        The rows, without missing values; and the frame of columns "row", "column", "value", "low", "high" (of numbers),
        "probability" (of bits and categories: the share of draws) and "khat" (of the row's weights).

    Raises:
        ValueError: data that are no rows.
    """
    import pandas as pd

    columns = spec.columns or tuple(f"x{i}" for i in range(found.x.shape[1]))
    table: Sequence[Column | None] = features(spec.table) if spec.table is not None else [None] * len(columns)
    index = list(range(len(found.x))) if names is None else list(names)
    whole, lines = found.mean.clone(), []
    for j, (name, column) in enumerate(zip(columns, table, strict=True)):
        rows = found.missing[:, j].nonzero().flatten().tolist()
        role = spec.support if column is None else column.role
        discrete = role in ("binary", *NAMED)
        for i in rows:
            line: dict[str, Any] = {"row": index[i], "column": name}
            if discrete:
                codes, counts = torch.unique(found.draws[:, i, j], return_counts=True)
                best = int(counts.argmax())
                whole[i, j] = codes[best]
                words = None if column is None else column.words
                line["value"] = int(codes[best]) if words is None else words[int(codes[best])]
                line["probability"] = float(counts[best]) / len(found.draws)
            else:
                if role in COUNTED:
                    whole[i, j] = whole[i, j].round()
                line["value"] = float(found.mean[i, j])
                line |= {"low": float(found.low[i, j]), "high": float(found.high[i, j])}
            lines.append(line | {"khat": float(found.khat[i])})
    heads = ["row", "column", "value", "low", "high", "probability", "khat"]
    values = pd.DataFrame(lines, columns=heads)
    return as_frame(whole, spec, index), values
