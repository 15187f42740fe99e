"""The generative path of a hierarchy: from the top latent down to what the likelihood sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyrovae.networks import out_features_of, positive_scale

# p(z_t | z_{t+1}) starts as N(a z, 1 - a^2): a chain of any length then starts with unit variance at each level.
KEPT = 0.5**0.5


class Path(Protocol):
    """The levels below the top one. Level 1 is the one next to x, level T the top."""

    num_levels: int

    def start(self, z: Tensor) -> Tensor:
        """State below the top latent z_T."""

    def below(self, t: int, state: Tensor) -> Any:
        """p(z_t | state), for t = T - 1 ... 1."""

    def join(self, t: int, state: Tensor, z: Tensor) -> Tensor:
        """State below level t; the last of them is what the likelihood sees."""


class Markov(nn.Module):
    """The Markov chain p(z_{T-1} | z_T) ... p(z_1 | z_2): the state is the latent above.

    Args:
        conditionals: p(z_1 | z_2), p(z_2 | z_3), ...: modules that return a distribution given the latent
            above, for example `GaussianConditional`; T - 1 of them, none for a model of one level.
    """

    def __init__(self, conditionals: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.conditionals = nn.ModuleList(conditionals)
        self.num_levels = len(self.conditionals) + 1

    def start(self, z: Tensor) -> Tensor:
        """z_T."""
        return z

    def below(self, t: int, state: Tensor) -> Any:
        """p(z_t | z_{t+1})."""
        return self.conditionals[t - 1](state)

    def join(self, t: int, state: Tensor, z: Tensor) -> Tensor:
        """z_t."""
        return z


class Stream(nn.Module):
    """A deterministic stream beside the latents: p(z_t | z_{t+1}, ..., z_T) = p(z_t | h_{t+1}).

    h_T = A z_T, h_t = h_{t+1} + f_t(h_{t+1}, z_t), and the likelihood sees h_1: each level adds to what those
    above have said, so that many levels stay in use. No Markov chain any more (Vahdat & Kautz 2020,
    https://arxiv.org/abs/2007.03898; Child 2021, https://arxiv.org/abs/2011.10650).

    Args:
        widths: of z_1, ..., z_T.
        width: of the stream.
        make_net: `in_features -> network`, with `out_features`, for each of the networks.

    Raises:
        ValueError: no levels, or widths below 1.
    """

    def __init__(self, widths: Sequence[int], width: int, make_net: Callable[[int], nn.Module]) -> None:
        super().__init__()
        check_widths(widths)
        if width < 1:
            raise ValueError(f"expected a stream of width >= 1, got {width}")
        self.num_levels = len(widths)
        self.first = nn.Linear(widths[-1], width)
        self.conditionals = nn.ModuleList(
            GaussianConditional(make_net(width), width, w, skip=False) for w in widths[:-1]
        )
        self.updates = nn.ModuleList(Update(make_net(width + w), width) for w in widths[:-1])

    def start(self, z: Tensor) -> Tensor:
        """h_T."""
        return self.first(z)

    def below(self, t: int, state: Tensor) -> Any:
        """p(z_t | h_{t+1})."""
        return self.conditionals[t - 1](state)

    def join(self, t: int, state: Tensor, z: Tensor) -> Tensor:
        """h_t."""
        return state + self.updates[t - 1](state, z)


class GaussianConditional(nn.Module):
    r"""The residual block of latents, :math:`p(z_t|z_{t+1}) = N(A z_{t+1} + f(z_{t+1}),\ \sigma^2(z_{t+1}))`.

    A starts at :math:`\sqrt{1/2}` times the identity and f at 0, :math:`\sigma^2` at 1/2: every level starts with
    unit variance and tied to the one above, so that 12 levels and more train.

    Args:
        net: from the latent above to features.
        above, latent_dim: widths of z_{t+1} and z_t.
        skip: False leaves A out (and starts at unit variance).

    Raises:
        ValueError: the width of the network's output is not known.
    """

    def __init__(self, net: nn.Module, above: int, latent_dim: int, skip: bool = True) -> None:
        super().__init__()
        self.net, self.latent_dim = net, latent_dim
        self.head = nn.Linear(out_features_of(net), 2 * latent_dim)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.skip = nn.Linear(above, latent_dim, bias=False) if skip else None
        if self.skip is not None:
            with torch.no_grad():
                self.skip.weight.copy_(KEPT * torch.eye(latent_dim, above))
        self.scale = (1 - KEPT**2) ** 0.5 if skip else 1.0

    def forward(self, z: Tensor) -> Any:
        """Returns p(z_t | z_{t+1}), `batch_shape` the leading dims of z, `event_shape` (latent_dim,)."""
        loc, raw = self.head(self.net(z)).chunk(2, dim=-1)
        loc = loc if self.skip is None else loc + self.skip(z)
        return dist.Normal(loc, self.scale * positive_scale(raw)).to_event(1)


class Update(nn.Module):
    """Change of the stream by a level: a network of (h, z) and a linear layer."""

    def __init__(self, net: nn.Module, width: int) -> None:
        super().__init__()
        self.net = net
        self.head = nn.Linear(out_features_of(net), width)

    def forward(self, state: Tensor, z: Tensor) -> Tensor:
        """Returns the addition, `[..., width]`."""
        return self.head(self.net(state, z))


def check_widths(widths: Sequence[int]) -> None:
    """Raises ValueError for no level (T = 0), or widths below 1."""
    if not widths or min(widths) < 1:
        raise ValueError(f"expected at least one level, each of width >= 1, got widths {tuple(widths)}")
