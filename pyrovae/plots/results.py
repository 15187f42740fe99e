"""The results that figures read, as Protocols: pictures know no estimator, so they import none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


class EstimateLike(Protocol):
    """One estimate: `pyrovae.evidence.Estimate`. Figures in nats; tensors `[N]`."""

    @property
    def direction(self) -> str: ...  # noqa: D102
    @property
    def num_samples(self) -> int: ...  # noqa: D102
    @property
    def per_datum(self) -> Tensor: ...  # noqa: D102
    @property
    def variance(self) -> Tensor: ...  # noqa: D102
    @property
    def ess(self) -> Tensor | None: ...  # noqa: D102
    @property
    def khat(self) -> Tensor | None: ...  # noqa: D102
    @property
    def khat_threshold(self) -> float: ...  # noqa: D102
    @property
    def reliable(self) -> Tensor: ...  # noqa: D102
    @property
    def curve(self) -> dict[int, float]: ...  # noqa: D102
    @property
    def certificate(self) -> float | None: ...  # noqa: D102
    @property
    def delta(self) -> float: ...  # noqa: D102
    @property
    def log_evidence(self) -> float: ...  # noqa: D102
    @property
    def bias_indicator(self) -> float: ...  # noqa: D102
    @property
    def se_mc(self) -> float: ...  # noqa: D102


@runtime_checkable
class EvidenceLike(Protocol):
    """Estimates by name, and the data `[N, *event]` that they are of: `pyrovae.evidence.Evidence`."""

    @property
    def estimates(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def x(self) -> Tensor: ...  # noqa: D102
    def __getitem__(self, name: str) -> EstimateLike: ...
    def __iter__(self) -> Iterator[str]: ...


class FreeEnergyLike(Protocol):
    """Free energies at several temperatures: `pv.FreeEnergy`."""

    @property
    def temperatures(self) -> Tensor: ...  # noqa: D102
    @property
    def estimator(self) -> str: ...  # noqa: D102
    def mean(self, name: str) -> tuple[Tensor, Tensor, Tensor]: ...  # noqa: D102


class TemperedLike(Protocol):
    """The family p(z) p(x|z)^beta: `pv.TemperedLikelihood`."""

    @property
    def betas(self) -> Tensor: ...  # noqa: D102
    @property
    def heat_capacity(self) -> Tensor: ...  # noqa: D102
    def mean(self, name: str) -> tuple[Tensor, Tensor]: ...  # noqa: D102


class WorkLike(Protocol):
    """Work in both directions: `pv.WorkDistributions`."""

    @property
    def forward(self) -> Tensor: ...  # noqa: D102
    @property
    def bar(self) -> Any: ...  # noqa: D102
    def histogram(self, datum: int, bins: int) -> tuple[Tensor, Tensor, Tensor]: ...  # noqa: D102


class CoverageLike(Protocol):
    """How often intervals cover, for weights of one law and one estimator."""

    @property
    def law(self) -> Any: ...  # noqa: D102
    @property
    def estimator(self) -> str: ...  # noqa: D102
    @property
    def level(self) -> float: ...  # noqa: D102
    @property
    def covered(self) -> float: ...  # noqa: D102
    @property
    def given(self) -> float: ...  # noqa: D102
    @property
    def repeats(self) -> int: ...  # noqa: D102
