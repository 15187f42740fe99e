"""Chains annealed from proposals of the data's own: unbiased, with true errors, and used where draws would not do."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.evidence.core.estimator import PerDatum
from pyrovae.evidence.core.execution import Execution
from pyrovae.evidence.proposals.adaptive import draws_needed
from pyrovae.evidence.proposals.local_flow import LocalFlow
from pyrovae.evidence.proposals.proposal import Proposal
from pyrovae.programs import inspect_program

F64 = torch.float64
POOR = pv.ProposalFit(elbo=pv.LocalFit(steps=60, num_particles=4), even=pv.LocalFit(steps=1, num_particles=2))


def squared(x):
    """x ~ N(z^2, .3): two modes."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=F64), 1.0))
        pyro.sample("x", dist.Normal(z**2, 0.3), obs=x)


def at_one_mode(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.clamp(min=0.01).sqrt(), 0.2))


def grid(x):
    """ln p(x) of `squared`, by a sum over an even grid."""
    z = torch.linspace(-8, 8, 40_001, dtype=F64)
    joint = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z**2, 0.3).log_prob(x.unsqueeze(-1))
    return torch.logsumexp(joint, -1) + math.log(float(z[1] - z[0]))


def linear(d, plate=None):
    """x ~ N(W z, .7) under a guide off its mark, and exact ln p(x) of any x."""
    random = torch.Generator().manual_seed(d)
    w = torch.randn(2 * d, d, generator=random, dtype=F64) / math.sqrt(d)

    def model(x):
        with pyro.plate("data", len(x), **(plate or {})) as ind:
            z = pyro.sample("z", dist.Normal(torch.zeros(d, dtype=F64), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ w.T, 0.7).to_event(1), obs=x[ind])

    def guide(x):
        with pyro.plate("data", len(x), **(plate or {})) as ind:
            pyro.sample("z", dist.Normal(0.3 * (x[ind] @ w), 0.7).to_event(1))

    law = dist.MultivariateNormal(torch.zeros(2 * d, dtype=F64), w @ w.T + 0.49 * torch.eye(2 * d, dtype=F64))
    return model, guide, law


def test_chains_from_a_bad_proposal_are_unbiased_with_true_errors():
    """Of many copies of one datum: mean p̂ is p(x) within four standard errors, also of few chains and temperatures."""
    x = torch.full((400,), 2.0, dtype=F64)
    program = inspect_program(squared, at_one_mode, x)
    flow = LocalFlow(torch.randn(50, 400, 1, generator=torch.Generator().manual_seed(0), dtype=F64) - 1)
    proposal = Proposal(program, torch.arange(400), [(flow, 0.6)], 0.2, 0.2)
    few = pv.Annealing(4, leapfrog=3).estimate(proposal, 20, Execution(0), "test")
    ratio = (few.log_evidence - grid(x)).exp()
    assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / math.sqrt(400)
    many = pv.Annealing(4, leapfrog=3).estimate(proposal, 200, Execution(0), "test")
    stated = float(many.variance.mean().sqrt())
    assert stated / float(many.log_evidence.std()) == pytest.approx(1, abs=4 / math.sqrt(2 * 400) + 0.02)
    # Moves are worth their while: draws of the proposal are worse.
    drawn = proposal.estimate(200, Execution(0), "test")
    assert float(many.variance.mean()) < 0.9 * float(drawn.variance.mean())


@pytest.mark.parametrize("plate", [None, {"subsample_size": 2}])
@pytest.mark.slow
def test_data_beyond_all_draws_are_annealed(plate):
    """18 dims and a proposal that was hardly fitted: what 5,000 draws leave unsupported, chains from it support."""
    model, guide, law = linear(18, plate)
    torch.manual_seed(0)
    x = law.sample(torch.Size([3]))
    kwargs = {"compile": False, "seed": 1}
    (drawn,) = pv.evidence(
        model, guide, x, estimators=[pv.Adaptive(0.1, 5000, POOR, annealing=None)], **kwargs
    ).values()
    assert not drawn.reliable.all() and not drawn.details["annealed"].any()
    annealing = pv.Annealing(20, 2000, leapfrog=4)
    (e,) = pv.evidence(
        model, guide, x, estimators=[pv.Adaptive(0.1, 5000, POOR, annealing=annealing)], **kwargs
    ).values()
    annealed = e.details["annealed"] == 1
    assert annealed.any() and (e.details["num_draws"][annealed] == 2000).all()
    assert e.reliable.all() and e.variance.sqrt().max() < 0.1
    assert ((e.per_datum - law.log_prob(x)).abs() < 4 * e.variance.sqrt()).all()


def test_the_data_that_need_it_most_are_annealed():
    """A proposal so bad that neither pilot can say how much is needed: the higher bound is taken."""
    model, _, law = linear(18)
    torch.manual_seed(0)
    x = law.sample(torch.Size([2]))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(3.0 + x[:, :18] * 0, 0.3).to_event(1))

    bad = pv.ProposalFit(elbo=pv.LocalFit(12, 2, 0.02), even=pv.LocalFit(1, 2, 1e-6))
    drawn, annealed = (
        pv.evidence(model, guide, x, estimators=[pv.Adaptive(0.1, 5000, bad, how)], compile=False)["Adaptive"]
        for how in (None, pv.Annealing(40, 400, leapfrog=5))
    )
    assert annealed.details["annealed"].all()
    lost, still_lost = (float((law.log_prob(x) - e.per_datum).mean()) for e in (drawn, annealed))
    assert still_lost < 0.5 * lost


def test_infinite_needs_stay_infinite():
    pilot = PerDatum(
        *torch.zeros(3, 1),
        ess=torch.full((1,), 5.0),
        khat=torch.full((1,), 1.5, dtype=F64),
        curve={},
        details={},
    )
    assert draws_needed(pilot, 5000, 0.1) == torch.inf


def test_easy_data_are_not_annealed():
    model, guide, law = linear(2)
    x = law.sample(torch.Size([2]))
    ev = pv.evidence(model, guide, x, estimators=[pv.ELBO(100), pv.Adaptive(0.1, fit=POOR)], compile=False)
    assert not ev["Adaptive"].details["annealed"].any()
    # Its figure needs no IS.
    labels = [ax.get_ylabel() + ax.get_xlabel() for ax in ev.plot().axes]
    assert len(labels) == 2 and all("Adaptive" in label for label in labels)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pv.Adaptive(0.1, annealing=40), "expected annealing to be a pv.Annealing or None, got 40"),
        (lambda: pv.Annealing(1), "num_temperatures to be a whole number >= 2"),
        (lambda: pv.Annealing(num_chains=1), "num_chains to be a whole number >= 100, got 1"),
        (lambda: pv.Annealing(leapfrog=0), "leapfrog to be a whole number >= 1, got 0"),
        (lambda: pv.Annealing(target_acceptance=1.0), r"target_acceptance in \(0, 1\), got 1.0"),
    ],
)
def test_wrong_settings_are_refused(make, words):
    with pytest.raises((ValueError, TypeError), match=words):
        make()
