"""What a fit leaves behind: its own store, the original programs, Pyro's global store."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn

import pyrovae as pv

N = 6
X = torch.randn(N, generator=torch.Generator().manual_seed(0)) + 2.0


def make():
    net = nn.Linear(1, 1)

    def model(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(loc, scale).expand([len(x)]))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(net(x.unsqueeze(-1)).squeeze(-1), 0.7))

    return model, guide


def fit(model, guide, **options):
    return pv.fit(model, guide, X, epochs=20, lr=0.05, compile=False, **options)


def test_predictions_are_of_the_trained_program():
    model, guide = make()
    done = fit(model, guide)
    trained = done.store.unconstrained()["loc"].item()
    assert trained > 0.3
    draws = Predictive(done.model, num_samples=4000)(X)["z"]
    assert abs(draws.mean() - trained) < 0.1
    posterior = Predictive(done.model, guide=done.guide, num_samples=500)(X)
    net = next(m for m in done.modules if isinstance(m, nn.Linear))
    assert (posterior["z"].mean(0).squeeze() - net(X.unsqueeze(-1)).squeeze(-1)).abs().max() < 0.2


def test_the_original_program_with_untrained_parameters_warns_once():
    model, guide = make()
    done = fit(model, guide)
    with pytest.warns(UserWarning, match=r"trained this program.*\['loc', 'scale'\].*to_global_store"):
        pv.log_weights(model, guide, X, num_samples=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pv.log_weights(model, guide, X, num_samples=2)
        pv.log_weights(done.model, done.guide, X, num_samples=2)


def test_the_trained_parameters_can_be_exported():
    model, guide = make()
    done = fit(model, guide)
    done.to_global_store()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = pv.log_weights(model, guide, X, num_samples=3)
    assert torch.equal(found, pv.log_weights(done.model, done.guide, X, num_samples=3))
    assert pyro.param("scale").item() == pytest.approx(done.store.unconstrained()["scale"].exp().item())
    before = done.store.state_dict()["loc"].clone()
    SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO()).step(X)  # goes on in Pyro
    assert pyro.param("loc") != before and torch.equal(done.store.state_dict()["loc"], before)


def test_a_fit_after_pyros_training_says_that_it_starts_anew():
    model, guide = make()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    for _ in range(20):
        svi.step(X)
    loc = pyro.param("loc").item()
    with pytest.warns(UserWarning, match=r"starts \['loc', 'scale'\] anew.*ParameterStore.of_active"):
        fit(model, guide)
    assert pyro.param("loc").item() == loc
    store = pv.ParameterStore.of_active()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = pv.fit(store.bind(model), store.bind(guide), X, epochs=1, lr=1e-6, compile=False)
    assert done.store.unconstrained()["loc"].item() == pytest.approx(loc, abs=1e-3)
    assert pyro.param("loc").item() == loc


def test_a_second_fit_says_that_it_starts_anew():
    model, guide = make()
    done = fit(model, guide)
    with pytest.warns(UserWarning, match=r"anew.*pv.fit\(fit.model, fit.guide"):
        fit(model, guide)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(done.model, done.guide)


def said(call):
    """Warnings of a call on programs that were trained before."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        done = call()
    return done, [str(w.message) for w in caught if "anew" in str(w.message)]


def test_that_it_starts_anew_is_said_once_a_fit():
    model, guide = make()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    for _ in range(5):
        svi.step(X)
    for _ in range(2):
        assert len(said(lambda: fit(model, guide, valid=X))[1]) == 1


def test_a_fit_goes_on_with_an_autoguide_that_pyro_has_trained():
    """Its parameters are the guide's own, not the store's: nothing starts anew."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    guide = AutoNormal(model)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(200):
        svi.step(X)
    before = guide.median()["z"].clone()
    _, words = said(lambda: pv.fit(model, guide, X, epochs=1, lr=1e-9, compile=False))
    assert not words and before.abs().max() > 0.5
    assert (guide.median()["z"] - before).abs().max() < 1e-6
