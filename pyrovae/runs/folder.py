"""The run folder: which files it has, when it is whole, and its configuration."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyro
import torch

from ..files import replacing

FORMAT = 1
CONFIG, WEIGHTS, HISTORY, EVIDENCE = "config.json", "weights.safetensors", "metrics.csv", "evidence.nc"
# Of a run that has not ended: how it was started, and its checkpoints.
UNFINISHED, CHECKPOINTS = "unfinished.json", "checkpoints"


def create(path: str | os.PathLike[str], overwrite: bool = False, resume: bool = False) -> Path:
    """Makes a run folder, or takes an empty one; tells before any work is done if it cannot be used.

    Raises:
        FileExistsError: it holds a run already, and `overwrite` is not given; or an unfinished
            one, and `resume` is not given either.
        OSError: it cannot be made or written.
    """
    folder = Path(path)
    if is_unfinished(folder):
        if not (overwrite or resume):
            raise FileExistsError(
                f"expected a new run folder, got {folder}, which holds an unfinished run; try --resume, another "
                "--out, or --overwrite"
            )
    elif (folder / CONFIG).exists() and not overwrite:
        raise FileExistsError(
            f"expected a new run folder, got {folder}, which holds a run; try another --out, or --overwrite"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG, UNFINISHED, WEIGHTS, HISTORY, EVIDENCE, "training.png"):
        stem, _, suffix = name.partition(".")
        for leftover in folder.glob(f".{stem}-*.{suffix}"):  # of a process killed while it wrote
            leftover.unlink()
    probe = folder / ".writable"
    probe.touch()
    probe.unlink()
    return folder


def is_unfinished(folder: Path) -> bool:
    """Whether a run was started there and has not ended."""
    return (folder / UNFINISHED).is_file()


def write_config(folder: Path, config: dict[str, Any], name: str = CONFIG) -> None:
    """Writes config.json, with the format and the versions that made it."""
    versions = {"torch": torch.__version__, "pyro": pyro.__version__}
    with replacing(folder / name) as partial:
        partial.write_text(json.dumps({"format": FORMAT, "versions": versions, **config}, indent=2) + "\n")


def read_config(path: str | os.PathLike[str], name: str = CONFIG) -> dict[str, Any]:
    """Reads config.json of a run folder.

    Raises:
        FileNotFoundError: no such folder, or no run in it.
        ValueError: an unfinished run, a damaged file, or another format.
    """
    file = Path(path) / name
    if name == CONFIG and is_unfinished(Path(path)):
        raise ValueError(
            f"expected a run that has ended, got an unfinished one in {Path(path)}; try train --out {Path(path)} "
            "--resume"
        )
    if not file.is_file():
        raise FileNotFoundError(f"expected a run folder with {name}, got {Path(path)}")
    try:
        config = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"expected JSON in {file}, got a damaged file ({error})") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise ValueError(f"expected a run folder of format {FORMAT}, got {found!r} in {file}")
    return config
