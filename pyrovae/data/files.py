"""Arrays from files, without ever unpickling."""

import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

SUFFIXES = (".npy", ".npz", ".pt")
# Everything that numpy and torch raise on files which are cut short or overwritten.
UNREADABLE = (
    ValueError,
    RuntimeError,
    OSError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    SyntaxError,
    NotImplementedError,
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
    pickle.UnpicklingError,
)


def read_file(path: Path) -> Any:
    """Content of a `.npy`, `.npz` or `.pt` file: an array, or a dictionary.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the suffix is unknown, the file is cut short or corrupt, or it holds pickled objects,
            which could run code when they are loaded.
    """
    if not path.exists():
        raise FileNotFoundError(f"expected a data file at {path}, found none")
    if not path.is_file() or path.suffix not in SUFFIXES:
        raise ValueError(f"expected a file ending in {', '.join(SUFFIXES)}, got {path}")
    try:
        return _read_torch(path) if path.suffix == ".pt" else _read_numpy(path)
    except PermissionError:
        raise
    except UNREADABLE as error:
        if _holds_objects(path, error):
            raise ValueError(
                f"expected plain arrays in {path}, got pickled objects, which are not loaded since they can "
                "run code; try torch.save of tensors or of a dict of tensors (.pt), or np.save / np.savez of "
                "numeric arrays (.npy, .npz)"
            ) from error
        raise ValueError(
            f"expected a readable {path.suffix} file, got {path}, which is cut short or corrupt "
            f"({type(error).__name__}); try to write it again"
        ) from error


def _read_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_numpy(path: Path) -> Any:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        return {key: loaded[key] for key in loaded.files}


def _holds_objects(path: Path, error: Exception) -> bool:
    if "Object arrays cannot be loaded" in str(error):
        return True
    with path.open("rb") as file:
        start = file.read(1)
    # A pickle (protocol 2 or later) begins with the byte 0x80; torch keeps one inside its zip file.
    refused = isinstance(error, pickle.UnpicklingError) or any(
        words in str(error) for words in ("pickled data", "pickled (object) data", "magic number")
    )
    return refused and (start == b"\x80" or zipfile.is_zipfile(path))
