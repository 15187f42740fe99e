"""Evidence in netCDF files, and back."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor

from ..evidence import Estimate, Evidence
from ..export.containers import evidence_tree, names_of
from ..files import write_whole
from ..foreign_hdf5 import check_hdf5
from ..json_files import parse_json
from ..programs import Measure
from ..text import visible

if TYPE_CHECKING:
    import xarray

ENGINE: Final = "h5netcdf"
TEST = "test"  # the split that files without a word of theirs are of
# Figures of an estimator that are attributes, `<name>_<figure>`.
SUMMARY = ("mean", "se_data", "se_mc", "bias_indicator", "certificate", "delta", "direction", "num_samples")


def write_evidence(ev: Evidence, path: str | os.PathLike[str]) -> None:
    """Writes `evidence_to_arviz(ev)` as a netCDF file, whole or not at all.

    `arviz.from_netcdf` and `xarray.open_datatree` read it.

    Raises:
        OSError: where the folder does not exist or cannot be written.
    """
    # In memory, then one checked write: on a full disk HDF5 crashes the process.
    write_whole(path, evidence_tree(ev).to_netcdf(engine=ENGINE))


def read_evidence(path: str | os.PathLike[str]) -> Evidence:
    """Reads what `write_evidence` wrote: every figure per datum, curves, details and attributes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or one that pyrovae did not write.
    """
    import xarray

    if not os.path.isfile(path):
        raise FileNotFoundError(f"expected a netCDF file of evidence, got {path}, which does not exist")
    try:
        check_hdf5(path)
        with xarray.open_datatree(path, engine=ENGINE) as tree:
            attributes = {str(k): _parsed(v) for k, v in tree.attrs.items()}
            stats, x = tree["sample_stats"].to_dataset().load(), tree["observed_data/x"].to_numpy()
        if attributes.get("inference_library") != "pyrovae":
            raise ValueError("another library wrote it")
        # Files written before they named their estimators hold ELBO and IS.
        names = parse_json(attributes.pop("estimators", '["ELBO", "IS"]'))
        first = attributes.pop("diagnostics_of", "IS")
        estimates = {n: _estimate(n, k, stats, attributes, n == first) for n, k in names_of(names).items()}
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"expected a netCDF file of pyrovae's, got {path}, damaged or foreign ({error})"
        ) from None
    attributes["vectorised"] = bool(attributes.get("vectorised", True))
    if isinstance(attributes.get("chunk"), str):
        attributes["chunk"] = tuple(parse_json(attributes["chunk"]))
    if isinstance(attributes.get("refused"), str):
        attributes["refused"] = parse_json(attributes["refused"])
    if isinstance(attributes.get("observed"), str):
        attributes["observed"] = parse_json(attributes["observed"])
        measure = Measure.from_json(attributes["observed"])
        estimates = {n: replace(e, measure=measure) for n, e in estimates.items()}
    lines = str(attributes.pop("warnings", ""))
    for key in ("verdict", "inference_library", "inference_library_version", "xarray", "arviz"):
        attributes.pop(key, None)
    return Evidence(estimates, lines.split("\n") if lines else [], attributes, _tensor(x))


def split_of(ev: Evidence) -> str:
    """The split of a data set that evidence is of, as `evaluate` says it."""
    return str(ev.attributes.get("split", TEST))


def _estimate(
    name: str, key: str, stats: xarray.Dataset, attributes: dict[str, Any], first: bool
) -> Estimate:
    def column(variable: str) -> Any:
        return _tensor(stats[variable].to_numpy()) if variable in stats else None

    own = "" if first else f"{key}_"
    curve = {}
    if f"{own}lk_curve" in stats:
        points = zip(stats["num_samples"].to_numpy(), stats[f"{own}lk_curve"].to_numpy(), strict=True)
        curve = {int(k): float(v) for k, v in points if not math.isnan(v)}
    figures = {k: attributes.pop(f"{key}_{k}", None) for k in SUMMARY}
    prefix = f"{key}_detail_"
    details = _unlisted(parse_json(attributes.pop(f"{key}_details", "{}")))
    details |= {str(v).removeprefix(prefix): column(str(v)) for v in stats if str(v).startswith(prefix)}
    return Estimate(
        name=name,
        direction=figures["direction"],
        num_samples=int(figures["num_samples"]),
        per_datum=column(f"{key}_log_evidence"),
        variance=column(f"{key}_variance"),
        bias=column(f"{key}_bias"),
        ess=column(f"{own}ess"),
        khat=column(f"{own}pareto_k"),
        curve=curve,
        certificate=figures["certificate"],
        delta=0.05 if figures["delta"] is None else figures["delta"],
        details=details,
    )


def _unlisted(value: Any) -> Any:
    """Inverse of `containers._listed`; tensors are float64."""
    if isinstance(value, list):
        return [_unlisted(v) for v in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"tensor"}:
        return torch.tensor(value["tensor"], dtype=torch.float64, device="cpu")
    if set(value) == {"items"}:
        return {k: _unlisted(v) for k, v in value["items"]}
    return {k: _unlisted(v) for k, v in value.items()}


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _parsed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0] if value.size == 1 else value.tolist()
    value = value.item() if isinstance(value, np.generic) else value
    # Of whoever wrote the file, and shown in titles. A line each: warnings.
    return visible(value, "\n") if isinstance(value, str) else value
