"""What holds for one part alone: correlations, flows' inverses, pseudo-inputs, options refused."""

import itertools
import math
import sys

import pyro.distributions as dist
import pytest
import torch
from safetensors.torch import load_model, save_model
from torch import nn

from pyrovae import networks as nets
from pyrovae import priors
from pyrovae.distributions import PathwiseMixture, import_zuko
from pyrovae.guides import (
    DiagonalGaussian,
    FlowGuide,
    LowRankGaussian,
    MixtureGuide,
    Spline,
)
from pyrovae.likelihoods import (
    Bernoulli,
    Binomial,
    Categorical,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Gaussian,
    HeteroscedasticGaussian,
)
from pyrovae.networks import MLP, ConvDecoder, ConvEncoder, GatedMLP, Rescale, ResidualBlock
from pyrovae.priors import FlowPrior, GaussianMixture, StandardNormal, VampPrior

from .test_parts import GUIDES, PARTS, D, X, build, call, decoder, flow, spline_guide, trunk, vamp


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
