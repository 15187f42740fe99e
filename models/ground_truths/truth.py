"""A program whose evidence is known, and what its data are drawn with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

F64 = torch.float64


@dataclass(frozen=True)
class GroundTruth:
    """A model/guide pair, data, and their exact evidence.

    Attributes:
        name: what it is.
        model, guide: the pair; the guide is close to the posterior but not equal to it.
        x: data, `[N, *event]`, drawn from the model.
        log_evidence: exact ln p(x_n), `[N]`, float64, nats.
        exact_guide: the posterior itself, where it is a distribution one can write down.
        continuous: whether all latents are continuous, as gradient-based moves need.
    """

    name: str
    model: Callable[..., Any]
    guide: Callable[..., Any]
    x: Tensor
    log_evidence: Tensor = field(repr=False)
    exact_guide: Callable[..., Any] | None = None
    continuous: bool = True


def draws(seed: int) -> Callable[..., Tensor]:
    """Normal draws of a generator of its own, in float64, by shape."""
    random = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=random, dtype=F64)


def sampled(prior: Callable[[int], Tensor], seed: int, num_data: int) -> Tensor:
    """Data of a sampler that takes no generator, without a trace in the caller's random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return prior(num_data)
