"""Models of p(x | c): contexts of data, evidence against the exact law, and the scripts."""

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import nn

import pyrovae as pv
from pyrovae.data import conditioned, partly_labelled
from pyrovae.inference import compare, evaluate, sample, score, train
from pyrovae.models.composing.architectures import Convolutional, Gated, Perceptrons
from pyrovae.models.composing.conditional import compose_conditional
from pyrovae.models.conditional import ConditionalVAE
from tests.small import FLAGS

W = torch.tensor([[1.0, 0.2], [0.0, 1.0], [0.5, -0.5]], dtype=torch.float64)
V = torch.tensor([[1.0, -1.0], [0.5, 2.0], [0.0, 0.3]], dtype=torch.float64)
S = 0.6


class Emit(nn.Module):
    def forward(self, z, c):
        return dist.Normal(z @ W.T + c @ V.T, S).to_event(1)


class Posterior(nn.Module):
    """q(z | x, c) of the linear model under z ~ N(m(c), diag s(c)^2), wider than it by a factor."""

    latent_dim = 2

    def __init__(self, prior, stretch):
        super().__init__()
        self.prior, self.stretch = [prior], stretch

    def forward(self, x, c):
        p = self.prior[0](c).base_dist
        precision = torch.diag_embed(p.scale**-2) + W.T @ W / S**2
        cov = torch.linalg.inv(precision)
        mean = cov @ (p.loc / p.scale**2 + (x - c @ V.T) @ W / S**2).unsqueeze(-1)
        return dist.MultivariateNormal(mean.squeeze(-1), self.stretch**2 * cov)


@pytest.mark.parametrize(("stretch", "num_samples"), [(1.0, 3), (1.3, 4000)])
def test_evidence_is_that_given_the_context(stretch, num_samples):
    torch.manual_seed(0)
    prior = pv.priors.ConditionalGaussian(None, 2, context=2).double()
    nn.init.normal_(prior.head.weight)
    vae = ConditionalVAE(prior, Emit(), Posterior(prior, stretch))
    x, c = torch.randn(6, 3).double(), torch.randn(6, 2).double()
    estimate = pv.evidence(vae.model, vae.guide, x, c, estimators=[pv.IS(num_samples)])["IS"]
    p = prior(c).base_dist
    loc, scale = p.loc.detach().numpy(), p.scale.detach().numpy()
    exact = [
        multivariate_normal(W.numpy() @ m + V.numpy() @ g, W.numpy() @ np.diag(s**2) @ W.numpy().T + S**2 * np.eye(3))
        .logpdf(v)
        for v, g, m, s in zip(x.numpy(), c.numpy(), loc, scale, strict=True)
    ]  # fmt: skip
    off = np.abs(estimate.per_datum.numpy() - exact)
    assert (off < 1e-9 + 4.5 * (stretch > 1) * estimate.variance.sqrt().numpy()).all()


def test_labels_and_columns_as_contexts():
    digits = pv.data.load("digits")
    given = conditioned(digits)
    x, c = given.arguments("valid")
    assert torch.equal(c.argmax(1), digits.labels["valid"]) and torch.equal(x, digits.valid)
    assert given.spec.hash != digits.spec.hash and given.spec.given == ("label",)
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=["a", "b", "c"])
    data = pv.data.load(table)
    given = conditioned(data, ["b"])
    assert given.spec.columns == ("a", "c") and given.spec.event_shape == (2,)
    assert torch.equal(given.arguments("test")[1][:, 0], data.test[:, 1])
    both = conditioned(pv.data.load({"x": table, "y": ["u", "v"] * 30}), ["label", "c"])
    assert both.context["train"][0].shape[1] == 3 and both.spec.given == ("label", "c")
    assert pv.data.DataSpec.from_json(both.spec.to_json()) == both.spec
    moved = both.to("cpu")
    assert torch.equal(moved.context["test"][0], both.context["test"][0])


def test_labels_are_kept_evenly_and_of_training_data_alone():
    digits = pv.data.load("digits")
    given = partly_labelled(digits, 25)
    (y,) = given.context["train"]
    kept = y >= 0
    assert int(kept.sum()) == 25 and torch.equal(y[kept], digits.labels["train"][kept])
    assert sorted(torch.bincount(y[kept]).tolist()) == [2] * 5 + [3] * 5
    assert all((given.context[s][0] == -1).all() for s in ("valid", "test"))
    some = digits.labels["train"].clone()
    some[::2] = -1
    missing = partly_labelled(pv.data.load({"x": digits.train, "y": some}))
    (y,) = missing.context["train"]
    assert 0 < int((y < 0).sum()) < len(y)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: conditioned(pv.data.load("linear-gaussian")), "labels"),
        (lambda: conditioned(pv.data.load("digits"), []), "names to condition on"),
        (lambda: conditioned(pv.data.load("digits"), ["age"]), "a table"),
        (lambda: conditioned(conditioned(pv.data.load("digits"))), "without a context"),
        (lambda: partly_labelled(pv.data.load("digits"), 5), "10 .one a class."),
        (lambda: conditioned(pv.data.load({"x": np.zeros((9, 2)) + np.arange(9)[:, None], "y": [-1] + [0, 1] * 4})),
         "missing"),
        (lambda: conditioned(pv.data.load(pd.DataFrame({"ab": range(30), "cd": range(30)})), ["abc"]), "did you mean"),
        (lambda: conditioned(pv.data.load(pd.DataFrame({"ab": range(30)})), ["ab"]), "left to model"),
    ],
)  # fmt: skip
def test_contexts_that_are_none_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    "architecture",
    [Perceptrons((8,)), Gated((8,)), Convolutional((4,), 8), Convolutional((4,), 8, residual=True)],
)
def test_every_architecture_takes_a_context(architecture):
    data = conditioned(pv.data.load("digits"))
    vae = compose_conditional(data, architecture, 2)
    x, c = (t[:5] for t in data.arguments("test"))
    first = pv.log_weights(vae.model, vae.guide, x, c, num_samples=3, seed=0)
    other = pv.log_weights(vae.model, vae.guide, x, c.roll(1, 1), num_samples=3, seed=0)
    assert first.shape == (3, 5) and (first != other).any(0).all()


def test_columns_are_taken_in_any_units():
    """A column in other units gives the same model: its context is centred and scaled."""
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=["a", "b", "c"])
    figures = []
    for factor in (1.0, 1e4):
        data = conditioned(pv.data.load(table.assign(b=table.b * factor)), ["b"])
        torch.manual_seed(0)
        vae = compose_conditional(data, Perceptrons((8,)), 2)
        figures.append(pv.log_weights(vae.model, vae.guide, *data.arguments("test"), num_samples=3, seed=0))
    assert torch.allclose(*figures, atol=1e-3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conditional")
    argv = ["--model", "conditional", "--condition", "label", "--hidden", "16", "--latent-dim", "2"]
    assert train.main(["--out", str(folder / "run"), *argv, "--epochs", "2", *FLAGS]) == 0
    return folder / "run"


def test_the_scripts_on_digits_given_their_class(run, tmp_path, capsys):
    assert evaluate.main([str(run), "--num-samples", "20", "--limit", "30", *FLAGS]) == 0
    assert "ln p(x | label)" in capsys.readouterr().out
    assert (
        sample.main([str(run), "--num", "15", "--only", "classes", "--out", str(tmp_path), "--device", "cpu"])
        == 0
    )
    assert (tmp_path / "classes.png").stat().st_size > 0
    with np.load(tmp_path / "samples.npz") as drawn:
        assert drawn["given_0"].shape == (15, 10) and drawn["x"].shape == (15, 64)
    loaded = pv.load(run)
    x, y = loaded.data.test[:9].numpy(), loaded.data.labels["test"][:9].numpy()
    np.savez(tmp_path / "new.npz", x=x, y=y)
    argv = [
        str(run),
        str(tmp_path / "new.npz"),
        "--num-samples",
        "20",
        "--out",
        str(tmp_path / "s.csv"),
        *FLAGS,
    ]
    assert score.main(argv) == 0
    assert "ln p(x | label)" in capsys.readouterr().out
    ev = loaded.evidence(*(t[:9] for t in loaded.data.arguments("test")), estimators=[pv.IS(20)])
    assert np.allclose(pd.read_csv(tmp_path / "s.csv")["log_evidence"], ev["IS"].per_datum, atol=1e-3)
    assert loaded.label[0] == "given" and loaded.sample(20).x.shape == (20, 64)
    np.savez(tmp_path / "new.npz", x=x)
    assert score.main(argv) == 2 and "a label for each row" in capsys.readouterr().err


def test_a_grid_of_conditional_models(run, tmp_path, capsys):
    argv = ["--condition", "label", "--priors", "standard", "mixture", "--guides", "diagonal", "--objectives"]
    argv += [
        "trace-elbo",
        "--epochs",
        "1",
        "--hidden",
        "8",
        "--latent-dim",
        "2",
        "--num-samples",
        "10",
        "--jobs",
        "1",
    ]
    assert compare.main([*argv, "--out", str(tmp_path / "grid"), *FLAGS]) == 0
    assert "mixture" in capsys.readouterr().out
    assert pv.load(tmp_path / "grid/mixture-diagonal-trace-elbo").spec.given == ("label",)
    # Figures of p(x | label) and of p(x) are of different things.
    few = ["--hidden", "8", "--latent-dim", "2", "--epochs", "1", *FLAGS]
    assert train.main(["--out", str(tmp_path / "plain"), *few]) == 0
    assert evaluate.main([str(run), str(tmp_path / "plain"), "--num-samples", "9", *FLAGS]) == 2
    assert "given label" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--condition", "label"], "--model conditional"),
        (["--model", "conditional"], "--condition label"),
        (["--model", "conditional", "--condition", "label", "--prior", "vamp"], "vamp"),
        (["--model", "conditional", "--condition", "label", "--preset", "iwae"], "--preset"),
        (["--model", "hierarchical", "--condition", "label"], "--model conditional"),
        (["--model", "conditional", "--condition", "label", "--data", "linear-gaussian"], "labels"),
    ],
)
def test_what_does_not_go_together(argv, words, tmp_path, capsys):
    assert train.main(["--out", str(tmp_path / "run"), "--epochs", "1", *argv, *FLAGS]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1
