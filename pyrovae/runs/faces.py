"""Faces of a trained program: lines of text, and in a notebook a table with its training curve."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..data import Dataset, DataSpec
from ..pages.curves import svg_curves
from ..pages.tables import html_table
from ..results import Row

# Figures that tell how training went, the first that a history has.
FIGURES = ("elbo", "log_likelihood", "pseudo_log_likelihood", "loss")


def text_face(name: str, about: Mapping[str, str]) -> str:
    """Lines of a repr."""
    width = 2 + max(map(len, about), default=0)
    lines = [f"{key + ':':<{width}}{text}" for key, text in about.items()]
    return f"{name}(\n  " + "\n  ".join(lines) + "\n)"


def html_face(
    name: str, about: Mapping[str, str], history: Sequence[Row], warnings: Sequence[str] = ()
) -> str:
    """Table of the same, with the curve of the training below it."""
    table = html_table(["", ""], list(about.items()), name, warnings=warnings)
    key = next((k for k in FIGURES if history and k in history[0]), None)
    curves = {k: [row.get(k, math.nan) for row in history] for k in (f"valid_{key}", str(key))}
    found = {k.replace("_", " "): v for k, v in curves.items() if any(map(math.isfinite, v))}
    epochs = [row.get("epoch", i + 1.0) for i, row in enumerate(history)]
    return table + (svg_curves(epochs, found, "[nats per datum] by epoch") if found else "")


def training_text(history: Sequence[Row], best_epoch: int | None, seconds: float | None) -> str:
    """The epoch kept, its figure and the time; empty without a history."""
    if not history:
        return ""
    text = f"epoch {best_epoch} of {len(history)} kept" if best_epoch else f"{len(history)} epochs"
    row = next((r for r in history if r.get("epoch") == best_epoch), history[-1])
    key = next((k for name in FIGURES for k in (f"valid_{name}", name) if k in row), None)
    if key is not None:
        bound = "ln p(x) ≥ " if key.endswith("elbo") else ""
        text += f", {bound}{row[key]:.3f} nats ({key})"
    return text + (f", {seconds:.1f} s" if seconds is not None else "")


def spec_text(spec: DataSpec) -> str:
    """Name, shape, support and sizes of a data set."""
    sizes = ", ".join(f"{split} {n:,}" for split, n in spec.splits.items())
    given = f", given {', '.join(spec.given)}" if spec.given else ""
    return f"{spec.name}, event shape {spec.event_shape}, {spec.support}, {sizes}{given}"


def data_text(data: Any) -> str:
    """Text of the data that a program was trained on."""
    if isinstance(data, Dataset):
        return spec_text(data.spec)
    if isinstance(data, Tensor):
        return f"tensor {tuple(data.shape)}"
    if isinstance(data, tuple | list):
        shapes = [str(tuple(v.shape)) if isinstance(v, Tensor) else type(v).__name__ for v in data]
        return f"{type(data).__name__} of {', '.join(shapes)}"
    return type(data).__name__
