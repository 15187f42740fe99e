"""Results of data sets, put together from results of chunks of data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ...programs import Program
from ...programs.particles.rounding import rounding
from ..sharing.claims import Sharing, Units
from ..sharing.partial_results import Partials
from ..weights.rounding import KEY, rounding_of_all, with_rounding
from .certificate import certificate
from .chunks import Chunk
from .collecting import Collected
from .estimate import NUM_DRAWS, Estimate
from .estimator import ChunkedEstimator, PerDatum, ProgramEstimator, WeightEstimator, join
from .execution import Execution
from .log_weights import iterate
from .unsupported import refuse_unsupported


def from_weights(
    program: Program,
    estimators: Sequence[Any],
    drawn: int,
    execution: Execution,
    *,
    chunk: Chunk,
    chunks: Sequence[int],
    partials: Partials | None,
    surrogate: bool,
    sharing: Sharing | None = None,
    label: str | None = None,
) -> dict[str, PerDatum]:
    """All weight estimators on one draw of log-weights, a chunk of data at a time.

    Args:
        chunks: numbers of the chunks of data to evaluate.
        partials: where their results are kept, and taken from.
        sharing: compute chunks that no other process has; wait for those of the others.
        label: what is evaluated, for a look at the progress.
        All else: as `iterate`.
    """
    rows = program.arguments.chunks(chunk.data)
    kept = Collected([len(rows[j]) for j in chunks])
    place = {j: i for i, j in enumerate(chunks)}
    missing = set(chunks)

    def take_kept() -> None:
        for j in sorted(missing):
            part = None if partials is None else partials.load(part_name(j))
            if part is not None:
                kept.put(place[j], part)
                missing.remove(j)

    take_kept()
    order: Iterable[int] = sorted(missing)
    if sharing is not None and partials is not None:
        units = Units(partials, [part_name(j) for j in chunks], sharing, label)
        order = map(int, units)
    numbers = {int(indices[0]): j for j, indices in enumerate(rows)}
    blocks = iterate(
        program,
        drawn,
        replace(execution, compile=execution.compile and bool(missing)),
        chunk=chunk,
        chunks=order,
        surrogate=surrogate,
    )
    # Progress is told before a block is yielded: what it interrupts is a chunk not yet saved.
    for indices, weights in blocks:
        j = numbers[int(indices[0])]
        error = rounding(program, indices)
        part = {
            e.name: join([with_rounding(e.estimate(weights[: e.num_samples or drawn]), error)])
            for e in estimators
        }
        kept.put(place[j], part)
        missing.discard(j)
        if partials is not None:
            partials.save(part_name(j), part)
    take_kept()  # of the other processes
    if missing:
        raise ValueError(
            f"expected the results of all {len(chunks)} units in {partials.folder if partials else 'memory'}, got none "
            f"of {len(missing)} (the first is {min(missing)}): their files were there and have gone; try the same "
            "command again"
        )
    return kept.whole()


def from_program(
    e: ProgramEstimator,
    program: Program,
    execution: Execution,
    *,
    partials: Partials | None,
    sharing: Sharing | None,
    label: str | None,
) -> dict[str, PerDatum]:
    """An estimator that runs the program itself: a unit for each of its chunks of data, or one in all."""
    budget = execution.budget
    if partials is None:
        return {e.name: _rounded(e.run(program, execution), program, budget)}
    number = e.num_chunks(program, budget) if isinstance(e, ChunkedEstimator) else 1
    names = [partials.unit(f"{e.name}-{part_name(j)}") for j in range(number)]
    found = [partials.load(name) for name in names]
    missing: Iterable[int] = [j for j, part in enumerate(found) if part is None]
    if sharing is not None:
        units = Units(partials, names, sharing, f"{label or 'evidence'}, {e.name}")
        missing = map(names.index, units)
    if isinstance(e, ChunkedEstimator):
        results = e.run_chunks(program, missing, execution)
    else:
        results = ((j, e.run(program, execution)) for j in missing)
    for j, part in results:
        partials.save(names[j], {e.name: part})
    parts = [(part or partials.load(name) or {})[e.name] for name, part in zip(names, found, strict=True)]
    return {e.name: _rounded(join(parts), program, budget)}


def _rounded(result: PerDatum, program: Program, budget: int | None) -> PerDatum:
    return with_rounding(result, rounding_of_all(program, budget))


def part_name(chunk: int) -> str:
    """Name of a chunk's partial result."""
    return f"{chunk:06d}"


def assemble(
    estimators: Sequence[WeightEstimator | ProgramEstimator],
    results: dict[str, PerDatum],
    drawn: int,
    delta: float,
    normalised: dict[str, bool],
    certify: str | None = None,
) -> dict[str, Estimate]:
    """Results over data as `Estimate`s, whose certificates hold together.

    Args:
        drawn: K of estimators that take all there are.
        delta: failure probability of all certificates together.
        normalised: whether an estimator gives ln p(x), and not ln f(x).
        certify: the one estimator that has a certificate; None: all that can.

    Raises:
        ValueError: `certify` names an estimator that gives none.
    """
    able = [e.name for e in estimators if e.unbiased_for_p and normalised[e.name]]
    if certify is not None and certify not in able:
        raise ValueError(
            f"expected certify to name an estimator that gives a certificate, {able}, got {certify!r}"
        )
    certified = able if certify is None else [certify]
    out = {}
    for e in estimators:
        if e.name not in results:  # refused; its part of delta is spent on none
            continue
        result = join([results[e.name]])
        found = Estimate(
            name=e.name,
            # Without the normaliser a bound on ln f(x) is none on ln p(x).
            direction=e.direction if normalised[e.name] else "none",
            num_samples=_num_samples(e, result, drawn),
            delta=delta,
            **figures(result, delta, len(certified) if e.name in certified else None),
        )
        out[e.name] = refuse_unsupported(found)
    return out


def figures(result: PerDatum, delta: float, certified: int | None) -> dict[str, Any]:
    """The fields of an estimate that are its result's; with a certificate where it is one of so many `certified`."""
    bound = None
    if certified is not None:
        bound = certificate(result.log_evidence, delta, certified, result.details.get(KEY))
    return {
        "per_datum": result.log_evidence,
        "variance": result.variance,
        "bias": result.bias,
        "ess": result.ess,
        "khat": result.khat,
        "curve": {k: float(v.mean()) for k, v in result.curve.items()},
        "certificate": bound,
        "details": result.details,
    }


def _num_samples(e: Any, result: PerDatum, drawn: int) -> int:
    """K, or the median over data where each has its own."""
    if NUM_DRAWS in result.details:
        return int(result.details[NUM_DRAWS].median())
    return e.num_samples or (drawn if hasattr(e, "estimate") else 0)
