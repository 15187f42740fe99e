"""Run folders: a trained program's configuration, weights and history on disk, without pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyro
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .files import replacing
from .programs import ParameterStore, buffers_of

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
