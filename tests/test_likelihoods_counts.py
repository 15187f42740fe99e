"""Likelihoods of counts, of positive data, of proportions and of data with outliers: the truth and the edges."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from safetensors.torch import load_file, save_file
from scipy import stats
from scipy.special import gammaln
from torch import nn

import pyrovae as pv
from pyrovae import distributions, likelihoods
from pyrovae.data import load
from pyrovae.distributions.double.log_rising import log_rising
from pyrovae.inference.options.building import build as build_pair
from pyrovae.inference.options.options import ModelOptions
from pyrovae.models.vae import VAE
from pyrovae.networks import MLP, soft_limit
from pyrovae.programs.checks.measure import kind_of

F64 = torch.float64
D = 2


class Given(nn.Module):
    """A network whose outputs are given, one vector behind the other."""

    def __init__(self, *outputs):
        super().__init__()
        self.value = nn.Parameter(torch.as_tensor(np.concatenate(outputs)))
        self.out_features = self.value.numel()

    def forward(self, z, *context):
        return self.value.expand(*z.shape[:-1], -1)


def decoder(outputs=1):
    return MLP(D, (8,), 2 * outputs)


PARTS = {
    "Poisson": lambda: likelihoods.Poisson(decoder(), exposure=torch.tensor([0.5, 3.0])),
    "NegativeBinomial": lambda: likelihoods.NegativeBinomial(decoder(), torch.tensor([0.7, 4.0])),
    "ZeroInflatedNegativeBinomial": lambda: likelihoods.ZeroInflatedNegativeBinomial(decoder(2), 2.0),
    "StudentT": lambda: likelihoods.StudentT(decoder(2), torch.tensor([2.0, 9.0])),
    "Gamma": lambda: likelihoods.Gamma(decoder(2)),
    "LogNormal": lambda: likelihoods.LogNormal(decoder(2)),
    "Beta": lambda: likelihoods.Beta(decoder(2)),
}
COUNTS = ("Poisson", "NegativeBinomial", "ZeroInflatedNegativeBinomial")
POSITIVE = ("Gamma", "LogNormal")


@pytest.fixture(params=PARTS)
def name(request):
    torch.manual_seed(0)
    return request.param


def build(name, wiggle=0.2):
    part = PARTS[name]()
    with torch.no_grad():
        for p in part.parameters():
            p.add_(wiggle * torch.randn_like(p))
    return part


# ------------------------------------------------------------------------------------------------ the contract


def test_contract(name, tmp_path):
    part, again = build(name), build(name)
    for lead in ((), (3,), (2, 3)):
        q = part(torch.rand(*lead, D))
        assert (tuple(q.batch_shape), tuple(q.event_shape)) == (lead, (2,))
        x = q.sample((5,))
        assert x.dtype == torch.float32 and q.log_prob(x).shape == (5, *lead)
        assert q.log_prob(x).isfinite().all() and q.support.check(x).all()
        assert q.expand((4, *lead)).log_prob(x[:4]).shape == (4, *lead)
    assert kind_of(q) == ("mass" if name in COUNTS else "density")
    q.log_prob(x).sum().backward()
    for n, p in part.named_parameters():
        assert p.grad.isfinite().all() and p.grad.abs().sum() > 0, n
    save_file(part.state_dict(), tmp_path / "part.safetensors")
    again.load_state_dict(load_file(tmp_path / "part.safetensors"))
    z = torch.rand(3, D)
    assert torch.equal(part(z).log_prob(x[:1, 0]), again(z).log_prob(x[:1, 0]))
    assert repr(part).startswith(f"{name}(")
    wide = part.double()(z.double())
    assert wide.sample().dtype == wide.log_prob(wide.sample()).dtype == F64


def test_large_inputs_give_no_nan(name):
    part = build(name, wiggle=1.0)
    for factor in (100.0, 1e4):
        q = part(factor * torch.randn(50, D))
        x = q.sample()
        assert x.isfinite().all() and q.support.check(x).all()
        lp = q.log_prob(x)
        assert lp.isfinite().all()
        grads = torch.autograd.grad(lp.sum(), list(part.parameters()))
        assert all(g.isfinite().all() for g in grads)


def test_means(name):
    """The mean of draws is `.mean`, from which reconstructions are made, within 4.5 standard errors."""
    q = build(name)(torch.rand(1, D)).expand((20_000, 1))
    x = q.sample().double()
    error = x.std(0) / math.sqrt(len(x))
    assert ((x.mean(0) - q.mean[0].double()).abs() < 4.5 * error).all()


def test_draws_follow_the_law(name):
    """The density against a histogram of draws: E[r(x) / p(x)] = 1, r another law, within 4 standard errors."""
    q = build(name).double()(torch.rand(1, D, dtype=F64))
    x = q.sample((4000,))
    if name in COUNTS:
        r = dist.Binomial(3, torch.full((2,), 0.4, dtype=F64))
        inside = (x <= 3).all(-1)
        w = torch.where(inside, (r.log_prob(x.clamp(max=3)).sum(-1) - q.log_prob(x)).exp(), 0.0)
    else:
        two = torch.full((2,), 2.0, dtype=F64)
        laws = {"StudentT": dist.Normal(0 * two, 0.5), "Beta": dist.Beta(two, two)}
        r = laws.get(name, dist.LogNormal(0 * two, 0.3))
        w = (r.log_prob(x).sum(-1) - q.log_prob(x)).exp()
    assert abs(w.mean() - 1) < 4 * w.std() / math.sqrt(len(x))


def test_trains(name):
    part, guide = build(name), pv.guides.DiagonalGaussian(MLP(2, (4,)), D)
    x = part(torch.rand(3, D)).sample()

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", part(pyro.sample("z", pv.priors.StandardNormal(D)())), obs=x)

    def encode(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", guide(x))

    with pyro.validation_enabled():
        loss = Trace_ELBO(num_particles=4, vectorize_particles=True).differentiable_loss(model, encode, x)
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in part.parameters())


# ------------------------------------------------------------------------------------- against SciPy, in float64

GENERATOR = np.random.default_rng(0)
MU = np.exp(GENERATOR.uniform(-6, 9, 200))
R = np.exp(GENERATOR.uniform(-4, 9, 200))
G = GENERATOR.normal(0, 3, 200)
LOC = GENERATOR.normal(0, 5, 200)
SCALE = np.exp(GENERATOR.uniform(-3, 3, 200))


def raw_scale(scale, floor=1e-2):
    """Inverse of `positive_scale`."""
    return np.log(np.expm1(scale - floor)) - 0.5413248546129181


def log_prob(part, x):
    return part.double()(torch.zeros(D, dtype=F64)).base_dist.log_prob(torch.as_tensor(x, dtype=F64)).detach()


def close(ours, theirs):
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-9, atol=1e-9)


def raw_mu(mu):
    """Inverse of the link, linear beyond e^15."""
    assert np.log(mu).max() < 15
    return np.log(mu)


def test_poisson_is_scipys():
    x = GENERATOR.poisson(MU)
    close(log_prob(likelihoods.Poisson(Given(raw_mu(MU))), x), stats.poisson.logpmf(x, MU))
    e = torch.as_tensor(R / 100)
    part = likelihoods.Poisson(Given(raw_mu(MU)), exposure=e)
    part.exposure.log_factor = e.log()
    close(log_prob(part, x), stats.poisson.logpmf(x, MU * R / 100))


def test_negative_binomial_is_scipys():
    x = GENERATOR.negative_binomial(R, R / (R + MU))
    theirs = stats.nbinom.logpmf(x, R, R / (R + MU))
    part = likelihoods.NegativeBinomial(Given(raw_mu(MU)), torch.as_tensor(R))
    part.log_inverse_dispersion = nn.Parameter(torch.as_tensor(np.log(R)))
    close(log_prob(part, x), theirs)
    part = likelihoods.ZeroInflatedNegativeBinomial(Given(raw_mu(MU), G), torch.as_tensor(R))
    part.log_inverse_dispersion = nn.Parameter(torch.as_tensor(np.log(R)))
    x = np.where(GENERATOR.random(200) < 0.5, 0, x)
    gate = 1 / (1 + np.exp(-G))
    counts = np.log1p(-gate) + stats.nbinom.logpmf(x, R, R / (R + MU))
    close(log_prob(part, x), np.where(x == 0, np.logaddexp(np.log(gate), counts), counts))


def test_student_t_is_scipys():
    df = 1 + R
    x = stats.t.rvs(df, LOC, SCALE + 0.02, random_state=1)
    part = likelihoods.StudentT(Given(LOC, raw_scale(SCALE + 0.02)), torch.as_tensor(df))
    part.log_df_above_one = nn.Parameter(torch.as_tensor(np.log(R)))
    close(log_prob(part, x), stats.t.logpdf(x, df, LOC, SCALE + 0.02))


def test_positive_laws_are_scipys():
    scale = SCALE + 0.02
    a = scale**-2
    x = np.maximum(stats.gamma.rvs(a, scale=MU / a, random_state=2), 1e-100)
    close(
        log_prob(likelihoods.Gamma(Given(np.log(MU), raw_scale(scale))), x),
        stats.gamma.logpdf(x, a, scale=MU / a),
    )
    x = np.exp(LOC + scale * GENERATOR.normal(size=200))
    close(
        log_prob(likelihoods.LogNormal(Given(LOC, raw_scale(scale))), x),
        stats.lognorm.logpdf(x, scale, scale=np.exp(LOC)),
    )


def test_beta_is_scipys():
    scale = SCALE + 0.02
    m, total = 1 / (1 + np.exp(-G)), 2 / scale**2
    x = GENERATOR.uniform(1e-9, 1 - 1e-9, 200)
    close(
        log_prob(likelihoods.Beta(Given(G, raw_scale(scale))), x),
        stats.beta.logpdf(x, total * m, total * (1 - m)),
    )


@pytest.mark.parametrize("r", [1e-3, 1.0, 31.9, 32.1, 1e4, 1e12])
def test_counts_sum_to_one(r):
    x = torch.arange(40_000, dtype=F64)
    for mu in (1e-8, 0.3, 40.0):
        poisson = distributions.Poisson(torch.tensor(mu, dtype=F64))
        assert float(poisson.log_prob(x).exp().sum()) == pytest.approx(1, abs=1e-11)
        r64 = torch.tensor(r, dtype=F64)
        law = distributions.NegativeBinomial(r64, logits=torch.tensor(mu, dtype=F64).log() - r64.log())
        gated = distributions.ZeroInflatedNegativeBinomial(law, gate_logits=torch.tensor(-0.3, dtype=F64))
        if mu < 1 or r >= 1:  # else the tail goes on beyond the sum
            assert float(law.log_prob(x).exp().sum()) == pytest.approx(1, abs=1e-9)
            assert float(gated.log_prob(x).exp().sum()) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("law", ["StudentT", "Gamma", "LogNormal", "Beta"])
def test_densities_integrate_to_one(law):
    """By substitution: x = tan u on the line, e^u on the half line, a logistic on the interval."""
    u = torch.linspace(-60, 60, 240_001, dtype=F64)
    one = torch.tensor(1.0, dtype=F64)
    for s in (0.05, 0.7, 3.0):
        if law == "StudentT":
            x, jacobian = torch.sinh(u), torch.cosh(u)
            q = distributions.StudentT(2 * one, 0.3 * one, s * one)
        elif law == "Beta":
            u = u.clamp(-36, 36) if s > 1 else u
            x, jacobian = u.sigmoid(), u.sigmoid() * (-u).sigmoid()
            q = distributions.Beta(0.4 / s * one + 0.3, one / s + 0.3)
        else:
            x, jacobian = u.exp(), u.exp()
            q = (
                distributions.Gamma(one / s**2 + 0.3, 2 * one)
                if law == "Gamma"
                else distributions.LogNormal(0.3 * one, s * one)
            )
        inside = q.support.check(x)
        total = torch.trapezoid(
            torch.where(inside, q.log_prob(torch.where(inside, x, 0.5)).exp() * jacobian, 0.0), u
        )
        assert float(total) == pytest.approx(1, abs=2e-4 if law == "Beta" else 1e-8)


# ---------------------------------------------------------------------------------------------------- the edges


def test_float32_of_large_counts_is_that_of_float64():
    """In float32 throughout, ln p of a count of a million is wrong by a nat."""
    x = torch.tensor([0.0, 1.0, 1e3, 1e6, 2.0**24])
    rate = x.clamp(min=1e-3) * 1.001
    many = torch.full_like(x, 1e5)
    for law, wide in (
        (distributions.Poisson(rate), distributions.Poisson(rate.double())),
        (
            distributions.NegativeBinomial(many, logits=(rate / many).log()),
            distributions.NegativeBinomial(many.double(), logits=(rate / many).log().double()),
        ),
    ):
        torch.testing.assert_close(law.log_prob(x).double(), wide.log_prob(x.double()), rtol=1e-6, atol=1e-6)
    assert abs(dist.Poisson(rate).log_prob(x) - distributions.Poisson(rate).log_prob(x))[3] > 0.05


def test_poisson_is_the_limit_of_the_negative_binomial():
    x, mu = torch.tensor([0.0, 3.0, 100.0], dtype=F64), torch.tensor([0.1, 4.0, 90.0], dtype=F64)
    r = torch.full_like(mu, 1e14)
    law = distributions.NegativeBinomial(r, logits=mu.log() - r.log())
    torch.testing.assert_close(law.log_prob(x), distributions.Poisson(mu).log_prob(x), rtol=1e-10, atol=1e-10)
    normal = distributions.StudentT(r, mu, torch.ones_like(mu)).log_prob(x)
    torch.testing.assert_close(normal, dist.Normal(mu, 1.0).log_prob(x), rtol=1e-10, atol=1e-10)


def test_log_rising_is_smooth_where_its_branches_meet():
    r = torch.tensor([1e-3, 5.0, 31.999, 32.0, 32.001, 500.0], dtype=F64, requires_grad=True)
    x = torch.tensor([0.0, 0.5, 7.0, 7.0, 1e6, 3.0], dtype=F64)
    value = log_rising(r, x)
    np.testing.assert_allclose(
        value.detach().numpy(),
        gammaln((r + x).detach().numpy()) - gammaln(r.detach().numpy()),
        rtol=1e-13,
        atol=1e-11,
    )
    (slope,) = torch.autograd.grad(value.sum(), r)
    torch.testing.assert_close(
        slope, torch.digamma(r.detach() + x) - torch.digamma(r.detach()), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("part", COUNTS)
def test_gradients_at_the_edges_of_counts(part, dtype):
    """No counts, huge counts; tiny and huge rates: finite values and gradients."""
    x = torch.tensor([0.0, 0.0, 2.0**24, 2.0**24, 1.0], dtype=dtype)
    outputs = [np.array([-1e4, 1e4, -1e4, 1e4, 0.0])]
    if part == COUNTS[2]:
        outputs.append(np.array([-200.0, 200.0, 200.0, -200.0, 0.0]))
    for log_r in (-1e3, 0.0, 1e3):
        p = getattr(likelihoods, part)(Given(*outputs))
        if part != "Poisson":
            p.log_inverse_dispersion.data.fill_(log_r)
        p.to(dtype)
        lp = p(torch.zeros(D, dtype=dtype)).log_prob(x)
        assert lp.isfinite()
        assert all(g.isfinite().all() for g in torch.autograd.grad(lp, list(p.parameters())))


def test_edges_of_proportions_and_positive_numbers():
    kind = torch.finfo(torch.float32)
    z = torch.zeros(1, D)
    for raw in (-1e4, -50.0, 0.0, 50.0, 1e4):
        for name, x in {
            "Beta": [kind.tiny, 1 - kind.eps / 2],
            "Gamma": [kind.tiny, 1e30],
            "LogNormal": [kind.tiny, 1e30],
            "StudentT": [-1e18, 1e18],
        }.items():
            part = getattr(likelihoods, name)(MLP(D, (4,), 4))
            nn.init.constant_(part.net.output_bias, raw)
            lp = part(z).log_prob(torch.tensor(x))
            assert not lp.isnan().any(), (name, raw)


@pytest.mark.parametrize("r", [1e-8, 0.7, 1e8, 1e10])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_constants_that_are_not_learned_are_themselves(r, dtype):
    """The bounds of learned logarithms made 1e8 into 1.4e7."""
    z, each = torch.zeros(1, D, dtype=dtype), torch.tensor([r, 2 * r], dtype=F64)
    tight = {"rtol": max(torch.finfo(dtype).eps, 1e-14), "atol": 0.0}
    for value in (r, each):
        expected = torch.as_tensor(value, dtype=dtype).expand(1, 2)
        for name, width in (("NegativeBinomial", 2), ("ZeroInflatedNegativeBinomial", 4)):
            part = getattr(likelihoods, name)(MLP(D, (4,), width).to(dtype), value, learn_dispersion=False)
            law = part(z).base_dist
            law = law if width == 2 else law.base_dist
            assert law.logits.dtype == dtype == part(z).log_prob(torch.ones(2, dtype=dtype)).dtype
            torch.testing.assert_close(law.total_count, expected, **tight)
            if value is each:
                copy = getattr(likelihoods, name)(part.net, torch.ones(2), learn_dispersion=False)
                copy.load_state_dict(part.state_dict())
                torch.testing.assert_close(copy(z).log_prob(torch.ones(2)), part(z).log_prob(torch.ones(2)))
        part = likelihoods.StudentT(MLP(D, (4,), 4).to(dtype), 1 + value, learn_df=False)
        law = part(z).base_dist
        assert law.df.dtype == dtype == part(z).rsample().dtype
        torch.testing.assert_close(law.df, 1 + expected, **tight)
    assert f"df={1 + r:.4g}," in repr(likelihoods.StudentT(MLP(D, (4,), 4), 1 + r, learn_df=False))


def test_constants_beyond_their_bounds_are_refused():
    net = MLP(D, (4,), 4)
    for make in (likelihoods.NegativeBinomial, likelihoods.ZeroInflatedNegativeBinomial):
        for start in (1e-8, 1e8):
            with pytest.raises(ValueError, match="learned inverse_dispersion to start between"):
                make(net, start)
        with pytest.raises(ValueError, match="within the range of torch"):
            make(net, 1e39, learn_dispersion=False)
    with pytest.raises(ValueError, match="learned df - 1 to start between"):
        likelihoods.StudentT(net, 1e8)


def test_soft_limit():
    raw = torch.tensor([-1e6, -16.0, -15.0, 0.3, 15.0, 16.0, 1e6], dtype=F64, requires_grad=True)
    y = soft_limit(raw, 15.0)
    torch.testing.assert_close(y[2:5], raw[2:5])
    assert (y.diff() > 0).all() and (torch.autograd.grad(y.sum(), raw)[0] > 0).all()
    torch.testing.assert_close(y[6].exp(), math.exp(15) * (raw[6] - 14))


# ------------------------------------------------------------------------------------------- exposures, refusals


def test_exposure_of_the_context():
    part = likelihoods.Poisson(MLP(D, (4,), 3), exposure="context")
    fixed = likelihoods.Poisson(part.net)
    z, e = torch.randn(5, 4, D), torch.rand(4, 1) + 0.5
    torch.testing.assert_close(part(z, e).mean, fixed(z).mean * e)
    torch.testing.assert_close(part(z, e.expand(4, 3)).mean, fixed(z).mean * e)
    torch.testing.assert_close(part(z, torch.ones(4, 1, dtype=torch.int64)).mean, fixed(z).mean)
    for given in (torch.ones(4), torch.ones(3), torch.ones(4, 2)):
        with pytest.raises(ValueError, match=r"expected exposures of shape \[N, 1\] or \[N, 3\]"):
            part(z, given)
    with pytest.raises(ValueError, match="last tensor of the context"):
        part(z)
    with pytest.raises(ValueError, match="rate"), pyro.validation_enabled():
        part(z, -e)
    with pytest.raises(ValueError, match="rate"), pyro.validation_enabled():
        part(z, 0 * e)
    images = likelihoods.Poisson(MLP(D, (4,), 6), "context", (1, 2, 3))
    assert images(z, e).event_shape == (1, 2, 3)
    seen = likelihoods.NegativeBinomial(MLP(D + 2, (4,), 3), exposure="context")
    assert seen(z, torch.rand(4, 2), e).batch_shape == (5, 4)


def test_refusals():
    net = MLP(D, (4,), 6)
    for exposure in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="positive finite exposure"):
            likelihoods.Poisson(net, exposure)
        with pytest.raises(ValueError, match="positive finite inverse_dispersion"):
            likelihoods.NegativeBinomial(net, exposure)
    with pytest.raises(ValueError, match=r"exposure as a number or of shape \(6,\), got \(2,\)"):
        likelihoods.Poisson(net, torch.ones(2))
    with pytest.raises(ValueError, match="the word 'context', got 'library'"):
        likelihoods.Poisson(net, "library")
    with pytest.raises(ValueError, match="df > 1"):
        likelihoods.StudentT(net, 1.0)
    with pytest.raises(ValueError, match="positive finite df"):
        likelihoods.StudentT(net, math.inf)
    for make in (likelihoods.Gamma, likelihoods.LogNormal, likelihoods.Beta, likelihoods.StudentT):
        with pytest.raises(ValueError, match="positive finite min_scale"):
            make(net, min_scale=0.0)
        with pytest.raises(ValueError, match="2 \\*"):
            make(MLP(D, (4,), 5))


@pytest.mark.parametrize(
    ("part", "x", "words"),
    [
        ("Poisson", [[1.0, 2.5]], "whole numbers >= 0"),
        ("Poisson", [[1.0, -2.0]], "whole numbers >= 0"),
        ("NegativeBinomial", [[1.0, -2.0]], "whole numbers >= 0"),
        ("ZeroInflatedNegativeBinomial", [[0.5, 2.0]], "whole numbers >= 0"),
        ("Gamma", [[0.0, 2.0]], "numbers above 0"),
        ("LogNormal", [[0.0, 2.0]], "numbers above 0"),
        ("Beta", [[0.5, 1.0]], "above 0 and below 1"),
        ("Beta", [[0.0, 0.5]], "above 0 and below 1"),
    ],
)
def test_programs_refuse_data_outside_of_the_support(part, x, words):
    vae = VAE(pv.priors.StandardNormal(D), PARTS[part](), pv.guides.DiagonalGaussian(MLP(2, (4,)), D))
    with pytest.raises(ValueError, match=words):
        pv.fit(vae.model, vae.guide, torch.tensor(x * 8), epochs=1)


# ---------------------------------------------------------------------------------------------- by their options

GAUSS = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "x", "mean"),
    [
        ("poisson", (300 * GAUSS.exp()).round(), lambda x: x.mean(0)),
        ("negative-binomial", (300 * GAUSS.exp()).round(), lambda x: x.mean(0)),
        ("gamma", 1e20 * GAUSS.exp(), lambda x: x.mean(0)),
        ("log-normal", 1e20 * GAUSS.exp(), None),
        ("beta", GAUSS.sigmoid(), lambda x: x.mean(0)),
        ("student-t", 50 + GAUSS, lambda x: x.median(0).values),
    ],
)
def test_decoders_start_at_the_data(name, x, mean):
    data = load({"x": x})
    pair = build_pair(ModelOptions(likelihood=name, hidden=(4,), latent_dim=2), data, seed=0)
    p_x = pair.model.__self__.likelihood
    for p in p_x.net.parameters():
        if p is not p_x.net.output_bias:
            nn.init.zeros_(p)
    q = p_x(torch.zeros(1, 2))
    found = q.mean[0] if mean else q.base_dist.loc[0]
    torch.testing.assert_close(
        found, mean(data.train) if mean else data.train.log().mean(0), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("name", "x", "words"),
    [
        ("poisson", GAUSS, "support binary or levels or nonnegative_integer"),
        ("negative-binomial", GAUSS.abs(), "support binary or levels or nonnegative_integer"),
        ("zero-inflated-negative-binomial", -GAUSS.abs().ceil(), "support binary or levels"),
        (
            "gamma",
            GAUSS.relu(),
            "above 0 .in float32. for the gamma .*try --likelihood gaussian or student-t",
        ),
        ("log-normal", GAUSS, "above 0 .in float32. for the log-normal"),
        ("beta", (GAUSS / 3 + 0.5).clamp(0, 1), "above 0 and below 1 .*continuous-bernoulli"),
        ("beta", torch.full((60, 3), 1 - 1e-9, dtype=F64), "above 0 and below 1 .*first 1 at"),
    ],
)
def test_options_refuse_data_that_do_not_suit(name, x, words):
    with pytest.raises(ValueError, match=words):
        build_pair(ModelOptions(likelihood=name), load({"x": x}), seed=0)
