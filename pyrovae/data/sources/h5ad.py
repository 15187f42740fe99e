"""Annotated matrices (AnnData) and their files, `.h5ad`: one table of rows (obs) with named columns (var)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...files import check_claim, check_fits
from ...foreign_hdf5 import claimed_by
from ...text import meant

SUFFIX = ".h5ad"
SPARSE = ("csr_matrix", "csc_matrix")


def is_anndata(source: Any) -> bool:
    """Whether an object is an annotated matrix."""
    return all(hasattr(source, name) for name in ("obs", "var_names", "obs_names", "layers", "to_df"))


def frame_of(source: Any, layer: str | None = None, label: str | None = None, needed: bool = False) -> Any:
    """Data frame of an annotated matrix in memory, as `read_h5ad` gives that of a file."""
    name = type(source).__name__
    if layer is not None:
        _among(layer, list(source.layers), "layer", name)
    if label is not None and needed:
        _among(label, list(source.obs), "column of obs", name)
    frame = source.to_df(layer=layer)
    return frame if label not in source.obs else _with_label(frame, str(label), source.obs[label].array, name)


def read_h5ad(path: Path, layer: str | None = None, label: str | None = None, needed: bool = False) -> Any:
    """Data frame of an `.h5ad` file: rows by obs_names, columns by var_names; sparse matrices become dense.

    Read by h5py alone, by the format's description (https://anndata.readthedocs.io/en/stable/fileformat-prose.html).

    Args:
        path: of the file.
        layer: of it, in place of X.
        label: column of obs that is put behind the others, if it is there.
        needed: refuse a file without that column.

    Raises:
        ValueError: what is no such file, or is damaged; one of before anndata 0.8; a layer that is not there; a matrix
            that does not fit its names or the memory.
    """
    import h5py
    import pandas as pd

    try:
        with h5py.File(path, "r") as file:
            obs, var = _group(file, "obs"), _group(file, "var")
            matrix = _matrix(file, layer, path)
            rows, columns = ([str(v) for v in _column(g, str(g.attrs["_index"]), path)] for g in (obs, var))
            if label is not None and needed:
                _among(label, list(obs), "column of obs", path)
            values = _column(obs, label, path) if label is not None and label in obs else None
    except (
        OSError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        OverflowError,
        UnicodeDecodeError,
    ) as error:
        raise ValueError(f"expected an .h5ad file, got {path}, damaged or foreign ({error})") from None
    except ValueError as error:
        if str(error).startswith("expected"):
            raise
        raise ValueError(f"expected an .h5ad file, got {path}, damaged or foreign ({error})") from None
    if matrix.shape != (len(rows), len(columns)):
        raise ValueError(
            f"expected a row for each of {len(rows):,} obs_names and a column for each of {len(columns):,} var_names "
            f"in {path}, got a matrix of {matrix.shape}"
        )
    frame = pd.DataFrame(matrix, index=pd.Index(rows, dtype=object), columns=pd.Index(columns, dtype=object))
    return frame if values is None else _with_label(frame, str(label), values, path.name)


def _with_label(frame: Any, label: str, values: Any, name: str) -> Any:
    if label in frame.columns:
        raise ValueError(
            f"expected {label!r} to be a column of obs or of var in {name}, got both; try to rename one"
        )
    if len(values) != len(frame):
        raise ValueError(f"expected {len(frame):,} values of obs[{label!r}] in {name}, got {len(values):,}")
    import pandas as pd

    return pd.concat([frame, pd.Series(values, index=frame.index, name=label)], axis=1)


def _among(name: str, known: Sequence[str], kind: str, where: Any) -> None:
    if name not in known:
        hint = meant(name, known) or f"it has {', '.join(known[:12]) or 'none'}"
        raise ValueError(f"expected a {kind} of {where}, got {name!r}; {hint}")


def _encoding(thing: Any) -> str:
    return str(thing.attrs.get("encoding-type", ""))


def _matrix(file: Any, layer: str | None, path: Path) -> np.ndarray[Any, Any]:
    """X or a layer, dense."""
    import h5py
    import scipy.sparse

    layers = list(_group(file, "layers")) if "layers" in file else []
    if layer is not None:
        _among(layer, layers, "layer", path)
    group, name = (file, "X") if layer is None else (file["layers"], layer)
    claimed = claimed_by(group, [name]) if group.get(name, getlink=True) is not None else None
    if claimed is None or _encoding(group[name]) == "null":
        raise ValueError(
            f"expected X in {path}, got none; try a layer (layer=, --layer): {', '.join(layers) or 'none'}"
        )
    check_claim(path, claimed)
    found = group[name]
    if isinstance(found, h5py.Dataset):
        if found.dtype.kind not in "buif" or found.ndim != 2:
            raise ValueError(f"{name!r} is no matrix of numbers but {found.dtype} of shape {found.shape}")
        return np.asarray(found[()])
    kind = _encoding(found)
    if kind not in SPARSE:
        raise ValueError(f"{name!r} is neither an array nor a sparse matrix (encoding-type {kind!r})")
    shape = tuple(int(n) for n in found.attrs["shape"])
    data, indices, indptr = (found[k][()] for k in ("data", "indices", "indptr"))
    if len(shape) != 2 or min(shape) < 0 or data.dtype.kind not in "buif":
        raise ValueError(f"a sparse matrix of {data.dtype} and shape {shape}")
    check_fits(path, shape[0] * shape[1] * data.dtype.itemsize)
    make = scipy.sparse.csr_matrix if kind == "csr_matrix" else scipy.sparse.csc_matrix
    sparse = make((data, indices, indptr), shape=shape)
    sparse.check_format(full_check=True)
    return np.asarray(sparse.toarray())


def _group(file: Any, name: str) -> Any:
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink) or not isinstance(file[name], h5py.Group):
        raise ValueError(f"without a group {name!r} of its own")
    return file[name]


def _column(group: Any, name: str, path: Path) -> Any:
    """Values of a column of obs or var, None where missing."""
    check_claim(path, claimed_by(group, [name]))
    return _values(group, name)


def _values(group: Any, name: str) -> Any:
    import h5py
    import pandas as pd

    found = group[name]
    kind = _encoding(found)
    if isinstance(found, h5py.Dataset):
        if "categories" in found.attrs or ("__categories" in group and name in group["__categories"]):
            raise ValueError(
                f"expected categories as anndata 0.8 and later write them, got those of {name!r} as earlier ones did; "
                "try anndata.read_h5ad(path).write_h5ad(path) with a newer one"
            )
        return found.asstr()[()] if h5py.check_string_dtype(found.dtype) else found[()]
    if kind == "categorical":
        return pd.Categorical.from_codes(
            found["codes"][()], categories=pd.Index(_values(found, "categories"))
        )
    if kind.startswith("nullable-"):
        values = np.array(_values(found, "values"), dtype=object)
        values[found["mask"][()].astype(bool)] = None
        return values
    raise ValueError(f"the column {name!r} is of the kind {kind!r}, which is not known")
