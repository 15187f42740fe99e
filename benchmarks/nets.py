"""The architectures that are timed, in words that children in other libraries can build from too."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

import pyrovae as pv
from pyrovae.models.vae import VAE


@dataclasses.dataclass(frozen=True)
class Net:
    """A Bernoulli VAE: an MLP with tanh and its mirror, or (`hidden` empty) the Keras example's conv pair."""

    data_dim: int
    hidden: tuple[int, ...]
    latent_dim: int
    batch: int

    @property
    def name(self) -> str:
        middle = "-".join(map(str, self.hidden)) if self.hidden else "conv"
        return f"{self.data_dim}-{middle}-{self.latent_dim}, batch {self.batch}"

    @property
    def side(self) -> int:
        """Of the square image that a conv net takes."""
        return round(self.data_dim**0.5)

    def as_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "side": self.side}

    def data(self, device: torch.device, rows: int | None = None) -> torch.Tensor:
        """Random bits `[rows, data_dim]`: speed does not depend on their values."""
        generator = torch.Generator().manual_seed(0)
        return torch.rand(rows or self.batch, self.data_dim, generator=generator).round().to(device)

    def vae(self, device: torch.device, vamp: torch.Tensor | None = None) -> VAE:
        """The model and guide; `vamp` are the pseudo-inputs of a VampPrior in place of N(0, I)."""
        torch.manual_seed(0)
        encoder: torch.nn.Module
        decoder: torch.nn.Module
        if self.hidden:
            encoder = pv.networks.MLP(self.data_dim, self.hidden)
            decoder = pv.networks.MLP(self.latent_dim, self.hidden[::-1], self.data_dim)
        else:
            encoder, decoder = pv.networks.keras_conv_pair(self.latent_dim, (self.side, self.side))
        guide = pv.guides.DiagonalGaussian(encoder, self.latent_dim)
        if vamp is None:
            prior: torch.nn.Module = pv.priors.StandardNormal(self.latent_dim)
        else:
            prior = pv.priors.VampPrior(guide, vamp.cpu(), low=0.0, high=1.0)
        return VAE(prior, pv.likelihoods.Bernoulli(decoder), guide).to(device)


MNIST = Net(784, (400,), 50, 128)
DEEP = Net(784, (200, 200), 50, 128)
TINY = Net(64, (64,), 8, 64)
CONV = Net(784, (), 2, 128)
