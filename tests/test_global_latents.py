"""Latents that all data share: conditioned on, or given, each figure against a loop written by hand."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn

import pyrovae as pv

from .by_hand import log_weight
from .test_idioms import LABELS, C, D, K, L, N, Net, X, drawn, rows_of, without_a_size

# Latents that all data share -----------------------------------------------------------------------

W = torch.tensor([0.3, -0.8, 0.5, 1.2])


def with_globals(depends=True):
    def model(x):
        w = pyro.sample("w", dist.Normal(torch.zeros(D), 1.0).to_event(1))
        with pyro.plate("components", 2):
            s = pyro.sample("s", dist.Gamma(2.0, 2.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), s.sum()))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1) * w, 1.0).to_event(1), obs=x)

    def guide(x):
        w = pyro.sample("w", dist.Normal(torch.zeros(D), 2.0).to_event(1))
        with pyro.plate("components", 2):
            s = pyro.sample("s", dist.Gamma(2.0, 2.0))
        with pyro.plate("data", len(x)):
            scale = s.sum() if depends else 1.0
            pyro.sample("z", dist.Normal((x * w).mean(-1) if depends else x.mean(-1), scale))

    def local(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.mean(-1), 1.0))

    return model, guide, local


GLOBALS = {"w": W, "s": torch.tensor([0.4, 0.7])}


def exact_with_globals():
    spread = GLOBALS["s"].sum() ** 2 * torch.outer(W, W) + torch.eye(D)
    return dist.MultivariateNormal(torch.zeros(D), spread).log_prob(X)


@pytest.mark.parametrize("how", ["condition", "given"])
@pytest.mark.parametrize("kind", ["depends", "apart", "local"])
def test_latents_that_all_data_share_are_conditioned_on(how, kind):
    model, guide, local = with_globals(kind == "depends")
    guide = local if kind == "local" else guide
    known, options = model, {"given": GLOBALS}
    if how == "condition":
        known, options = pyro.condition(model, GLOBALS), {}
    program, sites = drawn(known, guide, X, **options)
    assert set(program.globals) == {"w", "s"}
    z = sites.traces[0].nodes["z"]["value"]
    for k in range(K):
        for n in range(N):
            values = {"z": z[k, n : n + 1], **GLOBALS}
            by_hand = log_weight(model, guide, (X[n : n + 1],), values, skip=("w", "s"))
            assert sites.log_weights()[k, n] == pytest.approx(by_hand, abs=1e-4)
    weights = pv.log_weights(known, guide, X, num_samples=4000, **options)
    assert ((weights.logsumexp(0) - math.log(4000)) - exact_with_globals()).abs().max() < 0.3
    found = pv.evidence(known, guide, X, estimators=[pv.IS(100)], **options)
    assert any("ln p(x | w, s)" in note for note in found.warnings)


def test_evidences_given_other_values_differ():
    model, guide, _ = with_globals()
    first = pv.evidence(model, guide, X, estimators=[pv.IS(200)], given=GLOBALS)
    other = {"w": -2 * W, "s": GLOBALS["s"]}
    second = pv.evidence(model, guide, X, estimators=[pv.IS(200)], given=other)
    assert abs(first["IS"].log_evidence - second["IS"].log_evidence) > 0.3


def test_partial_results_given_other_values_are_others(tmp_path):
    model, guide, _ = with_globals()

    def run(given, **options):
        return pv.evidence(model, guide, X, estimators=[pv.IS(50)], given=given, **options)["IS"].log_evidence

    other = {"w": -2 * W, "s": GLOBALS["s"]}
    assert run(GLOBALS, resume=tmp_path) == run(GLOBALS)
    assert run(other, resume=tmp_path) == run(other)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"w": W}, r"got \['s'\] outside"),
        ({"z": W}, r"latents outside of the plate 'data', \['s', 'w'\], got 'z'"),
        ({"w": W[:2], "s": GLOBALS["s"]}, r"given\['w'\] of shape \(4,\), got \(2,\)"),
    ],
)
def test_values_that_do_not_fit_are_refused(given, match):
    model, guide, _ = with_globals()
    with pytest.raises(ValueError, match=match):
        pv.log_weights(model, guide, X, num_samples=2, given=given)


def test_the_advice_can_be_followed():
    """What the refusal says works as written, also for a model that declares the name of its plate."""

    @pv.program(plate="rows")
    def model(x):
        w = pyro.sample("w", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(w, 1.0).expand([len(x)]))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    def guide(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal((x[:, 0] + 0.5) / 2, 0.5**0.5))

    with pytest.raises(ValueError, match=r'pyro.condition\(model, \{"name": value\}\)'):
        pv.log_weights(model, lambda x: [guide(x), pyro.sample("w", dist.Normal(0.0, 1.0))], X, num_samples=2)
    weights = pv.log_weights(pyro.condition(model, {"w": torch.tensor(0.5)}), guide, X, num_samples=2)
    assert (weights - dist.Normal(0.5, 2**0.5).log_prob(X[:, 0])).abs().max() < 1e-5


@pytest.mark.parametrize("what", ["after", "data"])
def test_observations_outside_of_the_plate_are_no_globals(what):
    """A sum over data that is observed, or data themselves: without their density the number would be another."""

    def model(x):
        if what == "data":
            pyro.sample("extra", dist.Normal(0.0, 1.0).expand([len(x)]).to_event(1), obs=x[:, 1])
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])
        if what == "after":
            pyro.sample("extra", dist.Normal(z.sum(), 1.0), obs=torch.tensor(1.0))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, 0] / 2, 1.0))

    with pytest.raises(ValueError, match=r"got \['extra'\] outside"):
        pv.log_weights(model, guide, X, num_samples=2)


def test_training_given_globals_is_training_of_what_is_evaluated():
    """ln p(w) is no part of the loss per datum, nor is ln q(w) of a guide that draws w."""
    model, guide, _ = with_globals()
    known = pyro.condition(model, GLOBALS)

    def moved(x):
        guide(x + pyro.param("shift", torch.zeros(())))

    rows = pv.fit(known, moved, X, epochs=60, batch_size=N, lr=1e-9, compile=False).history
    losses = torch.tensor([r["loss"] for r in rows])
    elbo = pv.evidence(known, guide, X, estimators=[pv.ELBO(num_samples=4000)])["ELBO"].log_evidence
    assert abs(losses.mean() + elbo) < 4 * losses.std() / 60**0.5 + 0.05


def test_a_global_whose_law_has_parameters_is_refused_in_training():
    def model(x):
        loc = pyro.param("loc", torch.zeros(()))
        w = pyro.sample("w", dist.Normal(loc, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z + w, 1.0), obs=x[:, 0])

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, 0] / 2, 1.0))

    with pytest.raises(ValueError, match="'w' without parameters"):
        pv.fit(pyro.condition(model, {"w": torch.tensor(0.5)}), guide, X, epochs=1)


def test_what_the_guide_observes_too_is_no_part_of_it():
    """A guide that predicts the labels beside the latent, by observed sites."""
    model, _ = without_a_size()
    encoder, classify = Net(D + C, L), nn.Linear(D, C)

    def guide(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.OneHotCategorical(logits=classify(x)), obs=y)
            pyro.sample("z", dist.Normal(*encoder(x, y)).to_event(1))

    def hidden(x, y):
        return poutine.block(guide, hide=["y"])(x, y)

    for seed in range(3):
        _, sites = drawn(model, guide, X, LABELS, seed=seed)
        z = sites.traces[0].nodes["z"]["value"]
        for k, n in [(0, 0), (1, 3), (2, 5)]:
            by_hand = log_weight(model, hidden, rows_of((X, LABELS), n), {"z": z[k, n : n + 1]})
            assert sites.log_weights()[k, n] == pytest.approx(by_hand, abs=1e-4)
    with pytest.raises(ValueError, match="an ELBO would subtract"):
        pv.fit(model, guide, (X, LABELS), epochs=1)


def test_what_a_fit_was_given_is_not_given_again():
    def model(x):
        w = pyro.sample("w", dist.Normal(torch.tensor(0.0), 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(w, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        pyro.sample("w", dist.Normal(torch.tensor(0.0), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0).expand([len(x)]))

    x, given = torch.linspace(-1, 1, 20), {"w": torch.tensor(0.3)}
    fit = pv.fit(model, guide, x, epochs=1, given=given, progress=False)
    with pytest.raises(ValueError, match=r"'w', which is given already \(a fit's model has"):
        pv.evidence(fit.model, fit.guide, x, estimators=[pv.IS(10)], given=given)
