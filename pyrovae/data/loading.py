"""`load`: from a name or a user's data to a checked `Dataset`."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..text import meant
from . import seeds
from .binarisation import binarised, check_binarise
from .checks import check_splits, detect_support
from .dataset import Dataset
from .given.conditioned import LENGTHS, put_context
from .hashing import content_hash
from .ising.source import load_ising
from .raw import Raw, Request, Size
from .rounding import rounded
from .sources.arrays import from_object
from .sources.binarized_mnist import load_binarized_mnist
from .sources.digits import load_digits
from .sources.linear_gaussian import load_linear_gaussian
from .sources.mnist import load_fashion_mnist, load_mnist
from .sources.opening import SUFFIXES
from .spec import Binarisation, DataSpec
from .tables.columns import declared
from .tables.missing import shares
from .tables.preparing import (
    Missing,
    check_asked,
    check_missing,
    standardization_of,
    support_of,
    warn_scales,
)

SOURCES: dict[str, Callable[[Request], Raw]] = {
    "digits": load_digits,
    "mnist": load_mnist,
    "fashion-mnist": load_fashion_mnist,
    "binarized-mnist": load_binarized_mnist,
    "linear-gaussian": load_linear_gaussian,
    "ising": load_ising,
}
NAMES = tuple(SOURCES)

# A table or a sparse matrix is known by what it can do: their libraries are not needed.
Source = (
    str | os.PathLike[str] | Tensor | np.ndarray | Mapping[str, Any] | torch.utils.data.Dataset[Any] | Any
)


def load(
    source: Source,
    root: str | os.PathLike[str] | None = None,
    *,
    binarise: Binarisation | None = None,
    valid: Size | None = None,
    test: Size | None = None,
    seed: int = 0,
    download: bool = True,
    train: int | None = None,
    L: int | None = None,
    T: float | Sequence[float] | Tensor | None = None,
    standardize: bool = False,
    log: Sequence[str] = (),
    missing: Missing = "refuse",
    columns: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    label_column: str | None = None,
    layer: str | None = None,
) -> Dataset:
    """Load a data set into memory, in three splits.

    Args:
        source: A name (`NAMES`), or data of your own: a tensor or numpy array `[N, *event]`; a table (a data
            frame of pandas or polars), an annotated matrix (AnnData) or a sparse matrix of SciPy; a path to a `.npy`,
            `.npz`, `.pt`, `.csv` (with a header row), `.parquet` or `.h5ad` file; a mapping from "train" (and "valid",
            "test") or "x" (and "y" or "labels", integers or words) to arrays or tables; sequences "x" `[N, T, D]` with
            their "lengths" `[N]`, which programs then take after x; or a torch `Dataset`. Files are never unpickled.
        root: Folder of the data sets; else `PYROVAE_DATA`, else the user's cache (see `data_root`).
        binarise: None keeps grey levels and real values; "dynamic" redraws the training data every epoch
            (`Dataset.epoch`), "static" draws once, "threshold" is p > 0.5.
        valid: Number or fraction of the data for validation, where the source does not fix it.
        test: The same for testing.
        seed: Seed of shuffles, draws and simulated data; the global generator is not touched.
        download: Whether missing MNIST and Fashion-MNIST files are fetched into the root.
        train: Number of data simulated for training ("ising" alone; its `valid` and `test` are numbers too).
        L: Side of the Ising torus; 8 where None.
        T: Its temperature or temperatures, in units of J; critical where None.
        standardize: Record means and standard deviations of the training rows, column by column, in
            `spec.standardization`. The data returned stay in their own units, and so does their evidence: the models
            built for them (of the command line, and by `compose`) see standardised columns inside; a program of your
            own does so by `pyrovae.likelihoods.Standardized` and `pyrovae.guides.Standardized`.
        log: Names of positive columns whose logarithm is standardised (numbers, as text, where columns have no
            names).
        missing: "ignore" takes NaN (and empty cells) for values that were not observed, and keeps them as NaN;
            likelihoods leave them out (`pyrovae.likelihoods.PartiallyObserved`).
        columns: What the columns of a table are: a mapping from their names to "real", "positive", "count", "binary",
            "category", "ordinal" (of words: {"role": "ordinal", "order": [...]}), "label" or "ignore", a TOML file of
            such lines, or "auto". Roles that are not given are guessed; `spec.table` says which. Categories are held
            as codes 0, 1, ...; `pyrovae.data.as_frame` gives their words back. Of standardised columns, "positive"
            ones are so by their logarithm; counts, bits and categories are left as they are.
        label_column: The column of a table, or of an annotated matrix's obs, that holds the labels; the others keep
            their roles, or none.
        layer: Layer of an annotated matrix (AnnData, `.h5ad`) in place of its X. Rows and columns have the names that
            obs and var give them.

    Returns:
        Data set whose splits are float32 `[N, *event_shape]` within `spec.support`.

    Raises:
        FileNotFoundError: If the files are missing.
        ImportError: If torchvision does not fit the installed torch, or pyarrow is missing for `.parquet`.
        ValueError: If the source or an option is not understood, or the data are empty, not numeric, not
            finite, of several shapes, corrupt or pickled, or vary by less than float32 tells apart; with
            `standardize` a column that does not vary, with `missing` one that no training row has.

    Example:
        >>> data = load("digits", binarise="dynamic")
        >>> data.train.shape, data.spec.support, data.spec.image_shape
        (torch.Size([1257, 64]), 'binary', (8, 8))
    """
    check_binarise(binarise)
    check_asked(standardize, log, missing, binarise)
    roles = declared(columns)
    seeds.generator(seed, seeds.SPLIT)  # refuses a bad seed before anything is read
    request = Request(
        root, valid, test, seed, download, train, L, T, missing == "ignore", roles, label_column, layer
    )
    if not (isinstance(source, str) and source == "ising"):
        request.refuse_simulation(source if isinstance(source, str) else type(source).__name__)
    if isinstance(source, str) and not _is_path(source):
        for option, asked in (("columns", columns), ("label_column", label_column), ("layer", layer)):
            if asked is not None:
                raise ValueError(
                    f"expected {option}=None with {source!r}, whose elements are known, got {asked!r}; it is for tables"
                )
        raw = _named(source)(request)
    else:
        raw = from_object(source, request)
    raw = raw.replace(splits=rounded(raw.splits, raw.columns, repr(raw.name)))
    check_splits(raw.splits, raw.rows, request.missing)
    if request.missing:
        check_missing(raw)
    if raw.table is not None:
        raw = raw.replace(support=support_of(raw.table))
    if raw.support is None:
        support, levels = detect_support(raw.splits)
        raw = raw.replace(support=support, levels=levels)
    probabilities = None
    if binarise is not None:
        raw, probabilities = binarised(raw, binarise, seed)
    units = None
    if standardize:
        units = standardization_of(raw, log)
        raw = raw.replace(support="mixed" if raw.support == "mixed" else "real", levels=None)
    else:
        warn_scales(raw)
    assert raw.support is not None
    splits = {name: _plain_nan(x) for name, x in raw.splits.items()}
    spec = DataSpec(
        name=raw.name,
        event_shape=tuple(splits["train"].shape[1:]),
        support=raw.support,
        levels=raw.levels,
        binarisation=raw.binarisation,
        seed=int(seed),
        hash=content_hash(splits),
        splits={name: len(x) for name, x in splits.items()},
        columns=raw.columns,
        standardization=units,
        missing=shares(splits) if request.missing else None,
        table=raw.table,
        label_column=raw.label_column,
        layer=layer,
    )
    found = Dataset(
        train=splits["train"],
        valid=splits["valid"],
        test=splits["test"],
        spec=spec,
        labels=raw.labels,
        log_evidence=raw.log_evidence,
        parameters=raw.parameters,
        probabilities=probabilities,
        rows=raw.rows,
        classes=raw.classes,
        names=raw.names,
    )
    if raw.lengths is None:
        return found
    return put_context(found, {s: (n,) for s, n in raw.lengths.items()}, (LENGTHS,))


def _is_path(source: str) -> bool:
    if source in SOURCES:
        return False
    path = Path(source)
    return path.suffix.lower() in SUFFIXES or path.name != source or os.path.exists(os.path.expanduser(path))


def _named(name: str) -> Callable[[Request], Raw]:
    if name in SOURCES:
        return SOURCES[name]
    raise ValueError(
        f"expected a data set among {', '.join(NAMES)}, or a path ({', '.join(SUFFIXES)}) or an array, "
        f"got {name!r}; {meant(name.lower(), NAMES) or 'try one of these'}"
    )


def _plain_nan(x: Tensor) -> Tensor:
    """The data, contiguous, with one NaN for all: some have bits of their own, which would change the hash."""
    return torch.where(x.isnan(), torch.nan, x).contiguous()
