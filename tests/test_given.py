"""`given=` and `pyro.condition`: latents that all data share, at values of their own, in every function alike."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

import pyrovae as pv
from pyrovae.programs import ParameterStore, reconstruct, simulate

from .test_global_latents import GLOBALS, W, exact_with_globals, with_globals
from .test_idioms import D, X


def pair():
    model, guide, _ = with_globals()
    return model, lambda x: guide(x + pyro.param("shift", torch.tensor(0.1)))


def law():
    spread = GLOBALS["s"].sum() ** 2 * torch.outer(W, W) + torch.eye(D)
    return dist.MultivariateNormal(torch.zeros(D), spread)


HOW = {
    "given": lambda model: (model, {"given": GLOBALS}),
    "condition": lambda model: (pyro.condition(model, GLOBALS), {}),
}


def test_training_given_globals_is_that_of_the_conditioned_model():
    runs = []
    for how in HOW.values():
        pyro.set_rng_seed(0)
        with ParameterStore().active():
            model, guide = pair()
            model, options = how(model)
            fit = pv.fit(model, guide, X, valid=X, epochs=5, batch_size=4, lr=0.01, compile=False, **options)
        found = pv.evidence(fit.model, fit.guide, X, estimators=[pv.IS(4000)])["IS"]
        assert (found.per_datum - exact_with_globals()).abs().max() < 0.05
        runs.append([r | {"compiled_share": 0} for r in fit.history])
    assert runs[0] == runs[1]


def test_a_run_goes_on_at_the_same_globals_alone(tmp_path):
    model, guide = pair()
    options = {"checkpoint": tmp_path, "compile": False, "batch_size": 3}
    pv.fit(model, guide, X, epochs=1, given=GLOBALS, **options)
    pv.fit(*pair(), X, epochs=2, given=GLOBALS, resume=True, **options)
    with pytest.raises(ValueError, match="data"):
        pv.fit(*pair(), X, epochs=3, given=GLOBALS | {"w": -W}, resume=True, **options)


def test_a_fresh_autoguide_of_a_model_with_globals():
    model, _ = pair()
    guide = AutoNormal(model)
    fit = pv.fit(model, guide, X, epochs=150, batch_size=6, lr=0.05, compile=False, given=GLOBALS)
    found = pv.evidence(fit.model, fit.guide, X, estimators=[pv.IS(4000)])["IS"]
    assert (found.per_datum - exact_with_globals()).abs().max() < 0.2


@pytest.mark.parametrize("how", HOW)
def test_gaps_given_globals(how):
    model, guide = pair()
    model, options = HOW[how](model)
    gaps = pv.gaps(
        model,
        guide,
        X,
        estimators=[pv.IS(2000)],
        fit=pv.LocalFit(steps=200, lr=0.05),
        flow=False,
        compile=False,
        **options,
    )
    # The posterior is Gaussian: a guide of each datum's own is exact.
    assert (gaps.elbo_local.per_datum - exact_with_globals()).abs().max() < 0.05
    assert gaps.amortisation.mean > 0.05


@pytest.mark.parametrize("how", HOW)
def test_a_sandwich_given_globals(how):
    """Its data are drawn at the values given, and its bounds close in on ln p(x | given)."""
    model, guide = pair()
    model, options = HOW[how](model)
    ais = pv.AIS(num_temperatures=20, num_chains=2)
    found = pv.sandwich(model, guide, X[:1], simulate=100, ais=ais, num_samples=10, compile=False, **options)
    exact = law().log_prob(found.x)
    bracket = found.brackets[0]
    assert (bracket.lower.mean() - exact.mean()).abs() < 0.25 and (
        bracket.upper.mean() - exact.mean()
    ).abs() < 0.25
    truth = law().covariance_matrix
    off = (found.x.T @ found.x / 100 - truth).abs()
    assert (off < 6 * (2 / 100) ** 0.5 * truth.diag().max()).all()


def test_what_is_drawn_stays_at_the_values_conditioned_on():
    """A conditioned global was drawn anew from its prior."""
    model, _ = pair()
    known, like = pyro.condition(model, GLOBALS), X[:1].expand(4000, D)
    drawn = simulate(known, 4000, like)
    assert set(drawn.latents) == {"z"}
    truth = law().covariance_matrix
    off = (drawn.x.T @ drawn.x / 4000 - truth).abs()
    assert (off < 5 * (2 / 4000) ** 0.5 * truth.diag().max()).all()
    _, _, local = with_globals()
    again = reconstruct(known, local, like)
    assert (again.mean - again.latents["z"].unsqueeze(-1) * W).abs().max() < 1e-5


@pytest.mark.parametrize("call", [pv.fit, pv.gaps, pv.sandwich], ids=lambda f: f.__name__)
def test_values_of_what_is_no_global_are_refused(call):
    model, guide = pair()
    with pytest.raises(ValueError, match=r"latents outside of the plate 'data', \['s', 'w'\], got 'z'"):
        call(model, guide, X, given={"z": W})
