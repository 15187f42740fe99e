"""The folder where torch keeps compiled code: without one that can be made, not even its optimizers can be imported."""

from __future__ import annotations

import atexit
import getpass
import os
import shutil
import sys
import tempfile
import warnings

from ...files import check_writable

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def ensure_compile_cache() -> None:
    """Takes a temporary folder where torch's own cannot be written: that costs time, and no training.

    Does nothing once torch's compiler is imported, which has its folder then.
    """
    if "torch._dynamo" in sys.modules:
        return
    try:
        folder = os.environ.get(VARIABLE) or os.path.join(
            tempfile.gettempdir(), f"torchinductor_{getpass.getuser()}"
        )
        os.makedirs(folder, exist_ok=True)
        check_writable(folder)
    except (OSError, KeyError) as error:
        try:
            own = tempfile.mkdtemp(prefix="pyrovae-compiled-")
            atexit.register(shutil.rmtree, own, ignore_errors=True)
        except OSError:
            own = os.path.abspath(os.sep)  # it is there; compiling fails then, and programs run eagerly
        os.environ[VARIABLE] = own
        warnings.warn(
            f"torch's folder of compiled code cannot be written ({error}): code is compiled for this process alone",
            stacklevel=3,
        )
