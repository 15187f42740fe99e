"""Libraries whose code is taken to keep no state, and plain values."""

from __future__ import annotations

import sys

import numpy as np
import torch

# Code of these is taken to keep no state of its own between two steps; the attributes of its objects are watched.
TRUSTED = {
    "torch",
    "pyro",
    "numpy",
    "scipy",
    "opt_einsum",
    "functorch",
    "sympy",
    "mpmath",
    "networkx",
    "pyrovae",
}
# What those rest on, and may import late.
TRUSTED |= {"typing_extensions", "filelock", "fsspec", "jinja2", "markupsafe", "triton", "tqdm", "setuptools"}
TRUSTED |= {"_distutils_hack", "pkg_resources"}
TRUSTED |= sys.stdlib_module_names - {"__main__"}
# Libraries that a program is written with.
LIBRARIES = ("torch", "pyro", "pyrovae")
# What changes by itself: no comparison of values would show it.
CLOCKS = {"random", "time", "datetime", "secrets", "uuid"}
PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size, np.generic)
_EXACT = {bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size}


def trusted(module: str | None) -> bool:
    """Whether the code of a module of this name is taken to keep no state."""
    name = (module or "").partition(".")[0]
    return name in TRUSTED or name.startswith(("namedtuple_", "__editable__"))


def is_plain(value: object) -> bool:
    """Whether a value is plain, and not of a class that adds attributes to one."""
    return type(value) in _EXACT or isinstance(value, np.generic)
