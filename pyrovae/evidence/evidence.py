"""`pv.evidence`: run estimators on a program and data, and say what the numbers support."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from ..checking import checked
from ..programs import inspect_program, module_mode
from ..programs.checks.masked import counted_share
from ..progress import Progress, listener, shows_progress
from .core.assembling import assemble, from_program, from_weights
from .core.checks import check_density, check_observations
from .core.chunks import Chunk, choose_chunk, pairs_in
from .core.compile_when import Compile, compiles, pairs_that_pay
from .core.estimator import PerDatum, ProgramEstimator, WeightEstimator
from .core.execution import Execution
from .data_hash import data_hash
from .estimators.elbo import ELBO
from .estimators.importance_sampling import IS
from .notes import estimate_notes
from .program_notes import program_notes
from .result import Evidence
from .sharing.claims import Sharing
from .sharing.partial_results import Partials
from .weights.narrower_guides import within_reach
from .weights.unreached import with_unreached


@checked
@shows_progress("evidence")
def evidence(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    estimators: Sequence[WeightEstimator | ProgramEstimator] = (ELBO(), IS(1000)),
    seed: int = 0,
    delta: float = 0.05,
    certify: str | None = None,
    plate: str | None = None,
    chunk: Chunk | None = None,
    budget: int | None = None,
    compile: Compile = "auto",
    progress: Progress = True,
    label: str | None = None,
    resume: str | os.PathLike[str] | None = None,
    shard: tuple[int, int] | None = None,
    sharing: Sharing | None = None,
    given: Mapping[str, Tensor] | None = None,
) -> Evidence:
    """Estimates ln p(x_n) for every datum, with errors, diagnostics and what they support.

    Estimators share their draws: one set of K = max(num_samples) log-weights per datum serves all, so differences
    between them are not noise. Memory is that of one chunk of data.

    The data-set certificate (for estimators whose exponential is unbiased for p): with probability >= 1 - delta,
    mean_n ln p(x_n) >= mean_n ln p̂_n - ln(m/delta)/N for all m such estimators at once, so that the highest of them may
    be quoted. It is Markov's inequality on E[prod p̂_n / p_n] = 1: it assumes independent draws, and nothing on the
    weights. `certify` spends delta on one estimator, named before its numbers are seen: m = 1. To pick among evidences
    of several programs costs the same again (`Estimate.certificate_among`).

    Of several estimators one that runs the program itself (AIS, Exact, ...) and refuses it does not end the call: its
    reason is in `Evidence.refused`, the warnings and a row of the table. Where all refuse, where the weights are
    refused, and in shards and shared evaluations, the reason is raised.

    Args:
        model, guide, x, *context, seed, plate, chunk, budget, compile: as in `log_weights`.
        progress: True: a bar, where somebody watches; False: none; or a function of (done, total).
        estimators: e.g. `[ELBO(), IS(5000)]`.
        delta: failure probability of the certificates, of all together.
        certify: the one estimator that is to have a certificate, such as `"AIS"`; default: all that can.
        label: what the data are (name, split, binarisation, hash), for tables.
        resume: a folder of partial results, one file a chunk of data (and one an estimator that runs
            the program itself). An evaluation that was killed goes on from there, to the same numbers.
        shard: `(i, n)`: evaluates every n-th chunk of data only, from the i-th; `merge_evidence` puts
            shards together, to the numbers of a whole run. Shards can share a `resume` folder.
        sharing: any number of processes, on machines that share the `resume` folder, call this alike and
            compute one evaluation: each chunk of data (and each estimator that runs the program itself) is
            one process's, and that of a process that died another's. Each returns the whole, bit for bit
            what one process alone returns.
        given: values of latents outside of the plate, which all data share, as in `log_weights`: the figures are
            ln p(x | given).

    Raises:
        ValueError: as `log_weights`; no estimators, two of one name, delta outside (0, 1); `certify` names none that
            gives a certificate; a shard outside of 0..n-1, without data, or with estimators that run the program.

    Example:
        >>> from pyrovae.models.ground_truths import linear_gaussian
        >>> pair = linear_gaussian(8, latent_dim=2)
        >>> found = evidence(pair.model, pair.guide, pair.x, estimators=[ELBO(), IS(500)])
        >>> found["IS"].log_evidence >= found["ELBO"].log_evidence
        True
    """
    names = [e.name for e in estimators]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"expected at least one estimator and no name twice, got {names}")
    if not 0 < delta < 1:
        raise ValueError(f"expected delta in (0, 1), got {delta}")
    if certify is not None and certify not in [e.name for e in estimators if e.unbiased_for_p]:
        raise ValueError(
            f"expected certify to name an estimator that gives a certificate (IS, Adaptive, AIS) among {names}, got "
            f"{certify!r}"
        )
    if sharing is not None and (resume is None or shard is not None):
        raise ValueError("expected a folder and no shard for a shared evaluation; try resume=folder")
    started, execution = time.perf_counter(), Execution(seed, budget, compile, listener(progress))
    # Their modes as the user left them: evaluation has its own.
    with module_mode(model, guide, training=None) as modules:
        program = inspect_program(model, guide, x, *context, plate=plate, given=given)
    # The expectation of a surrogate bounds ln p(x), and the ELBO is one; only exp(log w) means nothing.
    surrogate = program.declaration.density == "bound_only" and all(isinstance(e, ELBO) for e in estimators)
    if not surrogate:
        check_density(program)
    weighted = [e for e in estimators if _uses_weights(e)]
    others = [e for e in estimators if not _uses_weights(e)]
    drawn = max((e.num_samples or 0) for e in weighted) or 100 if weighted else 0
    if weighted:
        chunk = chunk or choose_chunk(program, drawn, budget)
    pays = compiles(compile, drawn * program.arguments.num_data, pairs_that_pay(program.arguments.x.device))
    what = {"data": data_hash(x, *context), "seed": seed, "chunk": repr(chunk), "compile": pays}
    what |= {"device": x.device.type, "drawn": drawn, "weighted": repr(weighted), "plate": program.plate}
    what |= {"given": data_hash(x[:0], given)} if given else {}
    rows, chunks = None, range(0)
    if weighted:
        assert chunk is not None
        parts = program.arguments.chunks(chunk.data)
        first, step = _shard(shard, len(parts), [e.name for e in others])
        chunks = range(first, len(parts), step)
        rows = torch.cat([parts[j] for j in chunks]).cpu() if shard else None
    elif shard is not None:
        _shard(shard, 0, names)
    if others and not weighted:
        check_observations(program, budget)
    results: dict[str, PerDatum] = {}
    stored: list[Partials] = []
    refused: dict[str, ValueError] = {}
    alone = len(estimators) == 1 or sharing is not None or shard is not None

    if weighted:
        if resume is not None:
            stored.append(Partials(resume, program, strict=sharing is not None, **what))
        assert chunk is not None
        # What the weights refuse is the program or its data, of which no other estimator is to give a number.
        results |= from_weights(
            program,
            weighted,
            drawn,
            replace(execution, compile=pays),
            chunk=chunk,
            chunks=chunks,
            partials=stored[0] if stored else None,
            sharing=sharing,
            label=label,
            surrogate=surrogate,
        )
    for e in others:
        kept = None
        if resume is not None:
            # What these draw does not depend on the weights that others ask for.
            own = {k: v for k, v in what.items() if k not in ("chunk", "drawn", "weighted")}
            own |= {"budget": budget, "estimator": repr(e), "compile": compile}
            kept = Partials(resume, program, strict=sharing is not None, **own)
            stored.append(kept)
        try:
            results |= from_program(
                e,  # type: ignore[arg-type]  # it has `run`
                program,
                execution,
                partials=kept,
                sharing=sharing,
                label=label,
            )
        except ValueError as error:
            if alone:
                raise
            refused[e.name] = error
        except (NotImplementedError, LinAlgError) as error:
            refused[e.name] = _unable(error)
            if alone:
                raise refused[e.name] from error
    if certify in refused or not results:
        raise refused[certify if certify in refused else next(iter(refused))]
    results = with_unreached(
        program, estimators, results, drawn=drawn, seed=seed, budget=budget, rows=rows, chunk=chunk
    )
    results = {
        e.name: within_reach(e, results[e.name], program.narrower) for e in estimators if e.name in results
    }
    normalised = surrogate or program.declaration.density in (None, "exact")
    knows = {e.name: normalised or (hasattr(e, "normalises") and e.normalises(program)) for e in estimators}
    estimates = assemble(estimators, results, drawn, delta, knows, certify)
    estimates = {name: replace(e, measure=program.measure) for name, e in estimates.items()}
    kept_x = x if rows is None else x[rows.to(x.device)]
    attributes = {
        "num_data": len(kept_x),
        "event_size": math.prod(x.shape[1:]),
        "seed": seed,
        "num_samples": drawn,
        "chunk": (chunk.data, chunk.samples) if chunk else None,
        "device": str(x.device),
        "dtype": str(x.dtype if x.is_floating_point() else torch.get_default_dtype()).removeprefix("torch."),
        "vectorised": program.vectorised,
        "density": program.declaration.density or "exact",
        "measure": program.measure.kind,
        "observed": program.measure.to_json(),
        "data_hash": what["data"],
        "torch": torch.__version__,
        "pyro": pyro.__version__,
        "seconds": time.perf_counter() - started,
    }
    reasons = {name: str(error) for name, error in refused.items()} or None
    attributes |= {
        k: v for k, v in (("label", label), ("shard", shard), ("refused", reasons)) if v is not None
    }
    if kept_x.is_floating_point() and bool(kept_x.isnan().any()):
        attributes["missing"] = float(kept_x.isnan().double().mean())
    elif (counted := counted_share(program, pairs_in(program, budget))) < 1:
        attributes["counted"] = counted
    about = tuple(program_notes(program, modules))
    files = tuple(sorted(f for p in stored for f in p.used))
    notes = [f"{name} is refused: {error}" for name, error in refused.items()]
    notes += [*about, *estimate_notes(estimates)]
    return Evidence(estimates, notes, attributes, kept_x, results, rows, about, files)


def _shard(shard: tuple[int, int] | None, num_chunks: int, others: Sequence[str]) -> tuple[int, int]:
    """The first chunk of a shard, and the step to its next."""
    if shard is None:
        return 0, 1
    i, n = shard
    if not 0 <= i < n:
        raise ValueError(f"expected a shard (i, n) with 0 <= i < n, got {shard}")
    if others:
        raise ValueError(
            f"expected estimators made of log-weights for a shard, got {list(others)}, which run on all data; "
            "evaluate those apart"
        )
    if i >= num_chunks:
        raise ValueError(
            f"expected a shard with data, got shard {i} of {n} for {num_chunks} chunk{'s' * (num_chunks > 1)} of "
            f"data; try at most {num_chunks} shard{'s' * (num_chunks > 1)} (in Python also a smaller chunk=)"
        )
    return i, n


def _unable(error: NotImplementedError | LinAlgError) -> ValueError:
    if isinstance(error, NotImplementedError):
        what = f"laws that can do what this estimator needs, got one that cannot ({error}); try"
    else:
        said = " ".join(str(error).split("Trace Shapes")[0].split())[:200]
        what = (
            f"a program that runs wherever this estimator looks, got a matrix that has no factors there ({said}); try "
            "a larger jitter on its diagonal, a prior that rules such values out, or"
        )
    return ValueError(f"expected {what} estimators that draw from the guide alone, as pv.IS")


def _uses_weights(e: WeightEstimator | ProgramEstimator) -> bool:
    return hasattr(e, "estimate") and getattr(e, "shares_draws", True)
