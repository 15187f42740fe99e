"""Scalars for TensorBoard, MLflow and Weights & Biases, where these packages are installed: for `on_epoch`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

from .history import Row


def tensorboard_writer(folder: str | os.PathLike[str]) -> Callable[[Row], None]:
    """A function for `on_epoch` that logs rows of the history, the epoch as their step.

    On resuming, what was logged from the first new epoch on is replaced.

    Raises:
        ImportError: without the package tensorboard.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            f"expected the package tensorboard, got none ({error}); try pip install 'pyrovae[tensorboard]'"
        ) from None
    writers: list[SummaryWriter] = []

    def log(row: Row) -> None:
        epoch = int(row["epoch"])
        if not writers:
            writers.append(SummaryWriter(str(folder), purge_step=epoch))
        for name, value in scalars_of(row).items():
            writers[0].add_scalar(name, value, epoch)
        writers[0].flush()

    return log


def mlflow_writer(run: Any = None) -> Callable[[Row], None]:
    """A function for `on_epoch` that logs rows of the history to MLflow, the epoch as their step.

    Args:
        run: a run of `mlflow.start_run()`; None: the active one, which MLflow starts where there is none.

    Raises:
        ImportError: without the package mlflow.

    Example:
        >>> with mlflow.start_run() as run:  # doctest: +SKIP
        ...     fit = pv.fit(vae.model, vae.guide, data, on_epoch=mlflow_writer(run))
    """
    try:
        import mlflow
    except ImportError as error:
        raise ImportError(
            f"expected the package mlflow, got none ({error}); try pip install mlflow"
        ) from None
    about = {} if run is None else {"run_id": run.info.run_id}

    def log(row: Row) -> None:
        mlflow.log_metrics(scalars_of(row), step=int(row["epoch"]), **about)

    return log


def wandb_writer(run: Any) -> Callable[[Row], None]:
    """A function for `on_epoch` that logs rows of the history to a run of Weights & Biases, the epoch as their step.

    Args:
        run: of `wandb.init(...)`; the package is not imported here.

    Example:
        >>> with wandb.init(project="digits") as run:  # doctest: +SKIP
        ...     fit = pv.fit(vae.model, vae.guide, data, on_epoch=wandb_writer(run))
    """

    def log(row: Row) -> None:
        run.log(scalars_of(row), step=int(row["epoch"]))

    return log


def scalars_of(row: Row) -> dict[str, float]:
    """The figures of a row as `elbo/train`, `elbo/valid`, ...; those that are not known are left out."""
    found = {}
    for name, value in row.items():
        if name != "epoch" and not math.isnan(value):
            group, name = ("valid", name[6:]) if name.startswith("valid_") else ("train", name)
            found[f"{name}/{group}"] = float(value)
    return found
