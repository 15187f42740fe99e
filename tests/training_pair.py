"""A small VAE with a Gaussian likelihood in float64, and its trainer."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

import pyrovae as pv

torch.set_num_threads(1)  # the tensors are tiny; and sums must not depend on the machine's cores
F64 = torch.float64
D, L = 4, 2


class Pair(nn.Module):
    """A small VAE with Gaussian likelihood; all fits use the same parameter names."""

    def __init__(self, seed=0, norm=False):
        super().__init__()
        torch.manual_seed(seed)
        front = [nn.BatchNorm1d(D)] if norm else []
        self.encoder = nn.Sequential(*front, nn.Linear(D, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 2 * L))
        self.decoder = nn.Sequential(nn.Linear(L, 8), nn.Tanh(), nn.Linear(8, D))
        self.double()

    def model(self, x):
        pyro.module("decoder", self.decoder)
        scale = pyro.param("scale", torch.ones((), dtype=F64), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(L, dtype=F64), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), scale).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        loc, raw = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))


def data(n=50, seed=0):
    mix = torch.tensor([[1.0, -0.5, 0.3, 0.8], [-0.2, 1.1, 0.7, 0.1]], dtype=F64)
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, L, generator=generator, dtype=F64)
    return 1.5 * z @ mix + 0.3 * torch.randn(n, D, generator=generator, dtype=F64)


X, VALID = data(), data(20, 1)
RISING = pv.Exponential(0.02, 0.7, 10)  # better first, and then worse


def trainer(seed=0, **options):
    pair = Pair(seed, options.pop("norm", False))
    return pv.Trainer(pair.model, pair.guide, X, **{"batch_size": 16, "lr": 0.01, "seed": seed, **options})


def flat(weights):
    return {f"{group}/{k}": v for group in weights for k, v in weights[group].items()}


def assert_equal(first, second):
    first, second = flat(first), flat(second)
    assert first.keys() == second.keys() and first
    for name in first:
        assert torch.equal(first[name], second[name]), name
