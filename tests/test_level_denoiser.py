"""The denoiser of levels: exact where elements are independent, and open to what the network adds."""

import functools
import math

import pytest
import torch
from pyro.infer import Trace_ELBO

import pyrovae as pv
from pyrovae.inference import train
from pyrovae.inference.options.building import build
from pyrovae.inference.options.options import ModelOptions
from pyrovae.models.diffusing.diffusion_process import Process
from pyrovae.models.diffusing.emissions import GreyLevels
from pyrovae.models.diffusing.level_denoiser import LevelDenoiser, log_marginals
from pyrovae.models.diffusing.level_networks import LevelMLP, LevelUNet
from pyrovae.models.diffusing.noise_schedules import LinearSchedule
from pyrovae.models.diffusion import DiffusionBound
from pyrovae.programs import inspect_program, module_mode
from pyrovae.training import measure

F64 = torch.float64
P = torch.tensor(
    [[0.7, 0.2, 0.1], [1 / 3, 1 / 3, 1 / 3], [1.0 - 2e-6, 1e-6, 1e-6], [0.1, 0.0 + 0.3, 0.6]], dtype=F64
)


@pytest.fixture(scope="module")
def digits():
    return pv.data.load("digits")


def test_a_new_one_is_bayes_rule_for_independent_elements():
    denoiser = LevelDenoiser(P.log(), LevelMLP(4, 3, width=8, blocks=1)).double()
    torch.manual_seed(0)
    z = torch.randn(5, 4, dtype=F64)
    gamma = torch.linspace(-6, 5, 5, dtype=F64)
    values = torch.tensor([-1.0, 0.0, 1.0], dtype=F64)
    for n in range(5):
        alpha, sigma = torch.sigmoid(-gamma[n]).sqrt(), torch.sigmoid(gamma[n]).sqrt()
        for i in range(4):
            log_p = P[i].log() + torch.distributions.Normal(alpha * values, sigma).log_prob(z[n, i])
            posterior = (log_p - log_p.logsumexp(0)).exp()
            expected = (posterior * (z[n, i] - alpha * values) / sigma).sum()
            torch.testing.assert_close(denoiser(z, gamma)[n, i], expected)


def test_its_bound_on_independent_elements_is_their_entropy():
    """With the best denoiser the continuous bound is -H(x), up to what the ends of the schedule cost."""
    torch.manual_seed(1)
    x = torch.distributions.Categorical(P).sample((20_000,)).double()
    process = Process(
        (4,), LinearSchedule(-9.0, 9.0), LevelDenoiser(P.log(), LevelMLP(4, 3, 8, 1)), GreyLevels(3)
    ).double()
    bound = DiffusionBound(process)
    found = measure(inspect_program(bound.model, bound.guide, x), num_samples=4, seed=2)
    entropy = -float((P * P.log()).sum())
    log_p = P.log().T.gather(0, x.long().reshape(-1, 4)).sum(1)
    # Of the same data; a term of one time has a standard deviation of a few nats, their mean one of 0.012.
    assert abs(found.elbo - float(log_p.mean())) < 0.06 and abs(float(log_p.mean()) + entropy) < 0.05


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_dropout_is_of_training_alone_and_is_traced(digits, network, interpreted):
    net = LevelMLP(64, 17, 16, 1) if network == "mlp" else LevelUNet((8, 8), 17, (8,))
    denoiser = LevelDenoiser(log_marginals(digits.train.flatten(1), 17), net, dropout=0.5)
    torch.nn.init.normal_(net.net.last.weight)
    z, gamma = torch.randn(3, 64), torch.zeros(3)
    with module_mode(denoiser, training=False):
        assert torch.equal(denoiser(z, gamma), denoiser(z, gamma))
    assert not torch.equal(denoiser(z, gamma), denoiser(z, gamma))
    options = ModelOptions(
        model="diffusion", denoiser="levels", network=network, hidden=(16,), channels=(8,), dropout=0.5
    )
    optim = functools.partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.1)
    svi = pv.SVI(*build(options, digits, 0), optim, Trace_ELBO(), compile=True)
    for _ in range(3):
        loss = svi.step(digits.train[:64])
    assert svi.refused is None and math.isfinite(float(loss))


@pytest.mark.parametrize("shape", [(8, 4), (3, 8, 4)])
def test_the_unet_has_elements_and_levels_where_they_belong(shape):
    """Level k of channel c at a pixel is output channel c K + k there; one datum does not hear another."""
    torch.manual_seed(0)
    dim, K = math.prod(shape), 5
    net = LevelUNet(shape, K, (8, 16))
    seen, time = torch.randn(2, 3, 2, dim), torch.randn(2, 3, 32)
    assert torch.equal(net(seen, time), torch.zeros(2, 3, dim, K))
    with torch.no_grad():
        net.net.last.bias.copy_(torch.arange(net.colours * K, dtype=torch.float32))
    expected = torch.arange(net.colours * K).reshape(net.colours, 1, K).expand(-1, dim // net.colours, -1)
    torch.testing.assert_close(net(seen, time)[1, 2], expected.reshape(dim, K).float())
    torch.nn.init.normal_(net.net.last.weight)
    torch.testing.assert_close(net(seen, time)[1, 2], net(seen[1, 2], time[1, 2]), rtol=1e-4, atol=1e-4)


def test_it_starts_where_the_network_of_the_noise_ends(digits):
    """Digits have pixels that never change: exact here from the start, hard to learn for a network of the noise."""
    elbos = {}
    for name in ("noise", "levels"):
        pair = build(ModelOptions(model="diffusion", denoiser=name, hidden=(32,)), digits, 0)
        elbos[name] = measure(inspect_program(*pair, digits.valid), seed=0).elbo
    assert elbos["levels"] > -130 and elbos["levels"] > elbos["noise"] + 100


def test_bad_input(digits, tmp_path, capsys):
    net = LevelMLP(4, 3, 8, 1)
    with pytest.raises(ValueError, match=r"log marginals \[D, K\]"):
        LevelDenoiser(torch.zeros(4), net)
    with pytest.raises(ValueError, match="finite log marginals"):
        LevelDenoiser(torch.tensor([[0.0, -math.inf]]), net)
    with pytest.raises(ValueError, match="0 <= dropout < 1"):
        LevelDenoiser(P.log(), net, dropout=1.0)
    for options, message in (
        ({"denoiser": "levels", "network": "gated"}, "expected --network mlp or conv for a diffusion"),
        ({"denoiser": "levels", "network": "conv", "channels": (4,) * 5}, "can be halved 4 times"),
        ({"dropout": 0.1}, "expected --denoiser levels with --dropout"),
    ):
        with pytest.raises(ValueError, match=message):
            build(ModelOptions(model="diffusion", **options), digits, 0)
    real = pv.data.load(torch.randn(30, 4))
    with pytest.raises(ValueError, match=r"at most 32 levels .* real data"):
        build(ModelOptions(model="diffusion", denoiser="levels"), real, 0)
    argv = ["--out", str(tmp_path / "r"), "--weight-decay", "-1", "--quiet", "--device", "cpu"]
    assert train.main(argv) != 0 and "--weight-decay >= 0" in capsys.readouterr().err
