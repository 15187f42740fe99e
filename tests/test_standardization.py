"""Standardised columns: the evidence is that of the data in their own units, and so is all that is drawn."""

import json
import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import lognorm, multivariate_normal
from torch import nn

import pyrovae as pv
from pyrovae import distributions, guides, likelihoods, networks, priors
from pyrovae.data import Standardization, prepared
from pyrovae.models.composing.architectures import Perceptrons
from pyrovae.models.composing.vae import compose, vamp
from pyrovae.models.vae import VAE

D = 3
CENTER, SCALE = (5.0e4, -2.0, 3e-5), (1.0e4, 0.5, 1e-6)


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Affine(nn.Module):
    out_features = D

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, z):
        return z @ self.weight.T + self.bias


class Posterior(nn.Module):
    """The exact one of a linear-Gaussian model."""

    latent_dim = 2

    def __init__(self, weight, bias, noise):
        super().__init__()
        self.model = pv_linear(weight, bias, noise)

    def forward(self, x):
        return self.model.posterior(x)


def pv_linear(weight, bias, noise):
    from pyrovae.models.linear_gaussian import LinearGaussian

    return LinearGaussian(weight, bias, noise, learn=False)


def test_the_evidence_does_not_change(double):
    """W, b and Psi in standardised units make W s, c + s b and s^2 Psi in own ones, whose evidence is known."""
    random = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(D, 2, generator=random), torch.randn(D, generator=random)
    noise = torch.tensor([0.3, 0.7, 0.1])
    center, scale = torch.tensor(CENTER), torch.tensor(SCALE)
    units = Standardization(CENTER, SCALE, (False,) * D)
    vae = VAE(
        prior=priors.StandardNormal(2),
        likelihood=likelihoods.Standardized(likelihoods.Gaussian(Affine(weight, bias), noise.sqrt()), units),
        guide=guides.Standardized(Posterior(weight, bias, noise), units),
    )
    own_weight, own_bias = scale[:, None] * weight, center + scale * bias
    covariance = own_weight @ own_weight.T + (scale**2 * noise).diag()
    x = own_bias + torch.randn(50, D, generator=random) @ torch.linalg.cholesky(covariance).T
    found = pv.log_weights(vae.model, vae.guide, x, num_samples=3)
    # Each number by its own factor, so that SciPy needs no inverse of numbers that are 10^20 apart.
    t = ((x - center) / scale).numpy()
    inner = multivariate_normal(bias.numpy(), (weight @ weight.T + noise.diag()).numpy()).logpdf(t)
    exact = inner - np.log(np.array(SCALE)).sum()
    np.testing.assert_allclose(found.numpy(), np.broadcast_to(exact, (3, 50)), rtol=0, atol=1e-9)
    own = pv_linear(own_weight, own_bias, scale**2 * noise)
    direct = pv.log_weights(own.model, own.guide, x, num_samples=3)
    np.testing.assert_allclose(found.numpy(), direct.numpy(), rtol=0, atol=1e-9)


def test_logarithms_are_scipys(double):
    units = Standardization((1.5,), (0.7,), (True,))
    law = distributions.Standardized(
        torch_normal(torch.tensor([[0.2], [0.2]]), torch.tensor([[0.5], [0.5]])), *units.tensors()
    )
    x = torch.tensor([[0.3], [20.0]])
    exact = lognorm(0.7 * 0.5, scale=math.exp(1.5 + 0.7 * 0.2))
    np.testing.assert_allclose(law.log_prob(x).numpy(), exact.logpdf(x[:, 0].numpy()), rtol=1e-12)
    np.testing.assert_allclose(law.mean[:, 0].numpy(), exact.mean(), rtol=1e-12)
    torch.manual_seed(0)
    drawn = law.sample((20000,))[:, 0, 0].numpy()
    assert abs(np.log(drawn).mean() - (1.5 + 0.7 * 0.2)) < 4 * 0.35 / math.sqrt(20000)
    assert not law.support.check(torch.tensor([[-1.0]])).any() and law.support.check(x).all()


def torch_normal(loc, scale):
    import pyro.distributions as dist

    return dist.Normal(loc, scale).to_event(1)


def test_there_and_back(double):
    units = Standardization(CENTER, SCALE, (False, False, True))
    x = torch.tensor([[4.9e4, -2.3, 1e-5], [6e4, math.nan, 2e-4]])
    back = units.inverse(units.forward(x))
    np.testing.assert_allclose(back.numpy(), x.numpy(), rtol=1e-13)
    x = x[:1].clone().requires_grad_()
    (slope,) = torch.autograd.grad(units.forward(x).sum(), x)
    np.testing.assert_allclose(units.log_jacobian(x).detach().numpy(), slope.log().numpy(), rtol=1e-12)
    assert Standardization.from_json(units.to_json()) == units


def table(n=200):
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"price": random.lognormal(8, 1, n), "height": random.normal(1.7, 0.1, n)})
    frame["mass"] = 2e-5 * frame.height + random.normal(0, 1e-6, n)
    return frame


def test_means_and_scales_of_the_training_rows():
    data = pv.data.load(table(), standardize=True, log=["price"])
    units, frame = data.spec.standardization, table()
    rows = frame.iloc[data.rows["train"].numpy()]
    np.testing.assert_allclose(
        units.center, [np.log(rows.price).mean(), rows.height.mean(), rows.mass.mean()], rtol=1e-6
    )
    np.testing.assert_allclose(
        units.scale,
        [np.log(rows.price).std(ddof=0), rows.height.std(ddof=0), rows.mass.std(ddof=0)],
        rtol=1e-5,
    )
    np.testing.assert_allclose(data.train[:, 0].numpy(), rows.price, rtol=1e-6)  # in their own units
    inner = prepared(data)
    assert (
        inner.train.mean(0).abs().max() < 1e-5 and (inner.train.std(0, correction=0) - 1).abs().max() < 1e-4
    )


@pytest.mark.parametrize("prior", [None, "vamp"])
def test_what_is_composed_draws_in_own_units(prior):
    data = pv.data.load(table(), standardize=True, log=["price"])
    torch.manual_seed(0)
    vae = compose(data, Perceptrons((8,)), 2, prior=vamp(data, 3) if prior else None)
    x = pv.simulate(vae.model, 3000, data.train[:1]).x
    for i, of in enumerate((torch.log, lambda v: v, lambda v: v)):
        spread = of(data.train[:, i]).std()
        # An untrained decoder is near 0 in standardised units, with a scale of 1 to 2.
        assert abs(of(x[:, i]).mean() - of(data.train[:, i]).mean()) < spread
        assert 0.5 * spread < of(x[:, i]).std() < 3 * spread
    inner = compose(prepared(data), Perceptrons((8,)), 2, prior=vamp(data, 3) if prior else None)
    for own, there in (
        (vae.prior, inner.prior),
        (vae.likelihood.likelihood, inner.likelihood),
        (vae.q.guide, inner.q),
    ):
        there.load_state_dict(own.state_dict())
    a = pv.log_weights(vae.model, vae.guide, data.test, num_samples=4, seed=3)
    b = pv.log_weights(inner.model, inner.guide, prepared(data).test, num_samples=4, seed=3)
    jacobian = data.spec.standardization.log_jacobian(data.test).sum(-1)
    np.testing.assert_allclose(a.detach(), (b + jacobian).detach(), atol=2e-3)


def test_a_run_keeps_its_units(tmp_path, capsys):
    from pyrovae.inference import evaluate, sample, train

    table().to_csv(tmp_path / "table.csv", index=False)
    small = ["--epochs", "2", "--hidden", "8", "--latent-dim", "2", "--device", "cpu", "--quiet"]
    out = tmp_path / "run"
    named = ["--data", str(tmp_path / "table.csv"), "--standardize", "--log-columns", "price"]
    assert train.main([*named, "--out", str(out), *small]) == 0
    assert evaluate.main([str(out), "--num-samples", "20", "--device", "cpu", "--quiet"]) == 0
    assert sample.main([str(out), "--num", "400", "--device", "cpu", "--quiet"]) == 0
    capsys.readouterr()
    run = pv.load(out, device="cpu")
    assert run.spec.standardization == run.data.spec.standardization is not None
    drawn = np.load(out / "samples.npz")["x"]
    assert (drawn[:, 0] > 0).all() and 500 < np.median(drawn[:, 0]) < 20000
    mean = run.reconstruct().mean
    assert 1 < mean[:, 1].mean() < 2.4 and run.embed().shape == (40, 2)
    config = json.loads((out / "config.json").read_text())
    config["data"]["log_columns"] = []
    (out / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="description"):
        pv.load(out, device="cpu")


@pytest.mark.parametrize("model", ["linear-gaussian", "diffusion", "rbm"])
def test_models_that_do_not_take_it(model, tmp_path, capsys):
    from pyrovae.inference import train

    table().to_csv(tmp_path / "table.csv", index=False)
    for option in (["--standardize"], ["--missing", "ignore"]):
        options = ["--data", str(tmp_path / "table.csv"), *option, "--model", model, "--epochs", "1"]
        assert train.main([*options, "--out", str(tmp_path / "run"), "--device", "cpu", "--quiet"]) == 2
        assert f"expected no {option[0]} with --model {model}" in capsys.readouterr().err


def test_refusals():
    frame = table()
    with pytest.raises(ValueError, match="'height'"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pv.data.load(frame.assign(height=1.7), standardize=True)
    with pytest.raises(ValueError, match="positive numbers in 'height'"):
        pv.data.load(frame.assign(height=frame.height - 2), standardize=True, log=["height"])
    with pytest.raises(ValueError, match="'prize'"):
        pv.data.load(frame, standardize=True, log=["prize"])
    with pytest.raises(ValueError, match="standardize=True with log"):
        pv.data.load(frame, log=["price"])
    with pytest.raises(ValueError, match="names of columns"):
        pv.data.load(frame, standardize=True, log="price")
    with pytest.raises(ValueError, match="whole numbers"):
        pv.data.load(np.arange(40.0).reshape(20, 2), standardize=True)
    with pytest.raises(ValueError, match="rows"):
        pv.data.load(np.random.default_rng(0).normal(size=(20, 2, 2)), standardize=True)
    with pytest.raises(ValueError, match="binarise=None"):
        pv.data.load("digits", standardize=True, binarise="static")
    with pytest.raises(ValueError, match="True or False"):
        pv.data.load(frame, standardize="yes")
    with pytest.raises(ValueError, match="independent"):
        distributions.Standardized(
            torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2)),
            *Standardization((0.0, 0.0), (1.0, 1.0), (False, False)).tensors(),
        )
    for center, scale in (((0.0,), (0.0,)), ((math.nan,), (1.0,)), ((0.0, 1.0), (1.0,))):
        with pytest.raises(ValueError, match="expected"):
            Standardization(center, scale, (False,))


def test_scales_far_from_one_warn():
    with pytest.warns(UserWarning, match=r"price \(.*mass \("):
        pv.data.load(table())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pv.data.load(table(), standardize=True)
        pv.data.load(table()[["height"]])


def test_inputs_of_a_table():
    x = torch.tensor([[0.5, 2.0, 3.0], [torch.nan, torch.nan, torch.nan]])
    module = networks.TableInputs([0, 3, 0], counts=[False, False, True], missing=True)
    found = module(x.expand(2, 2, 3))
    exact = [[0.5, math.log(4), 0, 0, 1, 1, 1, 1], [0] * 8]
    np.testing.assert_allclose(found[1].numpy(), exact, rtol=1e-6)
    assert module.out_features == 8
    with pytest.raises(ValueError, match="categories"):
        networks.TableInputs([1])


def test_streams_refuse_what_float32_does_not_tell_apart(tmp_path):
    seconds = 1.7e9 + np.random.default_rng(0).normal(size=(50, 2))
    np.save(tmp_path / "x.npy", seconds)
    for source in (str(tmp_path / "x.npy"), torch.utils.data.TensorDataset(torch.tensor(seconds))):
        with pytest.raises(ValueError, match="float32 tells apart"):
            pv.data.Stream(source)
    np.save(tmp_path / "x.npy", seconds - 1.7e9)
    assert pv.data.Stream(str(tmp_path / "x.npy")).sample[0].dtype == torch.float32


def test_files_of_other_encodings_and_separators(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes("größe,b\n1,2\n3,4\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"UTF-8.*latin-1"):
        pv.data.load(path)
    path.write_text("a;b\n1;2\n3;4\n")
    with pytest.raises(ValueError, match="sep="):
        pv.data.load(path)
    path.write_text("a;b\n1,5;2,5\n3,5;4,5\n")
    with pytest.raises(ValueError, match="sep="):
        pv.data.load(path)


def test_compiled_code_of_a_library_is_not_the_users(tmp_path):
    """Its frames name sources that are not there (pandas/_libs/parsers.pyx): the error is about the file."""
    from pyrovae.inference.running.telling import in_users_code

    path = tmp_path / "old.csv"
    path.write_bytes("größe,b\n1,2\n3,4\n".encode("latin-1"))
    with pytest.raises(ValueError, match="UTF-8") as caught:
        pv.data.load(path)
    place = in_users_code(caught.value)
    assert place is None or not place[0].endswith(".pyx")
