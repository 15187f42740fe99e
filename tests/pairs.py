"""A small hand-written pair whose modules are registered by `pyro.module`, for tests of steps."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

D, L = 6, 2


class Pair:
    """Bits of D dims from L latents; always the same initial weights."""

    def __init__(self, device="cpu"):
        torch.manual_seed(0)
        self.enc, self.dec = nn.Linear(D, 2 * L).to(device), nn.Linear(L, D).to(device)

    def model(self, x):
        pyro.module("dec", self.dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.dec(z)).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("enc", self.enc)
        with pyro.plate("data", len(x)):
            loc, raw = self.enc(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))
