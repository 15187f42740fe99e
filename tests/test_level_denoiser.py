"""The denoiser of levels: exact where elements are independent, and open to what the network adds."""

import functools
import math

import pytest
import torch
from pyro.infer import Trace_ELBO

import pyrovae as pv
from pyrovae.inference import train
from pyrovae.inference.building import build
from pyrovae.inference.options import ModelOptions
from pyrovae.models.diffusion import DiffusionBound
from pyrovae.models.diffusion_process import Process
from pyrovae.models.emissions import GreyLevels
from pyrovae.models.level_denoiser import LevelDenoiser, log_marginals
from pyrovae.models.noise_schedules import LinearSchedule
from pyrovae.programs import ParameterStore, inspect_program, module_mode
from pyrovae.training import measure

F64 = torch.float64
P = torch.tensor(
    [[0.7, 0.2, 0.1], [1 / 3, 1 / 3, 1 / 3], [1.0 - 2e-6, 1e-6, 1e-6], [0.1, 0.0 + 0.3, 0.6]], dtype=F64
)


@pytest.fixture(autouse=True)
def _own_parameters():
    with ParameterStore().active():
        yield


@pytest.fixture(scope="module")
def digits():
    return pv.data.load("digits")


def test_a_new_one_is_bayes_rule_for_independent_elements():
    denoiser = LevelDenoiser(P.log(), width=8, blocks=1).double()
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
    process = Process((4,), LinearSchedule(-9.0, 9.0), LevelDenoiser(P.log(), 8, 1), GreyLevels(3)).double()
    bound = DiffusionBound(process)
    found = measure(inspect_program(bound.model, bound.guide, x), num_samples=4, seed=2)
    entropy = -float((P * P.log()).sum())
    log_p = P.log().T.gather(0, x.long().reshape(-1, 4)).sum(1)
    # Of the same data; a term of one time has a standard deviation of a few nats, their mean one of 0.012.
    assert abs(found.elbo - float(log_p.mean())) < 0.06 and abs(float(log_p.mean()) + entropy) < 0.05


def test_dropout_is_of_training_alone_and_compiles(digits):
    denoiser = LevelDenoiser(log_marginals(digits.train.flatten(1), 17), 16, 1, dropout=0.5)
    torch.nn.init.normal_(denoiser.net.last.weight)
    z, gamma = torch.randn(3, 64), torch.zeros(3)
    with module_mode(denoiser, training=False):
        assert torch.equal(denoiser(z, gamma), denoiser(z, gamma))
    assert not torch.equal(denoiser(z, gamma), denoiser(z, gamma))
    pair = build(ModelOptions(model="diffusion", denoiser="levels", hidden=(16,), dropout=0.5), digits, 0)
    optim = functools.partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.1)
    svi = pv.SVI(*pair, optim, Trace_ELBO(), compile=True)
    for _ in range(3):
        loss = svi.step(digits.train[:64])
    assert svi.refused is None and math.isfinite(float(loss))


def test_it_starts_where_the_network_of_the_noise_ends(digits):
    """Digits have pixels that never change: exact here from the start, hard to learn for a network of the noise."""
    elbos = {}
    for name in ("noise", "levels"):
        pair = build(ModelOptions(model="diffusion", denoiser=name, hidden=(32,)), digits, 0)
        elbos[name] = measure(inspect_program(*pair, digits.valid), seed=0).elbo
    assert elbos["levels"] > -130 and elbos["levels"] > elbos["noise"] + 100


def test_bad_input(digits, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"log marginals \[D, K\]"):
        LevelDenoiser(torch.zeros(4))
    with pytest.raises(ValueError, match="finite log marginals"):
        LevelDenoiser(torch.tensor([[0.0, -math.inf]]))
    with pytest.raises(ValueError, match="0 <= dropout < 1"):
        LevelDenoiser(P.log(), dropout=1.0)
    for options, message in (
        ({"denoiser": "levels", "network": "conv"}, "expected --network mlp for --denoiser levels"),
        ({"dropout": 0.1}, "expected --denoiser levels with --dropout"),
    ):
        with pytest.raises(ValueError, match=message):
            build(ModelOptions(model="diffusion", **options), digits, 0)
    real = pv.data.load(torch.randn(30, 4))
    with pytest.raises(ValueError, match=r"at most 32 levels .* real data"):
        build(ModelOptions(model="diffusion", denoiser="levels"), real, 0)
    argv = ["--out", str(tmp_path / "r"), "--weight-decay", "-1", "--quiet", "--device", "cpu"]
    assert train.main(argv) != 0 and "--weight-decay >= 0" in capsys.readouterr().err
