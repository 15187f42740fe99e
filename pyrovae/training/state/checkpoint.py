"""Checkpoints on disk: written whole or not at all, recognised when damaged, without pickle."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import pyro
import safetensors.torch
import torch
from torch import Tensor

from ...distributed import World
from ...json_files import parse_json
from ...tensor_files import DamagedFile, hash_of_tensors, read_tensors, write_tensors
from .packing import pack, unpack

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
    text = json.dumps(skeleton)
    metadata = {
        "library": "pyrovae",
        "kind": "checkpoint",
        "format": str(FORMAT),
        "state": text,
        "sha256": hash_of_tensors(tensors, text),
    }
    write_tensors(path, tensors, metadata)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads what `write_checkpoint` wrote, tensors on the CPU.

    Raises:
        DamagedCheckpoint: for a truncated, changed or foreign file.
        OSError: for a file that could not be read, which may be whole.
        ValueError: for a checkpoint of another format.
    """
    try:
        tensors, metadata = read_tensors(path)
    except DamagedFile as error:
        raise DamagedCheckpoint(f"expected a whole checkpoint, got {path}, damaged ({error})") from None
    if metadata.get("library") != "pyrovae" or metadata.get("kind") != "checkpoint":
        raise DamagedCheckpoint(f"expected a checkpoint of pyrovae, got a foreign file {path}")
    text = metadata.get("state", "")
    if metadata.get("sha256") != hash_of_tensors(tensors, text):
        raise DamagedCheckpoint(f"expected a whole checkpoint, got {path}, whose checksum is wrong")
    if metadata.get("format") != str(FORMAT):
        raise ValueError(f"expected a checkpoint of format {FORMAT}, got {metadata.get('format')} in {path}")
    try:
        state: dict[str, Any] = unpack(parse_json(text), tensors)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedCheckpoint(
            f"expected the state of a run in {path}, got a damaged one ({error})"
        ) from None
    return state


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
        numbered = [p for p in self.folder.glob(PATTERN) if _number(p) is not None]
        return sorted(numbered, key=lambda p: (_number(p), p.name))

    def save(self, state: dict[str, Any]) -> Path:
        """Writes the next checkpoint and removes those beyond the last `keep`.

        Raises:
            OSError: where it cannot be written; the former ones are untouched.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        files = self.files()
        number = 1 + ((_number(files[-1]) or 0) if files else 0)
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
            OSError: for one that could not be read: it may be whole, and stays.
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

    def clear(self, spared: int = 0) -> None:
        """Removes the checkpoints but the last `spared`, and the folder if nothing else is in it."""
        if self.folder.is_dir():
            files = self.files()
            for path in (
                *files[: len(files) - spared],
                *self.folder.glob(f".{PATTERN}"),
                *self.folder.glob("checkpoint-*.damaged"),
            ):
                path.unlink()
            if not any(self.folder.iterdir()):
                self.folder.rmdir()


def _number(path: Path) -> int | None:
    """Number of a checkpoint, by which they are in order: names sort wrongly beyond six digits."""
    text = path.stem.rpartition("-")[2]
    return int(text) if text.isdecimal() else None


def hash_of_rows(*rows: tuple[Tensor, ...] | None) -> str:
    """SHA-256 of the content, dtype and shape of tensors."""
    flat = {
        f"{i}/{j}": t.detach().cpu().contiguous() for i, r in enumerate(rows) for j, t in enumerate(r or ())
    }
    return hash_of_tensors(flat)
