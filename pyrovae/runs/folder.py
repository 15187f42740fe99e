"""The run folder: which files it has, when it is whole, and its configuration."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyro
import torch

from ..files import check_writable, write_whole
from ..json_files import check_kinds, read_json
from ..text import has_controls
from .lock import locked

FORMAT = 1
CONFIG, WEIGHTS, HISTORY, EVIDENCE = "config.json", "weights.safetensors", "metrics.csv", "evidence.nc"
# Of a run that has not ended: how it was started, and its checkpoints.
UNFINISHED, CHECKPOINTS = "unfinished.json", "checkpoints"
PARTIAL, TENSORBOARD = "partial", "tensorboard"
TRAINING = ("training.png", "training.pdf", "training.svg")  # one of them
# Of what a configuration says; what is within is looked at by those who read it.
KINDS: dict[str, Any] = {
    **dict.fromkeys(("versions", "spec"), dict),
    **dict.fromkeys(("data", "model", "train"), dict | None),
    **dict.fromkeys(("code", "plate", "weights"), str | None),
    "program": tuple[str, ...] | None,
    "best_epoch": int | None,
    "seconds": float | None,
}
# What other scripts write of the weights in a run folder: of new ones it says nothing.
_RESULTS = re.compile(
    r"evidence(-(train|valid))?(-\d+)?\.nc|(gaps|sandwich)\.(json|md)|free_energy\.md|samples\.(npz|csv)|imputed(_values)?\.csv|"
    r"report\.html|(training|evidence(-(train|valid))?(-\d+)?|gaps|sandwich|free_energy)\.(png|pdf|svg)|"
    r"(integration|work|schedule|chain|noising|samples|reconstructions|latent|manifold|traversals|interpolations|"
    r"neighbours|likely|levels|level_samples|classes)\.(png|pdf|svg)"
)
# How names begin of files that were being written when their process was killed (see `files.replacing`).
_HALF = tuple(
    f".{s}-" for s in ("config", "unfinished", "weights", "metrics", "evidence", "training", "probe")
)


@contextmanager
def occupied(path: str | os.PathLike[str], overwrite: bool = False, resume: bool = False) -> Iterator[Path]:
    """Makes a run folder, or takes an empty one, and holds its lock; tells before any work if it cannot be used.

    What killed processes have left half written is removed; and the folder, where it was made here and nothing came
    into it.

    Raises:
        FileExistsError: it holds a run already, and `overwrite` is not given; or an unfinished
            one, and `resume` is not given either; or a process that is alive writes there, which is named.
        ValueError: it has links where folders of its own belong, or folders where files do.
        OSError: it cannot be made or written.
    """
    folder = Path(path)
    made = [p for p in (folder, *folder.parents) if not p.exists()]
    check_free(folder, overwrite, resume)
    try:
        with _locked(folder):
            # Under the lock: another process may have ended a run since.
            check_free(folder, overwrite, resume)
            for name in (CHECKPOINTS, PARTIAL, TENSORBOARD):
                check_own(folder, name)
            for name in (CONFIG, UNFINISHED, WEIGHTS, HISTORY, *TRAINING):
                if (folder / name).is_dir() and not (folder / name).is_symlink():
                    raise ValueError(
                        f"expected {folder / name} to be a file of the run's, got a folder; try another --out"
                    )
            check_writable(folder)
            for leftover in folder.glob(".*-*"):  # of processes killed while they wrote
                if not leftover.is_dir() and leftover.name.startswith(_HALF):
                    leftover.unlink(missing_ok=True)
            yield folder
    finally:
        for empty in made:
            with contextlib.suppress(OSError):
                empty.rmdir()


def _locked(folder: Path) -> contextlib.ExitStack:
    stack = contextlib.ExitStack()
    for _ in range(100):
        folder.mkdir(parents=True, exist_ok=True)
        # Another process that found no use for an empty folder may remove it just now.
        with contextlib.suppress(FileNotFoundError):
            stack.enter_context(locked(folder))
            return stack
    raise FileNotFoundError(f"expected the folder {folder} to stay, got one that is removed again and again")


def check_free(folder: Path, overwrite: bool = False, resume: bool = False) -> None:
    """Raises FileExistsError for a folder with a run, unless it may be replaced or continued; see `occupied`."""
    if is_unfinished(folder):
        if not (overwrite or resume):
            raise FileExistsError(
                f"expected a new run folder, got {folder}, which holds an unfinished run; try --resume, another "
                "--out, or --overwrite"
            )
    elif (folder / CONFIG).exists() and not overwrite:
        raise FileExistsError(
            f"expected a new run folder, got {folder}, which holds a run; try another --out, or --overwrite (in "
            "Python overwrite=True)"
        )


def check_strays(folder: Path) -> None:
    """Raises FileExistsError for files of a run's names without a run: somebody's, or all that is left of one."""
    if is_unfinished(folder) or (folder / CONFIG).exists():
        return
    for name in (WEIGHTS, HISTORY, *TRAINING):
        if (folder / name).is_file():
            raise FileExistsError(
                f"expected a new run folder, got {folder}, which holds {name} and no run; try another --out, or "
                "--overwrite"
            )


def check_own(folder: Path, name: str) -> Path:
    """The folder `name` in a run folder.

    Raises:
        ValueError: it is a link: a run folder of somebody else's does not choose where is written.
    """
    if (folder / name).is_symlink():
        raise ValueError(
            f"expected {folder / name} to be a folder of the run's own, got a link to {os.readlink(folder / name)}; "
            "try to remove it"
        )
    return folder / name


def remove_results(folder: Path) -> None:
    """Removes what was found of former weights, once new ones have taken their place."""
    for path in folder.iterdir():
        if _RESULTS.fullmatch(path.name) and (path.is_symlink() or not path.is_dir()):
            path.unlink(missing_ok=True)


def remove_run(folder: Path) -> None:
    """Removes what is left of a run that has no configuration any more, and what was found of its weights."""
    for name in (WEIGHTS, HISTORY):
        (folder / name).unlink(missing_ok=True)
    remove_results(folder)


def is_unfinished(folder: Path) -> bool:
    """Whether a run was started there and has not ended."""
    return (folder / UNFINISHED).is_file()


def write_config(folder: Path, config: dict[str, Any], name: str = CONFIG) -> None:
    """Writes config.json, with the format and the versions that made it."""
    versions = {"torch": torch.__version__, "pyro": pyro.__version__}
    write_whole(
        folder / name, json.dumps({"format": FORMAT, "versions": versions, **config}, indent=2) + "\n"
    )


def program_hash(config: dict[str, Any]) -> str:
    """SHA-256 of what a configuration says of the program and its data: weights are of this program alone.

    Another activation or likelihood may have parameters of the same shapes.
    """
    said = {name: config.get(name) for name in ("model", "program", "plate", "spec")}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


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
        config = read_json(file)
    except ValueError as error:
        raise ValueError(f"expected JSON in {file}, got a damaged file ({error})") from None
    if _has_controls(config):
        raise ValueError(
            f"expected text in {file}, got control characters, which would act on a terminal that shows them"
        )
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise ValueError(f"expected a run folder of format {FORMAT}, got {found!r} in {file}")
    check_kinds(config, KINDS, file)
    return config


def _has_controls(value: Any) -> bool:
    """Whether any text in it has control characters (escape sequences, say)."""
    left = [value]  # no recursion: a file may be as deep as JSON allows
    while left:
        one = left.pop()
        if isinstance(one, str):
            if has_controls(one):
                return True
        elif isinstance(one, dict):
            left += [*one, *one.values()]
        elif isinstance(one, list):
            left += one
    return False
