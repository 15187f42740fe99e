"""`pv.evidence`: run estimators on a program and data, and say what the numbers support."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..programs import Program, inspect_program
from ..programs.validity import scaled_sites
from .diagnostics import MIN_ESS, khat_threshold
from .elbo import ELBO
from .estimators import PerDatum, ProgramEstimator, WeightEstimator
from .importance import IS
from .log_weights import Chunk, check_density, choose_chunk, iterate
from .report import render_markdown, render_table, verdict
from .result import Comparison, Estimate, paired_difference


@dataclass(frozen=True)
class Evidence(Mapping[str, Estimate]):
    """Estimates of ln p(x) of one program on one data set, by estimator name.

    Attributes:
        estimates: by name, in the order asked for.
        warnings: what a reader of the numbers must know.
        attributes: N, event size, seed, chunk, device, dtype, versions, data hash, seconds.
        x: the data.
    """

    estimates: dict[str, Estimate]
    warnings: list[str]
    attributes: dict[str, Any]
    x: Tensor = field(repr=False)

    def __getitem__(self, name: str) -> Estimate:
        if name not in self.estimates:
            raise KeyError(f"expected one of {list(self.estimates)}, got {name!r}")
        return self.estimates[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.estimates)

    def __len__(self) -> int:
        return len(self.estimates)

    @property
    def best(self) -> Estimate:
        """The estimate closest to ln p(x) by kind: weights before the ELBO."""
        return self.estimates.get("IS") or next(iter(self.estimates.values()))

    @property
    def per_datum(self) -> dict[str, Tensor]:
        """Estimator name to ln p̂(x_n), `[N]`, nats."""
        return {name: e.per_datum for name, e in self.estimates.items()}

    @property
    def gap(self) -> float:
        """Mean of IS - ELBO: what the ELBO loses, at least, in nats per datum."""
        return self["IS"].log_evidence - self["ELBO"].log_evidence

    @property
    def verdict(self) -> str:
        """What the figures support, in words."""
        return verdict(self)

    def table(self, style: str = "terminal") -> str:
        """One row an estimator; `"terminal"` or `"markdown"`."""
        if style not in ("terminal", "markdown"):
            raise ValueError(f"expected style 'terminal' or 'markdown', got {style!r}")
        return render_table(self) if style == "terminal" else render_markdown(self)

    def compare(self, other: Evidence) -> Comparison:
        """Paired difference self - other of the best estimates, ± SE, nats per datum.

        Raises:
            ValueError: where the data differ.
        """
        if self.attributes["data_hash"] != other.attributes["data_hash"]:
            raise ValueError(
                "expected two evidences on the same data, in the same order, got data with hashes "
                f"{self.attributes['data_hash'][:12]} and {other.attributes['data_hash'][:12]}"
            )
        return paired_difference(self.best, other.best)

    def plot(self) -> Any:
        """A figure: L_k against 1/k, ELBO against IS per datum, k-hat histogram."""
        from ..plots import plot_evidence

        return plot_evidence(self)

    def to_arviz(self) -> Any:
        """`arviz.InferenceData` (0.x) or `xarray.DataTree` (1.x); see `pyrovae.export`."""
        from ..export import evidence_to_arviz

        return evidence_to_arviz(self)

    def __repr__(self) -> str:
        return "Evidence(\n  " + "\n  ".join(map(repr, self.estimates.values())) + "\n)"


def evidence(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    estimators: Sequence[WeightEstimator | ProgramEstimator] = (ELBO(), IS(1000)),
    seed: int = 0,
    delta: float = 0.05,
    plate: str | None = None,
    chunk: Chunk | None = None,
    budget: int | None = None,
    compile: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Evidence:
    """Estimates ln p(x_n) for every datum, with errors, diagnostics and what they support.

    Estimators share their draws: one set of K = max(num_samples) log-weights per datum serves
    all, so differences between them are not noise. Memory is that of one chunk of data.

    The data-set certificate (for estimators whose exponential is unbiased for p): with
    probability >= 1 - delta, mean_n ln p(x_n) >= mean_n ln p̂_n - ln(1/delta)/N. It is Markov's
    inequality on E[prod p̂_n / p_n] = 1: it assumes independent draws, and nothing on the weights.

    Args:
        model, guide, x, *context, seed, plate, chunk, budget, compile, progress: as in `log_weights`.
        estimators: e.g. `[ELBO(), IS(5000)]`.
        delta: failure probability of the certificate.

    Raises:
        ValueError: as `log_weights`; no estimators, two of one name, delta outside (0, 1).
    """
    names = [e.name for e in estimators]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"expected at least one estimator and no name twice, got {names}")
    if not 0 < delta < 1:
        raise ValueError(f"expected delta in (0, 1), got {delta}")
    started = time.perf_counter()
    program = inspect_program(model, guide, x, *context, plate=plate)
    check_density(program)
    weighted = [e for e in estimators if _uses_weights(e)]
    drawn = max((e.num_samples or 0) for e in weighted) or 100 if weighted else 0
    results: dict[str, PerDatum] = {}
    if weighted:
        chunk = chunk or choose_chunk(program, drawn, budget)
        results |= _from_weights(program, weighted, drawn, seed, chunk, compile, progress)
    for e in estimators:
        if not _uses_weights(e):
            results[e.name] = e.run(  # type: ignore[union-attr]
                program, seed=seed, budget=budget, compile=compile, progress=progress
            )
    exact = _log_scale_exact(program)
    estimates = {e.name: _assemble(e, results[e.name], drawn, delta, exact) for e in estimators}
    attributes = {
        "num_data": len(x),
        "event_size": math.prod(x.shape[1:]),
        "seed": seed,
        "num_samples": drawn,
        "chunk": (chunk.data, chunk.samples) if chunk else None,
        "device": str(x.device),
        "dtype": str(x.dtype if x.is_floating_point() else torch.get_default_dtype()).removeprefix("torch."),
        "vectorised": program.vectorised,
        "density": program.declaration.density or "exact",
        "data_hash": data_hash(x, *context),
        "torch": torch.__version__,
        "seconds": time.perf_counter() - started,
    }
    return Evidence(estimates, _warnings(estimates, scaled_sites(program)), attributes, x)


def data_hash(x: Tensor, *context: Any) -> str:
    """SHA-256 of the bytes, shape and dtype of the data and of context tensors."""
    h = hashlib.sha256()
    for tensor in (x, *(c for c in context if isinstance(c, Tensor))):
        h.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        h.update(tensor.detach().contiguous().cpu().numpy().tobytes())
    return h.hexdigest()


def _log_scale_exact(program: Any) -> bool:
    return program.declaration.density in (None, "exact")


def _uses_weights(e: WeightEstimator | ProgramEstimator) -> bool:
    return hasattr(e, "estimate")


def _from_weights(
    program: Program,
    estimators: Sequence[Any],
    drawn: int,
    seed: int,
    chunk: Chunk,
    compile: bool,
    progress: Callable[[int, int], None] | None,
) -> dict[str, PerDatum]:
    """All weight estimators on one draw of log-weights, a chunk of data at a time."""
    parts: dict[str, list[PerDatum]] = {e.name: [] for e in estimators}
    order: list[Tensor] = []
    for indices, weights in iterate(
        program, drawn, seed=seed, chunk=chunk, compile=compile, progress=progress
    ):
        order.append(indices.cpu())
        for e in estimators:
            parts[e.name].append(e.estimate(weights[: e.num_samples or drawn]))
    back = torch.cat(order).argsort()
    return {name: _join(p, back) for name, p in parts.items()}


def _join(parts: list[PerDatum], back: Tensor) -> PerDatum:
    """Results of chunks of data as one, in the data's order."""

    def cat(tensors: list[Any]) -> Any:
        return None if tensors[0] is None else torch.cat([t.cpu() for t in tensors])[back]

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


def _assemble(
    e: WeightEstimator | ProgramEstimator, result: PerDatum, drawn: int, delta: float, normalised: bool
) -> Estimate:
    per_datum = result.log_evidence.cpu()
    certificate = None
    if e.unbiased_for_p and normalised:
        certificate = float(per_datum.mean()) - math.log(1 / delta) / len(per_datum)
    return Estimate(
        name=e.name,
        # Without the normaliser a bound on ln f(x) is none on ln p(x).
        direction=e.direction if normalised else "none",
        num_samples=e.num_samples or (drawn if _uses_weights(e) else 0),
        per_datum=per_datum,
        variance=result.variance.cpu(),
        bias=result.bias.cpu(),
        ess=result.ess.cpu() if result.ess is not None else None,
        khat=result.khat.cpu() if result.khat is not None else None,
        curve={k: float(v.mean()) for k, v in result.curve.items()},
        certificate=certificate,
        delta=delta,
        details=result.details,
    )


def _warnings(estimates: dict[str, Estimate], scaled: list[str]) -> list[str]:
    out = []
    if scaled:
        out.append(
            f"sites {scaled} carry a scale other than 1; the evidence is computed without it (a scale inside "
            "the weights would make it no bound)"
        )
    e = estimates.get("IS")
    if e is None or e.ess is None or e.khat is None:
        return out
    dead = int((~torch.isfinite(e.per_datum)).sum())
    if dead:
        out.append(f"{dead} data have only zero weights: the guide never hits the posterior's support")
    if e.num_samples < 25:
        out.append(f"K = {e.num_samples} is too few for tail diagnostics (k-hat needs 25)")
    share = e.unreliable_share
    if share > 0:
        low = float((e.ess < MIN_ESS).double().mean())
        high = float((e.khat > khat_threshold(e.num_samples)).double().mean())
        out.append(
            f"{share:.0%} of the data support no two-sided interval (ESS < {MIN_ESS:.0f}: {low:.0%}, k-hat above "
            f"{khat_threshold(e.num_samples):.2f}: {high:.0%}); the mean is still a lower bound"
        )
    ks = sorted(e.curve)
    if len(ks) >= 2 and e.curve[ks[-1]] - e.curve[ks[-2]] > max(0.05, 2 * e.se_mc):
        out.append(
            f"L_K still rises by {e.curve[ks[-1]] - e.curve[ks[-2]]:.2f} nats from K = {ks[-2]} to {ks[-1]}: "
            "more samples would raise the bound"
        )
    return out
