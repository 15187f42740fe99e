"""A model and its guide, as options give them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Pair(NamedTuple):
    """A Pyro model and its guide."""

    model: Callable[..., Any]
    guide: Callable[..., Any]
