"""Closed-form KLs against Monte Carlo, and the matrix-form mixture against float64."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch.distributions import kl_divergence
from torch.distributions.kl import _dispatch_kl

from pyrovae.distributions import Counts, DiagonalGaussianMixture, mixture_of
from pyrovae.guides import DiagonalGaussian, FlowGuide, FullGaussian
from pyrovae.networks import MLP
from pyrovae.priors import GaussianMixture, StandardNormal, VampPrior


def diagonal(lead, dim=3):
    return dist.Normal(torch.randn(*lead, dim), 0.3 + torch.rand(*lead, dim)).to_event(1)


def full(lead, dim=3):
    tril = 0.5 * torch.randn(*lead, dim, dim).tril(-1) + torch.diag_embed(0.3 + torch.rand(*lead, dim))
    return dist.MultivariateNormal(torch.randn(*lead, dim), scale_tril=tril)


PAIRS = [(p, q) for p in (diagonal, full) for q in (diagonal, full)]


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
        return (
            d
            if isinstance(d, dist.MultivariateNormal)
            else dist.MultivariateNormal(d.mean, scale_tril=torch.diag_embed(d.stddev))
        )

    torch.testing.assert_close(kl, kl_divergence(dense(p), dense(q)), rtol=1e-4, atol=1e-5)
    expanded = kl_divergence(p.expand((5, *p.batch_shape)), q.expand((5, *p.batch_shape)))
    torch.testing.assert_close(expanded, kl.expand(5, *kl.shape))


def test_kl_of_full_from_standard_normal_by_hand():
    p = dist.MultivariateNormal(torch.tensor([1.0, 2.0]), scale_tril=torch.tensor([[1.0, 0.0], [3.0, 2.0]]))
    q = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    # Sigma = [[1, 3], [3, 13]]: (tr + m.m - 2 - ln det) / 2
    assert float(kl_divergence(p, q)) == pytest.approx(0.5 * (14 + 5 - 2 - math.log(4)))


def test_kl_without_closed_form_says_so():
    laplace = dist.Laplace(torch.zeros(3), torch.ones(3)).to_event(1)
    for p, q in [
        (full(()), laplace),
        (full(()), DiagonalGaussianMixture(torch.zeros(2, 3), torch.ones(2, 3))),
    ]:
        with pytest.raises(NotImplementedError):
            kl_divergence(p, q)


PRIORS = {
    "normal": lambda guide: StandardNormal(2),
    "mixture": lambda guide: GaussianMixture(2, 3),
    "vamp": lambda guide: VampPrior(guide, torch.rand(3, 4)),
}


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("make", [DiagonalGaussian, FullGaussian, FlowGuide])
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
    if make is not FlowGuide and prior == "normal":
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
