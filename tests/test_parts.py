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
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn

from pyrovae import networks as nets
from pyrovae.guides import DiagonalGaussian, FlowGuide, FullGaussian
from pyrovae.likelihoods import Bernoulli, Binomial, Gaussian
from pyrovae.networks import MLP, ConvDecoder, ConvEncoder, Rescale
from pyrovae.priors import GaussianMixture, StandardNormal, VampPrior

X, D = 4, 2  # widths of x and z


def trunk():
    return MLP(X, (8,))


def decoder():
    return MLP(D, (8,), 2)


def flow():
    return FlowGuide(trunk(), D, hidden=(8, 8))


def vamp(guide, **options):
    return VampPrior(guide, torch.rand(3, X), **options)


class Row(NamedTuple):
    make: object
    inputs: int  # width of the input; 0 for a prior
    event: tuple
    levels: int | None = None  # None: continuous, on a grid; else counts below it


PARTS = {
    "StandardNormal": Row(lambda: StandardNormal(D), 0, (D,)),
    "GaussianMixture": Row(lambda: GaussianMixture(D, 3), 0, (D,)),
    "VampPrior-diagonal": Row(lambda: vamp(DiagonalGaussian(trunk(), D), low=0, high=1), 0, (D,)),
    "VampPrior-full": Row(lambda: vamp(FullGaussian(trunk(), D), learn_weights=True), 0, (D,)),
    "VampPrior-flow": Row(lambda: vamp(flow()), 0, (D,)),
    "DiagonalGaussian": Row(lambda: DiagonalGaussian(trunk(), D), X, (D,)),
    "DiagonalGaussian-conv": Row(lambda: DiagonalGaussian(ConvEncoder((2, 2), (8,), 8), D), X, (D,)),
    "FullGaussian": Row(lambda: FullGaussian(trunk(), D), X, (D,)),
    "FlowGuide": Row(flow, X, (D,)),
    "Bernoulli": Row(lambda: Bernoulli(decoder()), D, (2,), 2),
    "Bernoulli-conv": Row(lambda: Bernoulli(ConvDecoder(D, (8,), (1, 2)), (1, 2)), D, (1, 2), 2),
    "Binomial": Row(lambda: Binomial(decoder(), 3), D, (2,), 4),
    "Gaussian": Row(lambda: Gaussian(decoder(), 0.5), D, (2,)),
    "Gaussian-learned": Row(lambda: Gaussian(decoder(), 0.5, learn_scale=True), D, (2,)),
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
            axis = torch.linspace(-16, 16, 321, dtype=torch.float64)
            cell = (axis[1] - axis[0]) ** 2
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


@pytest.mark.parametrize("make", [DiagonalGaussian, FullGaussian, FlowGuide])
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
    for make in (DiagonalGaussian, FullGaussian, FlowGuide):
        q = make(trunk(), dim)(torch.rand(2, X))
        assert q.log_prob(q()).shape == (2,)


def test_full_gaussian_correlates():
    guide = build(PARTS["FullGaussian"], wiggle=1.0)
    q = guide(torch.rand(X))
    assert q.covariance_matrix[0, 1].abs() > 1e-2
    assert torch.linalg.eigvalsh(q.covariance_matrix).min() > 0


def test_flow_keeps_the_density_of_its_own_sample():
    torch.manual_seed(0)
    guide = build(PARTS["FlowGuide"], wiggle=0.5).double()
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


def test_flow_starts_near_its_base():
    guide = FlowGuide(trunk(), D)
    q = guide(torch.rand(100, X))
    z = q()
    assert (q.log_prob(z) - q.base.log_prob(z)).abs().max() < 0.5


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


@pytest.mark.parametrize("make", [DiagonalGaussian, FullGaussian, FlowGuide])
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
    with pytest.raises(ValueError, match="total_count"):
        Binomial(decoder(), 0)
    with pytest.raises(ValueError, match="got 2"):
        Bernoulli(decoder(), event_shape=(3,))
    with pytest.raises(ValueError, match="event_shape="):
        Bernoulli(nn.Sequential(nn.Linear(D, 2)))
    with pytest.raises(ValueError, match="expected a network output of width"):
        Bernoulli(nn.Sequential(nn.Linear(D, 2)), event_shape=(3,))(torch.rand(D))
    for bad in (lambda: StandardNormal(0), lambda: GaussianMixture(2, 0)):
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
