"""Data of which some labels are known: programs of p(x, y) with y summed out elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from .. import seeds
from ..dataset import SPLITS, Dataset
from ..spec import KNOWN
from .classes import UNKNOWN, labels_of, num_classes, with_classes
from .conditioned import conditioned, put_context, refuse_given


def partly_labelled(data: Dataset, number: int | Literal["all"] = "all") -> Dataset:
    """The same data with the labels of some training data: programs are then `model(x, y)`, y -1 where unknown.

    Labels of validation and test data are held back: evidence there is ln p(x), the label summed out, and accuracy is
    counted on what the program has not seen.

    Args:
        data: with labels; one below 0 is missing.
        number: of training data that keep theirs, drawn under the data's seed, as evenly over the classes as they
            allow; "all": every known one.

    Raises:
        ValueError: data without labels, a class that training data do not have, fewer known labels than asked for, or
            fewer than one a class.

    Example:
        >>> from pyrovae.data import load
        >>> (y,) = partly_labelled(load("digits"), 100).context["train"]
        >>> int((y >= 0).sum()), int((y == 3).sum())
        (100, 10)
    """
    refuse_given(data)
    data = with_classes(data)
    classes = num_classes(data)
    own = labels_of(data)["train"]
    known = int((own >= 0).sum())
    if number != "all" and not classes <= number <= known:
        raise ValueError(
            f"expected {classes} (one a class) to {known} (known training labels) labels to keep, got {number}"
        )
    hidden = {s: torch.full_like(y, UNKNOWN) for s, y in labels_of(data).items()}
    if number == "all":
        hidden["train"] = own
    else:
        chosen = _evenly(own.cpu(), classes, number, data.spec.seed).to(own.device)
        hidden["train"][chosen] = own[chosen]
    return put_context(data, {s: (hidden[s],) for s in SPLITS}, (KNOWN,))


def with_given(
    data: Dataset, condition: Sequence[str] | None = None, labelled: int | Literal["all"] | None = None
) -> Dataset:
    """The data with what options give beside x: `--condition` or `--labelled`.

    Raises:
        ValueError: both; and as `conditioned` and `partly_labelled`.
    """
    if condition and labelled is not None:
        raise ValueError(
            "expected --condition or --labelled, got both; a semi-supervised model has labels alone"
        )
    if condition:
        return conditioned(data, condition)
    return data if labelled is None else partly_labelled(data, labelled)


def _evenly(y: Tensor, classes: int, number: int, seed: int) -> Tensor:
    """Rows of so many labels, by turns of the classes in an order that is drawn."""
    random = seeds.generator(seed, seeds.LABELS)
    order = torch.randperm(len(y), generator=random, device="cpu")
    order = order[y[order] >= 0]
    turn = torch.zeros(len(order), dtype=torch.long, device="cpu")
    for c in range(classes):
        own = y[order] == c
        turn[own] = torch.arange(int(own.sum()), device="cpu")
    return order[turn.argsort(stable=True)[:number]].sort().values
