"""Proposals of each datum's own: densities, unbiasedness, hard posteriors with known evidence, and what is refused."""

import math
import re

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import integrate, stats

import pyrovae as pv
from pyrovae.evidence import Sharing
from pyrovae.evidence.core.execution import Execution
from pyrovae.evidence.proposals.fitting import Fitter
from pyrovae.evidence.proposals.local_flow import LocalFlow
from pyrovae.evidence.proposals.proposal import Proposal
from pyrovae.evidence.proposals.student_mixture import DF, StudentMixture
from pyrovae.evidence.weights.delete_one import is_variance, stratified_variance
from pyrovae.programs import inspect_program, seeded

F64 = torch.float64
QUICK = pv.ProposalFit(elbo=pv.LocalFit(steps=150, num_particles=8), even=pv.LocalFit(steps=30, lr=0.005))


def zero():
    return torch.zeros((), dtype=F64)


def bimodal():
    """x ~ N(z^2, .3), with a guide at one of both modes."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(zero(), 1.0))
            pyro.sample("x", dist.Normal(z**2, 0.3), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.clamp(min=0.01).sqrt(), 0.2))

    x = torch.tensor([0.5, 2.0, 4.0], dtype=F64)
    truth = [
        math.log(
            2
            * integrate.quad(
                lambda z, v=v: stats.norm.pdf(z) * stats.norm.pdf(v, z * z, 0.3), 0, 8, limit=500
            )[0]
        )
        for v in x.tolist()
    ]
    return model, guide, x, torch.tensor(truth, dtype=F64)


def linear(d=10):
    """x ~ N(W z, .7), with a guide that is off its mark and knows no covariance."""
    random = torch.Generator().manual_seed(d)
    w = torch.randn(2 * d, d, generator=random, dtype=F64) / math.sqrt(d)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(zero(), 1.0).expand([d]).to_event(1))
            pyro.sample("x", dist.Normal(z @ w.T, 0.7).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.3 * (x @ w), 0.7).to_event(1))

    z = torch.randn(4, d, generator=random, dtype=F64)
    x = z @ w.T + 0.7 * torch.randn(4, 2 * d, generator=random, dtype=F64)
    covariance = w @ w.T + 0.49 * torch.eye(2 * d, dtype=F64)
    return model, guide, x, dist.MultivariateNormal(torch.zeros(2 * d, dtype=F64), covariance).log_prob(x)


def student():
    """A t_3 prior under a normal guide."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.StudentT(zero() + 3, 0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 2.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.2 * x, 0.7))

    def one(v):
        f = lambda z: stats.t.pdf(z, 3) * stats.norm.pdf(v, z, 2)  # noqa: E731
        return math.log(integrate.quad(f, -300, 300, points=[0, v], limit=2000)[0])

    x = torch.tensor([0.0, 3.0, 8.0], dtype=F64)
    return model, guide, x, torch.tensor([one(v) for v in x.tolist()], dtype=F64)


def bounded():
    """A Beta prior of a binomial: constrained support."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Beta(zero() + 2.0, 3.0))
            pyro.sample("x", dist.Binomial(10, z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Beta(1 + 0.2 * x, 2.0 + 0 * x))

    x = torch.tensor([0.0, 4.0, 10.0], dtype=F64)
    return model, guide, x, torch.tensor(stats.betabinom.logpmf(x.numpy(), 10, 2, 3), dtype=F64)


def hierarchy():
    """Two levels, of which the guide draws the lower first."""

    def model(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(zero(), 1.0).expand([2]).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(z2, 0.5).to_event(1))
            pyro.sample("x", dist.Normal(z1, 0.3).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(0.5 * x, 0.5).to_event(1))
            pyro.sample("z2", dist.Normal(0.3 * z1, 0.4).to_event(1))

    x = torch.tensor([[0.5, -1.0], [3.0, 2.0]], dtype=F64)
    return model, guide, x, dist.Normal(zero(), math.sqrt(1 + 0.25 + 0.09)).log_prob(x).sum(-1)


def half():
    """A guide that reaches half of what the prior allows."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(zero(), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.HalfNormal(1.0 + 0 * x))

    x = torch.tensor([-0.5, 0.3], dtype=F64)
    return model, guide, x, dist.Normal(zero(), math.sqrt(2)).log_prob(x)


def auxiliary():
    """A guide whose density at a given z is not known."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(zero(), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x / 2, 0.8), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Delta(a))

    x = torch.tensor([-0.5, 2.0], dtype=F64)
    return model, guide, x, dist.Normal(zero(), math.sqrt(2)).log_prob(x)


class Decoder(torch.nn.Module):
    """A small VAE, whose tensors a graph knows."""

    def __init__(self):
        super().__init__()
        with seeded(0, "weights"):
            self.encoder, self.decoder = torch.nn.Linear(5, 6), torch.nn.Linear(3, 5)

    def model(self, x):
        pyro.module("pair", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z).tanh(), 0.3).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("pair", self)
        with pyro.plate("data", len(x)):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


CASES = [bimodal, linear, student, bounded, hierarchy, half]


def test_the_flow_has_the_density_of_its_draws():
    random = torch.Generator().manual_seed(0)
    flow = LocalFlow(torch.randn(50, 2, 3, generator=random, dtype=F64))
    with torch.no_grad():
        for leaf in flow.leaves:
            leaf.add_(0.3 * torch.randn(leaf.shape, generator=random, dtype=F64))
        noise = torch.randn(40, 2, 3, generator=random, dtype=F64)
        u, log_q = flow.at(noise, flow.leaves, flow.own)
        torch.testing.assert_close(flow.log_prob(u), log_q, rtol=1e-9, atol=1e-9)
        part = flow.select(torch.tensor([1]))
        torch.testing.assert_close(part.log_prob(u[:, 1:]), log_q[:, 1:], rtol=1e-9, atol=1e-9)


def test_the_mixture_has_the_density_it_says():
    """ln q against SciPy's Student-t, and the draws against the density."""
    random = torch.Generator().manual_seed(0)
    centres = torch.tensor([[-3.0, 0.0], [3.0, 1.0]], dtype=F64)
    u = centres[torch.randint(2, (3000, 4), generator=random)]
    u = u + torch.randn(3000, 4, 2, generator=random, dtype=F64)
    with seeded(0, "test"):
        mixture = StudentMixture(u, torch.zeros(3000, 4, dtype=F64), 3)
        drawn = mixture.sample(20_000)
    at = u[:5]
    for n in range(4):
        laws = [
            stats.multivariate_t(mixture.means[m, n], mixture.roots[m, n] @ mixture.roots[m, n].T, df=DF)
            for m in range(3)
        ]
        shares = mixture.log_shares[:, n].exp()
        for k in range(5):
            expected = sum(float(s) * law.pdf(at[k, n].numpy()) for s, law in zip(shares, laws, strict=True))
            assert float(mixture.log_prob(at)[k, n]) == pytest.approx(math.log(expected), abs=1e-9)
    # E_q[p / q] = 1 for a normal p that q covers: four standard errors.
    ratio = (
        dist.MultivariateNormal(torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64)).log_prob(drawn)
    ).exp()
    ratio = ratio / mixture.log_prob(drawn).exp()
    assert ((ratio.mean(0) - 1).abs() < 4 * ratio.std(0) / math.sqrt(len(ratio))).all()


def test_a_mixture_of_draws_without_weights_is_finite():
    u = torch.randn(100, 2, 3, dtype=F64)
    with seeded(0, "test"):
        mixture = StudentMixture(u, torch.full((100, 2), -torch.inf, dtype=F64), 3)
        assert mixture.log_prob(mixture.sample(10)).isfinite().all()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.slow
def test_own_proposals_find_known_evidence(case):
    model, guide, x, truth = case()
    ev = pv.evidence(model, guide, x, estimators=[pv.IS(2000), pv.OwnIS(4000)], compile=False)
    own = ev["OwnIS"]
    assert ((own.per_datum - truth).abs() < 4 * own.variance.sqrt() + 1e-4).all()
    assert own.variance.sqrt().max() < 0.05
    low, high = own.interval(0.9999).unbind(-1)
    given = low.isfinite()
    assert given.double().mean() >= 0.5 and ((low <= truth) & (truth <= high))[given].all()
    assert own.certificate is not None and own.certificate <= float(truth.mean())


@pytest.mark.parametrize("case", [bimodal, linear, half, auxiliary])
def test_adaptive_keeps_to_its_tolerance(case):
    model, guide, x, truth = case()
    ev = pv.evidence(model, guide, x, estimators=[pv.Adaptive(0.02, fit=QUICK)], compile=False)
    e = ev["Adaptive"]
    assert e.reliable.all() and e.symbol == "≈"
    assert e.variance.sqrt().max() < 0.02
    assert ((e.per_datum - truth).abs() < 4 * e.variance.sqrt()).all()
    assert set(e.details["num_draws"].tolist()) <= {1000, 5000, 10_000, 20_000, 50_000, 100_000}
    assert "support every datum" in ev.verdict and "100.0%" in ev.table("markdown")


def test_a_missed_mode_is_not_taken_for_an_easy_datum():
    """The guide's weights are even, and half of p(x) is missing: the prior's share finds it."""
    model, guide, x, truth = bimodal()
    ev = pv.evidence(model, guide, x, estimators=[pv.IS(2000), pv.Adaptive(0.02, fit=QUICK)], compile=False)
    assert (truth - ev["IS"].per_datum)[1:].min() > 0.6  # ln 2
    assert (ev["Adaptive"].details["own_proposal"] == 1).all()
    assert any(
        "by draws of the prior" in w and "leaves out a part of the posterior" in w for w in ev.warnings
    )
    assert not ev["IS"].reliable[1:].any() and ev["Adaptive"].reliable.all()


def test_easy_data_need_no_proposal():
    """An exact guide's weights are equal: nothing is fitted."""
    model, _, x, truth = linear(2)

    d = 2
    random = torch.Generator().manual_seed(d)
    w = torch.randn(2 * d, d, generator=random, dtype=F64) / math.sqrt(d)
    covariance = torch.linalg.inv(torch.eye(d, dtype=F64) + w.T @ w / 0.49)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(x @ w @ covariance / 0.49, covariance))

    e = pv.evidence(model, guide, x, estimators=[pv.Adaptive(0.05)], compile=False)["Adaptive"]
    assert (e.details["own_proposal"] == 0).all()
    assert ((e.per_datum - truth).abs() < 4 * e.variance.sqrt() + 1e-6).all()


def test_the_mean_weight_is_unbiased_under_a_bad_proposal():
    """Of many data with the same x the mean of p̂ is p(x), within four standard errors, with few draws each."""
    model, guide, x, truth = bimodal()
    many = x[:1].expand(3000)
    program = inspect_program(model, guide, many)
    flow = LocalFlow(torch.randn(50, 3000, 1, generator=torch.Generator().manual_seed(0), dtype=F64) - 1)
    proposal = Proposal(program, torch.arange(3000), [(flow, 0.6)], 0.2, 0.2)
    part = proposal.estimate(20, Execution(0), "test")
    ratio = (part.log_evidence - truth[0]).exp()
    assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / math.sqrt(3000)
    # And its stated errors are those that it has.
    many_draws = proposal.estimate(400, Execution(0), "test")
    stated = float(many_draws.variance.mean().sqrt())
    assert stated / float(many_draws.log_evidence.std()) == pytest.approx(
        1, abs=4 / math.sqrt(2 * 3000) + 0.02
    )


def test_the_variance_of_strata():
    """By hand: every draw left out in turn, the others of its density standing for it."""
    lw = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    strata = torch.tensor([0, 1, 2, 0, 1, 0, 2, 1, 0, 0, 2, 0])
    w, expected = lw.exp(), torch.zeros(3, dtype=F64)
    for c in range(3):
        n = int((strata == c).sum())
        values = []
        for i in (strata == c).nonzero()[:, 0]:
            means = w[strata != c].sum(0)
            rest = torch.stack([w[j] for j in (strata == c).nonzero()[:, 0] if j != i])
            values.append(((means + n * rest.mean(0)) / 12).log())
        expected += (n - 1) ** 2 / n * torch.stack(values).var(0)
    torch.testing.assert_close(stratified_variance(lw, strata), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(stratified_variance(lw, torch.zeros(12)), is_variance(lw), rtol=1e-12, atol=0)


def test_draws_are_shared_out_exactly():
    model, guide, x, _ = linear(2)
    program = inspect_program(model, guide, x)
    flow = LocalFlow(torch.randn(50, 4, 2, dtype=F64))
    proposal = Proposal(program, torch.arange(4), [(flow, 0.45), (flow, 0.45)], 0.05, 0.05)
    for total in (100, 101, 997, 5000):
        counts = torch.bincount(proposal._order(total), minlength=4)
        wanted = torch.tensor(proposal.shares) * total
        assert int(counts.sum()) == total and ((counts - wanted).abs() <= 1).all()
        for part in proposal._order(total).split(100):  # and evenly
            assert (
                torch.bincount(part, minlength=4) - len(part) * torch.tensor(proposal.shares)
            ).abs().max() <= 3


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [pv.OwnIS(500, QUICK), pv.Adaptive(0.05, 5000, QUICK, None)])
def test_chunks_are_their_own(estimator, tmp_path):
    """A chunk has the same numbers killed and resumed, or taken over from other processes, whatever the others are."""
    model, guide, x, _ = linear(4)
    kwargs = {"estimators": [estimator], "compile": False, "budget": 48_000}
    program = inspect_program(model, guide, x)
    number = estimator.num_chunks(program, 48_000)
    assert number > 1
    whole = pv.evidence(model, guide, x, **kwargs)[estimator.name]
    last = dict(estimator.run_chunks(program, [number - 1], Execution(0, 48_000)))[number - 1]
    assert torch.equal(last.log_evidence.cpu(), whole.per_datum[-len(last.log_evidence) :])
    seen = []

    def stop(done, total):
        seen.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pv.evidence(model, guide, x, **kwargs, resume=tmp_path, progress=stop)
    again = pv.evidence(model, guide, x, **kwargs, resume=tmp_path, sharing=Sharing(poll=0.02))[
        estimator.name
    ]
    assert seen and torch.equal(again.per_datum, whole.per_datum)
    assert torch.equal(again.variance, whole.variance)


@pytest.mark.slow
def test_compiled_fits_are_those_of_eager_ones():
    """Equal to rounding after few steps, also for a chunk that is filled up."""
    pair = Decoder()
    program = inspect_program(
        pair.model, pair.guide, torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    )
    short = pv.ProposalFit(
        elbo=pv.LocalFit(steps=4, num_particles=4), even=pv.LocalFit(steps=4, num_particles=4)
    )
    found = []
    for compile in (False, True):
        fitter = Fitter(program, short, Execution(0, None, compile), 4)
        found.append([fitter(indices, 0).components[0] for indices in (torch.arange(4), torch.arange(3))])
    for eager, compiled in zip(*found, strict=True):
        for a, b in zip(eager.leaves, compiled.leaves, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def masked(seen):
    def model(x, m):
        with pyro.plate("data", len(x)), pyro.poutine.mask(mask=m):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x, m):
        with pyro.plate("data", len(x)), pyro.poutine.mask(mask=m):
            pyro.sample("z", dist.Normal(x / 2, 0.8))

    return model, guide, torch.zeros(2, dtype=F64), pv.per_datum(torch.tensor(seen))


def test_masked_latents_are_refused():
    """Where a latent is masked it has no density: E[p / q] would be the volume of its line."""
    with pytest.raises(ValueError, match=r"latents without masks .*\['z'\].*try pv\.IS"):
        pv.evidence(*masked([True, False]), estimators=[pv.OwnIS(1000, QUICK)], compile=False)
    pv.evidence(*masked([True, True]), estimators=[pv.OwnIS(1000, QUICK)], compile=False)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_mass_at_the_ends_of_the_numbers_is_refused(dtype):
    """Beta(.01, .01): most of its mass lies between the last number before 1, and 1."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Beta(x.new_tensor(0.01), 0.01))
            pyro.sample("x", dist.Bernoulli(z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Beta(0.5 + x, 1.5 - x))

    for estimator in (pv.OwnIS(1000, QUICK), pv.Adaptive(0.02, fit=QUICK)):
        with pytest.raises(ValueError, match="told from the ends of their support"):
            pv.evidence(
                model, guide, torch.tensor([0.0, 1.0], dtype=dtype), estimators=[estimator], compile=False
            )


def test_two_equal_draws_by_chance_are_no_end():
    """Of 1e5 coordinates in float32 some have equal outermost draws; a prior's mass at an end shows in more."""
    model, guide, x, _ = linear(2)
    proposal = Proposal(inspect_program(model, guide, x), torch.arange(4), [], 0.5, 0.5)
    u = torch.randn(100, 40, 50, generator=torch.Generator().manual_seed(0))
    high = u.argsort(0, descending=True)
    u[high[1, 3, 7], 3, 7] = u[high[0, 3, 7], 3, 7]
    proposal._check_ends(u)
    for at_end in (
        u.index_put((high[2, 3, 7], torch.tensor(3), torch.tensor(7)), u.amax(0)[3, 7]),
        u[:, 3:4, 7:8],
    ):
        with pytest.raises(ValueError, match="told from the ends of their support"):
            proposal._check_ends(at_end)


def test_infinite_weights_are_refused():
    """Gamma(.05, 1) in float32: exp(u) underflows to 0, where the prior's density is infinite."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(torch.tensor(0.05), 1.0))
            pyro.sample("x", dist.Poisson(z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Gamma(torch.tensor(0.05), 1.0).expand([len(x)]))

    with pytest.raises(ValueError, match=r"ends of their support"):
        pv.evidence(model, guide, torch.zeros(4), estimators=[pv.OwnIS(2000, QUICK)], compile=False)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_sparse_gamma_prior_is_served_or_refused_by_its_ends(dtype):
    """r ~ Gamma(.1, .3), c ~ Poisson(r): some of the prior is 0 in float32, nothing in float64."""
    c = torch.tensor([0.0, 0.0, 1.0, 0.0, 5.0, 0.0], dtype=dtype)

    def model(c):
        with pyro.plate("data", len(c)):
            r = pyro.sample("r", dist.Gamma(c.new_tensor(0.1), c.new_tensor(0.3)))
            pyro.sample("c", dist.Poisson(r), obs=c)

    def guide(c):
        with pyro.plate("data", len(c)):
            pyro.sample("r", dist.Gamma(0.15 + c, 1.2))

    truth, served = dist.GammaPoisson(0.1, 0.3).log_prob(c.double()), 0
    for seed in range(4):
        try:
            e = pv.evidence(model, guide, c, estimators=[pv.OwnIS(20000, QUICK)], seed=seed, progress=False)
        except ValueError as error:
            assert re.search(r"told from the ends of their support.*try .*float64", str(error))
            continue
        assert ((e["OwnIS"].per_datum - truth).abs() < 5 * e["OwnIS"].variance.sqrt() + 1e-3).all()
        served += 1
    assert served == 4 or dtype == torch.float32


def test_a_posterior_as_narrow_as_its_numbers_is_refused():
    """z near 1000 in float32, known to 1e-5: numbers are 6e-5 apart."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_tensor(1000.0), 1.0))
            pyro.sample("x", dist.Normal(z, 1e-5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1e-3))

    x = torch.tensor([1000.3, 999.8], dtype=F64)
    with pytest.raises(ValueError, match=r"finer than the posterior.*try float64"):
        pv.evidence(model, guide, x.float(), estimators=[pv.OwnIS(1000, QUICK)], compile=False)
    e = pv.evidence(model, guide, x, estimators=[pv.OwnIS(4000)], compile=False)["OwnIS"]
    truth = dist.Normal(torch.tensor(1000.0, dtype=F64), math.sqrt(1 + 1e-10)).log_prob(x)
    assert ((e.per_datum - truth).abs() < 4 * e.variance.sqrt() + 1e-4).all()


def test_numbers_that_are_none_are_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            e = (100 * pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))).exp()
            pyro.sample("x", dist.Bernoulli(e / (1 + e)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x - 0.5, 1.0))

    for estimator in (pv.OwnIS(1000, QUICK), pv.Adaptive(fit=QUICK)):
        with pytest.raises(ValueError, match="nan"):
            pv.evidence(model, guide, torch.tensor([0.0, 1.0]), estimators=[estimator], compile=False)


def test_a_plate_of_fixed_size_is_filled_up():
    def model(x):
        with pyro.plate("data", 10, subsample_size=4) as ind:
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x[ind])

    def guide(x):
        with pyro.plate("data", 10, subsample_size=4) as ind:
            pyro.sample("z", dist.Normal(0.2 * x[ind], 0.5))

    x = torch.randn(10, generator=torch.Generator().manual_seed(0), dtype=F64)
    truth = dist.Normal(torch.zeros((), dtype=F64), math.sqrt(1.25)).log_prob(x)
    for estimator in (pv.OwnIS(4000, QUICK), pv.Adaptive(0.02, fit=QUICK)):
        (e,) = pv.evidence(model, guide, x, estimators=[estimator], compile=False).values()
        assert ((e.per_datum - truth).abs() < 4 * e.variance.sqrt() + 1e-4).all()


def test_no_defensive_share():
    """The flow alone, which reaches all of the line."""
    model, guide, x, truth = linear(2)
    fit = pv.ProposalFit(QUICK.elbo, QUICK.even, defensive=0.0)
    e = pv.evidence(model, guide, x, estimators=[pv.OwnIS(4000, fit)], compile=False)["OwnIS"]
    assert ((e.per_datum - truth).abs() < 4 * e.variance.sqrt() + 1e-4).all()
    with pytest.raises(ValueError, match="two draws at least of each component with a share"):
        narrow = pv.ProposalFit(QUICK.elbo, QUICK.even, defensive=0.99)
        pv.evidence(model, guide, x, estimators=[pv.OwnIS(100, narrow)], compile=False)


def test_a_missed_tolerance_is_said():
    model, guide, x, _ = linear(2)
    estimators = [pv.IS(100), pv.Adaptive(1e-4, 5000, QUICK)]
    ev = pv.evidence(model, guide, x, estimators=estimators, compile=False)
    assert any("above the tolerance of 0.0001 nats for 100% of the data" in w for w in ev.warnings)
    assert ev.best.name == "Adaptive"


@pytest.mark.parametrize(
    "make",
    [
        lambda: pv.OwnIS(500, 3),
        lambda: pv.OwnIS(500, None),
        lambda: pv.Adaptive(fit=3),
        lambda: pv.Adaptive("0.05"),
        lambda: pv.Adaptive(True),
        lambda: pv.Adaptive(max_samples=5e4),
        lambda: pv.ProposalFit(elbo=None),
        lambda: pv.ProposalFit(even=3),
        lambda: pv.ProposalFit(defensive="0.1"),
        lambda: pv.LocalFit(steps="3"),
        lambda: pv.LocalFit(steps=2.5),
        lambda: pv.LocalFit(num_particles=2.5),
        lambda: pv.LocalFit(lr="x"),
    ],
)
def test_wrong_kinds_are_refused_at_once(make):
    with pytest.raises((ValueError, TypeError), match="expected"):
        make()


def test_bad_input():
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="expected a tolerance > 0"):
            pv.Adaptive(wrong)
    with pytest.raises(
        ValueError, match="max_samples to be a whole number >= 5,000, which a pilot takes, got 10"
    ):
        pv.Adaptive(max_samples=10)
    with pytest.raises(ValueError, match="K\\) >= 100"):
        pv.OwnIS(50)
    with pytest.raises(ValueError, match=r"defensive share in \[0, 1\)"):
        pv.ProposalFit(defensive=1.0)

    def discrete(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def discrete_guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)).expand([len(x)]))

    for estimator in (pv.OwnIS(1000), pv.Adaptive()):
        with pytest.raises(ValueError, match=r"continuous latents.*try pv\.IS"):
            pv.evidence(discrete, discrete_guide, torch.zeros(3), estimators=[estimator])

        def bits(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
                pyro.sample("x", dist.Bernoulli(logits=z), obs=x)

        def normal(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(0 * x, 1.0))

        with pytest.raises(ValueError, match="support"):
            pv.evidence(bits, normal, torch.tensor([0.5, 1.0]), estimators=[estimator])
    wide = linear(600)
    with pytest.raises(ValueError, match="512 latent dims"):
        pv.evidence(*wide[:3], estimators=[pv.OwnIS(100)], compile=False)
