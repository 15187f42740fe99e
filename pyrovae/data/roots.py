"""Where data sets are looked for."""

import os
from pathlib import Path


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Folder that holds the data sets, in torchvision's layout (`MNIST/raw`, `FashionMNIST/raw`, ...).

    The argument comes first, then the environment variable `PYROVAE_DATA`, then the user's cache
    (`$XDG_CACHE_HOME/pyrovae`, or `~/.cache/pyrovae`). The folder need not exist.
    """
    if root is not None:
        return Path(root).expanduser()
    if variable := os.environ.get("PYROVAE_DATA"):
        return Path(variable).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "pyrovae"
