"""Interface of an estimator, and its result for one datum."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from ...programs import Program
from .compile_when import Compile

Direction = Literal["<=", ">=", "~", "none"]


@dataclass(frozen=True)
class PerDatum:
    """An estimator's result for n data; tensors `[n]`, float64, nats.

    Attributes:
        log_evidence: the estimate.
        variance: its Monte-Carlo variance (nats squared), itself estimated.
        bias: estimate of (expected value - ln p(x)); NaN where unknown.
        ess: effective sample size; None where the estimator has no weights.
        khat: Pareto tail index of the weights; None likewise.
        curve: L_k for k samples, over disjoint blocks: k to `[n]`.
        details: what only this estimator has (acceptance rates, level variances): `[n]` tensors,
            numbers or text.
    """

    log_evidence: Tensor
    variance: Tensor
    bias: Tensor
    ess: Tensor | None = None
    khat: Tensor | None = None
    curve: dict[int, Tensor] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


class Estimator(Protocol):
    """Attributes that every estimator has.

    Attributes:
        name: key in the results.
        direction: `"<="`: at most ln p(x) in expectation; `">="`; `"~"`: unbiased or
            asymptotically so; `"none"`.
        unbiased_for_p: whether its exponential is an unbiased estimate of p(x), which is what
            the data-set certificate needs.
        num_samples: K: draws, chains or the like; None: as many as are drawn for others, or none.

    One that does not depend on where the guide draws says so by `draws_from_guide = False`: a guide that reaches less
    than the prior then leaves it as it is.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def direction(self) -> Direction: ...  # noqa: D102
    @property
    def unbiased_for_p(self) -> bool: ...  # noqa: D102
    @property
    def num_samples(self) -> int | None: ...  # noqa: D102


class WeightEstimator(Estimator, Protocol):
    """An estimator that needs nothing but the log-weights; all of these share one draw."""

    def estimate(self, log_weights: Tensor) -> PerDatum:
        """Estimate from `[K, n]` log-weights in nats."""
        ...


class ProgramEstimator(Estimator, Protocol):
    """An estimator that runs the program itself (AIS, exact evidence): it draws on its own.

    One that knows ln Z, and so gives ln p(x) of an unnormalised density too, says so by
    `normalises(program) -> bool`.
    """

    def run(
        self,
        program: Program,
        *,
        seed: int,
        budget: int | None = None,
        compile: Compile = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> PerDatum:
        """All data of the program, in their order.

        Raises:
            ValueError: for a program that it cannot serve, with the reason.
        """
        ...


@runtime_checkable
class ChunkedEstimator(ProgramEstimator, Protocol):
    """One whose chunks of data can be run apart, and kept one by one."""

    def num_chunks(self, program: Program, budget: int | None) -> int:
        """How many there are."""
        ...

    def run_chunks(
        self,
        program: Program,
        numbers: Iterable[int],
        *,
        seed: int,
        budget: int | None = None,
        compile: Compile = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[tuple[int, PerDatum]]:
        """Number and result of each chunk wanted, in the order asked for."""
        ...
