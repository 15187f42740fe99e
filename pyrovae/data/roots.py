"""Folders in which data sets are looked for."""

import os
from pathlib import Path

from ..files import expanded


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Folder that holds the data sets, in torchvision's layout (`MNIST/raw`, `FashionMNIST/raw`, ...).

    The argument comes first, then the environment variable `PYROVAE_DATA`, then the user's cache
    (`$XDG_CACHE_HOME/pyrovae`, or `~/.cache/pyrovae`). The folder need not exist.

    Raises:
        ValueError: for a user without a home folder, and none of these.
    """
    if root is not None:
        return expanded(root)
    if variable := os.environ.get("PYROVAE_DATA"):
        return expanded(variable)
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return expanded(cache) / "pyrovae"
