"""`pv.evidence`: run estimators on a program and data, and say what the numbers support."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

from ..checking import checked
from ..programs import Measure, Program, inspect_program, module_mode, tensors_in
from ..programs.arguments.marks import Marked, others_in
from .bounds.bracket import Sandwich
from .core.assembling import assemble, from_program, from_weights
from .core.compile_when import PAIRS, Compile, compiles
from .core.estimate import SANDWICH, Comparison, Estimate, paired_difference
from .core.estimator import PerDatum, ProgramEstimator, WeightEstimator
from .core.execution import Execution
from .core.log_weights import Chunk, check_density, check_observations, choose_chunk
from .estimators.elbo import ELBO
from .estimators.importance_sampling import IS
from .notes import estimate_notes, program_notes
from .report import choose, render_evidence, verdict
from .sharing.claims import Sharing
from .sharing.partial_results import Partials
from .weights.narrower_guides import within_reach


@dataclass(frozen=True)
class Evidence(Mapping[str, Estimate]):
    """Estimates of ln p(x) of one program on one data set, by estimator name.

    Attributes:
        estimates: by name, in the order asked for.
        warnings: what a reader of the numbers must know.
        attributes: N, event size, seed, chunk, device, dtype, versions, data hash, seconds; `measure`: "mass",
            "density", "mixed" or "unknown", and `observed`, the same by observed site.
        x: the data.
        results: per datum, by estimator: what `merge_evidence` merges.
        rows: which of the data these are, for a shard; None: all.
        about: the warnings that are of the program, and not of the numbers.
        partials: files of partial results that it was put together from.
    """

    estimates: dict[str, Estimate]
    warnings: list[str]
    attributes: dict[str, Any]
    x: Tensor = field(repr=False)
    results: dict[str, PerDatum] = field(default_factory=dict, repr=False)
    rows: Tensor | None = field(default=None, repr=False)
    about: tuple[str, ...] = ()
    partials: tuple[Path, ...] = field(default=(), repr=False)

    @property
    def refused(self) -> dict[str, str]:
        """Estimators that refuse this program, and why: a row in the table, and no estimate."""
        return dict(self.attributes.get("refused", {}))

    def __getitem__(self, name: str) -> Estimate:
        """The estimate of this name.

        Raises:
            ValueError: one that was refused, with the reason.
            KeyError: one that was not asked for.
        """
        if name in self.refused:
            raise ValueError(
                f"expected an estimator that serves this program, got {name}: {self.refused[name]}"
            )
        if name not in self.estimates:
            raise KeyError(f"expected one of {list(self.estimates)}, got {name!r}")
        return self.estimates[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.estimates)

    def __len__(self) -> int:
        return len(self.estimates)

    @property
    def best(self) -> Estimate:
        """The estimate with the strongest claim on ln p(x).

        In this order: the exact one; of the lower bounds that carry a certificate (IS, AIS) the one
        with the highest mean; IS; the first that is not refused. Each lies below ln p(x) in expectation, the
        highest of several only up to their errors; its certificate holds, since all of them hold together.
        Means over the data are compared, not single data, of which a maximum would be no bound.
        """
        return choose(list(self.estimates.values()))

    @property
    def per_datum(self) -> dict[str, Tensor]:
        """Estimator name to ln p̂(x_n), `[N]`, nats."""
        return {name: e.per_datum for name, e in self.estimates.items()}

    @property
    def gap(self) -> float:
        """Mean of IS - ELBO: what the ELBO loses, at least, in nats per datum."""
        return self["IS"].log_evidence - self["ELBO"].log_evidence

    @property
    def measure(self) -> Measure | None:
        """Whether p(x) is a mass or a density; None in files that do not say."""
        found = self.attributes.get("observed")
        return None if found is None else Measure.from_json(found)

    @property
    def verdict(self) -> str:
        """Verdict of the figures, in words."""
        return verdict(self)

    def table(self, style: str = "terminal", against: Evidence | None = None) -> str:
        """One row an estimator; `"terminal"` or `"markdown"`.

        Args:
            style: of the table.
            against: another evidence on the same data: adds the paired difference of each estimator.

        Raises:
            ValueError: for another style, other data, or a mass against a density.
        """
        return render_evidence(self, style, against)

    def compare(self, other: Evidence) -> Comparison:
        """Paired difference self - other of the best estimates, ± SE, nats per datum.

        Of the best of `self` among the estimators that both have; where they have none in common, of
        the best of each.

        Raises:
            ValueError: where the data differ, or one is a mass and the other a density.
        """
        if self.attributes["data_hash"] != other.attributes["data_hash"]:
            raise ValueError(
                "expected two evidences on the same data, in the same order, got data with hashes "
                f"{self.attributes['data_hash'][:12]} and {other.attributes['data_hash'][:12]}"
            )
        common = [e for name, e in self.estimates.items() if name in other.estimates]
        mine = choose(common) if common else self.best
        return paired_difference(mine, other.estimates.get(mine.name, other.best))

    def with_sandwich(self, sandwich: Sandwich | Mapping[str, float]) -> Evidence:
        """The same, with how wide its bounds are on simulated data: a column, and a warning of differences.

        A difference that is smaller than either side's gap comes with a warning (`Comparison.warnings`).

        Args:
            sandwich: of the same program and guide; or gaps in nats by estimator name.

        Raises:
            ValueError: a gap for an estimator that is not here.
        """
        gaps = sandwich if isinstance(sandwich, Mapping) else sandwich.gaps
        known = {n: {**e.details, SANDWICH: gaps[n]} for n, e in self.estimates.items() if n in gaps}
        if not known:
            raise ValueError(f"expected gaps for some of {list(self.estimates)}, got {list(gaps)}")
        found = {n: replace(e, details=known.get(n, e.details)) for n, e in self.estimates.items()}
        return replace(self, estimates=found)

    def plot(self, image_shape: tuple[int, int] | None = None) -> Any:
        """A figure: L_k against 1/k, ELBO against IS per datum, k-hat, weights; the worst-estimated images.

        Args:
            image_shape: height and width, where the data are images.
        """
        from ..plots import plot_evidence

        return plot_evidence(self, image_shape)

    def to_arviz(self) -> Any:
        """`arviz.InferenceData` (0.x) or `xarray.DataTree` (1.x); see `pyrovae.export`."""
        from ..export import evidence_to_arviz

        return evidence_to_arviz(self)

    def __repr__(self) -> str:
        return "Evidence(\n  " + "\n  ".join(map(repr, self.estimates.values())) + "\n)"


@checked
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
    progress: Callable[[int, int], None] | None = None,
    label: str | None = None,
    resume: str | os.PathLike[str] | None = None,
    shard: tuple[int, int] | None = None,
    sharing: Sharing | None = None,
    given: Mapping[str, Tensor] | None = None,
) -> Evidence:
    """Estimates ln p(x_n) for every datum, with errors, diagnostics and what they support.

    Estimators share their draws: one set of K = max(num_samples) log-weights per datum serves
    all, so differences between them are not noise. Memory is that of one chunk of data.

    The data-set certificate (for estimators whose exponential is unbiased for p): with
    probability >= 1 - delta, mean_n ln p(x_n) >= mean_n ln p̂_n - ln(m/delta)/N for all m such estimators
    at once, so that the highest of them may be quoted. It is Markov's inequality on E[prod p̂_n / p_n] = 1:
    it assumes independent draws, and nothing on the weights. `certify` spends delta on one estimator, named
    before its numbers are seen: m = 1. To pick among evidences of several programs costs the same again
    (`Estimate.certificate_among`).

    Of several estimators one that runs the program itself (AIS, Exact, ...) and refuses it does not end the call: its
    reason is in `Evidence.refused`, the warnings and a row of the table. Where all refuse, where the weights are
    refused, and in shards and shared evaluations, the reason is raised.

    Args:
        model, guide, x, *context, seed, plate, chunk, budget, compile, progress: as in `log_weights`.
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
        ValueError: as `log_weights`; no estimators, two of one name, delta outside (0, 1); `certify` names no
            estimator that gives a certificate; a shard
            outside of 0..n-1, without data, or with estimators that run the program themselves.
    """
    names = [e.name for e in estimators]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"expected at least one estimator and no name twice, got {names}")
    if not 0 < delta < 1:
        raise ValueError(f"expected delta in (0, 1), got {delta}")
    if certify is not None and certify not in [e.name for e in estimators if e.unbiased_for_p]:
        raise ValueError(
            f"expected certify to name an estimator that gives a certificate (IS, AIS) among {names}, got {certify!r}"
        )
    if sharing is not None and (resume is None or shard is not None):
        raise ValueError("expected a folder and no shard for a shared evaluation; try resume=folder")
    started, execution = time.perf_counter(), Execution(seed, budget, compile, progress)
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
    pays = compiles(compile, drawn * program.arguments.num_data, PAIRS)
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
                e,  # type: ignore[arg-type]
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
    if certify in refused or not results:
        raise refused[certify if certify in refused else next(iter(refused))]
    results = {
        e.name: within_reach(e, results[e.name], program.narrower) for e in estimators if e.name in results
    }
    normalised = surrogate or program.declaration.density in (None, "exact")
    knows = {e.name: normalised or _normalises(e, program) for e in estimators}
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
            f"expected a shard with data, got shard {i} of {n} for {num_chunks} chunks of data; try fewer shards, "
            "or a smaller chunk"
        )
    return i, n


def _normalises(e: Any, program: Program) -> bool:
    """Whether an estimator knows ln Z of an unnormalised program."""
    return hasattr(e, "normalises") and e.normalises(program)


def _uses_weights(e: WeightEstimator | ProgramEstimator) -> bool:
    return hasattr(e, "estimate") and getattr(e, "shares_draws", True)


def data_hash(x: Tensor, *context: Any) -> str:
    """SHA-256 of the bytes, shape and dtype of the data and of context tensors, and of what context is beside."""
    h = hashlib.sha256()
    for tensor in tensors_in((x, *context)):
        h.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        plain = tensor.detach().contiguous().cpu()  # numpy knows no bfloat16
        h.update((plain.view(torch.int16) if plain.dtype == torch.bfloat16 else plain).numpy().tobytes())
    bare = tuple(c.value if isinstance(c, Marked) else c for c in context)  # marks are no data
    if not all(isinstance(c, Tensor) for c in bare):
        h.update(others_in(bare).encode())
    return h.hexdigest()
