"""Weights on disk: parameters and running statistics as safetensors, without pickle."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..files import replacing
from ..programs import ParameterStore, buffers_of
from .folder import FORMAT


def save_weights(
    path: str | os.PathLike[str], store: ParameterStore, modules: Iterable[nn.Module] = ()
) -> None:
    """Writes all parameters, and the buffers of `modules` (running statistics), as safetensors."""
    tensors = {f"parameter:{k}": v for k, v in store.state_dict().items()}
    tensors |= {f"buffer:{k}": v for k, v in buffers_of(modules).items()}
    # Clones: safetensors refuses tensors that share memory.
    whole = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    with replacing(path) as partial:
        save_file(whole, partial, metadata={"format": str(FORMAT), "library": "pyrovae"})


def load_weights(
    path: str | os.PathLike[str], store: ParameterStore, modules: Iterable[nn.Module] = ()
) -> None:
    """Reads weights into a program that has run once (so that its parameters exist).

    Raises:
        FileNotFoundError: no such file.
        ValueError: a truncated or foreign file, or weights of another architecture; the
            program is then as it was.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"expected a weights file, got {file}, which does not exist")
    try:
        with safe_open(file, framework="pt") as f:
            if (f.metadata() or {}).get("library") != "pyrovae":
                raise ValueError(
                    f"expected weights written by pyrovae, got a foreign safetensors file {file}"
                )
            tensors: dict[str, Tensor] = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"expected a whole safetensors file, got {file}, damaged or truncated ({error})"
        ) from None
    own = buffers_of(modules)
    given = {k.removeprefix("buffer:"): v for k, v in tensors.items() if k.startswith("buffer:")}
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in given.items()}:
        raise ValueError(
            f"expected the {len(own)} buffers of this architecture in {file}, got {len(given)} others"
        )
    store.load_state_dict(
        {k.removeprefix("parameter:"): v for k, v in tensors.items() if k.startswith("parameter:")}
    )
    for name, value in given.items():
        own[name].copy_(value)


def weights_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a weights file: tells whether a result on disk is that of these very weights.

    Raises:
        FileNotFoundError: no such file.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"expected a weights file, got {file}, which does not exist")
    return hashlib.sha256(file.read_bytes()).hexdigest()
