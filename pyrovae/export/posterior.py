"""Posterior draws in ArviZ's containers."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from ..results import EvidenceLike, PosteriorLike
from .containers import _array, _attributes, _per_datum, load_arviz

if TYPE_CHECKING:
    import xarray
    from torch import Tensor


def posterior_to_arviz(draws: PosteriorLike, ev: EvidenceLike | None = None) -> Any:
    """Draws as `arviz.InferenceData` (ArviZ 0.x) or `xarray.DataTree` (ArviZ 1.x).

    Groups; K independent draws are one chain of K, and every latent has a datum dim:

    - `posterior`: resampled draws, dims `("chain", "draw", "datum", ...)`.
    - `weighted_posterior`: draws of the guide as they are, and `log_weights` (nats).
    - `log_likelihood`: ln p(x_n | z) of the resampled draws, for `az.loo`; left out where discrete latents
      are summed out. Leaving a datum out, its latent goes with it: what `loo` calls elpd here is of
      the datum given a latent that has seen it, with k-hat as the measure of how much.
    - `sample_stats`: `ess` and `pareto_k` of the weights, dims `("datum",)`; with `ev` also all of
      `evidence_to_arviz`, such as acceptance rates.
    - `observed_data`: `x`.

    Args:
        draws: of `pv.posterior`.
        ev: an evidence on the same data, whose figures and attributes are added.

    Raises:
        ValueError: an evidence on other data.
    """
    import xarray

    arviz = load_arviz()
    if ev is not None and (ev.x.shape != draws.x.shape or not bool((ev.x == draws.x).all())):
        raise ValueError("expected an evidence on the data of the draws, got one on other data")
    n = len(draws.x)
    stats = _per_datum(ev) if ev is not None else xarray.Dataset(coords={"datum": np.arange(n)})
    if ev is None:
        stats = stats.assign(ess=("datum", _array(draws.ess)), pareto_k=("datum", _array(draws.khat)))
    groups = {
        "posterior": _chains(draws.resampled),
        "weighted_posterior": _chains({**draws.draws, "log_weights": draws.log_weights}),
        "sample_stats": stats,
        "observed_data": _observed(draws.x),
    }
    if draws.log_likelihood:
        groups["log_likelihood"] = _chains(draws.log_likelihood)
    attributes = {"inference_library": "pyrovae", "inference_library_version": version("pyrovae")}
    attributes |= _attributes(ev) if ev is not None else {}
    attributes["arviz"] = arviz.__version__
    if int(arviz.__version__.split(".")[0]) < 1:
        return arviz.InferenceData(attrs=attributes, warn_on_custom_groups=False, **groups)
    return xarray.DataTree.from_dict({"/": xarray.Dataset(attrs=attributes), **groups})


def _chains(values: Mapping[str, Tensor]) -> xarray.Dataset:
    """`[K, N, ...]` to `[1, K, N, ...]` with names for the dims."""
    import xarray

    variables, sizes = {}, {}
    for name, value in values.items():
        array = _array(value)[None]
        inner = tuple(f"{name}_dim_{i}" for i in range(array.ndim - 3))
        variables[name] = (("chain", "draw", "datum", *inner), array)
        sizes = {"chain": 1, "draw": array.shape[1], "datum": array.shape[2]}
    return xarray.Dataset(variables, coords={k: np.arange(v) for k, v in sizes.items()})


def _observed(x: Tensor) -> xarray.Dataset:
    import xarray

    array = _array(x)
    dims = ("datum", *(f"event_{i}" for i in range(array.ndim - 1)))
    return xarray.Dataset({"x": (dims, array)}, coords={"datum": np.arange(len(array))})
