"""Networks that take one batch dim run with all samples at once, to the numbers of a loop by hand."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import config_enumerate
from pyro.nn import PyroModule
from torch import nn

import pyrovae as pv
from pyrovae.programs import inspect_program
from pyrovae.programs.latents.densities import Densities

from .by_hand import log_joint
from .test_idioms import check_by_hand

N, D, L = 5, 4, 3
X = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(N, 1, 4, 4, generator=torch.Generator().manual_seed(0))
SERIES = torch.randn(N, D, 2, generator=torch.Generator().manual_seed(0))


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(L, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, D))
        with torch.no_grad():
            self.net[1].running_mean.normal_()

    def forward(self, z):
        return self.net(z)


class Convolved(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.conv = nn.Linear(L, 32), nn.ConvTranspose2d(8, 1, 2, stride=2)

    def forward(self, z):
        return self.conv(self.first(z).view(len(z), 8, 2, 2))


class Unrolled(nn.Module):
    """An LSTM that has its time first, and a state as its start."""

    def __init__(self):
        super().__init__()
        self.start, self.lstm, self.out = nn.Linear(L, 5), nn.LSTM(2, 5), nn.Linear(5, 2)

    def forward(self, z, x):
        state = self.start(z).unsqueeze(0)
        before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1).transpose(0, 1)
        h, _ = self.lstm(before, (state, torch.zeros_like(state)))
        return self.out(h).transpose(0, 1)


class Attending(nn.Module):
    """A transformer that must not look ahead, with the latent as its first word."""

    def __init__(self):
        super().__init__()
        self.word, self.latent, self.out = nn.Linear(2, 8), nn.Linear(L, 8), nn.Linear(8, 2)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, x, *, latent, ahead):
        words = torch.cat([self.latent(latent).unsqueeze(1), self.word(x[:, :-1])], 1)
        return self.out(self.layers(words, mask=ahead))


def pair(decode, event_dim, inside=False):
    encoder = nn.Linear(X.shape[1], 2 * L)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decode(z, x), 1.0).to_event(event_dim), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            loc, scale = encoder(x.flatten(1)[:, :D]).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, (scale / 3).exp()).to_event(1))

    return model, guide


def cases():
    normed, convolved, unrolled, attending = Normed(), Convolved(), Unrolled(), Attending()
    ahead = nn.Transformer.generate_square_subsequent_mask(D)
    return {
        "BatchNorm1d": (*pair(lambda z, x: normed(z), 1), X),
        "convolutions": (*pair(lambda z, x: convolved(z), 3), IMAGES),
        "an LSTM": (*pair(unrolled, 2), SERIES),
        "a transformer": (*pair(lambda z, x: attending(x, latent=z, ahead=ahead), 2), SERIES),
    }


@pytest.mark.parametrize("name", ["BatchNorm1d", "convolutions", "an LSTM", "a transformer"])
def test_samples_are_folded_into_the_batch(name):
    model, guide, x = cases()[name]
    program = check_by_hand(model, guide, x)
    assert program.vectorised and program.is_folded


def test_densities_at_any_values_are_of_folded_networks():
    model, guide, x = cases()["BatchNorm1d"]
    program = inspect_program(model, guide, x)
    densities = Densities(program, torch.arange(N), 2)
    u = densities.initial("guide")
    with torch.no_grad():
        found = densities.terms(u, guide=True)
    z = densities.latents(u)["z"]
    for k in range(2):
        for n in range(N):
            values, rows = {"z": z[k, n][None]}, (x[n : n + 1],)
            assert float((found.prior + found.likelihood)[k, n]) == pytest.approx(
                log_joint(model, values, rows), abs=1e-4
            )
            assert float(found.guide[k, n]) == pytest.approx(log_joint(guide, values, rows), abs=1e-4)


def test_a_network_in_a_module_that_draws():
    """The program itself is a module: what is folded are the networks in it."""
    normed = Normed()

    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.decoder = normed

        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    _, guide = pair(None, 1)
    program = check_by_hand(Model(), guide, X)
    assert program.is_folded


def test_a_latent_that_is_summed_out_beside_folded_networks():
    """Its values stand left of the samples; the answer is the sum over them by hand, in the model."""
    normed, shifts = Normed(), torch.randn(2, D)

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.tensor([0.3, 0.7])))
            z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(normed(z) + shifts[c], 1.0).to_event(1), obs=x)

    def summed(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
            parts = dist.Normal(normed(z).unsqueeze(-2) + shifts, 1.0).to_event(1)
            pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(torch.tensor([0.3, 0.7])), parts), obs=x)

    _, guide = pair(None, 1)
    marginal = config_enumerate(model, "parallel")
    assert inspect_program(marginal, guide, X).is_folded
    found = pv.log_weights(marginal, guide, X, num_samples=20)
    assert (found - pv.log_weights(summed, guide, X, num_samples=20)).abs().max() < 1e-4


class Placed(nn.Module):
    """Its output depends on where in the batch a row stands: folded, it would be another network."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(L, D), nn.BatchNorm1d(D)

    def forward(self, z):
        return self.norm(self.linear(z)) + torch.arange(z.shape[0]).unsqueeze(-1).remainder(N)


def test_a_network_for_which_folding_is_wrong_is_looped_over():
    placed = Placed()
    model, guide = pair(lambda z, x: placed(z), 1)
    program = inspect_program(model, guide, X)
    assert not program.vectorised
    with pytest.warns(UserWarning, match="run 4 times, once a sample"):
        pv.log_weights(model, guide, X, num_samples=4)


def test_training_is_of_the_program_as_it_is():
    """In train mode BatchNorm couples the batch: nothing is folded there, and particles side by side are refused."""
    model, guide, x = cases()["BatchNorm1d"]

    def registered(x):
        pyro.module("guide", guide.__closure__[0].cell_contents)
        guide(x)

    fit = pv.fit(model, registered, x, valid=x, epochs=2, batch_size=3, compile=False)
    assert torch.isfinite(torch.tensor([r["valid_elbo"] for r in fit.history])).all()
    with pytest.raises(ValueError, match="broadcast"):
        pv.fit(model, registered, x, objective=pv.objectives.IWAE(num_particles=3), epochs=1)
