"""Missing values: NaN that stands for "not observed"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def shares(splits: Mapping[str, Tensor]) -> dict[str, float]:
    """Split -> share of its numbers that are missing."""
    return {name: float(x.isnan().double().mean()) for name, x in splits.items()}


def shares_text(found: Mapping[str, float]) -> str:
    """Shares in words: "20.1 % of train, ..."."""
    return ", ".join(f"{share:.3g} % of {name}" for name, share in ((n, 100 * s) for n, s in found.items()))


def check_columns(splits: Mapping[str, Tensor], names: Sequence[str] | None, data: str) -> None:
    """Refuses elements of a datum that no training row has: nothing could be learnt of them.

    Raises:
        ValueError: naming them.
    """
    empty = splits["train"].isnan().all(0)
    if not empty.any():
        return
    if names is not None:
        found = ", ".join(repr(names[i]) for i in empty.nonzero().flatten().tolist()[:5])
        raise ValueError(
            f"expected a value in some training row of every column of {data}, got none in {found}; try to leave the "
            "column out"
        )
    first = empty.nonzero()[0].tolist()
    raise ValueError(
        f"expected a value in some training row for every element of {data}, got none at {first}; try to leave it out"
    )


def filling(train: Tensor, whole: Tensor | bool) -> Tensor:
    """A value in the place of each missing one, `[*event]`: the mean of those that are there, rounded where `whole`."""
    held = ~train.isnan()
    mean = torch.where(held, train, 0.0).double().sum(0) / held.sum(0).clamp(min=1)
    whole = torch.as_tensor(whole, device=train.device)
    return torch.where(whole, mean.round(), mean).to(train.dtype)


def filled(x: Tensor, fill: Tensor) -> Tensor:
    """The data with `fill` in the place of NaN."""
    return torch.where(x.isnan(), fill.to(x), x)
