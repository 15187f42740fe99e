"""One contract for all parts: adding a part is one row of `PARTS`."""

import itertools
import math
import sys
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from pyrovae import networks as nets
from pyrovae import priors
from pyrovae.distributions import PathwiseMixture, import_zuko
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
    HeteroscedasticGaussian,
)
from pyrovae.networks import MLP, ConvDecoder, ConvEncoder, GatedMLP, Rescale, ResidualBlock
from pyrovae.priors import FlowPrior, GaussianMixture, StandardNormal, VampPrior

X, D = 4, 2  # widths of x and z


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


@pytest.mark.parametrize(
    "prior",
    [
        StandardNormal,
        lambda d: GaussianMixture(d, 3),
        FlowPrior.maf,
        FlowPrior.spline,
        FlowPrior.coupling,
        None,
    ],
)
@pytest.mark.parametrize("make", GUIDES)
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


def test_full_gaussian_correlates():
    guide = build(PARTS["FullGaussian"], wiggle=1.0)
    q = guide(torch.rand(X))
    assert q.covariance_matrix[0, 1].abs() > 1e-2
    assert torch.linalg.eigvalsh(q.covariance_matrix).min() > 0


@pytest.mark.parametrize("name", ["FlowGuide", "FlowGuide-spline"])
def test_flow_keeps_the_density_of_its_own_sample(name):
    torch.manual_seed(0)
    guide = build(PARTS[name], wiggle=0.5).double()
    x = torch.rand(3, X, dtype=torch.float64)
    q = guide(x).expand((5, 3))
    z = q.rsample()
    kept, inverse = q.log_prob(z), q.log_prob(z.clone())
    torch.testing.assert_close(kept, inverse, rtol=1e-9, atol=1e-9)
    # The gradients agree too, through the sample and through the density.
    kept, inverse = (
        torch.autograd.grad(v.sum(), guide.head.weight, retain_graph=True)[0] for v in (kept, inverse)
    )
    torch.testing.assert_close(kept, inverse, rtol=1e-6, atol=1e-6)
    # After sample() there is no graph to reuse: the density must be worked out anew.
    assert q.log_prob(q.sample()).requires_grad
    with pytest.raises(ValueError, match="transforms >= 1"):
        FlowGuide(trunk(), D, transforms=0)


@pytest.mark.parametrize("make", [FlowGuide, spline_guide])
def test_flow_starts_near_its_base(make):
    guide = make(trunk(), D)
    q = guide(torch.rand(100, X))
    z = q()
    assert (q.log_prob(z) - q.base.log_prob(z)).abs().max() < 0.5


@pytest.mark.parametrize("make", [FlowPrior.spline, FlowPrior.maf, FlowPrior.coupling])
def test_flow_prior_scores_in_one_pass_and_starts_near_the_standard_normal(make, dim=5):
    prior = make(dim, transforms=2)
    q = prior()
    calls = []
    prior.flow.transform.transforms[0].hyper.register_forward_hook(lambda *_: calls.append(1))
    z = torch.randn(50, dim)
    p = q.log_prob(z)
    assert len(calls) == 1
    assert (p - StandardNormal(dim)().log_prob(z)).abs().max() < 0.5
    one = make(1)()
    assert one.log_prob(one.sample((3,))).shape == (3,)
    far = 100 * torch.randn(50, dim)
    assert q.log_prob(far).isfinite().all()
    z = q.rsample((20,))
    torch.testing.assert_close(q.log_prob(z), q.log_prob(z.clone()), rtol=1e-4, atol=1e-4)
    for bad in ({"latent_dim": 0}, {"latent_dim": 2, "transforms": 0}):
        with pytest.raises(ValueError, match="latent_dim >= 1 and transforms >= 1"):
            make(**bad)


def test_flow_prior_refuses_other_flows():
    flows = import_zuko("flows")
    with pytest.raises(ValueError, match="without context"):
        FlowPrior(flows.MAF(2, context=3))
    with pytest.raises(ValueError, match="diagonal normal base"):
        FlowPrior(flows.NCSF(2))
    with pytest.raises(ValueError, match="expected a zuko flow"):
        FlowPrior(nn.Linear(2, 2))


def test_low_rank_gaussian_correlates_within_its_rank():
    torch.manual_seed(0)
    guide = LowRankGaussian(trunk(), 6, 2)
    with torch.no_grad():
        guide.head.weight.mul_(1e4)
    q = guide(torch.rand(50, X))
    assert q.log_prob(q.sample()).isfinite().all()
    correlation = q.covariance_matrix / (q.stddev.unsqueeze(-1) * q.stddev.unsqueeze(-2))
    assert correlation[..., 0, 1].abs().max() > 0.9
    for rank in (0, 7):
        with pytest.raises(ValueError, match="1 <= rank <= latent_dim=6"):
            LowRankGaussian(trunk(), 6, rank)


def test_mixture_guide_has_modes_and_refuses_none():
    torch.manual_seed(0)
    guide = MixtureGuide(trunk(), D, 3)
    with torch.no_grad():
        guide.head.weight.mul_(20)
    q = guide(torch.rand(X))
    assert isinstance(q, PathwiseMixture) and q.loc.std(0).min() > 1
    with pytest.raises(ValueError, match="num_components >= 1"):
        MixtureGuide(trunk(), D, 0)
    with pytest.raises(ValueError, match="bins >= 2 and bound > 0"):
        Spline(bound=0.0)
    for make in (Spline, lambda bins: FlowPrior.spline(D, bins=bins)):
        with pytest.raises(ValueError, match="bins >= 2"):
            make(bins=1)


def test_importing_zuko_leaves_validation_as_it_was(monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "zuko"]:
        monkeypatch.delitem(sys.modules, name)
    assert torch.distributions.Distribution._validate_args
    flow()
    assert torch.distributions.Distribution._validate_args


def test_vamp_encodes_once_a_call_and_shares_the_guide():
    guide = DiagonalGaussian(trunk(), D)
    calls = []
    guide.net.register_forward_hook(lambda *_: calls.append(1))
    prior = vamp(guide)
    p = prior()
    p.expand((4, 3)).log_prob(p.sample((4, 3)))
    assert len(calls) == 1
    both = nn.ModuleDict({"guide": guide, "prior": prior})
    assert len(list(both.parameters())) == len(list(guide.parameters())) + 1
    guide.head.bias.data += 1
    assert not torch.equal(prior().mean, p.mean)
    q = guide(prior.pseudo_inputs)
    naive = dist.MixtureSameFamily(dist.Categorical(logits=prior.logits), q)
    z = torch.randn(50, D)
    torch.testing.assert_close(prior().log_prob(z), naive.log_prob(z), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", GUIDES)
def test_vamp_and_its_guide_survive_one_file(make, tmp_path):
    def both():
        guide = make(trunk(), D)
        return nn.ModuleDict({"guide": guide, "prior": vamp(guide)})

    first, second = both(), both()
    save_model(first, str(tmp_path / "both.safetensors"))
    load_model(second, str(tmp_path / "both.safetensors"))
    z = torch.randn(4, D)
    assert torch.equal(first["prior"]().log_prob(z), second["prior"]().log_prob(z))
    assert second["prior"].guide is second["guide"]


def test_vamp_pseudo_inputs():
    guide = DiagonalGaussian(trunk(), D)
    start = 16 * torch.rand(5, X)
    prior = VampPrior(guide, start, low=0, high=16)
    torch.testing.assert_close(
        prior.pseudo_inputs.clamp(0.16, 15.84), start.clamp(0.16, 15.84), rtol=1e-4, atol=1e-4
    )
    prior.raw_pseudo_inputs.data.fill_(1e4)
    assert prior.pseudo_inputs.max() <= 16
    torch.testing.assert_close(VampPrior(guide, start).pseudo_inputs.detach(), start)
    for bad, options in itertools.chain(
        [(torch.rand(0, X), {}), (torch.rand(X), {})],
        [(start, {"low": 0}), (start, {"low": 0, "high": 1}), (start, {"low": 20, "high": 0})],
    ):
        with pytest.raises(ValueError, match="expected"):
            VampPrior(guide, bad, **options)
    with pytest.raises(ValueError, match="expected inputs of total width 4"):
        VampPrior(guide, torch.rand(5, X + 1))()
    with pytest.raises(ValueError, match="expected components of batch shape"):
        VampPrior(guide, torch.rand(5, 2, X))()


def test_wrong_options_of_likelihoods_and_priors():
    for scale in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="positive finite scale"):
            Gaussian(decoder(), scale)
    for scale in ([0.5, 0.0], [0.5, -1.0]):
        with pytest.raises(ValueError, match="positive finite scale"):
            Gaussian(decoder(), torch.tensor(scale))
    with pytest.raises(ValueError, match=r"of shape \(2,\), got \(3,\)"):
        Gaussian(decoder(), torch.ones(3))
    for floor in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="positive finite min_scale"):
            HeteroscedasticGaussian(decoder(2), floor)
    for make in (Categorical, DiscretizedLogistic, DiscretizedLogisticMixture):
        with pytest.raises(ValueError, match="levels >= 2"):
            make(decoder(2), 1)
    with pytest.raises(ValueError, match="num_components >= 1"):
        DiscretizedLogisticMixture(decoder(3), 4, 0)
    with pytest.raises(ValueError, match="expected out_features = 3 \\*"):
        Categorical(decoder(), 3)
    with pytest.raises(ValueError, match=r"out_features = 3 \* prod\(4,\) = 12, got 6"):
        Categorical(decoder(3), 3, (4,))
    with pytest.raises(ValueError, match="total_count"):
        Binomial(decoder(), 0)
    with pytest.raises(ValueError, match="got 2"):
        Bernoulli(decoder(), event_shape=(3,))
    with pytest.raises(ValueError, match="event_shape="):
        Bernoulli(nn.Sequential(nn.Linear(D, 2)))
    with pytest.raises(ValueError, match="expected a network output of width"):
        Bernoulli(nn.Sequential(nn.Linear(D, 2)), event_shape=(3,))(torch.rand(D))
    for bad in (lambda: StandardNormal(0), lambda: GaussianMixture(2, 0), lambda: priors.DiagonalGaussian(0)):
        with pytest.raises(ValueError, match="expected"):
            bad()


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (3, 7, 5), (1, 9)])
def test_convolutions(shape):
    size = math.prod(shape)
    encoder = ConvEncoder(shape, (4, 6), 10, context_features=2, preprocess=Rescale(1 / 16))
    x, c = torch.randint(0, 17, (2, 3, *shape)), torch.rand(3, 2)
    out = encoder(x, c)
    assert out.shape == (2, 3, 10)
    assert encoder(x[:1], c).shape == (1, 3, 10) and encoder(x[1, :1], c[:1]).shape == (1, 10)
    torch.testing.assert_close(encoder(x.flatten(-len(shape)).float(), c), out)
    torch.testing.assert_close(encoder(x[1, 2], c[2]), out[1, 2], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"expected images of shape .* got \(2, 3\)"):
        encoder(torch.rand(2, 3), c)
    with pytest.raises(ValueError, match="expected inputs of total width"):
        encoder(x)
    net = ConvDecoder(5, (6, 4), shape, context_features=2)
    assert net.out_features == size
    assert net(torch.rand(2, 3, 5), c).shape == (2, 3, size)
    assert net(torch.rand(5), c[0]).shape == (size,)


def test_scales_of_gaussians():
    z = torch.rand(3, D)
    each = Gaussian(decoder(), torch.tensor([0.5, 2.0]))(z)
    torch.testing.assert_close(each.stddev, torch.tensor([0.5, 2.0]).expand(3, 2))
    assert not list(p for n, p in Gaussian(decoder(), torch.ones(2)).named_parameters() if "scale" in n)
    shared = Gaussian(decoder(), 0.1, True)
    assert shared.log_scale.shape == () and shared.log_scale.requires_grad
    given = HeteroscedasticGaussian(decoder(2), 0.1)
    with torch.no_grad():
        given.net.output_bias.copy_(torch.tensor([1.0, 2.0, -50.0, 0.0]))
        given.net.layers[-1].weight.zero_()
    torch.testing.assert_close(given(z).mean[0], torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(given(z).stddev[0], torch.tensor([0.1, 1.1]))


@pytest.mark.parametrize("name", [n for n, row in PARTS.items() if row.levels or row.unit])
def test_means_and_support_of_bounded_likelihoods(name):
    torch.manual_seed(0)
    row = PARTS[name]
    q = call(build(row), row, (3,))
    x = q.sample((4000,))
    assert ((x.mean(0) - q.mean).abs() < 5 * x.std(0) / math.sqrt(len(x)) + 1e-3).all()
    top = 1 if row.unit else row.levels - 1
    assert x.dtype == torch.float32 and x.min() >= 0 and x.max() <= top
    assert q.support.check(x).all() and not q.support.check(x + 1 + top).any()
    with pytest.raises(ValueError, match="support"):
        q.log_prob(x[0] + 1 + top)


def test_gated_layers():
    net = GatedMLP(5, (4, 3), 2, preprocess=Rescale(0.5))
    x, c = torch.rand(6, 1, 3), torch.rand(2, 2)
    assert net(x, c).shape == (6, 2, 2) and GatedMLP(5, (4,)).out_features == 4
    h = torch.cat([0.5 * x.expand(6, 2, 3), c.expand(6, 2, 2)], -1)
    for gate in net.gates:
        (w1, w2), (b1, b2) = gate.weight.chunk(2), gate.bias.chunk(2)
        h = (h @ w1.T + b1) * torch.sigmoid(h @ w2.T + b2)
    torch.testing.assert_close(net(x, c), net.last(h))
    nets.set_output_bias(net, torch.ones(2))
    assert (net.output_bias == 1).all()
    with pytest.raises(ValueError, match="ends in a gate"):
        GatedMLP(5, (4,)).output_bias  # noqa: B018
    with pytest.raises(ValueError, match="at least one gated layer"):
        GatedMLP(5, ())


def test_convolutional_pairs():
    encoder, decoder = nets.keras_conv_pair(2)
    # The counts of the Keras summary, with one output bias for each pixel and no heads: 69,076 - 2 * 34.
    assert sum(p.numel() for p in encoder.parameters()) == 69_008
    assert sum(p.numel() for p in decoder.parameters()) == 65_089 - 1 + 784
    for shape in ((28, 28), (3, 7, 5)):
        for encoder, decoder in (
            nets.keras_conv_pair(2, shape),
            nets.residual_conv_pair(2, shape, (4, 6), 10),
        ):
            assert encoder(torch.rand(2, 3, *shape)).shape == (2, 3, encoder.out_features)
            assert decoder(torch.rand(2, 3, 2)).shape == (2, 3, math.prod(shape))
            nets.set_output_bias(decoder, torch.zeros(shape))
    assert sum(isinstance(m, ResidualBlock) for m in (*encoder.modules(), *decoder.modules())) == 4
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(ResidualBlock(4)(x), x)
    with pytest.raises(ValueError, match="last_stride"):
        ConvDecoder(2, (4,), (8, 8), last_stride=3)


def test_mlp_and_helpers():
    net = MLP(5, (4,), 3, nn.ReLU, preprocess=Rescale(0.5, 1.0))
    assert net.out_features == 3 and MLP(5, (4,)).out_features == 4
    assert net(torch.rand(6, 1, 3), torch.rand(2, 2)).shape == (6, 2, 3)
    x = torch.rand(5)
    torch.testing.assert_close(net(x), net.layers(x * 0.5 + 1.0))
    with pytest.raises(ValueError, match="at least one layer"):
        MLP(5, ())
    data = torch.tensor([[0, 4, 16], [0, 12, 16]])
    bias = nets.logit_of_mean(data, high=16)
    torch.testing.assert_close(bias.sigmoid(), torch.tensor([0.001, 0.5, 0.999]))
    for target in (net, ConvDecoder(2, (3,), (1, 3))):
        nets.set_output_bias(target, bias)
        torch.testing.assert_close(target.output_bias.detach(), bias)
        with pytest.raises(ValueError, match="expected a bias of 3"):
            nets.set_output_bias(target, torch.zeros(2))
    for target in (MLP(5, (4,)), nn.Linear(2, 2)):
        with pytest.raises(ValueError, match="expected a network"):
            nets.set_output_bias(target, torch.zeros(4))
    assert nets.positive_scale(torch.zeros(())) == pytest.approx(1, abs=2e-4)
    extremes = nets.positive_scale(torch.tensor([-1e6, 1e6]))
    assert extremes.isfinite().all() and (extremes > 0).all()
