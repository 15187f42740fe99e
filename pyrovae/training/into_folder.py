"""Training into a run folder, which is whole or says that it is unfinished."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .. import plots
from ..data import Dataset
from ..distributed import Split, World
from ..programs import declaration_of
from ..runs.consent import record_code
from ..runs.folder import (
    CHECKPOINTS,
    CONFIG,
    HISTORY,
    TENSORBOARD,
    UNFINISHED,
    WEIGHTS,
    check_strays,
    is_unfinished,
    occupied,
    remove_results,
    remove_run,
    write_config,
)
from ..runs.weights import save_weights
from .fit import fit
from .logging.history import Row
from .logging.scalars import tensorboard_writer
from .result import Fit
from .state.checkpoint import Checkpoints

Pair = tuple[Callable[..., Any], Callable[..., Any]]


def train_into(
    out: Path,
    config: dict[str, Any],
    load: Callable[[], Dataset],
    build: Callable[[Dataset], Pair],
    arguments: Callable[[], dict[str, Any]],
    *,
    code: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    checkpoint_every: int = 0,
    keep: int = 2,
    tensorboard: bool = False,
    format: str = "png",
    split: Split | None = None,
    announce: Callable[[Pair, Dataset], None] | None = None,
    on_epoch: Callable[[Row], None] | None = None,
    on_end: Callable[[Fit], None] | None = None,
    continues: bool = False,
) -> Fit:
    """Trains, and writes config, weights, history and training curves to `out` (the first rank does).

    unfinished.json is there, with the configuration, from before the first step until all else is
    written: a folder that has config.json and not that one is whole.

    Args:
        out: the run folder.
        config: plain values that say what is trained; spec, best epoch and seconds are added.
        load: gives the data.
        build: gives model and guide for them.
        arguments: gives the other arguments of `pv.fit`.
        code: reference of the user's own code that is run, to be remembered as theirs.
        overwrite: replace a run that is there.
        resume: continue the unfinished run that is there, from its checkpoints if it has any.
        checkpoint_every: epochs from one checkpoint to the next; 0 for none.
        keep: checkpoints kept while the run lasts.
        tensorboard: log scalars there, too.
        format: of the picture of the training curves, "png", "pdf" or "svg".
        split: of each batch over ranks, as in `pv.fit`.
        announce: called before the first step, once data and arguments have been found right.
        on_epoch: called with each row of the history.
        continues: the run that is there has ended, and goes on from its last checkpoint with more epochs.
        on_end: called with the fit before anything of it is written: a full disk costs files, and not what was found.

    Raises:
        FileExistsError, ValueError, OSError: as `occupied` and `pv.fit`.
    """
    world = World() if split is None else split.world
    every: dict[str, Any] = {"checkpoint_every": max(1, checkpoint_every), "keep": keep, "split": split}
    if not world.first:  # the first rank has the folder
        with world.together():
            pass
        with world.together():
            data = load()
            model, guide = build(data)
        return fit(model, guide, data, **every, **arguments())
    with ExitStack() as stack:
        with world.together():
            folder = stack.enter_context(occupied(out, overwrite or continues, resume))
            if not overwrite:
                check_strays(folder)
        store, started = Checkpoints(folder / CHECKPOINTS, keep), False
        former = (folder / HISTORY).exists()
        had_run = is_unfinished(folder) or (folder / CONFIG).exists()
        scalars: Callable[[Row], None] | None = None

        def each_epoch(row: Row) -> None:
            nonlocal started
            started = True
            (folder / CONFIG).unlink(missing_ok=True)  # of a run that is overwritten
            for follow in (on_epoch, scalars):
                if follow is not None:
                    follow(row)

        if continues and not (checkpoint_every and store.files()):
            raise ValueError(
                f"expected the last checkpoint of the run in {folder} and --checkpoint-every >= 1 to go on from it, "
                "got none; try a new run"
            )
        resume = continues or (resume and is_unfinished(folder))
        if resume and not checkpoint_every and store.files():
            raise ValueError(
                "expected --checkpoint-every >= 1 with --resume of a run that has checkpoints, got 0, which would "
                "start it anew; try --overwrite for that"
            )
        try:
            with world.together():
                scalars = tensorboard_writer(folder / TENSORBOARD) if tensorboard else None
                data = load()
                model, guide = build(data)
                how = arguments()
                if announce is not None:
                    announce((model, guide), data)
                if code is not None:
                    record_code(code)
                if not resume:
                    store.clear()
                if not resume or continues:
                    write_config(folder, config, UNFINISHED)
            done = fit(
                model,
                guide,
                data,
                checkpoint=store.folder if checkpoint_every else None,
                resume=resume and checkpoint_every > 0,
                log=folder / HISTORY,
                on_epoch=each_epoch,
                **every,
                **how,
            )
        except BaseException:
            # With a checkpoint the run is unfinished; without one there is no run.
            if continues and not started:  # it is as it was
                (folder / UNFINISHED).unlink(missing_ok=True)
            if not store.files() and not resume:
                (folder / UNFINISHED).unlink(missing_ok=True)
                if (
                    had_run and not (folder / CONFIG).exists()
                ):  # of a run that was overwritten no part is left
                    remove_run(folder)
                elif started or not former:
                    (folder / HISTORY).unlink(missing_ok=True)
            raise
        if on_end is not None:
            on_end(done)
        _write(folder, config, done, data, format)
        store.clear(spared=int(checkpoint_every > 0))  # from the last one more epochs go on
    return done


def _write(folder: Path, config: dict[str, Any], done: Fit, data: Dataset, format: str) -> None:
    """Everything of a run that has ended; the mark that it is unfinished goes last."""
    (folder / CONFIG).unlink(missing_ok=True)
    about = {"spec": data.spec.to_json(), "best_epoch": done.best_epoch, "seconds": done.seconds}
    config = {**config, **about, "plate": declaration_of(done.model).plate}
    config["weights"] = save_weights(folder / WEIGHTS, done.store, done.modules, config)
    remove_results(folder)
    done.write_csv(folder / HISTORY)
    draw: Any = plots.plot_training if "elbo" in done.history[0] else plots.plot_phases
    plots.save(draw(done.history, best_epoch=done.best_epoch), folder / f"training.{format}")
    write_config(folder, config)
    (folder / UNFINISHED).unlink()
