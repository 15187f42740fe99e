"""One contract for all parts: adding a part is one row of `PARTS`."""

import math
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from safetensors.torch import load_file, save_file
from torch import nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from pyrovae import guides, priors
from pyrovae.data import Standardization
from pyrovae.distributions import import_zuko
from pyrovae.guides import (
    Affine,
    DiagonalGaussian,
    FlowGuide,
    FullGaussian,
    LowRankGaussian,
    MixtureGuide,
    Spline,
)
from pyrovae.likelihoods import (
    Bernoulli,
    Binomial,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Gaussian,
    Group,
    HeteroscedasticGaussian,
    Mixed,
    Ordinal,
    PartiallyObserved,
    Standardized,
)
from pyrovae.networks import MLP, ConvDecoder, ConvEncoder, GatedMLP, ResidualBlock
from pyrovae.priors import FlowPrior, GaussianMixture, StandardNormal, VampPrior

X, D = 4, 2  # widths of x and z
UNITS = Standardization((0.3, -0.2), (1.2, 0.8), (False, False))
FOUR = Standardization((0.5,) * X, (0.3,) * X, (False,) * X)


def trunk():
    return MLP(X, (8,))


def decoder(outputs=1):
    return MLP(D, (8,), 2 * outputs)


def flow(univariate=Affine()):  # noqa: B008
    return FlowGuide(trunk(), D, hidden=(8, 8), univariate=univariate)


def spline_guide(net, latent_dim, features=None):
    return FlowGuide(net, latent_dim, features=features, univariate=Spline(4))


GUIDES = [DiagonalGaussian, FullGaussian, LowRankGaussian, FlowGuide, spline_guide, MixtureGuide]


def vamp(guide, **options):
    return VampPrior(guide, torch.rand(3, X), **options)


def given_flow():
    return FlowPrior(import_zuko("flows").MAF(D, hidden_features=(8,), activation=nn.Tanh))


def mixed():
    groups = {
        "narrow": Group(lambda net: Gaussian(net, 0.5), (1,)),
        "wide": Group(HeteroscedasticGaussian, (0,), 2),
    }
    return Mixed(MLP(D, (8,), 3), groups)


def levels_of_two_kinds():
    groups = {
        "ordered": Group(lambda net: Ordinal(net, 4), (1,)),
        "bits": Group(lambda net: Categorical(net, 4), (0,), 4),
    }
    return Mixed(MLP(D, (8,), 5), groups)


def residual():
    return ConvEncoder((2, 2), (4,), 8, block=ResidualBlock)


class Row(NamedTuple):
    make: object
    inputs: int  # width of the input; 0 for a prior
    event: tuple
    levels: int | None = None  # None: continuous, on a grid; else counts below it
    unit: bool = False  # continuous on [0, 1]


PARTS = {
    "StandardNormal": Row(lambda: StandardNormal(D), 0, (D,)),
    "GaussianMixture": Row(lambda: GaussianMixture(D, 3), 0, (D,)),
    "VampPrior-diagonal": Row(lambda: vamp(DiagonalGaussian(trunk(), D), low=0, high=1), 0, (D,)),
    "VampPrior-full": Row(lambda: vamp(FullGaussian(trunk(), D), learn_weights=True), 0, (D,)),
    "VampPrior-flow": Row(lambda: vamp(flow()), 0, (D,)),
    "VampPrior-low-rank": Row(lambda: vamp(LowRankGaussian(trunk(), D)), 0, (D,)),
    "VampPrior-mixture": Row(lambda: vamp(MixtureGuide(trunk(), D, 2)), 0, (D,)),
    "DiagonalGaussianPrior": Row(lambda: priors.DiagonalGaussian(D), 0, (D,)),
    "FlowPrior-spline": Row(lambda: FlowPrior.spline(D, 2, (8,), bins=4), 0, (D,)),
    "FlowPrior-maf": Row(lambda: FlowPrior.maf(D, 2, (8,)), 0, (D,)),
    "FlowPrior-coupling": Row(lambda: FlowPrior.coupling(D, 2, (8,)), 0, (D,)),
    "FlowPrior-given": Row(lambda: given_flow(), 0, (D,)),
    "DiagonalGaussian": Row(lambda: DiagonalGaussian(trunk(), D), X, (D,)),
    "DiagonalGaussian-conv": Row(lambda: DiagonalGaussian(ConvEncoder((2, 2), (8,), 8), D), X, (D,)),
    "FullGaussian": Row(lambda: FullGaussian(trunk(), D), X, (D,)),
    "DiagonalGaussian-gated": Row(lambda: DiagonalGaussian(GatedMLP(X, (8, 8)), D), X, (D,)),
    "DiagonalGaussian-residual": Row(lambda: DiagonalGaussian(residual(), D), X, (D,)),
    "LowRankGaussian": Row(lambda: LowRankGaussian(trunk(), D, 2), X, (D,)),
    "FlowGuide": Row(flow, X, (D,)),
    "FlowGuide-spline": Row(lambda: flow(Spline(4)), X, (D,)),
    "MixtureGuide": Row(lambda: MixtureGuide(trunk(), D, 3), X, (D,)),
    "Bernoulli": Row(lambda: Bernoulli(decoder()), D, (2,), 2),
    "Bernoulli-conv": Row(lambda: Bernoulli(ConvDecoder(D, (8,), (1, 2)), (1, 2)), D, (1, 2), 2),
    "Binomial": Row(lambda: Binomial(decoder(), 3), D, (2,), 4),
    "Gaussian": Row(lambda: Gaussian(decoder(), 0.5), D, (2,)),
    "Gaussian-learned": Row(lambda: Gaussian(decoder(), 0.5, learn_scale=True), D, (2,)),
    "Gaussian-each": Row(lambda: Gaussian(decoder(), torch.tensor([0.5, 2.0]), learn_scale=True), D, (2,)),
    "HeteroscedasticGaussian": Row(lambda: HeteroscedasticGaussian(decoder(2)), D, (2,)),
    "ContinuousBernoulli": Row(lambda: ContinuousBernoulli(decoder()), D, (2,), unit=True),
    "Categorical": Row(lambda: Categorical(decoder(5), 5), D, (2,), 5),
    "Categorical-conv": Row(lambda: Categorical(ConvDecoder(D, (8,), (5, 1, 2)), 5, (1, 2)), D, (1, 2), 5),
    "DiscretizedLogistic": Row(lambda: DiscretizedLogistic(decoder(2), 5), D, (2,), 5),
    "DiscretizedLogisticMixture": Row(lambda: DiscretizedLogisticMixture(decoder(9), 5, 3), D, (2,), 5),
    "DiscretizedLogistic-binary": Row(lambda: DiscretizedLogistic(decoder(2), 2), D, (2,), 2),
    "Ordinal": Row(lambda: Ordinal(decoder(), 4), D, (2,), 4),
    "Ordinal-two": Row(lambda: Ordinal(decoder(), 2), D, (2,), 2),
    "Standardized": Row(lambda: Standardized(Gaussian(decoder(), 0.5), UNITS), D, (2,)),
    "PartiallyObserved": Row(lambda: PartiallyObserved(Gaussian(decoder(), 0.5), torch.zeros(2)), D, (2,)),
    "Mixed": Row(lambda: mixed(), D, (2,)),
    "Mixed-levels": Row(lambda: levels_of_two_kinds(), D, (2,), 4),
    "Standardized-guide": Row(lambda: guides.Standardized(DiagonalGaussian(trunk(), D), FOUR), X, (D,)),
}
LEADS = [(), (3,), (2, 3)]


@pytest.fixture(params=PARTS)
def row(request):
    torch.manual_seed(0)
    return PARTS[request.param]


def build(row, wiggle=0.2):
    """A part away from its start, where a mistake could hide behind an identity."""
    part = row.make()
    with torch.no_grad():
        for p in part.parameters():
            p.add_(wiggle * torch.randn_like(p))
    return part


def call(part, row, lead=(3,), factor=1.0, dtype=torch.float32):
    return part(factor * torch.rand(*lead, row.inputs, dtype=dtype)) if row.inputs else part()


def batch_of(row, lead):
    return lead if row.inputs else ()


@pytest.mark.parametrize("lead", LEADS)
def test_shapes(row, lead):
    part = row.make()
    q = call(part, row, lead)
    assert isinstance(q, dist.torch_distribution.TorchDistributionMixin)
    assert (tuple(q.batch_shape), tuple(q.event_shape)) == (batch_of(row, lead), row.event)
    value = q.sample((5,))
    assert value.shape == (5, *batch_of(row, lead), *row.event)
    assert q.log_prob(value).shape == (5, *batch_of(row, lead))
    assert q.log_prob(value).isfinite().all()
    assert getattr(part, "latent_dim", D) == D


@pytest.mark.parametrize("pathwise", [False, True])
def test_gradients_reach_every_parameter(row, pathwise):
    part = build(row)
    q = call(part, row, (7,))
    if pathwise and not q.has_rsample:
        pytest.skip("not reparameterised")
    value = q() if pathwise else q.sample()
    loss = q.log_prob(value).sum() + (value.square().sum() if pathwise else 0)
    if not loss.requires_grad:
        assert not list(part.parameters())
        return
    loss.backward()
    for name, p in part.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0, name


def test_integrates_to_one(row):
    part = build(row).double()
    q = call(part, row, (1,), dtype=torch.float64)
    with torch.no_grad():
        if row.levels is None:
            low, high = (0, 1) if row.unit else (-16, 16)
            edges = torch.linspace(low, high, 321, dtype=torch.float64)
            axis, cell = (edges[1:] + edges[:-1]) / 2, (edges[1] - edges[0]) ** 2
        else:
            axis, cell = torch.arange(row.levels, dtype=torch.float64), 1.0
        grid = torch.cartesian_prod(axis, axis).reshape(-1, *([1] if row.inputs else []), *row.event)
        assert float((q.log_prob(grid).exp() * cell).sum()) == pytest.approx(1, abs=2e-4)


def test_samples_follow_the_density(row):
    """E[r(x) / p(x)] = 1 for draws x ~ p and another distribution r, within 4 standard errors."""
    q = call(build(row).double(), row, (1,), dtype=torch.float64)
    with torch.no_grad():
        x = q.sample((4000,))
        if row.levels is None:
            r = dist.Normal(x.mean(0), 0.5 * x.std(0)).to_event(len(row.event))
            if row.unit:
                r = dist.Beta(torch.full(row.event, 2.0).double(), 2.0).to_event(len(row.event))
        else:
            r = dist.Binomial(row.levels - 1, torch.full(row.event, 0.5).double()).to_event(len(row.event))
        w = (r.log_prob(x) - q.log_prob(x)).exp().flatten()
    assert abs(w.mean() - 1) < 4 * w.std() / math.sqrt(len(w))


def test_save_and_load(row, tmp_path):
    first, second = build(row), build(row)
    save_file(first.state_dict(), tmp_path / "part.safetensors")
    second.load_state_dict(load_file(tmp_path / "part.safetensors"))
    x = torch.rand(3, row.inputs)
    args = (x,) if row.inputs else ()
    value = first(*args).sample()
    assert torch.equal(first(*args).log_prob(value), second(*args).log_prob(value))


def test_repr(row):
    part = row.make()
    state = torch.get_rng_state()
    assert repr(part).startswith(f"{type(part).__name__}(")
    assert torch.equal(state, torch.get_rng_state()), "printing must not draw random numbers"


def test_particle_plate(row):
    part = row.make()

    def program():
        with pyro.plate("particles", 5, dim=-2), pyro.plate("data", 3, dim=-1):
            return pyro.sample("value", call(part, row))

    trace = poutine.trace(program).get_trace()
    trace.compute_log_prob()
    site = trace.nodes["value"]
    assert site["value"].shape == (5, 3, *row.event)
    assert site["log_prob"].shape == (5, 3)
    assert len(site["value"].flatten(2).unique(dim=0)) > 1, "particles must have noise of their own"


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize("name", [n for n, row in PARTS.items() if row.inputs == D])
def test_likelihoods_train(name, elbo):
    torch.manual_seed(0)
    row = PARTS[name]
    likelihood, prior, guide = build(row), StandardNormal(D), DiagonalGaussian(MLP(2, (4,)), D)
    x = call(likelihood, row, (3,)).sample()

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", likelihood(pyro.sample("z", prior())), obs=x)

    def encode(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", guide(x.flatten(1)))

    loss = elbo(num_particles=4, vectorize_particles=True, max_plate_nesting=1)
    with pyro.validation_enabled():
        value = loss.differentiable_loss(model, encode, x)
    value.backward()
    assert value.isfinite()
    for p in (*likelihood.parameters(), *guide.parameters()):
        assert p.grad is not None and p.grad.isfinite().all()


def test_float64(row):
    q = call(row.make().double(), row, dtype=torch.float64)
    assert q.sample().dtype == torch.float64
    assert q.log_prob(q.sample()).dtype == torch.float64


def test_large_inputs_give_no_nan(row):
    part = build(row, wiggle=1.0)
    q = call(part, row, (50,), factor=100.0)
    value = q()
    assert value.isfinite().all()
    own, other = q.log_prob(value), q.log_prob(value.detach().clone())
    assert own.isfinite().all() and not other.isnan().any()
    if own.requires_grad:
        own.sum().backward()
        assert all(p.grad.isfinite().all() for p in part.parameters())


@pytest.mark.parametrize("make", GUIDES)
def test_guides_take_context_and_plain_networks(make):
    guide = make(MLP(X + 3, (8,)), D)
    assert guide(torch.rand(5, 2, X), torch.rand(2, 3)).batch_shape == (5, 2)
    with pytest.raises(ValueError, match=r"expected inputs of total width 7 .* got 4"):
        guide(torch.rand(5, X))
    with pytest.raises(ValueError, match="features="):
        make(nn.Sequential(nn.Linear(X, 8)), D)
    assert make(nn.Sequential(nn.Linear(X, 8)), D, features=8)(torch.rand(X)).event_shape == (D,)
    with pytest.raises(ValueError, match="expected features=8"):
        make(trunk(), D, features=9)


@pytest.mark.parametrize("dim", [1, 3, 6])
def test_every_latent_dim(dim):
    for make in GUIDES:
        q = make(trunk(), dim)(torch.rand(2, X))
        assert q.log_prob(q()).shape == (2,)


class LogRatio(nn.Module):
    def __init__(self, guide, prior):
        super().__init__()
        self.guide, self.prior = guide, prior

    def forward(self, x):
        q = self.guide(x).expand((5, 3))
        z = q.rsample()
        return (self.prior().log_prob(z) - q.log_prob(z)).sum()


# A VampPrior is made of the guide, and is drawn with each; the others know nothing of it, and take one in turn.
GRAPH_PRIORS = [
    StandardNormal,
    lambda d: GaussianMixture(d, 3),
    FlowPrior.maf,
    FlowPrior.spline,
    FlowPrior.coupling,
    priors.DiagonalGaussian,
]


@pytest.mark.parametrize(
    ("make", "prior"), [*zip(GUIDES, GRAPH_PRIORS, strict=True), *((make, None) for make in GUIDES)]
)
def test_guides_and_priors_become_graphs(make, prior):
    """Loss and gradients in one graph, equal to the eager ones, drawing noise of a fixed law only."""
    torch.manual_seed(0)
    guide = make(trunk(), D)
    program = LogRatio(guide, prior(D) if prior else vamp(guide)).double()
    parameters = {n: p.detach() for n, p in program.named_parameters()}

    def gradients(values, x):
        leaves = {n: v.detach().requires_grad_() for n, v in values.items()}
        return torch.autograd.grad(functional_call(program, leaves, (x,)), list(leaves.values()))

    x = torch.rand(3, X, dtype=torch.float64)
    with pyro.validation_enabled(False):  # its checks read values
        graph = make_fx(gradients, tracing_mode="fake", _allow_non_fake_inputs=True)(parameters, x)
    draws = {
        n.target
        for n in graph.graph.nodes
        if torch.Tag.nondeterministic_seeded in getattr(n.target, "tags", ())
    }
    aten = torch.ops.aten
    assert draws <= {aten.normal_.default, aten.randn.default, aten.rand.default}
    results = []
    for run in (gradients, graph):
        torch.manual_seed(1)
        results.append(run(parameters, x))
    torch.testing.assert_close(*results)
