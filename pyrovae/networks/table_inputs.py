"""Rows of a table as inputs of a network: what is missing, categories, counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

__all__ = ["TableInputs"]


class TableInputs(nn.Module):
    """Input module for rows `[..., D]` of a table: `[..., out_features]`, finite where x is NaN.

    Numbers come first, 0 where they are missing; then each category as its own 0/1 inputs, all 0 where it is missing;
    then, with `missing`, one input for each column, 1 where it is there. (A learned fill would be no more than the
    weights of those inputs already are.)

    Args:
        categories: Number of categories of each column, 0 for a number, `[D]`.
        counts: Whether a column is a count, of which ln(1 + x) is taken; default: none.
        missing: Whether values may be missing, as NaN.

    Raises:
        ValueError: lengths that differ, or a column of one category.

    Example:
        >>> TableInputs([0, 3], missing=True)(torch.tensor([[0.5, 2.0], [torch.nan, 0.0]]))
        tensor([[0.5000, 0.0000, 0.0000, 1.0000, 1.0000, 1.0000],
                [0.0000, 1.0000, 0.0000, 0.0000, 0.0000, 1.0000]])
    """

    def __init__(
        self, categories: Sequence[int], counts: Sequence[bool] | None = None, missing: bool = False
    ) -> None:
        super().__init__()
        counts = [False] * len(categories) if counts is None else list(counts)
        if len(counts) != len(categories) or any(c < 0 or c == 1 for c in categories):
            raise ValueError(
                "expected for each column 0 or at least 2 categories, and whether it is a count, got "
                f"{list(categories)} and {counts}"
            )
        self.missing = missing
        self.in_features = len(categories)
        self.numbers = [i for i, c in enumerate(categories) if c == 0]
        self.counts = [counts[i] for i in self.numbers]
        self.named = [(i, c) for i, c in enumerate(categories) if c]
        self.out_features = (
            len(self.numbers) + sum(c for _, c in self.named) + (len(categories) if missing else 0)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns the inputs `[..., out_features]`."""
        held = ~x.isnan() if self.missing else None
        known = x if held is None else torch.where(held, x, 0.0)
        numbers = known[..., self.numbers]
        if any(self.counts):
            which = torch.tensor(self.counts, device=x.device)
            numbers = torch.where(which, torch.where(which, numbers, 0.0).log1p(), numbers)
        parts = [numbers]
        for i, size in self.named:
            hot = one_hot(known[..., i].long(), size).to(x.dtype)
            parts.append(hot if held is None else hot * held[..., i, None])
        if held is not None:
            parts.append(held.to(x.dtype))
        return torch.cat(parts, -1)

    def extra_repr(self) -> str:
        """Shows the widths, and whether values may be missing."""
        return f"in_features={self.in_features}, out_features={self.out_features}, missing={self.missing}"
