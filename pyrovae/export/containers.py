"""Evidence in ArviZ's containers."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from ..results import EstimateLike, EvidenceLike

if TYPE_CHECKING:
    import xarray
    from torch import Tensor


def evidence_to_arviz(ev: EvidenceLike) -> Any:
    """All of an evidence as `arviz.InferenceData` (ArviZ 0.x) or `xarray.DataTree` (ArviZ 1.x).

    Groups, in float64 and nats:

    - `observed_data`: `x`, dims `("datum", "event_0", ...)`.
    - `sample_stats`: for each estimator `<name>_log_evidence`, `<name>_variance`, `<name>_bias`, dims
      `("datum",)`: a datum, and not a draw of a chain, is the unit here. Where there are weights,
      `ess` and `pareto_k` (dims `("datum",)`) and `lk_curve` (dims `("num_samples",)`); those of IS,
      and of further estimators with their name in front. What only one estimator has (acceptance,
      level variances) is in `<name>_detail_<key>` where it is per datum, else in the attribute `<name>_details`.

    Attributes: `ev.attributes`; mean, standard errors, bias, certificate, delta, direction and K of each
    estimator as `<name>_mean`, ...; verdict, warnings (a line each) and versions. Values that netCDF does
    not know are text, bools are 0 and 1, and what is unknown (None, NaN) is left out.

    Args:
        ev: of `pv.evidence`.

    Raises:
        ValueError: where two estimators' names give one variable.
    """
    arviz = load_arviz()
    # Not hasattr: ArviZ 1.x warns whoever asks for the former name.
    if int(arviz.__version__.split(".")[0]) < 1:
        groups = {"observed_data": _observed(ev), "sample_stats": _per_datum(ev)}
        return arviz.InferenceData(attrs=_attributes(ev) | {"arviz": arviz.__version__}, **groups)
    return evidence_tree(ev)


def evidence_tree(ev: EvidenceLike) -> xarray.DataTree:
    """The same as `xarray.DataTree`, whatever ArviZ is installed."""
    import xarray

    attributes = _attributes(ev) | {"arviz": load_arviz().__version__}
    groups = {"observed_data": _observed(ev), "sample_stats": _per_datum(ev)}
    return xarray.DataTree.from_dict({"/": xarray.Dataset(attrs=attributes), **groups})


def load_arviz() -> Any:
    """The installed ArviZ, without its announcements."""
    with warnings.catch_warnings():
        # ArviZ 0.x announces 1.x on import; both are served here.
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    return arviz


def _observed(ev: EvidenceLike) -> xarray.Dataset:
    import xarray

    x = _array(ev.x)
    dims = ("datum", *(f"event_{i}" for i in range(x.ndim - 1)))
    return xarray.Dataset({"x": (dims, x)}, coords={"datum": np.arange(len(x))})


def _per_datum(ev: EvidenceLike) -> xarray.Dataset:
    import xarray

    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    curves: dict[str, dict[int, float]] = {}
    names = names_of(ev.estimates)
    first = _first(ev)
    for e in ev.estimates.values():
        name = names[e.name]
        own = "" if e.name == first else f"{name}_"
        tensors = {
            f"{name}_log_evidence": e.per_datum,
            f"{name}_variance": e.variance,
            f"{name}_bias": e.bias,
            f"{own}ess": e.ess,
            f"{own}pareto_k": e.khat,
        }
        tensors |= {f"{name}_detail_{k}": v for k, v in e.details.items() if _is_per_datum(v, ev)}
        variables |= {k: (("datum",), _array(v)) for k, v in tensors.items() if v is not None}
        if e.curve:
            curves[f"{own}lk_curve"] = e.curve
    coords = {"datum": np.arange(len(ev.x))}
    ks = sorted({k for curve in curves.values() for k in curve})
    if ks:
        coords["num_samples"] = np.array(ks)
    for name, curve in curves.items():
        variables[name] = (("num_samples",), np.array([curve.get(k, math.nan) for k in ks]))
    data = xarray.Dataset(variables, coords=coords)
    for key in variables:
        if not key.endswith(("ess", "pareto_k")) and "_detail_" not in key:
            data[key].attrs["units"] = "nats^2" if key.endswith("_variance") else "nats"
    return data


def _first(ev: EvidenceLike) -> str | None:
    """The estimator whose diagnostics have no name in front."""
    weighted = [e.name for e in ev.estimates.values() if e.ess is not None or e.curve]
    return "IS" if "IS" in ev.estimates else next(iter(weighted), None)


def _attributes(ev: EvidenceLike) -> dict[str, Any]:
    out: dict[str, Any] = dict(ev.attributes)
    names = names_of(ev.estimates)
    for e in ev.estimates.values():
        out |= {f"{names[e.name]}_{k}": v for k, v in _summary(e).items()}
        rest = {k: _listed(v) for k, v in e.details.items() if not _is_per_datum(v, ev)}
        out[f"{names[e.name]}_details"] = json.dumps(rest) if rest else None
    out |= {
        "estimators": json.dumps(list(ev.estimates)),
        "diagnostics_of": _first(ev),
        "verdict": ev.verdict,
        "warnings": "\n".join(ev.warnings),
        "inference_library": "pyrovae",
        "inference_library_version": version("pyrovae"),
        "pyro": version("pyro-ppl"),
        "xarray": version("xarray"),
    }
    return {key: _plain(value) for key, value in out.items() if value is not None}


def _is_per_datum(value: Any, ev: EvidenceLike) -> bool:
    return getattr(value, "shape", None) == (len(ev.x),)


def _listed(value: Any) -> Any:
    """Writes JSON; tensors are marked, so that they come back as tensors."""
    if hasattr(value, "tolist"):
        return {"tensor": value.tolist()}
    if isinstance(value, dict):
        return {"items": [[k, _listed(v)] for k, v in value.items()]}
    if isinstance(value, tuple | list):
        return [_listed(v) for v in value]
    return value


def _summary(e: EstimateLike) -> dict[str, Any]:
    figures = {
        "mean": e.log_evidence,
        "se_data": e.se_data,
        "se_mc": e.se_mc,
        "bias_indicator": e.bias_indicator,
        "certificate": e.certificate,
        "delta": None if e.certificate is None else e.delta,
        "direction": e.direction,
        "num_samples": e.num_samples,
    }
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in figures.items()}


def names_of(estimators: Iterable[str]) -> dict[str, str]:
    """Estimator name to the start of its variables' names: netCDF reserves the slash, Python most signs."""
    names = {name: re.sub(r"\W+", "_", name).strip("_") for name in estimators}
    if len(set(names.values())) < len(names):
        raise ValueError(f"expected estimator names that differ in letters or digits, got {list(names)}")
    return names


def _plain(value: Any) -> Any:
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, np.number):
        return value.item()
    if isinstance(value, int):
        return int(value) if abs(value) < 2**63 else str(value)
    if isinstance(value, float):
        return float(value)
    # str(): HDF5 knows no subclass of it, such as torch's version.
    return str(value) if isinstance(value, str) else json.dumps(value, default=str)


def _array(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    # NumPy has no bfloat16; these are data and log-densities, so float64 holds them all.
    lossy = tensor.is_floating_point() and tensor.element_size() < 4
    array: np.ndarray = (tensor.double() if lossy else tensor).numpy()
    return array
