"""`pv.SVI` in place of `pyro.infer.SVI`, in programs written for the latter and left as they are."""

import math
import shutil

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from sklearn.datasets import load_digits
from torch import nn

import pyrovae as pv

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None,
    reason="no C++ compiler: nothing compiles here",
)
EPOCHS, BATCH = 6, 128


def digits():
    """Grey levels in [0, 1], as Pyro's tutorial has them."""
    return torch.tensor(load_digits().data / 16.0, dtype=torch.float32)[: 13 * BATCH]


class TutorialVAE(nn.Module):
    """The program of Pyro's VAE tutorial (http://pyro.ai/examples/vae.html), at the digits' size.

    Softplus layers, a sigmoid before a Bernoulli without validation, modules registered inside
    model and guide, a loc and an exponentiated scale: none of it is in this library's style.
    """

    def __init__(self, z_dim=10, hidden=64):
        super().__init__()
        self.z_dim = z_dim
        self.decoder = nn.Sequential(
            nn.Linear(z_dim, hidden), nn.Softplus(), nn.Linear(hidden, 64), nn.Sigmoid()
        )
        self.trunk = nn.Sequential(nn.Linear(64, hidden), nn.Softplus())
        self.loc, self.log_scale = nn.Linear(hidden, z_dim), nn.Linear(hidden, z_dim)
        self.encoder = nn.ModuleList([self.trunk, self.loc, self.log_scale])

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z_loc = torch.zeros(x.shape[0], self.z_dim, dtype=x.dtype, device=x.device)
            z_scale = torch.ones(x.shape[0], self.z_dim, dtype=x.dtype, device=x.device)
            z = pyro.sample("latent", dist.Normal(z_loc, z_scale).to_event(1))
            image = self.decoder(z)
            pyro.sample("obs", dist.Bernoulli(image, validate_args=False).to_event(1), obs=x.reshape(-1, 64))
            return image

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            hidden = self.trunk(x.reshape(-1, 64))
            z = dist.Normal(self.loc(hidden), torch.exp(self.log_scale(hidden))).to_event(1)
            pyro.sample("latent", z)


class Hierarchical(nn.Module):
    """Two levels, parameters by `pyro.param` with constraints beside modules, a global scale in the likelihood."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2 * 6))
        self.out = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 64))
        self.up = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 2 * 6))
        self.top = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2 * 3))

    def model(self, x):
        pyro.module("down", self.down)
        pyro.module("out", self.out)
        sigma = pyro.param("sigma", torch.tensor(0.3), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            loc, raw = self.down(z2).chunk(2, -1)
            z1 = pyro.sample("z1", dist.Normal(loc, nn.functional.softplus(raw) + 1e-3).to_event(1))
            pyro.sample("x", dist.Normal(self.out(z1), sigma).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("up", self.up)
        pyro.module("top", self.top)
        with pyro.plate("data", len(x)):
            loc, raw = self.up(x).chunk(2, -1)
            z1 = pyro.sample("z1", dist.Normal(loc, nn.functional.softplus(raw) + 1e-3).to_event(1))
            loc, raw = self.top(z1).chunk(2, -1)
            pyro.sample("z2", dist.Normal(loc, nn.functional.softplus(raw) + 1e-3).to_event(1))


def curve(make_svi, program, loss, seed):
    """Mean loss per datum of each epoch, as every Pyro tutorial computes it."""
    pyro.clear_param_store()
    torch.manual_seed(0)  # the same initial weights for every seed of the noise
    vae, x = program(), digits()
    svi = make_svi(vae.model, vae.guide, pyro.optim.Adam({"lr": 2e-3}), loss=loss())
    torch.manual_seed(seed)
    losses = []
    for _ in range(EPOCHS):
        batches = x[torch.randperm(len(x))].split(BATCH)
        losses.append(sum(svi.step(b) for b in batches) / len(x))
    return losses, svi


def compiled(*args, **kwargs):
    return pv.SVI(*args, **kwargs, compile=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "loss"),
    [(TutorialVAE, Trace_ELBO), (TutorialVAE, TraceMeanField_ELBO), (Hierarchical, Trace_ELBO)],
    ids=["tutorial", "tutorial, mean field", "hierarchical"],
)
def test_the_loss_curve_is_pyros(program, loss):
    """The same seed gives Pyro's curve to rounding."""
    pyros, _ = curve(SVI, program, loss, 0)
    ours, svi = curve(compiled, program, loss, 0)
    assert svi.refused is None and svi.compiled_objective is not None
    assert ours == pytest.approx(pyros, rel=1e-3)
    assert pyros[-1] < pyros[0] - 1.0


@pytest.mark.slow
def test_the_loss_curves_of_other_seeds_are_pyros():
    """Within Monte-Carlo error: the noise is the same law, not one run's numbers."""
    pyros = [curve(SVI, TutorialVAE, TraceMeanField_ELBO, seed)[0] for seed in range(4)]
    ours = [curve(compiled, TutorialVAE, TraceMeanField_ELBO, seed)[0] for seed in range(5, 9)]
    a, b = torch.tensor(pyros).double(), torch.tensor(ours).double()
    error = ((a.var(0) + b.var(0)) / len(a)).sqrt()
    # Four runs a side: 4 sigma of the normal is 9 of Student's t with 6 degrees of freedom.
    assert ((a.mean(0) - b.mean(0)).abs() < 9 * error).all() and math.isfinite(float(b.sum()))
