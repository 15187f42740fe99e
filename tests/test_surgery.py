"""ELBO surgery against analytic aggregates, enumeration and its own identity; what it refuses."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.models.ground_truths import discrete
from pyrovae.models.linear_gaussian import LinearGaussian

from . import handwritten as hw

F64 = torch.float64


def scalar_pair(scale=0.6):
    """z ~ N(0, 1), q(z|x) = N(x, scale^2)."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=F64), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, scale))

    return model, guide


def within(term, value, sigmas=4):
    assert 0 < term.se < 0.1
    assert abs(term.value - value) < sigmas * term.se, (term, value)


def test_mixture_of_gaussians_by_quadrature():
    model, guide = scalar_pair()
    x = torch.linspace(-2, 2.5, 7, dtype=F64)
    s = pv.divergences.elbo_surgery(model, guide, x, num_samples=2000)
    z = torch.linspace(-12, 12, 20_001, dtype=F64)
    parts = dist.Normal(x, 0.6).log_prob(z.unsqueeze(-1))
    aggregate = parts.logsumexp(-1) - math.log(7)
    log_prior = dist.Normal(torch.zeros((), dtype=F64), 1.0).log_prob(z)
    marginal = torch.trapezoid(aggregate.exp() * (aggregate - log_prior), z)
    information = torch.trapezoid(parts.exp() * (parts - aggregate.unsqueeze(-1)), z, dim=0).mean()
    within(s.marginal_kl, float(marginal))
    within(s.mutual_information, float(information))
    kl = torch.distributions.kl_divergence(
        dist.Normal(x, 0.6), dist.Normal(torch.zeros(7, dtype=F64), 1.0)
    ).mean()
    within(s.mean_kl, float(kl))
    rest = (parts.exp().sum(-1, keepdim=True) - parts.exp()) / 6
    upper = torch.trapezoid(parts.exp() * (parts - rest.log()), z, dim=0).mean()
    within(s.mutual_information_upper, float(upper))


def test_gaussian_aggregate_in_closed_form():
    """x ~ p(x), q the exact posterior: q(z) = p(z), so marginal KL 0 and I that of the joint Gaussian."""
    torch.manual_seed(0)
    m = LinearGaussian(torch.randn(4, 2).double(), noise=0.8)
    x = m.likelihood(torch.randn(600, 2, dtype=F64)).sample().detach()
    s = pv.divergences.elbo_surgery(m.model, m.guide, x, num_samples=5)
    w = m.weight.detach()
    exact = 0.5 * torch.linalg.slogdet(torch.eye(2, dtype=F64) + w.T @ w / 0.8).logabsdet
    low, high = s.mutual_information, s.mutual_information_upper
    # For the law of the data: bounds, in expectation; 600 data vary by about this much.
    spread = float((s.log_own - s.log_aggregate).mean(0).std()) / math.sqrt(600)
    assert low.value - 4 * spread < exact < high.value + 4 * spread
    assert 0 < high.value - low.value < 0.2
    assert s.marginal_kl_lower.value - 4 * spread < 0 < s.marginal_kl.value < 0.1


def test_identity_holds_draw_by_draw():
    model, guide = scalar_pair()
    x = torch.randn(40, generator=torch.Generator().manual_seed(1), dtype=F64)
    s = pv.divergences.elbo_surgery(model, guide, x, num_samples=3, seed=2)
    assert s.mean_kl.value == pytest.approx(s.mutual_information.value + s.marginal_kl.value, abs=1e-12)
    assert s.elbo.value == pytest.approx(
        s.reconstruction.value - s.mutual_information.value - s.marginal_kl.value, abs=1e-12
    )
    assert ((s.log_own - s.log_aggregate) <= math.log(40) + 1e-9).all()
    assert (
        s.log_aggregate >= torch.logaddexp(s.log_own, s.log_others + math.log(39)) - math.log(40) - 1e-9
    ).all()
    elbo = pv.evidence(model, guide, x, estimators=[pv.ELBO(4000)])["ELBO"]
    assert abs(s.elbo.value - elbo.log_evidence) < 4 * (s.elbo.se + elbo.se_mc)


def test_blocks_do_not_change_the_numbers():
    model, guide = scalar_pair()
    x = torch.randn(30, generator=torch.Generator().manual_seed(1), dtype=F64)
    whole, small = (
        pv.divergences.elbo_surgery(model, guide, x, num_samples=4, budget=b) for b in (None, 2000)
    )
    torch.testing.assert_close(whole.log_aggregate, small.log_aggregate)
    torch.testing.assert_close(whole.log_others, small.log_others)


def test_some_components_bound_all():
    model, guide = scalar_pair(0.3)
    x = torch.randn(200, generator=torch.Generator().manual_seed(1), dtype=F64)
    whole = pv.divergences.elbo_surgery(model, guide, x, num_samples=20)
    part = pv.divergences.elbo_surgery(model, guide, x, num_samples=20, components=25)
    assert not part.exact_aggregate and any("25 of 200" in w for w in part.warnings)
    assert part.mutual_information.value < whole.mutual_information.value
    assert part.mutual_information_upper.value > whole.mutual_information.value
    assert part.marginal_kl_lower.value < whole.marginal_kl.value < part.marginal_kl.value
    assert "≥" in repr(part) and "≥" not in repr(whole)


def test_far_apart_data_reach_the_ceiling():
    model, guide = scalar_pair(0.01)
    s = pv.divergences.elbo_surgery(model, guide, torch.arange(8, dtype=F64), num_samples=3)
    assert s.mutual_information.value == pytest.approx(math.log(8), abs=1e-9)
    assert any("ceiling" in w for w in s.warnings)


def test_discrete_latents_by_enumeration():
    truth = discrete(6)
    s = pv.divergences.elbo_surgery(truth.model, truth.guide, truth.x, num_samples=1500)
    states = [(c, k) for c in range(3) for k in range(3)]
    q = torch.zeros(6, 9, dtype=F64)
    for j, (c, k) in enumerate(states):
        values = {"c": torch.full((6,), c), "s": torch.full((6,), k)}
        trace = pyro.poutine.trace(pyro.poutine.condition(truth.guide, values)).get_trace(truth.x)
        q[:, j] = trace.nodes["c"]["fn"].log_prob(values["c"]) + trace.nodes["s"]["fn"].log_prob(values["s"])
    aggregate = q.logsumexp(0) - math.log(6)
    within(s.mutual_information, float((q.exp() * (q - aggregate)).sum(-1).mean()))


@pytest.mark.parametrize("law", ["bits", "categories", "counts"])
def test_discrete_latents_with_several_elements(law):
    """Unlike elements have their KLs summed; values that are hardly drawn are looked for in each."""
    q = torch.tensor([0.3, 0.6])
    make = {
        "bits": lambda p: dist.Bernoulli(p),
        "categories": lambda p: dist.Categorical(torch.stack([1 - p, p], -1)),
        "counts": lambda p: dist.Binomial(1, p),
    }[law]

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", make(torch.full((2,), 0.5)).to_event(1))
            pyro.sample("x", dist.Normal(z.float().sum(-1), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", make(q.expand(len(x), 2)).to_event(1))

    found = pv.divergences.elbo_surgery(model, guide, torch.zeros(30), num_samples=200)
    exact = float((q * (2 * q).log() + (1 - q) * (2 * (1 - q)).log()).sum())
    assert abs(found.mean_kl.value - exact) < 4 * found.mean_kl.se < 0.1 and not found.unmet


def test_errors_hold_where_values_are_hardly_ever_drawn():
    """No draw met the second class: KL 1.1666 ± .0000 for 1.0169, and a mutual information below 0, without a word."""
    q = torch.tensor([[0.97, 0.03], [0.97, 0.03], [0.95, 0.05]])
    p = torch.tensor([0.3, 0.7])

    def model(x, q):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(p))
            pyro.sample("x", dist.Normal(z.float(), 1.0), obs=x)

    def guide(x, q):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(q))

    mean = q.mean(0)
    exact = {
        "mean_kl": (q * (q / p).log()).sum(1).mean(),
        "mutual_information": (q * (q / mean).log()).sum(1).mean(),
        "marginal_kl": (mean * (mean / p).log()).sum(),
    }
    surgery = pv.divergences.elbo_surgery
    for seed in range(8):
        found = surgery(model, guide, torch.zeros(3), pv.per_datum(q), seed=seed)
        assert any("hardly ever drawn" in w for w in found.warnings)
        for name, value in exact.items():
            term = getattr(found, name)
            assert abs(term.value - float(value)) < 3 * term.se, (seed, name)
    # Drawn often enough, nothing is said, and errors are those of the draws.
    found = surgery(model, guide, torch.zeros(3), pv.per_datum(q), num_samples=2000)
    assert not any("hardly" in w for w in found.warnings) and found.mean_kl.se < 0.02


@pytest.mark.parametrize(
    "name", ["two latents", "x[ind], size fixed", "mask of dims", "context", "fixed shape", "fixed plate"]
)
def test_hand_written_pairs(name):
    """All are one guide in different words: the aggregate of q(z|x_m) in closed form."""
    case = hw.CASES[name]()
    s = pv.divergences.elbo_surgery(
        case.model, case.wrong, *case.args, num_samples=400 if case.vectorised else 40
    )
    x = case.args[0] + hw.CONTEXT if name == "context" else case.args[0]
    seen = case.args[1] if name == "mask of dims" else None
    q = hw.posterior(x, seen, wrong=True)
    torch.manual_seed(0)
    z = q.sample((4000,))
    own = q.log_prob(z)
    every = q.log_prob(z.unsqueeze(-2)).logsumexp(-1) - math.log(len(x))
    information = own - every
    se = math.hypot(s.mutual_information.se, float((information.var(0) / 4000).sum().sqrt()) / len(x))
    assert abs(s.mutual_information.value - float(information.mean())) < 4 * se


def test_namespace():
    assert (
        pv.divergences.elbo_surgery is pv.divergences.elbo_surgery and pv.divergences.kl is pv.divergences.kl
    )


def context_prior(x, c):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(c, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def context_guide(x, c):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x, 1.0))


def test_refusals():
    model, guide = scalar_pair()
    x = torch.zeros(5, dtype=F64)
    with pytest.raises(ValueError, match="num_samples"):
        pv.divergences.elbo_surgery(model, guide, x, num_samples=0)
    with pytest.raises(ValueError, match="two data"):
        pv.divergences.elbo_surgery(model, guide, x[:1])
    for components in (0, 2, 6):
        with pytest.raises(ValueError, match="components"):
            pv.divergences.elbo_surgery(model, guide, x, components=components)
    with pytest.raises(ValueError, match="one prior"):
        pv.divergences.elbo_surgery(context_prior, context_guide, x, torch.arange(5, dtype=F64))
    same = pv.divergences.elbo_surgery(context_prior, context_guide, x, torch.ones(5, dtype=F64))
    assert same.num_data == 5
    for name, message in (("auxiliary guide site", "noise"), ("enumerated in the model", "summed out")):
        case = hw.CASES[name]()
        with pytest.raises(ValueError, match=message):
            pv.divergences.elbo_surgery(case.model, case.wrong, *case.args)


def test_errors_over_data_are_those_of_other_data():
    """Spread of each term over data sets drawn anew; Monte-Carlo errors alone are far smaller."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
            pyro.sample("x", dist.Normal(z, 0.6), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.8 * x, 0.5))

    names = ("mean_kl", "mutual_information", "marginal_kl", "reconstruction", "elbo")
    values, errors = [], []
    for seed in range(60):
        x = 1.5 * torch.randn(40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        s = pv.divergences.elbo_surgery(model, guide, x, num_samples=20, seed=seed)
        assert float(s.shares.mean()) == pytest.approx(1.0)
        terms = [getattr(s, n) for n in names]
        values.append([term.value for term in terms])
        errors.append([term.se_data for term in terms])
    spread, stated = torch.tensor(values).std(0), torch.tensor(errors).mean(0)
    assert ((stated / spread - 1).abs() < 4 / math.sqrt(2 * 59)).all(), stated / spread
    assert "(data)" in repr(s.marginal_kl) and "(MC)" in repr(s.marginal_kl)
    assert s.marginal_kl.se_data > 2 * s.marginal_kl.se
