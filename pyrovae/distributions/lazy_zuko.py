"""zuko, imported when it is needed and without its side effect."""

from __future__ import annotations

import importlib
from typing import Any

import torch

__all__ = ["import_zuko"]


def import_zuko(module: str) -> Any:
    """Imports a module of zuko, and undoes its switching off argument validation for the whole process.

    Args:
        module: Its name inside zuko, for example `"flows"`.
    """
    validate = torch.distributions.Distribution._validate_args
    try:
        return importlib.import_module(f"zuko.{module}")
    finally:
        torch.distributions.Distribution.set_default_validate_args(validate)
