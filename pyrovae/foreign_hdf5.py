"""Claims of an HDF5 file of others, looked at before any of it is read: it may have been made to fill the memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from .files import check_claim

# Ours have a handful, and some hundreds.
MOST_GROUPS, MOST = 100, 10_000


def check_hdf5(path: str | os.PathLike[str]) -> None:
    """Refuses sizes that do not fit the file, links, and values that lie in other files.

    HDF5 gives the room for a variable that was never written, inflates what is a thousand times smaller, and follows
    links in circles and out of the file.

    Raises:
        ValueError: naming what is wrong.
        OSError: for what is no HDF5 file.
    """
    import h5py

    with h5py.File(path, "r") as file:
        claimed = claimed_by(file["/"])
    check_claim(path, claimed)


def claimed_by(group: Any, names: Iterable[str] | None = None) -> int:
    """Bytes that things of an HDF5 group claim to hold, with all that is in them; nothing is read.

    Args:
        group: of h5py.
        names: of the things; default: all.

    Raises:
        ValueError: links, circles, values in other files, or more things than an honest file has.
    """
    import h5py

    claimed, groups = 0, 1
    seen: set[int] = set()
    left: list[tuple[Any, Iterable[str]]] = [(group, group if names is None else names)]
    while left:
        one, inside = left.pop()
        for name in inside:
            if not isinstance(one.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"a link {name!r} to somewhere else")
            held = one[name]
            place = h5py.h5o.get_info(held.id).addr
            if place in seen or len(seen) >= MOST:
                raise ValueError(f"{name!r}, which is there twice, or one of more than {MOST:,} things")
            seen.add(place)
            if isinstance(held, h5py.Group):
                groups += 1
                if groups > MOST_GROUPS:
                    raise ValueError(f"more than {MOST_GROUPS} groups")
                left.append((held, held))
            elif isinstance(held, h5py.Dataset):
                if held.external or held.is_virtual:
                    raise ValueError(f"values of {name!r} in other files")
                claimed += held.size * held.dtype.itemsize if held.size else 0
    return claimed
