"""`pv.save`: a fit made in Python as a run folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..checking import checked
from ..programs import declaration_of
from ..results import FitLike
from .consent import record_code
from .data import as_data, source_of, spec_of
from .folder import CONFIG, HISTORY, UNFINISHED, WEIGHTS, occupied, remove_results, write_config
from .weights import save_weights


@checked
def save(
    fit: FitLike,
    folder: str | os.PathLike[str],
    *,
    data: Any = None,
    build: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes weights, history and a description of the data, for `pv.load`.

    Args:
        fit: of `pv.fit`.
        folder: made if it is not there.
        data: what the fit was trained on; default: the fit's own. A data set with a name is loaded again by
            it; of others only the shape and a hash are kept, and `pv.load(..., data=...)` is given them again.
        build: where the programs come from, as `train --model` takes it:
            `"package.module:attribute"` or `"file.py:attribute"`, a function of the data set that
            returns a `(model, guide)` pair or an object with `.model` and `.guide`. With it the
            folder rebuilds its programs, and all scripts take it; without it `pv.load` is given
            them.
        overwrite: replace a run that is there.

    Returns:
        The folder.

    Raises:
        TypeError: data that are no data set, tensor or tuple of tensors.
        FileExistsError: it holds a run, and `overwrite` is not given.
        ValueError: a `build` that is no such reference, or for data without a name.
        OSError: it cannot be written.

    Example:
        >>> fit = pv.fit(model, guide, data)  # doctest: +SKIP
        >>> pv.save(fit, "runs/mine", data=data)  # doctest: +SKIP
        >>> run = pv.load("runs/mine", model=model, guide=guide)  # doctest: +SKIP
    """
    if isinstance(fit, type) or not isinstance(fit, FitLike):
        raise TypeError(f"expected a fit of pv.fit, got {type(fit).__name__}")
    given = as_data(fit.data if data is None else data)
    source = source_of(given)
    config: dict[str, Any] = {"data": source, "spec": spec_of(given).to_json()}
    config |= {"plate": declaration_of(fit.model).plate}
    if build is not None:
        where, _, name = build.rpartition(":")
        if not where or not name.isidentifier():
            raise ValueError(
                f"expected build as package.module:attribute or file.py:attribute, got {build!r}"
            )
        if source is None:
            raise ValueError(
                "expected data with a name for build=, which builds the programs for them, got a "
                f"{config['spec']['name']} of your own; try pv.load(..., build=..., data=...) later, without it here"
            )
        config |= {"model": {"model": build}, "train": {"seed": 0}}
    else:
        config["program"] = [name_of(fit.model), name_of(fit.guide)]
    with occupied(folder, overwrite) as path:
        if build is not None:
            record_code(build)
        # A folder without configuration is no run: it comes last.
        for former in (CONFIG, UNFINISHED):
            (path / former).unlink(missing_ok=True)
        config["weights"] = save_weights(path / WEIGHTS, fit.store, fit.modules, config)
        remove_results(path)
        fit.write_csv(path / HISTORY)
        write_config(path, config | {"best_epoch": fit.best_epoch, "seconds": fit.seconds})
    return path


def name_of(fn: Any) -> str:
    """Name of a program."""
    return str(getattr(fn, "__qualname__", type(fn).__qualname__))
