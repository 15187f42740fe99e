"""Weights on disk: parameters and running statistics as safetensors, without pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor, nn

from ..json_files import parse_json
from ..programs import ParameterStore, buffers_of
from ..tensor_files import DamagedFile, hash_of_tensors, read_tensors, write_tensors
from .folder import FORMAT


def save_weights(
    path: str | os.PathLike[str], store: ParameterStore, modules: Iterable[nn.Module] = ()
) -> None:
    """Writes all parameters, and the buffers of `modules` (running statistics), as safetensors."""
    tensors = tensors_of(store, modules)
    about = {"format": FORMAT, "kind": "weights", "sha256": hash_of_tensors(tensors)}
    # One key of metadata: safetensors writes several in random order, and equal runs would differ in their bytes.
    write_tensors(path, tensors, {"pyrovae": json.dumps(about, sort_keys=True)})


def tensors_of(store: ParameterStore, modules: Iterable[nn.Module] = ()) -> dict[str, Tensor]:
    """All parameters, and the buffers of `modules`, by the names that they have in a file of weights."""
    tensors = {f"parameter:{k}": v for k, v in store.state_dict().items()}
    return tensors | {f"buffer:{k}": v for k, v in buffers_of(modules).items()}


def load_weights(
    path: str | os.PathLike[str], store: ParameterStore, modules: Iterable[nn.Module] = ()
) -> str:
    """Reads weights into a program that has run once (so that its parameters exist); returns their hash.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a truncated, changed or foreign file, or weights of another architecture; the
            program is then as it was.
    """
    tensors, digest = read_weights(path)
    put_weights(tensors, store, modules, path)
    return digest


def put_weights(
    tensors: dict[str, Tensor], store: ParameterStore, modules: Iterable[nn.Module], path: object
) -> None:
    """Copies such tensors into a program that has run once; `path` is where they are from, for errors.

    Raises:
        ValueError: weights of another architecture; the program is then as it was.
    """
    own = buffers_of(modules)
    given = {k.removeprefix("buffer:"): v for k, v in tensors.items() if k.startswith("buffer:")}
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in given.items()}:
        raise ValueError(
            f"expected the {len(own)} buffers of this architecture in {path}, got {len(given)} others"
        )
    held = {f"parameter:{k}": v for k, v in store.state_dict().items()} | {
        f"buffer:{k}": v for k, v in own.items()
    }
    for name, value in tensors.items():
        if not name.startswith(("parameter:", "buffer:")):
            raise ValueError(f"expected parameters and buffers alone in {path}, got {name!r}: it is damaged")
        if name in held and held[name].is_floating_point() != value.is_floating_point():
            raise ValueError(
                f"expected {name} of {held[name].dtype} in {path}, got {value.dtype}: it is damaged, or of another "
                "architecture"
            )
    store.load_state_dict(
        {k.removeprefix("parameter:"): v for k, v in tensors.items() if k.startswith("parameter:")}
    )
    for name, value in given.items():
        own[name].copy_(value)


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], str]:
    """Tensors of a weights file, and their hash, which tells whether a result is of these very weights.

    Raises:
        FileNotFoundError, ValueError: as `load_weights`.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"expected a weights file, got {file}, which does not exist")
    try:
        tensors, metadata = read_tensors(file)
    except DamagedFile as error:
        raise ValueError(
            f"expected a whole safetensors file, got {file}, damaged or truncated ({error})"
        ) from None
    digest = hash_of_tensors(tensors)
    if "pyrovae" in metadata:
        try:
            known = parse_json(metadata["pyrovae"])["sha256"]
        except (ValueError, KeyError, TypeError):
            known = None
        if known != digest:
            raise ValueError(
                f"expected the weights that were written to {file}, got others: the file is damaged (its checksum is "
                "wrong)"
            )
    elif metadata.get("library") != "pyrovae":  # which files without a checksum have
        raise ValueError(f"expected weights written by pyrovae, got a foreign safetensors file {file}")
    return tensors, digest
