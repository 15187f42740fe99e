"""Shards of an evaluation put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ..core.assembling import figures
from ..core.estimator import join
from ..core.unsupported import refuse_unsupported
from ..notes import estimate_notes
from ..result import Evidence

# What the numbers depend on; shards must agree in it.
_SAME = ("data_hash", "seed", "num_samples", "chunk", "dtype", "density")


def merge_evidence(shards: Sequence[Evidence]) -> Evidence:
    """The evidence of all data from those of its shards, in any order.

    Equal, bit for bit, to the evaluation that was not split.

    Args:
        shards: of `pv.evidence(..., shard=(i, n))`, for all i in 0..n-1.

    Raises:
        ValueError: for no shards, evidences that are no shards, shards of different evaluations, one
            twice, or one missing.

    Example:
        >>> import pyrovae as pv
        >>> from pyrovae.models.ground_truths import linear_gaussian
        >>> pair = linear_gaussian(8, latent_dim=2)
        >>> chunk = pv.Chunk(data=4, samples=100)
        >>> both = [pv.evidence(pair.model, pair.guide, pair.x, chunk=chunk, shard=(i, 2)) for i in range(2)]
        >>> len(merge_evidence(both).x)
        8
    """
    if not shards or any(e.rows is None or e.attributes.get("shard") is None for e in shards):
        raise ValueError(
            "expected evidences of pv.evidence(..., shard=(i, n)), got none or one without shard"
        )
    first = shards[0]
    for e in shards[1:]:
        different = [k for k in _SAME if e.attributes[k] != first.attributes[k]]
        if different or list(e) != list(first):
            raise ValueError(f"expected shards of one evaluation, got different {different or 'estimators'}")
    given = sorted(e.attributes["shard"] for e in shards)
    n = first.attributes["shard"][1]
    if given != [(i, n) for i in range(n)]:
        raise ValueError(f"expected each of {n} shards once, got {given}")
    rows = torch.cat([e.rows for e in shards if e.rows is not None])
    order = rows.argsort()
    results = {name: join([e.results[name] for e in shards], order) for name in first}
    certified = sum(e.certificate is not None for e in first.values())
    estimates = {}
    for name, part in first.items():
        of = figures(results[name], part.delta, None if part.certificate is None else certified)
        estimates[name] = refuse_unsupported(replace(part, **of))
    x = torch.cat([e.x for e in shards])[order.to(first.x.device)]
    seconds = sum(e.attributes["seconds"] for e in shards)
    attributes = {**first.attributes, "num_data": len(x), "seconds": seconds}
    del attributes["shard"]
    warnings = [*first.about, *estimate_notes(estimates)]
    return Evidence(estimates, warnings, attributes, x, results, None, first.about)
