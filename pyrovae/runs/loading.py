"""`pv.load`: a run folder brought back as an object."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from ..checking import checked
from ..data import DataSpec
from ..programs import ParameterStore, inspect_program, module_mode, store_of
from ..programs.declaration import with_plate
from ..programs.placed import placed
from .consent import check_consent, code_of
from .data import Data, as_data, check_same, check_sizes, load_again, moved, training_rows
from .folder import CONFIG, WEIGHTS, read_config
from .run import Run
from .weights import load_weights

Device = torch.device | Literal["auto", "cpu", "cuda"]
Program = Callable[..., Any]

# Rebuilds the programs that options in a configuration name. One function, of the code that is installed: a folder
# of somebody else's is not to choose what is run.
_builders: list[Callable[[dict[str, Any], Any], Any]] = []


def register_builder(rebuild: Callable[[dict[str, Any], Any], Any]) -> None:
    """Makes `rebuild(config, data)` what gives the programs of a run folder that names them by options."""
    _builders[:] = [rebuild]


@checked
def load(
    run: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    device: Device | str = "auto",
    *,
    model: Program | None = None,
    guide: Program | None = None,
    build: Callable[[Any], Any] | None = None,
    data: Any = None,
    trust: bool = False,
) -> Run:
    """Brings a run folder back: its programs with their weights, data, history and evidence.

    Runs of the scripts, and those saved by `pv.save(..., build=...)`, rebuild their programs
    themselves. Where such a run names code (`--model file.py:attribute`), it is imported only if this
    user has trained with that very code, or with `trust=True`: a folder of somebody else's does not choose
    what is run. For other runs, and to use other code, give `model` and `guide`, or `build`.

    Args:
        run: the folder.
        root: folder of data sets, where it differs from the run's.
        device: `"auto"` takes a GPU where there is one.
        model, guide: the programs, as they were given to `pv.fit`; weights are written into their modules in place,
            and these are moved to the device.
        build: `build(data)` that gives such a pair, or an object with `.model` and `.guide`.
        data: of the run, where they have no name: what was given to `pv.save`; or the path of their file, where it is
            not where it was.
        trust: consent to run the code that the folder names.

    Raises:
        FileNotFoundError: no run there, or a file of it (or of its data) is missing.
        ValueError: an unfinished run, damaged files, another format, weights of another
            architecture, other data than the run's, or programs that are not known.
        pyrovae.runs.NotTrusted: a ValueError, for code that the user has not consented to run.
        TypeError: programs in the place of the folder of data sets.

    Example:
        >>> run = pv.load("runs/train")  # doctest: +SKIP
        >>> ev = pv.evidence(run.model, run.guide, run.data.test)  # doctest: +SKIP
    """
    if callable(root) or callable(device):
        raise TypeError(
            "expected the folder of data sets, got a program; try pv.load(folder, model=model, guide=guide)"
        )
    folder = Path(run)
    config = read_config(folder)
    spec = _spec(config, folder)
    where = device_of(device)
    if (model is None) != (guide is None) or (model is not None and build is not None):
        raise ValueError("expected model and guide together, or build alone, got another mix")
    if model is None and build is None:
        check_consent(_reference(config, folder), folder, trust)
    given: Data | None = None
    if isinstance(data, str | os.PathLike):
        data = _from_path(data, config, folder, root)
    if data is not None:
        given = moved(as_data(data), where)
        check_same(spec, given, folder, config, handed=True)
    elif isinstance(config.get("data"), dict) and model is None:
        check_sizes(spec, config["data"], folder)
        loaded = load_again(config["data"], root, folder)
        check_same(spec, loaded, folder, config)
        given = loaded.to(where)
    if model is not None and guide is not None:
        pair = model, guide
    elif build is not None:
        pair = as_pair(build(_needed(given, spec, folder)), "build")
    else:
        pair = _rebuilt(config, given, folder)
    for fn in pair:
        if store_of(fn) is not None:
            raise ValueError(
                "expected programs without parameters of their own, got one bound to those of a fit or run; try the "
                "functions that were given to pv.fit"
            )
    if model is not None or build is not None:
        pair = placed(*pair, where)
    known = given if not spec.given else _needed(given, spec, folder)  # their context has no stand-in
    rows = training_rows(known) if known is not None else stand_in(spec, where)
    plate = config.get("plate") if isinstance(config.get("plate"), str) else None
    store, modules, digest = with_weights(*pair, rows, folder, config, plate)
    bound = with_plate(store.bind(pair[0]), plate), store.bind(pair[1])
    return Run(folder, config, spec, *bound, store, modules, where, digest, given, root, code_of(config))


def device_of(device: Device | str) -> torch.device:
    """The device that is meant.

    Raises:
        ValueError: CUDA where there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = torch.device(device)
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("expected a CUDA device for device='cuda', got none; try device='cpu'")
    return found


def with_weights(
    model: Program,
    guide: Program,
    rows: tuple[Any, ...],
    folder: Path,
    config: dict[str, Any],
    plate: str | None = None,
) -> tuple[ParameterStore, list[torch.nn.Module], str]:
    """A store with the folder's weights for these programs, the modules they run, and the weights' hash."""
    store, modules = brought_to_life(model, guide, rows, plate)
    return store, modules, load_weights(folder / WEIGHTS, store, modules, config)


def brought_to_life(
    model: Program, guide: Program, rows: tuple[Any, ...], plate: str | None = None
) -> tuple[ParameterStore, list[torch.nn.Module]]:
    """A store with the parameters that the programs create, and the modules they run: weights can take their place."""
    store = ParameterStore()
    model, guide = store.bind(model), store.bind(guide)  # their own: of an earlier fit nothing is missed here
    with store.active(), module_mode(model, guide, training=False) as modules:
        inspect_program(model, guide, *rows, plate=plate)
    return store, modules


def stand_in(spec: DataSpec, device: torch.device) -> tuple[torch.Tensor]:
    """Zeros in the shape of the training data: they lie in every support, and bring parameters to life."""
    return (torch.zeros(1, device=device).expand(spec.splits["train"], *spec.event_shape),)


def as_pair(owner: Any, name: str) -> tuple[Program, Program]:
    """Model and guide of a pair, or of an object that has them.

    Raises:
        ValueError: for anything else.
    """
    if hasattr(owner, "model") and hasattr(owner, "guide"):
        return owner.model, owner.guide
    if isinstance(owner, tuple) and len(owner) == 2 and all(callable(p) for p in owner):
        return owner[0], owner[1]
    raise ValueError(
        f"expected {name} to give a (model, guide) pair or an object with .model and .guide, got "
        f"{type(owner).__name__}"
    )


def _reference(config: dict[str, Any], folder: Path) -> str:
    """Program that the folder names."""
    options = config.get("model")
    if not isinstance(options, dict):
        raise ValueError(
            f"expected the programs of {folder}, which was saved from Python without build=, got none; try "
            f"pv.load({str(folder)!r}, model=..., guide=...) in Python, or to save it with build='parts.py:build' (a "
            "function in a file that makes the programs), which the command needs"
        )
    return str(options.get("model", "vae"))


def _rebuilt(config: dict[str, Any], given: Data | None, folder: Path) -> tuple[Program, Program]:
    if not _builders:
        raise ValueError(
            f"expected the builder of the programs of {folder}, got none; try pv.load in place of runs.load"
        )
    data = _needed(given, DataSpec.from_json(config["spec"]), folder)
    return as_pair(_builders[0](config, data), "the run")


def _needed(given: Data | None, spec: DataSpec, folder: Path) -> Data:
    if given is None:
        raise ValueError(
            f"expected the data of {folder} (a {spec.name} of event shape {spec.event_shape}), which have no name to "
            "load them by, got none; try pv.load(..., data=...)"
        )
    return given


def _from_path(
    path: str | os.PathLike[str], config: dict[str, Any], folder: Path, root: str | os.PathLike[str] | None
) -> Data:
    """The run's data from another file."""
    source = config.get("data")
    if not isinstance(source, dict):
        raise ValueError(
            f"expected a run that says how its data were loaded from a file, got {folder}, saved from Python with data "
            "of its own; try data= with what was given to pv.save"
        )
    return load_again({**source, "data": os.fspath(path)}, root)


def _spec(config: dict[str, Any], folder: Path) -> DataSpec:
    if "compare" in config:
        best = Path(str(config.get("best")))
        best = folder / best if (folder / best).is_dir() else best
        raise ValueError(
            f"expected the run folder of one program, got the comparison of several in {folder}; try its best, {best}"
        )
    try:
        return DataSpec.from_json(config["spec"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"expected the description of its data in {folder / CONFIG}, got a damaged one ({error})"
        ) from None
