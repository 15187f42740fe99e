"""One likelihood for rows whose columns are of several kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyrovae import distributions

from ..bernoulli import Bernoulli
from ..categorical import Categorical
from ..gaussian import Gaussian
from ..heteroscedastic_gaussian import HeteroscedasticGaussian

__all__ = ["Group", "Mixed"]


@dataclass(frozen=True)
class Group:
    """Columns that share a kind of law.

    Attributes:
        make: From a network to the likelihood of these columns: `lambda net: Gaussian(net, learn_scale=True)`.
        columns: Their places in a row.
        outputs: What the network gives for each of them.
        names: Whether their numbers are names of categories, which have no mean but a most probable one.
    """

    make: Callable[[nn.Module], nn.Module]
    columns: tuple[int, ...]
    outputs: int = 1
    names: bool = False

    @property
    def width(self) -> int:
        """Outputs of the network for all of them."""
        return self.outputs * len(self.columns)


class Mixed(nn.Module):
    r"""Likelihood of rows, one part for each group of columns: :math:`p(x|z) = \prod_g p_g(x_g|z)`.

    One network serves all parts, each of which takes its outputs. Where some groups are discrete and others are not,
    p(x) is a mass in some numbers and a density in the others.

    Args:
        net: Network from `z` (and context) to `[..., features]`, at least `Mixed.width(groups)` of them.
        groups: Name to `Group`; each column of a row in one of them.

    Raises:
        ValueError: columns that are not each in one group, a part of another event shape, or a network that is too
            narrow.

    Example:
        >>> from pyrovae.likelihoods import Gaussian, Poisson
        >>> from pyrovae.networks import MLP
        >>> groups = {"size": Group(lambda net: Gaussian(net), (0, 2)), "visits": Group(lambda net: Poisson(net), (1,))}
        >>> law = Mixed(MLP(2, (8,), 3), groups)(torch.zeros(5, 2))
        >>> law.log_prob(torch.tensor([0.5, 3.0, -1.0])).shape
        torch.Size([5])
    """

    def __init__(self, net: nn.Module, groups: Mapping[str, Group]) -> None:
        super().__init__()
        self.net = net
        wide = getattr(net, "out_features", None)
        if isinstance(wide, int) and wide < self.width(groups):
            raise ValueError(f"expected a network of {self.width(groups)} outputs at least, got {wide}")
        self.groups = dict(groups)
        flat = sorted(i for g in groups.values() for i in g.columns)
        if flat != list(range(len(flat))):
            raise ValueError(f"expected each column 0 ... {len(flat) - 1} in one group, got {flat}")
        start, parts = 0, []
        for name, group in groups.items():
            part = group.make(_Share(start, start + group.width))
            shape = getattr(part, "event_shape", None)
            if shape is not None and tuple(shape) != (len(group.columns),):
                raise ValueError(
                    f"expected a likelihood of {len(group.columns)} columns for the group {name!r}, got event shape "
                    f"{tuple(shape)}"
                )
            parts.append(part)
            start += group.width
        self.parts = nn.ModuleList(parts)

    @staticmethod
    def width(groups: Mapping[str, Group]) -> int:
        """Outputs that the network has to have."""
        return sum(g.width for g in groups.values())

    def forward(self, z: Tensor, *context: Tensor) -> Any:
        """Returns p(x|z), `batch_shape` z.shape[:-1]."""
        outputs = self.net(z, *context)
        return distributions.Joined(
            [part(outputs) for part in self.parts],
            [g.columns for g in self.groups.values()],
            [g.names for g in self.groups.values()],
        )

    def raw_mean(self, x: Tensor) -> Tensor:
        """Network outputs `[features]` at which each group has its mean, or its frequencies, over `x` `[N, D]`."""
        found = []
        for part, group in zip(self.parts, self.groups.values(), strict=True):
            own = torch.zeros(group.width)
            values = x[:, list(group.columns)]
            if callable(start := getattr(part, "raw_mean", None)):
                first = start(values)
            else:
                first = _start(part, values)
            own[: first.numel()] = first.flatten().to(own)
            found.append(own)
        return torch.cat(found)

    def extra_repr(self) -> str:
        """Shows the groups."""
        return ", ".join(f"{name}={list(g.columns)}" for name, g in self.groups.items())


class _Share(nn.Module):
    """Some of the outputs of a network that several likelihoods share."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop = start, stop
        self.out_features = stop - start

    def forward(self, outputs: Tensor) -> Tensor:
        """Returns them, `[..., out_features]`."""
        return outputs[..., self.start : self.stop]


def _start(part: nn.Module, x: Tensor) -> Tensor:
    if isinstance(part, Bernoulli):
        return torch.logit(x.double().mean(0).clamp(1e-3, 1 - 1e-3))
    if isinstance(part, Categorical) and x.shape[1] == 1:
        counts = torch.bincount(x[:, 0].long(), minlength=part.levels) + 1.0
        return (counts / counts.sum()).log()
    if isinstance(part, Gaussian | HeteroscedasticGaussian):
        return x.double().mean(0)
    return torch.zeros(0)
