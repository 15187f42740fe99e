"""Arrays from files, without ever unpickling."""

import math
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from ..files import check_claim
from . import table_files

SUFFIXES = (".npy", ".npz", ".pt", *table_files.SUFFIXES)
MAGIC = b"\x93NUMPY"
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
    """Content of a `.npy`, `.npz` or `.pt` file: an array, or a dictionary; of `.csv` and `.parquet`: a table.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is a folder, the suffix is unknown, the file is cut short or corrupt, claims to hold more
            than it can (before that is read), or holds pickled objects, which could run code when they are loaded.
    """
    if not path.exists():
        raise FileNotFoundError(f"expected a data file at {path}, found none")
    if not path.is_file():
        what = "a folder" if path.is_dir() else "what is no plain file"
        raise ValueError(f"expected a data file at {path}, got {what}")
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"expected a file ending in {', '.join(SUFFIXES)} or .h5ad, got {path}")
    if path.suffix.lower() in table_files.SUFFIXES:
        return table_files.read_table(path)
    check_claim(path, max(path.stat().st_size, _inflated(path)))
    try:
        found = _read_torch(path) if path.suffix.lower() == ".pt" else _read_numpy(path)
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
    tensors = [t for t in (found.values() if isinstance(found, dict) else [found]) if isinstance(t, Tensor)]
    # One number can stand for all, by strides of 0.
    check_claim(path, sum(t.numel() * t.element_size() for t in tensors))
    return found


def _inflated(path: Path) -> int:
    if not zipfile.is_zipfile(path):
        return 0
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(member.file_size for member in archive.infolist())
    except UNREADABLE:
        return 0  # which reading it will tell


def _read_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_numpy(path: Path) -> Any:
    with path.open("rb") as file:
        _check_header(file, path.stat().st_size)
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        for member in loaded.zip.infolist():
            with loaded.zip.open(member) as file:
                _check_header(file, member.file_size)
        return {key: loaded[key] for key in loaded.files}


def _check_header(file: IO[bytes], size: int) -> None:
    """Refuses a .npy header that claims more than follows it: numpy makes room for all of it before it reads."""
    start = file.read(len(MAGIC) + 2)
    if not start.startswith(MAGIC):
        return
    first = start[len(MAGIC) :] == b"\1\0"
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"shape {shape} of {dtype} in {size:,} bytes")


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
