"""Checkpoints on disk: written whole or not at all, recognised when damaged, without pickle."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import Any

import pyro
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..distributed import World
from ..files import replacing
from .packing import Tensors, pack, unpack

FORMAT = 1
PATTERN = "checkpoint-*.safetensors"


class DamagedCheckpoint(ValueError):
    """A file that is no whole checkpoint of this library."""


def write_checkpoint(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Writes nested state as one safetensors file, its JSON and a SHA-256 in the metadata.

    Raises:
        TypeError: for state that is no tensor, number, string or container of them.
        OSError: where it cannot be written; what was at `path` is untouched.
    """
    skeleton, tensors = pack(state)
    # Clones: safetensors refuses tensors that share memory.
    whole = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    text = json.dumps(skeleton)
    metadata = {
        "library": "pyrovae",
        "kind": "checkpoint",
        "format": str(FORMAT),
        "state": text,
        "sha256": _checksum(text, whole),
    }
    # In memory first: an error of the disk is then an OSError, with its number and file.
    content = safetensors.torch.save(whole, metadata)
    with replacing(path) as partial:
        partial.write_bytes(content)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads what `write_checkpoint` wrote, tensors on the CPU.

    Raises:
        DamagedCheckpoint: for a truncated, changed or foreign file.
        ValueError: for a checkpoint of another format.
    """
    try:
        with safe_open(path, framework="pt") as f:
            metadata = f.metadata() or {}
            if metadata.get("library") != "pyrovae" or metadata.get("kind") != "checkpoint":
                raise DamagedCheckpoint(f"expected a checkpoint of pyrovae, got a foreign file {path}")
            tensors = {k: f.get_tensor(k).clone() for k in f.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise DamagedCheckpoint(f"expected a whole checkpoint, got {path}, damaged ({error})") from None
    text = metadata.get("state", "")
    if metadata.get("sha256") != _checksum(text, tensors):
        raise DamagedCheckpoint(f"expected a whole checkpoint, got {path}, whose checksum is wrong")
    if metadata.get("format") != str(FORMAT):
        raise ValueError(f"expected a checkpoint of format {FORMAT}, got {metadata.get('format')} in {path}")
    state: dict[str, Any] = unpack(json.loads(text), tensors)
    return state


def _checksum(text: str, tensors: Tensors) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(repr((name, str(value.dtype), tuple(value.shape))).encode())
        # Bytes, for NumPy has no bfloat16.
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def shared_state(world: World, state: dict[str, Any] | None) -> dict[str, Any] | None:
    """Nested state of the first rank on all of them, tensors on the CPU: no folder needs to be shared."""
    if world.size == 1:
        return state
    skeleton, tensors = pack(state)
    whole = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    skeleton = world.share_json(skeleton)
    content = safetensors.torch.load(world.share(safetensors.torch.save(whole)))
    shared: dict[str, Any] | None = unpack(skeleton, content)
    return shared


class Checkpoints:
    """A folder of numbered checkpoints of one run, the last `keep` of them.

    Each is whole in itself: it also carries the best weights so far, so that pruning and
    falling back to an earlier one lose nothing else.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"expected to keep >= 1 checkpoints, got {keep}")
        self.folder, self.keep = Path(folder), keep

    def files(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob(PATTERN))

    def save(self, state: dict[str, Any]) -> Path:
        """Writes the next checkpoint and removes those beyond the last `keep`.

        Raises:
            OSError: where it cannot be written; the former ones are untouched.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        files = self.files()
        number = 1 + (int(files[-1].stem.rpartition("-")[2]) if files else 0)
        path = self.folder / f"checkpoint-{number:06d}.safetensors"
        versions = {"torch": torch.__version__, "pyro": pyro.__version__}
        try:
            write_checkpoint(path, {"versions": versions, **state})
        except OSError as error:
            kept = f"the last whole one is {files[-1].name}" if files else "there is none before it"
            reason = (
                f"checkpoint not written ({error.strerror or error}; {kept}); try resuming with more room"
            )
            raise OSError(error.errno, reason, str(path)) from error
        for old in self.files()[: -self.keep]:
            old.unlink()
        return path

    def load(self) -> dict[str, Any] | None:
        """The newest whole checkpoint, or None. Damaged ones are set aside, with a warning.

        Raises:
            ValueError: for a checkpoint of another format.
        """
        for leftover in self.folder.glob(f".{PATTERN}"):  # of a process killed while it wrote
            leftover.unlink()
        for path in reversed(self.files()):
            try:
                state = read_checkpoint(path)
            except DamagedCheckpoint as error:
                path.rename(path.with_suffix(".damaged"))
                warnings.warn(f"{error}; taking the one before it", stacklevel=2)
                continue
            made = state.get("versions", {}).get("torch")
            if made != torch.__version__:
                warnings.warn(
                    f"expected a checkpoint of torch {torch.__version__}, got one of {made}: the run continues, "
                    "but need not equal one that was never interrupted",
                    stacklevel=2,
                )
            return state
        return None

    def clear(self) -> None:
        """Removes the checkpoints, and the folder if nothing else is in it."""
        if self.folder.is_dir():
            for path in (
                *self.files(),
                *self.folder.glob(f".{PATTERN}"),
                *self.folder.glob("checkpoint-*.damaged"),
            ):
                path.unlink()
            if not any(self.folder.iterdir()):
                self.folder.rmdir()


def hash_of_rows(*rows: tuple[Tensor, ...] | None) -> str:
    """SHA-256 of the content, dtype and shape of tensors."""
    flat = {
        f"{i}/{j}": t.detach().cpu().contiguous() for i, r in enumerate(rows) for j, t in enumerate(r or ())
    }
    return _checksum("", flat)
