"""Visible units of a Boltzmann machine: what one layer of hidden units sees, and what it gives back."""

from __future__ import annotations

import math
from typing import Protocol

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def bernoulli(probs: Tensor) -> Tensor:
    """0 or 1: a third of the time of `torch.bernoulli` on a CPU, with probabilities rounded to 2^-24."""
    return (torch.rand_like(probs) < probs).to(probs.dtype)


class VisibleUnits(Protocol):
    """The part of E(v, h) = e(v; b) - c·h - drive(v)·W h that is the visible units' own.

    All functions sum over or act on the last dim, `[..., D]`; a is the field W h of the hidden units.
    """

    def energy(self, v: Tensor, bias: Tensor) -> Tensor:
        """e(v; b), `[...]`."""
        ...

    def drive(self, v: Tensor) -> Tensor:
        """Transforms v to the values that the weights multiply."""
        ...

    def conditional(self, bias: Tensor, field: Tensor) -> dist.TorchDistribution:
        """p(v | h), proportional to exp(-e(v; b) + drive(v)·a)."""
        ...

    def draw(self, bias: Tensor, field: Tensor) -> Tensor:
        """A draw of it."""
        ...

    def log_integral(self, bias: Tensor, field: Tensor) -> Tensor:
        """ln of the sum or integral over v of exp(-e(v; b) + drive(v)·a), `[...]`."""
        ...

    def base_rate(self, data: Tensor) -> Tensor:
        """The bias with which p(v) has the mean of the data `[N, D]`, where nothing is hidden.

        Raises:
            ValueError: for data that are no values of these units.
        """
        ...


class BinaryUnits(nn.Module):
    """v in {0, 1}: e(v; b) = -b·v, p(v_i = 1 | h) = sigmoid(b_i + a_i)."""

    def energy(self, v: Tensor, bias: Tensor) -> Tensor:
        """-b·v."""
        return -(v @ bias)

    def drive(self, v: Tensor) -> Tensor:
        """v."""
        return v

    def conditional(self, bias: Tensor, field: Tensor) -> dist.TorchDistribution:
        """Bernoulli."""
        return dist.Bernoulli(logits=bias + field).to_event(1)

    def draw(self, bias: Tensor, field: Tensor) -> Tensor:
        """0 or 1."""
        return bernoulli(torch.sigmoid(bias + field))

    def log_integral(self, bias: Tensor, field: Tensor) -> Tensor:
        """Σ softplus(b + a)."""
        return F.softplus(bias + field).sum(-1)

    def base_rate(self, data: Tensor) -> Tensor:
        """logit of the mean, shrunk by one datum at 1/2, so that it is finite."""
        if not bool(((data == 0) | (data == 1)).all()):
            raise ValueError(
                "expected binary data (0 and 1) for binary visible units, got values in "
                f'[{data.min().item():.4g}, {data.max().item():.4g}]; try load(..., binarise="static"), or '
                "GaussianUnits for real data"
            )
        return torch.logit((data.sum(0) + 0.5) / (len(data) + 1))


class GaussianUnits(nn.Module):
    """Real v: e(v; b) = Σ (v - b)² / 2 s², drive v / s, p(v | h) = N(b + s a, s²). The scale s is fixed.

    Args:
        scale: s, a number; data are best standardised, with s = 1 or the noise they are thought to have.

    Raises:
        ValueError: a scale that is not positive and finite.

    Source:
        Reducing the dimensionality of data with neural networks (Hinton & Salakhutdinov, 2006),
        https://doi.org/10.1126/science.1127647
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        if not 0 < scale < math.inf:
            raise ValueError(f"expected a scale > 0 of Gaussian visible units, got {scale}")
        self.scale = scale

    def energy(self, v: Tensor, bias: Tensor) -> Tensor:
        """Σ (v - b)² / 2 s²."""
        return ((v - bias) / self.scale).square().sum(-1) / 2

    def drive(self, v: Tensor) -> Tensor:
        """v / s."""
        return v / self.scale

    def conditional(self, bias: Tensor, field: Tensor) -> dist.TorchDistribution:
        """Normal."""
        return dist.Normal(bias + self.scale * field, self.scale).to_event(1)

    def draw(self, bias: Tensor, field: Tensor) -> Tensor:
        """A real number."""
        mean = bias + self.scale * field
        return mean + self.scale * torch.randn_like(mean)

    def log_integral(self, bias: Tensor, field: Tensor) -> Tensor:
        """Σ ½ ln 2πs² + b a / s + a² / 2."""
        each = bias * field / self.scale + field.square() / 2
        return (each + 0.5 * math.log(2 * math.pi) + math.log(self.scale)).sum(-1)

    def base_rate(self, data: Tensor) -> Tensor:
        """The mean."""
        return data.mean(0)

    def extra_repr(self) -> str:
        """The scale."""
        return f"scale={self.scale:g}"
