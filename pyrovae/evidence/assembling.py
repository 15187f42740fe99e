"""From results of chunks of data to results of data sets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..programs import Program
from .estimators import PerDatum, ProgramEstimator, WeightEstimator
from .log_weights import Chunk, iterate
from .partial import Partials
from .result import Estimate


def from_weights(
    program: Program,
    estimators: Sequence[Any],
    drawn: int,
    *,
    seed: int,
    chunk: Chunk,
    chunks: Sequence[int],
    compile: bool,
    partials: Partials | None,
    surrogate: bool,
    progress: Callable[[int, int], None] | None,
) -> dict[str, PerDatum]:
    """All weight estimators on one draw of log-weights, a chunk of data at a time.

    Args:
        chunks: numbers of the chunks of data to evaluate.
        partials: where their results are kept, and taken from.
        All else: as `iterate`.
    """
    found = {j: partials.load(f"{j:06d}") for j in chunks} if partials is not None else {}
    missing = [j for j in chunks if found.get(j) is None]
    blocks = iterate(
        program,
        drawn,
        seed=seed,
        chunk=chunk,
        chunks=missing,
        compile=compile and bool(missing),
        surrogate=surrogate,
        progress=progress,
    )
    # Progress is told before a block is yielded: what it interrupts is a chunk not yet saved.
    for j, (_, weights) in zip(missing, blocks, strict=True):
        found[j] = {e.name: _on_cpu(e.estimate(weights[: e.num_samples or drawn])) for e in estimators}
        if partials is not None:
            partials.save(f"{j:06d}", found[j] or {})
    return {e.name: join([found[j][e.name] for j in chunks]) for e in estimators}  # type: ignore[index]


def _on_cpu(part: PerDatum) -> PerDatum:
    return join([part])


def join(parts: Sequence[PerDatum], order: Tensor | None = None) -> PerDatum:
    """Results of disjoint sets of data as one; `order` then puts the rows in place."""

    def cat(tensors: list[Any]) -> Any:
        if tensors[0] is None:
            return None
        rows = torch.cat([t.cpu() for t in tensors])
        return rows if order is None else rows[order]

    def details(values: list[Any]) -> Any:
        return cat(values) if isinstance(values[0], Tensor) and values[0].dim() else values[0]

    return PerDatum(
        cat([p.log_evidence for p in parts]),
        cat([p.variance for p in parts]),
        cat([p.bias for p in parts]),
        ess=cat([p.ess for p in parts]),
        khat=cat([p.khat for p in parts]),
        curve={k: cat([p.curve[k] for p in parts]) for k in parts[0].curve},
        details={k: details([p.details[k] for p in parts]) for k in parts[0].details},
    )


def assemble(
    e: WeightEstimator | ProgramEstimator, result: PerDatum, drawn: int, delta: float, normalised: bool
) -> Estimate:
    """An estimator's result over data as an `Estimate`."""
    result = join([result])
    estimate = Estimate(
        name=e.name,
        # Without the normaliser a bound on ln f(x) is none on ln p(x).
        direction=e.direction if normalised else "none",
        num_samples=e.num_samples or (drawn if hasattr(e, "estimate") else 0),
        per_datum=result.log_evidence,
        variance=result.variance,
        bias=result.bias,
        ess=result.ess,
        khat=result.khat,
        curve={k: float(v.mean()) for k, v in result.curve.items()},
        certificate=certificate(result.log_evidence, delta) if e.unbiased_for_p and normalised else None,
        delta=delta,
        details=result.details,
    )
    return estimate


def certificate(per_datum: Tensor, delta: float) -> float:
    """Markov's inequality on E[prod p̂_n / p_n] = 1: mean ln p̂ - ln(1/delta) / N."""
    return float(per_datum.mean()) - math.log(1 / delta) / len(per_datum)
