"""Weights on disk: parameters and running statistics as safetensors, without pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..json_files import parse_json
from ..programs import ParameterStore, buffers_of
from ..tensor_files import DamagedFile, hash_of_tensors, read_tensors, write_tensors
from .folder import CONFIG, FORMAT, program_hash


def save_weights(
    path: str | os.PathLike[str],
    store: ParameterStore,
    modules: Iterable[nn.Module] = (),
    config: dict[str, Any] | None = None,
) -> str:
    """Writes all parameters, and the buffers of `modules` (running statistics), as safetensors; returns their hash.

    With `config`, of the run folder, they are those of its program alone. A configuration that says their hash, as
    `weights`, is of these weights alone.
    """
    tensors = tensors_of(store, modules)
    digest = hash_of_tensors(tensors)
    about = {"format": FORMAT, "kind": "weights", "sha256": digest}
    if config is not None:
        about["program"] = program_hash(config)
    # One key of metadata: safetensors writes several in random order, and equal runs would differ in their bytes.
    write_tensors(path, tensors, {"pyrovae": json.dumps(about, sort_keys=True)})
    return digest


def tensors_of(store: ParameterStore, modules: Iterable[nn.Module] = ()) -> dict[str, Tensor]:
    """All parameters, and the buffers of `modules`, by the names that they have in a file of weights."""
    tensors = {f"parameter:{k}": v for k, v in store.state_dict().items()}
    return tensors | {f"buffer:{k}": v for k, v in buffers_of(modules).items()}


def load_weights(
    path: str | os.PathLike[str],
    store: ParameterStore,
    modules: Iterable[nn.Module] = (),
    config: dict[str, Any] | None = None,
) -> str:
    """Reads weights into a program that has run once (so that its parameters exist); returns their hash.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a truncated, changed or foreign file, weights of another architecture, or (of files that say
            it) of another program or run than `config` says; the program is then as it was.
    """
    tensors, digest, program = _read(path)
    if config is not None:
        _check_program(program, digest, config, path)
    put_weights(tensors, store, modules, path)
    return digest


def check_program(path: str | os.PathLike[str], config: dict[str, Any]) -> None:
    """Raises ValueError for weights of another program or run than `config` says, and as `load_weights`."""
    _, digest, program = _read(path)
    _check_program(program, digest, config, path)


def _check_program(
    program: str | None, digest: str, config: dict[str, Any], path: str | os.PathLike[str]
) -> None:
    if program not in (None, program_hash(config)):
        raise ValueError(
            f"expected the program that the weights in {path} were trained in, got another one: {CONFIG} beside them "
            "has changed in model, program, plate or spec; try to put it back, or to train anew"
        )
    # Weights that were written without a run say of none; folders of before do not name theirs.
    if program is not None and config.get("weights") not in (None, digest):
        raise ValueError(
            f"expected the weights that the run of {CONFIG} found (hash {str(config['weights'])[:12]}) in {path}, got "
            f"those of another run of the same program ({digest[:12]}): metrics and seed would not be theirs; try to "
            "put them back, or the whole folder of the other run"
        )


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
    return _read(path)[:2]


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], str, str | None]:
    """Tensors, their hash, and that of their program, which files of before do not have."""
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"expected a weights file, got {file}, which does not exist")
    try:
        tensors, metadata = read_tensors(file)
    except DamagedFile as error:
        raise ValueError(
            f"expected a whole safetensors file, got {file}, damaged or truncated ({error})"
        ) from None
    digest, program = hash_of_tensors(tensors), None
    if "pyrovae" in metadata:
        try:
            about = parse_json(metadata["pyrovae"])
            known, program = about["sha256"], about.get("program")
        except (ValueError, KeyError, TypeError, AttributeError):
            known = None
        if known != digest:
            raise ValueError(
                f"expected the weights that were written to {file}, got others: the file is damaged (its checksum is "
                "wrong)"
            )
    elif metadata.get("library") != "pyrovae":  # which files without a checksum have
        raise ValueError(f"expected weights written by pyrovae, got a foreign safetensors file {file}")
    return tensors, digest, program
