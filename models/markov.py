"""The deep Markov model: sequences of different lengths, a nonlinear state space model with an amortised smoother."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyrovae.distributions import GaussianChain
from pyrovae.networks import MLP, positive_scale
from pyrovae.programs import program


class Transition(nn.Module):
    """z_t ~ N(m(z_{t-1}), diag v(z_{t-1})^2): a gate between a linear and a nonlinear step (Krishnan et al. 2017)."""

    def __init__(self, latent_dim: int, hidden: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.gate = MLP(latent_dim, (hidden,), latent_dim)
        self.proposed = MLP(latent_dim, (hidden,), latent_dim)
        self.linear = nn.Linear(latent_dim, latent_dim)
        self.scale = nn.Linear(latent_dim, latent_dim)
        self.start = nn.Parameter(torch.zeros(latent_dim))
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def step(self, before: Tensor, _seen: Tensor | None) -> tuple[Tensor, Tensor]:
        """Location and scale of z_t."""
        gate, proposed = torch.sigmoid(self.gate(before)), self.proposed(before)
        loc = (1 - gate) * self.linear(before) + gate * proposed
        return loc, positive_scale(self.scale(torch.tanh(proposed)), 1e-3)

    def forward(self, lengths: Tensor, num_steps: int) -> GaussianChain:
        """p(z) of paths of these lengths."""
        return GaussianChain(self.step, self.start, lengths, num_steps)


class Smoother(nn.Module):
    """q(z_t | z_{t-1}, x_t, ..., x_T): each sequence is read from its own end by a GRU (Krishnan et al. 2017)."""

    def __init__(self, event_dim: int, latent_dim: int, hidden: int, factor: float = 1.0) -> None:
        super().__init__()
        self.latent_dim, self.factor = latent_dim, factor
        self.read = nn.GRU(event_dim, hidden, batch_first=True)
        self.combine = nn.Linear(latent_dim, hidden)
        self.head = nn.Linear(hidden, 2 * latent_dim)
        self.start = nn.Parameter(torch.zeros(latent_dim))

    def step(self, before: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
        """Location and scale of z_t."""
        assert seen is not None
        mixed = (torch.tanh(self.combine(before)) + seen) / 2
        loc, raw = self.head(mixed).chunk(2, -1)
        return loc, positive_scale(raw, 1e-3)

    def forward(self, x: Tensor, lengths: Tensor) -> GaussianChain:
        """q(z | x) of paths of the lengths of x `[N, T, D]`."""
        steps = torch.arange(x.shape[-2], device=x.device)
        back = (lengths.unsqueeze(-1) - 1 - steps).clamp(min=0).unsqueeze(-1)
        ahead, _ = self.read((self.factor * x).gather(-2, back.expand_as(x)))
        seen = ahead.gather(-2, back.expand_as(ahead))
        return GaussianChain(self.step, self.start, lengths, x.shape[-2], seen)


class Ended(dist.MaskedDistribution):
    """The law of steps that are there; of others nothing is said, and they are drawn as 0, as data are padded."""

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws, of steps that are there."""
        return self._there(self.base_dist.rsample(sample_shape))

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws, of steps that are there."""
        return self._there(self.base_dist.sample(sample_shape))

    @property
    def mean(self) -> Tensor:
        """Mean, of steps that are there."""
        return self._there(self.base_dist.mean)

    def _there(self, value: Tensor) -> Tensor:
        gone = ~torch.as_tensor(self._mask)
        return value.masked_fill(gone.reshape(*gone.shape, *(1,) * self.event_dim), 0)


def check_lengths(_owner: nn.Module, x: Tensor, lengths: Tensor) -> None:
    """Refuses lengths that are not of the sequences `x` `[N, T, D]`.

    Raises:
        ValueError: other shapes, or not a whole number in 1 ... T for each.
    """
    if x.dim() != 3 or not isinstance(lengths, Tensor) or lengths.shape != x.shape[:1]:
        shape = list(lengths.shape) if isinstance(lengths, Tensor) else type(lengths).__name__
        raise ValueError(f"expected sequences [N, T, D] and lengths [N], got {list(x.shape)} and {shape}")
    if lengths.is_floating_point() or bool(((lengths < 1) | (lengths > x.shape[1])).any()):
        raise ValueError(
            f"expected lengths of 1 to {x.shape[1]} steps (x is [N, T, D]), whole numbers, got {lengths.dtype} from "
            f"{lengths.min().item():g} to {lengths.max().item():g}"
        )


class DeepMarkov(nn.Module):
    """p(x, z) = prod_t p(z_t | z_{t-1}) p(x_t | z_t) with guide prod_t q(z_t | z_{t-1}, x_{t:T}).

    A sequence of length L_n stands in `x` `[N, T, D]` up to step L_n; what is beyond says nothing. Its evidence is
    ln p(x_1, ..., x_{L_n}). Krishnan, Shalit & Sontag 2017, https://arxiv.org/abs/1609.09869

    Args:
        transition: `transition(lengths, num_steps)` is p(z), a `GaussianChain`.
        likelihood: `likelihood(z)` is p(x_t | z_t), batch shape `z.shape[:-1]`.
        guide: `guide(x, lengths)` is q(z | x), a `GaussianChain`.

    Raises:
        ValueError: transition and guide of different latent dims.

    Example:
        >>> from pyrovae import likelihoods, networks
        >>> emit = likelihoods.Gaussian(networks.MLP(3, (16,), 2), learn_scale=True)
        >>> markov = DeepMarkov(Transition(3, 16), emit, Smoother(2, 3, 16))
    """

    def __init__(self, transition: nn.Module, likelihood: nn.Module, guide: nn.Module) -> None:
        super().__init__()
        dims = [getattr(part, "latent_dim", None) for part in (transition, guide)]
        if None not in dims and dims[0] != dims[1]:
            raise ValueError(f"expected one latent_dim, got transition {dims[0]} and guide {dims[1]}")
        self.transition = transition
        self.likelihood = likelihood
        self.q = guide

    @program(density="exact", plate="data", observed="x", check=check_lengths)
    def model(self, x: Tensor, lengths: Tensor) -> None:
        """z ~ p(z), x_t ~ p(x_t | z_t) for t up to each length, `x` `[N, T, D]` and `lengths` `[N]`."""
        pyro.module("transition", self.transition)
        pyro.module("likelihood", self.likelihood)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.transition(lengths, x.shape[-2]))
            there = torch.arange(x.shape[-2], device=x.device) < lengths.unsqueeze(-1)
            # beyond the end any value of the support will do, where 0 may be outside of it
            inside = torch.where(there.unsqueeze(-1), x, x[..., :1, :])
            pyro.sample("x", Ended(self.likelihood(z), there).to_event(1), obs=inside)

    def guide(self, x: Tensor, lengths: Tensor) -> None:
        """z ~ q(z | x)."""
        pyro.module("guide", self.q)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.q(x, lengths))
