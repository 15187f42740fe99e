"""ln Z of an unnormalised program, by annealed importance sampling forwards and backwards."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...checking import checked
from ...programs import annealed_family, module_mode, seeded
from ...progress import Progress, listener, shows_progress
from ..core.direction import Direction
from ..weights.diagnostics import effective_sample_size

RESAMPLES = 2000  # of the bootstrap


@dataclass(frozen=True)
class LogPartition:
    """An estimate of ln Z, in nats.

    Attributes:
        value: ln Ẑ.
        error: its standard error: bootstrap over the chains; 0 where it is exact.
        direction: of its expectation against ln Z. `"<="` (AIS): ln p(x) = ln f(x) - ln Ẑ is then OVERSTATED;
            `">="` (AIS backwards from exact draws): understated; `"~"`: exact.
        method: in words.
        log_weights: of the chains, `[C]`, float64: their mean weight is Ẑ, or 1/Ẑ backwards.
        num_temperatures: both ends counted.

    Example:
        >>> import pyrovae as pv
        >>> from pyrovae.models.boltzmann import RBM
        >>> machine = RBM(6, num_hidden=4)
        >>> found = pv.log_partition(machine.model, betas=20, num_chains=10)
        >>> found.direction
        '<='
    """

    value: float
    error: float
    direction: Direction
    method: str
    log_weights: Tensor | None = field(default=None, repr=False)
    num_temperatures: int = 0

    @property
    def num_chains(self) -> int:
        """C."""
        return 0 if self.log_weights is None else len(self.log_weights)

    @property
    def ess(self) -> float:
        """Effective number of chains; NaN where there are none."""
        return (
            math.nan if self.log_weights is None else float(effective_sample_size(self.log_weights[:, None]))
        )

    @property
    def interval(self) -> tuple[float, float]:
        """ln(Ẑ ± 3 standard errors of Ẑ), as Salakhutdinov & Murray print it; -inf where Ẑ - 3 SE <= 0."""
        low = 1 - 3 * self.error
        return self.value + (math.log(low) if low > 0 else -math.inf), self.value + math.log1p(3 * self.error)

    def __repr__(self) -> str:
        sign = {"<=": "≥", ">=": "≤", "~": "="}[self.direction]
        chains = f", {self.num_chains} chains, ESS {self.ess:.1f}" if self.num_chains else ""
        return f"LogPartition(ln Z {sign} {self.value:.4f} ± {self.error:.4f} nats; {self.method}{chains})"


@checked
@shows_progress("temperatures")
def log_partition(
    model: Callable[..., Any],
    *,
    betas: int | Sequence[float] | Tensor = 10_000,
    num_chains: int = 100,
    draws: Tensor | None = None,
    seed: int = 0,
    progress: Progress = True,
) -> LogPartition:
    r"""ln Z of a program that declares its annealed family, by AIS (Salakhutdinov & Murray 2008).

    Forwards, from exact draws at beta = 0: :math:`w = \prod_t f_{\beta_t}(x_{t-1}) / f_{\beta_{t-1}}(x_{t-1})`,
    each followed by a transition at beta_t; :math:`E[w] = Z / Z_0`, so the logarithm is too SMALL on average and
    ln p(x) = ln f(x) - ln Ẑ too large. Backwards, from `draws` of the program itself: E[1/w] = Z_0 / Z, so
    ln Ẑ is too LARGE on average, and ln p(x) bounded from below — as far as the draws are exact and independent.

    Args:
        model: declared `unnormalised`, with `annealed=`.
        betas: inverse temperatures: how many, evenly spaced (both ends counted), or themselves, from 0 to 1.
        num_chains: C, forwards.
        draws: exact draws of p(x), `[C, *event]`: run backwards, one chain each.
        seed: of the noise.
        progress: a bar, or a function that is called with (done, total) in temperatures; as in `evidence`.

    Returns:
        `LogPartition`; float64 weights.

    Raises:
        ValueError: fewer than 2 temperatures or chains; betas that do not rise from 0 to 1; a program
            that declares no family.

    Source:
        On the quantitative analysis of deep belief networks (Salakhutdinov & Murray, 2008),
        https://doi.org/10.1145/1390156.1390266; backwards: Burda et al. (2015), https://arxiv.org/abs/1412.8566

    Example:
        >>> from pyrovae.models.boltzmann import RBM
        >>> found = log_partition(RBM(6, num_hidden=4).model, betas=20, num_chains=10)
        >>> len(found.log_weights)
        10
    """
    path = path_of(betas)
    chains = num_chains if draws is None else len(draws)
    if chains < 2:
        raise ValueError(f"expected at least 2 chains, which the error is made of, got {chains}")
    with annealed_family(model) as family, torch.no_grad(), module_mode(model, training=False):
        base = family.start_log_partition().double()
        with seeded(seed, "partition" if draws is None else "partition backwards", device=base.device):
            x = family.start(chains) if draws is None else draws
            total = (_forwards if draws is None else _backwards)(family, x, path, listener(progress))
    base = base.cpu()
    weights = total.double().cpu() + (base if draws is None else -base)
    value, error = bootstrapped(weights, seed)
    return LogPartition(
        value=value if draws is None else -value,
        error=error,
        direction="<=" if draws is None else ">=",
        method=f"AIS {'' if draws is None else 'backwards '}over {len(path):,} temperatures",
        log_weights=weights,
        num_temperatures=len(path),
    )


def path_of(betas: int | Sequence[float] | Tensor) -> list[float]:
    """Inverse temperatures from 0 to 1.

    Raises:
        ValueError: fewer than 2, or not rising from 0 to 1.
    """
    if isinstance(betas, int) and not isinstance(betas, bool):
        if betas < 2:
            raise ValueError(f"expected at least 2 temperatures, got {betas}")
        return [float(b) for b in torch.linspace(0, 1, betas, dtype=torch.float64, device="cpu")]
    path = [float(b) for b in betas]  # type: ignore[union-attr]  # a bool ends here
    if len(path) < 2 or path[0] != 0 or path[-1] != 1 or any(b <= a for a, b in pairwise(path)):
        raise ValueError(
            f"expected inverse temperatures that rise from 0 to 1, got {path[:3]} ... {path[-3:]}; try sorted(betas), "
            "or a number of them"
        )
    return path


def spaced_betas(num: int, *knots: tuple[float, float]) -> Tensor:
    """`num` inverse temperatures from 0 to 1, evenly spaced between knots (beta, share of the steps before it).

    Dense where it is hard: `spaced_betas(10_000, (0.8, 0.2))` spends four fifths of the steps on [0.8, 1];
    `spaced_betas(14_500, (0.5, 500 / 14_500), (0.9, 4500 / 14_500))` is the path of Salakhutdinov & Murray 2008.

    Raises:
        ValueError: fewer than 2, or knots that do not rise within (0, 1) in both numbers.

    Example:
        >>> spaced_betas(3).shape
        torch.Size([3])
    """
    betas, shares = ([0.0, *(k[i] for k in knots), 1.0] for i in (0, 1))
    if any(b <= a for column in (betas, shares) for a, b in pairwise(column)):
        raise ValueError(f"expected knots (beta, share) that rise within (0, 1), got {knots}; try (0.8, 0.2)")
    path_of(num)
    at = np.interp(np.linspace(0, 1, num), shares, betas)
    return torch.from_numpy(at)


def bootstrapped(log_weights: Tensor, seed: int = 0) -> tuple[float, float]:
    """ln of the mean weight, and the standard deviation of that over bootstrap samples of the chains."""
    c = len(log_weights)
    random = torch.Generator().manual_seed(seed)
    counts = torch.randint(c, (RESAMPLES, c), generator=random, device="cpu")
    means = torch.logsumexp(log_weights[counts], -1) - math.log(c)
    return float(torch.logsumexp(log_weights, 0)) - math.log(c), float(means.std())


def _forwards(family: Any, x: Tensor, path: list[float], progress: Any) -> Tensor:
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for t in range(1, len(path)):
        total -= family.free_energy_change(x, path[t - 1], path[t])
        if t + 1 < len(path):
            x = family.transition(x, 1, path[t])
        if progress is not None:
            progress(t, len(path) - 1)
    return total


def _backwards(family: Any, x: Tensor, path: list[float], progress: Any) -> Tensor:
    """The mirror image, step by step: ln of 1/w."""
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for t in range(len(path) - 1, 0, -1):
        total += family.free_energy_change(x, path[t - 1], path[t])
        if t > 1:
            x = family.transition(x, 1, path[t - 1])
        if progress is not None:
            progress(len(path) - t, len(path) - 1)
    return total
