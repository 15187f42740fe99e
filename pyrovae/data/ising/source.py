"""Simulated configurations of the Ising torus, whose evidence is known exactly."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import seeds
from ..raw import Raw, Request
from .torus import T_CRITICAL, IsingTorus
from .transfer_matrix import MAX_SIDE

SIDE = 8
SIZES = {"train": 10000, "valid": 1000, "test": 2000}


def load_ising(request: Request) -> Raw:
    r"""Bits x `[N, L*L]` of the law exp(−E(x) / T) / Z on the torus, spins 2x − 1, J = 1.

    Drawn by the transfer matrix (independent, L <= 10) or by Swendsen–Wang. `log_evidence` is the exact
    ln p_data(x) (nats, float64). With several temperatures every split holds equally many data of each (to
    rounding, shuffled), `labels` are indices into `parameters["T"]`, and p_data is their mixture
    (1/M) Σ_m p(x | T_m), which is what a model of x alone is measured against; ln p(x | T) of a model that is
    told T is `IsingTorus(L, T).log_prob(x)`. `parameters`: "L", "T" and "log_partition" `[M]`; and
    "autocorrelation" `[M]` (sweeps) and "spacing" where Swendsen–Wang drew.
    Source: Kaufman (1949), https://doi.org/10.1103/PhysRev.76.1232.

    Raises:
        ValueError: If L < 2, T <= 0, a temperature is given twice, or a size is not an integer >= 1.
    """
    laws = _laws(request)
    sizes = {name: _size(request, name, default, len(laws)) for name, default in SIZES.items()}
    random = seeds.generator(request.seed, seeds.SIMULATION)
    parts: dict[str, list[Tensor]] = {name: [] for name in sizes}
    times, spacings = [], []
    for m, law in enumerate(laws):
        counts = {name: n // len(laws) + (m < n % len(laws)) for name, n in sizes.items()}
        total = sum(counts.values())
        if law.L <= MAX_SIDE:
            x = law.sample((total,), random)
        else:
            chains = law.chains(total, random)
            x = chains.samples.flatten(0, 1)[:total]
            times.append(chains.autocorrelation)
            spacings.append(chains.spacing)
        for name, block in zip(counts, x.split(list(counts.values())), strict=True):
            parts[name].append(block)
    splits, labels = {}, {}
    for name, blocks in parts.items():
        order = torch.randperm(sizes[name], generator=random, device="cpu")
        splits[name] = torch.cat(blocks)[order]
        labels[name] = torch.cat([torch.full((len(b),), m, device="cpu") for m, b in enumerate(blocks)])[
            order
        ]
    parameters = {
        "L": torch.tensor(laws[0].L, device="cpu"),
        "T": torch.tensor([law.T for law in laws], dtype=torch.float64, device="cpu"),
        "log_partition": torch.tensor([law.log_partition for law in laws], dtype=torch.float64, device="cpu"),
    }
    if times:
        parameters["autocorrelation"] = torch.tensor(times, dtype=torch.float64, device="cpu")
        parameters["spacing"] = torch.tensor(spacings, device="cpu")
    return Raw(
        "ising",
        splits,
        support="binary",
        labels=labels if len(laws) > 1 else None,
        log_evidence={name: _log_mixture(laws, x) for name, x in splits.items()},
        parameters=parameters,
    )


def _log_mixture(laws: list[IsingTorus], x: Tensor) -> Tensor:
    return torch.logsumexp(torch.stack([law.log_prob(x) for law in laws]), 0) - math.log(len(laws))


def _laws(request: Request) -> list[IsingTorus]:
    T: Any = T_CRITICAL if request.T is None else request.T
    if isinstance(T, Tensor | np.ndarray):
        T = T.tolist()
    # what is neither a number nor several is for the law to refuse, by its value
    temperatures: list[Any] = [T] if isinstance(T, str) or not isinstance(T, Iterable) else list(T)
    if not temperatures:
        raise ValueError("expected at least one temperature, got none; try T=2.27")
    if len(set(temperatures)) < len(temperatures):
        raise ValueError(f"expected different temperatures, got {temperatures}")
    return [IsingTorus(SIDE if request.L is None else request.L, t) for t in temperatures]


def _size(request: Request, name: str, default: int, temperatures: int) -> int:
    size = getattr(request, name)
    if size is None:
        size = max(default, temperatures)
    if isinstance(size, bool) or not isinstance(size, int) or size < temperatures:
        raise ValueError(
            f"expected {name} to be a number of data >= {temperatures}, at least one a temperature, since "
            f"'ising' is simulated, got {name}={size!r}; try {name}={default}"
        )
    return size
