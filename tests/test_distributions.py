"""Closed-form KLs against Monte Carlo, and the matrix-form mixture against float64."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch.distributions import kl_divergence
from torch.distributions.kl import _dispatch_kl

from pyrovae import priors
from pyrovae.distributions import (
    ContinuousBernoulli,
    Counts,
    DiagonalGaussianMixture,
    DiscretizedLogistic,
    Levels,
    PathwiseMixture,
    import_zuko,
    mixture_of,
    rational_quadratic_spline,
)
from pyrovae.guides import DiagonalGaussian, FlowGuide, FullGaussian, LowRankGaussian, MixtureGuide, Spline
from pyrovae.networks import MLP
from pyrovae.priors import FlowPrior, GaussianMixture, StandardNormal, VampPrior


def diagonal(lead, dim=3):
    return dist.Normal(torch.randn(*lead, dim), 0.3 + torch.rand(*lead, dim)).to_event(1)


def full(lead, dim=3):
    tril = 0.5 * torch.randn(*lead, dim, dim).tril(-1) + torch.diag_embed(0.3 + torch.rand(*lead, dim))
    return dist.MultivariateNormal(torch.randn(*lead, dim), scale_tril=tril)


def low_rank(lead, dim=3):
    diag = 0.1 + torch.rand(*lead, dim)
    return dist.LowRankMultivariateNormal(torch.randn(*lead, dim), torch.randn(*lead, dim, 2), diag)


PAIRS = [(p, q) for p in (diagonal, full, low_rank) for q in (diagonal, full)]


@pytest.mark.parametrize("lead", [((), ()), ((4,), ()), ((2, 4), (4,)), ((2, 4), (2, 4))])
@pytest.mark.parametrize(("make_p", "make_q"), PAIRS)
def test_kl_is_closed_and_agrees_with_monte_carlo(make_p, make_q, lead):
    torch.manual_seed(1)
    p, q = make_p(lead[0]), make_q(lead[1])
    assert _dispatch_kl(type(p), type(q)) is not NotImplemented
    kl = kl_divergence(p, q)
    assert kl.shape == lead[0]
    x = p.sample((4000,))
    draws = p.log_prob(x) - q.log_prob(x)
    assert ((draws.mean(0) - kl).abs() < 4 * draws.std(0) / math.sqrt(len(draws))).all()

    def dense(d):
        if isinstance(d, dist.MultivariateNormal):
            return d
        if isinstance(d, dist.LowRankMultivariateNormal):
            return dist.MultivariateNormal(d.mean, d.covariance_matrix)
        return dist.MultivariateNormal(d.mean, scale_tril=torch.diag_embed(d.stddev))

    torch.testing.assert_close(kl, kl_divergence(dense(p), dense(q)), rtol=1e-4, atol=1e-5)
    expanded = kl_divergence(p.expand((5, *p.batch_shape)), q.expand((5, *p.batch_shape)))
    torch.testing.assert_close(expanded, kl.expand(5, *kl.shape))


def test_kl_of_full_from_standard_normal_by_hand():
    p = dist.MultivariateNormal(torch.tensor([1.0, 2.0]), scale_tril=torch.tensor([[1.0, 0.0], [3.0, 2.0]]))
    q = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    # Sigma = [[1, 3], [3, 13]]: (tr + m.m - 2 - ln det) / 2
    assert float(kl_divergence(p, q)) == pytest.approx(0.5 * (14 + 5 - 2 - math.log(4)))


def test_kl_of_low_rank_from_standard_normal_by_hand():
    w, d = torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 3.0])
    p = dist.LowRankMultivariateNormal(torch.tensor([1.0, 2.0]), w, d)
    # Sigma = [[2, 2], [2, 7]]: (tr + m.m - 2 - ln det) / 2. The registration serves torch's own classes too.
    for normal in (dist, torch.distributions):
        q = normal.Independent(normal.Normal(torch.zeros(2), torch.ones(2)), 1)
        assert float(kl_divergence(p, q)) == pytest.approx(0.5 * (9 + 5 - 2 - math.log(10)))


def test_kl_without_closed_form_says_so():
    laplace = dist.Laplace(torch.zeros(3), torch.ones(3)).to_event(1)
    for p, q in [
        (full(()), laplace),
        (low_rank(()), laplace),
        (full(()), DiagonalGaussianMixture(torch.zeros(2, 3), torch.ones(2, 3))),
    ]:
        with pytest.raises(NotImplementedError):
            kl_divergence(p, q)


PRIORS = {
    "normal": lambda guide: StandardNormal(2),
    "diagonal": lambda guide: priors.DiagonalGaussian(2),
    "spline": lambda guide: FlowPrior.spline(2, 2, (8,)),
    "mixture": lambda guide: GaussianMixture(2, 3),
    "vamp": lambda guide: VampPrior(guide, torch.rand(3, 4)),
}


def spline_guide(net, latent_dim):
    return FlowGuide(net, latent_dim, univariate=Spline(4))


GAUSSIAN = [DiagonalGaussian, FullGaussian, LowRankGaussian]


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("make", [*GAUSSIAN, FlowGuide, spline_guide, MixtureGuide])
def test_mean_field_elbo_agrees_with_trace_elbo(make, prior):
    torch.manual_seed(0)
    q = make(MLP(4, (8,)), 2)
    p = PRIORS[prior](q)
    x = torch.rand(6, 4)

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", p())

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", q(x))

    def losses(elbo, n):
        options = {"num_particles": 50, "vectorize_particles": True, "max_plate_nesting": 1}
        with torch.no_grad():
            return torch.tensor([elbo(**options).loss(model, guide, x) for _ in range(n)])

    closed, sampled = losses(TraceMeanField_ELBO, 5), losses(Trace_ELBO, 30)
    if make in GAUSSIAN and prior in ("normal", "diagonal"):
        assert closed.std() < 1e-5, "a closed form has no Monte-Carlo noise"
    error = (sampled.var() / len(sampled) + closed.var() / len(closed)).sqrt()
    assert abs(closed.mean() - sampled.mean()) < 5 * error


@pytest.mark.parametrize("scale", [0.02, 0.1, 1.0])
@pytest.mark.parametrize("dim", [2, 8, 40])
def test_mixture_in_float32_keeps_half_a_milli_nat(scale, dim):
    torch.manual_seed(0)
    loc = (8 * torch.rand(50, dim) - 4).float()
    mixture = DiagonalGaussianMixture(loc, scale * (1 + torch.rand(50, dim)), torch.randn(50))
    z = mixture.sample((500,))
    exact = dist.MixtureSameFamily(
        dist.Categorical(logits=mixture.logits.double()),
        dist.Normal(mixture.loc.double(), mixture.scale.double()).to_event(1),
    )
    got = mixture.log_prob(z)
    assert got.dtype == torch.float32
    assert (got - exact.log_prob(z.double())).abs().max() < 5e-4
    # Far from every component the value itself is large, and float32 rounds it.
    far = (8 * torch.rand(500, dim) - 4).float()
    torch.testing.assert_close(
        mixture.log_prob(far).double(), exact.log_prob(far.double()), rtol=2e-7, atol=5e-4
    )


def test_mixture_of_500_components_keeps_half_a_milli_nat():
    """The prior of the main comparison, narrow and wide components together."""
    torch.manual_seed(0)
    mixture = DiagonalGaussianMixture(torch.randn(500, 50), 0.05 + torch.rand(500, 50), torch.randn(500))
    z = torch.cat([mixture.sample((60,)), torch.randn(60, 50)])
    each = (
        dist.Normal(mixture.loc.double(), mixture.scale.double())
        .to_event(1)
        .log_prob(z.double().unsqueeze(1))
    )
    exact = (each + mixture.logits.double().log_softmax(-1)).logsumexp(-1)
    torch.testing.assert_close(mixture.log_prob(z).double(), exact, rtol=2e-7, atol=5e-4)


def test_mixture_moments_expand_and_gradients():
    torch.manual_seed(0)
    loc, scale, logits = torch.randn(4, 3), 0.2 + torch.rand(4, 3), torch.randn(4)
    mixture = DiagonalGaussianMixture(loc, scale, logits)
    x = mixture.sample((40_000,))
    assert ((x.mean(0) - mixture.mean).abs() < 4 * x.std(0) / 200).all()
    assert ((x.var(0) / mixture.variance - 1).abs() < 0.05).all()
    wide = mixture.expand((5, 2))
    assert wide.shape() == (5, 2, 3) and wide.mean.shape == wide.variance.shape == (5, 2, 3)
    assert wide.sample((7,)).shape == (7, 5, 2, 3) and mixture.sample((0,)).shape == (0, 3)
    assert wide.log_prob(x[0]).shape == (5, 2)
    assert wide.expand((6, 5, 2)).log_prob(x[:2].unsqueeze(1).unsqueeze(1)[:1]).shape == (6, 5, 2)
    leaves = [t.double().requires_grad_() for t in (loc, scale, logits, x[:5])]
    assert torch.autograd.gradcheck(lambda m, s, w, z: DiagonalGaussianMixture(m, s, w).log_prob(z), leaves)
    assert "components=4" in repr(mixture) and not mixture.has_rsample


def test_mixture_refuses_what_does_not_fit():
    loc, scale = torch.zeros(4, 3), torch.ones(4, 3)
    for args in [(loc, scale[:3]), (loc[0], scale[0]), (loc, scale, torch.zeros(3))]:
        with pytest.raises(ValueError, match="expected loc"):
            DiagonalGaussianMixture(*args)
    with pytest.raises(ValueError, match="scale"):
        DiagonalGaussianMixture(loc, -scale, validate_args=True)
    with pytest.raises(ValueError, match="batch shape"):
        mixture_of(diagonal((2, 4)), torch.zeros(4))
    assert isinstance(mixture_of(diagonal((4,)), torch.zeros(4)), DiagonalGaussianMixture)
    assert isinstance(mixture_of(full((4,)), torch.zeros(4)), dist.MixtureSameFamily)


def mixture(lead=(), components=3, dim=2, scale=1.0):
    loc = torch.randn(*lead, components, dim, dtype=torch.float64)
    widths = scale * (0.5 + torch.rand(*lead, components, dim, dtype=torch.float64))
    return loc, widths, torch.randn(*lead, components, dtype=torch.float64)


def test_mixture_of_mixtures_is_one_mixture():
    torch.manual_seed(0)
    parts, logits = PathwiseMixture(*mixture((4,), dim=3)), torch.randn(4, dtype=torch.float64)
    flat = mixture_of(parts, logits)
    assert isinstance(flat, DiagonalGaussianMixture) and len(flat.loc) == 12
    z = torch.randn(7, 1, 3, dtype=torch.float64)
    each = parts.log_prob(z) + logits.log_softmax(-1)
    torch.testing.assert_close(flat.log_prob(z[:, 0]), each.logsumexp(-1))


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("dim", [1, 2, 4])
def test_pathwise_gradients_are_those_of_the_expectation(dim, scale):
    """d E[cos(a.z)] / d theta against its closed form, for all parameters, within 5 standard errors."""
    torch.manual_seed(2)
    leaves = [t.requires_grad_() for t in mixture((2,), dim=dim, scale=scale)]
    loc, widths, logits = leaves
    a = torch.arange(1, dim + 1, dtype=torch.float64) * 0.7
    each = torch.cos(loc @ a) * torch.exp(-0.5 * widths.square() @ a.square())
    exact = torch.autograd.grad((logits.softmax(-1) * each).sum(), leaves)
    q = PathwiseMixture(*leaves)
    runs = [torch.autograd.grad(torch.cos(q.rsample((2000,)) @ a).mean(0).sum(), leaves) for _ in range(20)]
    for exactly, got in zip(exact, zip(*runs, strict=True), strict=True):
        got = torch.stack(got)
        error = got.std(0) / math.sqrt(len(got))
        assert ((got.mean(0) - exactly).abs() < 5 * error + 1e-9).all()


def test_pathwise_mixture_expands_and_stays_finite():
    torch.manual_seed(0)
    q = PathwiseMixture(*(t.float().requires_grad_() for t in mixture((3,), dim=4)))
    wide = q.expand((5, 3))
    z = wide.rsample((2,))
    assert z.shape == (2, 5, 3, 4) and wide.mean.shape == wide.variance.shape == (5, 3, 4)
    exact = dist.MixtureSameFamily(dist.Categorical(logits=q.logits), dist.Normal(q.loc, q.scale).to_event(1))
    torch.testing.assert_close(wide.log_prob(z), exact.log_prob(z), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(wide.mean[0], exact.mean)
    torch.testing.assert_close(wide.variance[0], exact.variance)
    assert not wide.sample().requires_grad and "components=3" in repr(q)
    for dim, scale in [(120, 1.0), (50, 1e-3), (3, 1e3), (20, 10.0)]:
        leaves = [t.float().requires_grad_() for t in mixture((8,), components=5, dim=dim, scale=scale)]
        for grad in torch.autograd.grad(PathwiseMixture(*leaves).rsample((20,)).sum(), leaves):
            assert grad.isfinite().all()
    # Equal components: the sample still moves with each of them.
    leaves = [torch.zeros(3, 2), torch.ones(3, 2), torch.zeros(3)]
    leaves = [t.requires_grad_() for t in leaves]
    grads = torch.autograd.grad(PathwiseMixture(*leaves).rsample((1000,)).sum(), leaves)
    torch.testing.assert_close(grads[0], torch.full((3, 2), 1000 / 3), rtol=1e-3, atol=1e-3)
    for args in [(torch.zeros(4, 3), torch.ones(4, 2), torch.zeros(4)), (torch.zeros(3),) * 3]:
        with pytest.raises(ValueError, match="expected loc"):
            PathwiseMixture(*args)
    with pytest.raises(ValueError, match="scale"):
        PathwiseMixture(torch.zeros(4, 3), -torch.ones(4, 3), torch.zeros(4), validate_args=True)


@pytest.mark.parametrize("logit", [0.0, 1e-4, -0.09, 0.11, 3.0, -12.0, 50.0, -1000.0])
def test_continuous_bernoulli_at_any_logit(logit):
    torch.manual_seed(0)
    logits = torch.tensor(logit, requires_grad=True)
    q = ContinuousBernoulli(logits)
    # In y = -ln x (mirrored for positive logits) the mass is spread whatever the logit is.
    edge = torch.linspace(0, 30, 30_001, dtype=torch.float64)
    y = (edge[1:] + edge[:-1]) / 2
    x = torch.exp(-y)
    at = ContinuousBernoulli(-logits.detach().double().abs()).log_prob(x)
    assert float((at.exp() * x).sum() * 1e-3) == pytest.approx(1, abs=1e-5)
    x = torch.rand(50)
    torch.testing.assert_close(
        q.log_prob(x).double(),
        ContinuousBernoulli(logits.double()).log_prob(x.double()),
        rtol=1e-5,
        atol=1e-5,
    )
    draws = q.sample((20_000,))
    assert abs(draws.mean() - q.mean) < 4 * draws.std() / math.sqrt(len(draws)) + 1e-6
    assert draws.min() >= 0 and draws.max() <= 1
    for value in (q.log_prob(x).sum(), q.rsample((50,)).sum(), q.mean):
        assert torch.autograd.grad(value, logits)[0].isfinite()
    double = torch.tensor(logit, dtype=torch.float64, requires_grad=True)
    score = torch.autograd.grad(ContinuousBernoulli(double).log_prob(x.double()).sum(), double)[0]
    torch.testing.assert_close(
        score, (x.double() - ContinuousBernoulli(double).mean).sum(), rtol=1e-4, atol=1e-4
    )


def test_fast_spline_is_zukos():
    torch.manual_seed(0)
    zuko = import_zuko("transforms").MonotonicRQSTransform
    raw = [(3 * torch.randn(40, 5, n, dtype=torch.float64)).requires_grad_() for n in (8, 8, 7)]
    x = 4 * torch.randn(40, 5, dtype=torch.float64)
    x[0] = torch.tensor([-5.0, 5.0, 0.0, 7.0, -100.0])
    for bound, slope in [(5.0, 1e-3), (3.0, 1e-2)]:
        fast, own = (make(*raw, bound=bound, slope=slope) for make in (rational_quadratic_spline, zuko))
        results = []
        for t in (fast, own):
            y, ladj = t.call_and_ladj(x)
            results.append((y, ladj, t.inv(x), *torch.autograd.grad((y * ladj).sum(), raw)))
        torch.testing.assert_close(*results)


def test_levels_are_a_categorical_with_a_mean():
    torch.manual_seed(0)
    logits = torch.randn(3, 2, 6)
    q, exact = Levels(logits), dist.Categorical(logits=logits)
    x = q.sample((4,))
    assert x.dtype == torch.float32
    torch.testing.assert_close(q.log_prob(x), exact.log_prob(x))
    torch.testing.assert_close(q.log_prob(x.to(torch.uint8)), exact.log_prob(x))
    torch.testing.assert_close(q.mean, (exact.probs * torch.arange(6.0)).sum(-1))
    wide = q.expand((5, 3, 2))
    assert wide.sample().shape == (5, 3, 2) and wide.log_prob(x[0]).shape == (5, 3, 2)
    for bad in (-1.0, 0.5, 6.0):
        with pytest.raises(ValueError, match="support"):
            q.log_prob(torch.full((3, 2), bad))
        trusting = Levels(logits, validate_args=False)
        assert bool((trusting.log_prob(torch.full((3, 2), bad)) == -torch.inf).all())


@pytest.mark.parametrize("levels", [2, 5, 17, 256])
def test_discretized_logistic_sums_to_one_everywhere(levels):
    torch.manual_seed(0)
    half = (levels - 1) / 2
    for spread, scale in [(1.0, 0.1), (1.0, 1e-4), (1.0, 100.0), (100.0, 1.0), (3.0, 1e-2)]:
        loc = half * (1 + spread * torch.randn(40, 4))
        q = DiscretizedLogistic(loc, half * scale * (0.5 + torch.rand(40, 4)), torch.randn(40, 4), levels)
        x = torch.arange(levels).float().unsqueeze(-1)
        log_prob = q.log_prob(x)
        assert log_prob.isfinite().all()
        assert ((log_prob.double().logsumexp(0)).exp() - 1).abs().max() < 1e-5
        assert (q.mean - (log_prob.exp() * x).sum(0)).abs().max() < 1e-4 * levels
    one = DiscretizedLogistic(loc[:, :1], q.scale[:, :1], q.logits[:, :1], levels)
    F = [torch.sigmoid((edge - one.loc.double()) / one.scale.double()) for edge in (0.5, levels - 1.5)]
    torch.testing.assert_close(one.log_prob(torch.zeros(40)).double().exp(), F[0][:, 0], rtol=1e-4, atol=1e-6)
    top = one.log_prob(torch.full((40,), levels - 1.0)).double().exp()
    torch.testing.assert_close(top, 1 - F[1][:, 0], rtol=1e-4, atol=1e-6)


def test_discretized_logistic_samples_and_refusals():
    torch.manual_seed(0)
    q = DiscretizedLogistic(3 + 3 * torch.randn(5, 2), 0.2 + torch.rand(5, 2), torch.randn(5, 2), 7)
    x = q.sample((20_000,))
    for level in range(7):
        p = q.log_prob(torch.tensor(float(level))).exp()
        error = (p * (1 - p) / len(x)).sqrt()
        assert (((x == level).float().mean(0) - p).abs() < 5 * error + 1e-6).all()
    assert q.expand((3, 5)).sample().shape == (3, 5) and "levels=7" in repr(q)
    leaves = [t.double().requires_grad_() for t in (q.loc, q.scale, q.logits)]
    assert torch.autograd.gradcheck(
        lambda m, s, w: DiscretizedLogistic(m, s, w, 7).log_prob(x[:4].double()), leaves
    )
    with pytest.raises(ValueError, match="levels >= 2"):
        DiscretizedLogistic(q.loc, q.scale, q.logits, 1)
    with pytest.raises(ValueError, match="expected loc, scale, logits"):
        DiscretizedLogistic(q.loc, q.scale, q.logits[0], 7)
    with pytest.raises(ValueError, match="scale"):
        DiscretizedLogistic(q.loc, -q.scale, q.logits, 7, validate_args=True)


@pytest.mark.parametrize("n", [1, 16, 255])
def test_counts_are_binomial(n):
    torch.manual_seed(0)
    logits = 4 * torch.randn(3, 5)
    counts, exact = Counts(n, logits), dist.Binomial(n, logits=logits.double())
    x = counts.sample((50,))
    torch.testing.assert_close(counts.log_prob(x).double(), exact.log_prob(x.double()), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(counts.mean.double(), exact.mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(counts.variance.double(), exact.variance, rtol=1e-4, atol=1e-4)
    assert ((x.mean(0) - counts.mean).abs() <= 5 * (counts.variance / 50).sqrt() + 0.1).all()
    assert counts.expand((4, 3, 5)).log_prob(x[0]).shape == (4, 3, 5)
    bytes_too = counts.log_prob(x.to(torch.uint8)) if n < 256 else counts.log_prob(x)
    torch.testing.assert_close(bytes_too, counts.log_prob(x))
    with pytest.raises(ValueError, match="support"):
        counts.log_prob(torch.full((3, 5), n + 1.0))
    with pytest.raises(ValueError, match="total_count"):
        Counts(0, logits)


def test_counts_learn_from_zero_logits():
    logits = torch.zeros(2, requires_grad=True)
    Counts(4, logits).log_prob(torch.tensor([0.0, 3.0])).sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([-2.0, 1.0]))


@pytest.mark.parametrize("n", [255, 10**6, 2**24])
def test_counts_of_many_trials_keep_their_digits(n):
    """At counts near their mean, where ln p is -10 and its terms are of the size of n."""
    from scipy.stats import binom

    logits = torch.linspace(-9, 9, 50)
    x = (n * logits.sigmoid()).round()
    exact = binom.logpmf(x.double().numpy(), n, logits.double().sigmoid().numpy())
    assert abs(Counts(n, logits).log_prob(x).double().numpy() - exact).max() < 1e-4
