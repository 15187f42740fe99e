"""What an objective asks of a program, looked at in its first step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def check_first_step(
    objective: Any, model: Callable[..., Any], guide: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """todo"""
