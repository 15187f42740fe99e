"""Interface of an estimator, and its result for one datum."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ...programs import Program
from .direction import Direction
from .execution import Execution


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

    def run(self, program: Program, execution: Execution) -> PerDatum:
        """All data of the program, in their order.

        Raises:
            ValueError: for a program that it cannot serve, with the reason.
        """
        ...


class ChunkedEstimator(ABC):
    """Base of one whose chunks of data can be run apart, and kept one by one."""

    @abstractmethod
    def num_chunks(self, program: Program, budget: int | None) -> int:
        """Into how many chunks the data are divided; a chunk's result does not depend on the others."""

    @abstractmethod
    def run_chunks(
        self, program: Program, numbers: Iterable[int], execution: Execution
    ) -> Iterator[tuple[int, PerDatum]]:
        """Number and result of each chunk wanted, in the order asked for; raises as `run`."""

    def run(self, program: Program, execution: Execution) -> PerDatum:
        """All data of the program, in their order."""
        every = range(self.num_chunks(program, execution.budget))
        return join([part for _, part in self.run_chunks(program, every, execution)])


def join(parts: Sequence[PerDatum], order: Tensor | None = None) -> PerDatum:
    """Results of disjoint sets of data as one; `order` then puts the rows in place."""

    def cat(tensors: list[Any]) -> Any:
        if tensors[0] is None:
            return None
        rows = torch.cat([t.cpu() for t in tensors])
        return rows if order is None else rows[order]

    def details() -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key in dict.fromkeys(k for p in parts for k in p.details):
            values = [p.details[key] for p in parts if key in p.details]
            if not (isinstance(values[0], Tensor) and values[0].dim()):
                found[key] = values[0]
            elif len(values) == len(parts):
                found[key] = cat(values)
        return found

    return PerDatum(
        cat([p.log_evidence for p in parts]),
        cat([p.variance for p in parts]),
        cat([p.bias for p in parts]),
        ess=cat([p.ess for p in parts]),
        khat=cat([p.khat for p in parts]),
        curve={k: cat([p.curve[k] for p in parts]) for k in parts[0].curve},
        details=details(),
    )
