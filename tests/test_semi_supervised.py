"""Labels partly known: the bound and the evidence against sums by hand, and what is refused."""

import json
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from torch import nn

import pyrovae as pv
from pyrovae.inference import evaluate, train
from pyrovae.inference.options.given.semi_supervised import machine_of
from pyrovae.models.semi_supervised import SemiSupervisedVAE
from pyrovae.objectives import Classified
from tests.small import FLAGS

C, D, Z = 3, 4, 2
PRIOR = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


class Emission(nn.Module):
    """x ~ N(W z + V y, s^2): linear and Gaussian given the class."""

    def __init__(self, W, V, s):
        super().__init__()
        self.W, self.V, self.s = nn.Parameter(W), nn.Parameter(V), s

    def forward(self, z, y):
        return dist.Normal(z @ self.W.T + y @ self.V.T, self.s).to_event(1)


class Posterior(nn.Module):
    """q(z | x, y): the posterior, its mean shifted and its scale stretched."""

    def __init__(self, emission, shift=0.0, stretch=1.0):
        super().__init__()
        self.emission, self.shift, self.stretch = [emission], shift, stretch
        self.latent_dim = Z
        self.own = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x, y):
        e = self.emission[0]
        precision = torch.eye(Z, dtype=x.dtype) + e.W.T @ e.W / e.s**2
        cov = torch.linalg.inv(precision)
        mean = (x - y @ e.V.T) @ e.W @ cov / e.s**2
        factor = torch.linalg.cholesky(cov) * self.stretch
        return torch_normal(mean + self.shift, factor)


def torch_normal(mean, factor):
    return dist.MultivariateNormal(mean, scale_tril=factor.expand(*mean.shape[:-1], Z, Z))


def case(shift=0.0, stretch=1.0, seed=0):
    random = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    emission = Emission(normal(D, Z), 1.5 * normal(D, C), 0.7)
    classifier = nn.Linear(D, C).double()
    prior = pv.priors.StandardNormal(Z).double()
    vae = SemiSupervisedVAE(prior, emission, classifier, Posterior(emission, shift, stretch), C, PRIOR)
    x = 2 * normal(7, D)
    y = torch.tensor([0, -1, 2, -1, -1, 1, -1])
    return vae.double(), x, y


def log_joint(vae, x):
    """ln p(x, y) of each class `[N, C]`, by SciPy."""
    e = vae.likelihood
    W, V = e.W.detach().numpy(), e.V.detach().numpy()
    cov = W @ W.T + e.s**2 * np.eye(D)
    each = [multivariate_normal(V[:, c], cov).logpdf(x.numpy()) for c in range(C)]
    return np.stack(each, 1) + PRIOR.log().numpy()


def exact(vae, x, y):
    joint = log_joint(vae, x)
    return np.array([logsumexp(row) if c < 0 else row[c] for row, c in zip(joint, y.tolist(), strict=True)])


def test_evidence_of_labelled_and_unlabelled_data_at_once():
    """Under the exact q(z | x, y) each term of the sum is exact: no ln C is left over on labelled data."""
    vae, x, y = case()
    ev = pv.evidence(vae.model, vae.guide, x, y, estimators=[pv.IS(5)])
    assert np.allclose(ev["IS"].per_datum, exact(vae, x, y), atol=1e-9)
    alone = pv.evidence(vae.model, vae.guide, x, estimators=[pv.IS(5)])
    assert np.allclose(alone["IS"].per_datum, logsumexp(log_joint(vae, x), 1), atol=1e-9)


def test_evidence_under_a_wrong_guide():
    vae, x, y = case(shift=0.3, stretch=1.3)
    estimate = pv.evidence(vae.model, vae.guide, x, y, estimators=[pv.IS(4000)])["IS"]
    z = (estimate.per_datum.numpy() - exact(vae, x, y)) / estimate.variance.sqrt().numpy()
    assert np.abs(z).max() < 4.5


def brute_force_bound(vae, x, y, shift, stretch):
    """The bound of eqs. 6 and 7 of Kingma et al., its integrals over z in closed form, by numpy."""
    e = vae.likelihood
    W = e.W.detach().numpy()
    cov = np.linalg.inv(np.eye(Z) + W.T @ W / e.s**2)
    own = stretch**2 * cov
    # KL(q(z|x,y) || p(z|x,y)) of a shifted and stretched Gaussian is the same for all data and classes.
    d = np.full(Z, shift)
    kl = 0.5 * (np.trace(np.linalg.solve(cov, own)) + d @ np.linalg.solve(cov, d) - Z)
    kl -= 0.5 * (np.linalg.slogdet(own)[1] - np.linalg.slogdet(cov)[1])
    each = log_joint(vae, x) - kl  # -L(x, y) for each class
    logits = vae.classifier(x).detach().numpy()
    log_q = logits - logsumexp(logits, 1, keepdims=True)
    unlabelled = (np.exp(log_q) * (each - log_q)).sum(1)
    known = y.numpy() >= 0
    return np.where(known, each[np.arange(len(x)), y.clamp(min=0).numpy()], unlabelled), log_q


@pytest.mark.parametrize("weight", [0.0, 2.5])
def test_the_objective_is_the_bound_of_the_paper(weight):
    shift, stretch = 0.2, 1.2
    vae, x, y = case(shift, stretch)
    bound, log_q = brute_force_bound(vae, x, y, shift, stretch)
    known = y.numpy() >= 0
    wanted = bound.sum() + weight * log_q[known, y.numpy()[known]].sum()
    objective = vae.objective(weight)
    torch.manual_seed(0)
    losses = np.array([-objective.loss(vae.model, vae.guide, x, y) for _ in range(1000)])
    se = losses.std(ddof=1) / math.sqrt(len(losses))
    assert abs(losses.mean() - wanted) < 4 * se and se < 0.1


def test_the_term_trains_the_classifier_on_labels_alone():
    vae, x, y = case()
    every = torch.full_like(y, 1)  # all known: the bound itself does not depend on q(y | x)
    gradients = []
    for weight in (0.0, 3.0):
        vae.zero_grad()
        vae.objective(weight).loss_and_grads(vae.model, vae.guide, x, every)
        found = vae.classifier.weight.grad
        gradients.append(torch.zeros(C, D).double() if found is None else found.clone())
    assert gradients[0].abs().max() < 1e-12
    logits = vae.classifier(x).softmax(-1) - nn.functional.one_hot(every, C)
    assert torch.allclose(gradients[1], 3.0 * logits.T @ x)


def test_a_batch_without_labels_and_one_of_labels_alone():
    vae, x, y = case()
    for given in (torch.full_like(y, -1), y.clamp(min=0)):
        assert math.isfinite(vae.objective(1.0).loss_and_grads(vae.model, vae.guide, x, given))


def test_labels_of_no_class_are_refused():
    vae, x, y = case()
    for wrong in (y + 1, y[:3], y.double()):
        with pytest.raises(ValueError, match=r"a class 0 ... 2 of each of 7 data"):
            pv.evidence(vae.model, vae.guide, x, wrong, estimators=[pv.IS(2)])


def test_wrong_arguments_are_refused():
    vae, *_ = case()
    with pytest.raises(ValueError, match="weight >= 0"):
        Classified(vae.classifier, -1.0)
    with pytest.raises(ValueError, match="num_classes >= 2"):
        SemiSupervisedVAE(vae.prior, vae.likelihood, vae.classifier, vae.q, 1)
    with pytest.raises(ValueError, match="probability > 0"):
        SemiSupervisedVAE(vae.prior, vae.likelihood, vae.classifier, vae.q, 2, torch.tensor([1.0, 0.0]))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three well separated clouds, six labels."""
    folder = tmp_path_factory.mktemp("m2")
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    x = (6 * np.eye(3)[y] + rng.normal(size=(300, 3))).astype(np.float32)
    np.savez(folder / "clouds.npz", x=x, y=y)
    argv = ["--data", str(folder / "clouds.npz"), "--model", "semi-supervised", "--labelled", "6"]
    argv += [
        "--latent-dim",
        "2",
        "--hidden",
        "16",
        "--epochs",
        "25",
        "--warmup",
        "0",
        "--lr",
        "1e-2",
        "--alpha",
        "1",
    ]
    assert train.main(["--out", str(folder / "run"), *argv, *FLAGS]) == 0
    return folder / "run"


def test_few_labels_are_enough_where_the_data_show_the_classes(run, capsys):
    assert evaluate.main([str(run), "--num-samples", "30", *FLAGS]) == 0
    said = capsys.readouterr().out
    assert "labels of 6 of 210 training data known" in said and "ln p(x)" in said
    share = float(said.split("accuracy of q(y|x): ")[1].split()[0])
    loaded = pv.load(run)
    x, y = loaded.data.test, loaded.data.labels["test"]
    owner = machine_of(loaded)
    assert share == pytest.approx(float((owner.classify(x).argmax(-1) == y).double().mean()), abs=1e-4)
    assert share > 0.9
    config = json.loads((run / "config.json").read_text())
    assert config["spec"]["given"] == ["known labels"] and config["data"]["labelled"] == 6
    assert (loaded.data.context["test"][0] == -1).all()
    scores = loaded.score(x.numpy(), num_samples=20)
    assert torch.isfinite(scores.log_evidence).all()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--labelled", "20"], "--model semi-supervised"),
        (["--model", "semi-supervised"], "--labelled N"),
        (["--model", "semi-supervised", "--labelled", "2"], "10 (one a class)"),
        (["--model", "semi-supervised", "--labelled", "20", "--condition", "label"], "got both"),
        (["--model", "semi-supervised", "--labelled", "20", "--prior", "vamp"], "vamp"),
        (["--model", "semi-supervised", "--labelled", "20", "--objective", "iwae"], "trace-elbo"),
        (["--model", "semi-supervised", "--labelled", "20", "--free-bits", "1"], "free bits"),
        (["--model", "semi-supervised", "--labelled", "20", "--data", "linear-gaussian"], "labels"),
        (["--alpha", "0.3"], "--alpha"),
    ],
)
def test_what_does_not_go_together(argv, words, tmp_path, capsys):
    assert train.main(["--out", str(tmp_path / "run"), "--epochs", "1", *argv, *FLAGS]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("beta", [None, 0.5])
def test_a_compiled_step_is_the_eager_one(beta):
    """The term is in the graph: labels known, in part and all of them, are other rows for one graph."""
    losses = []
    for compile in (False, True):
        pyro.clear_param_store()
        torch.manual_seed(0)  # of the classifier's weights
        vae, x, y = case(0.2, 1.2)
        objective = vae.objective(2.5)
        if beta is not None:
            objective = pv.objectives.BetaELBO(objective, beta)
        optim = torch.optim.Adam(vae.parameters(), lr=0.01)
        svi = pv.SVI(vae.model, vae.guide, optim, objective, compile=compile)
        pyro.set_rng_seed(0)
        given = [y, y, torch.full_like(y, -1), y.clamp(min=0), y]
        losses.append([float(svi.step(x, labels)) for labels in given])
        assert (svi.compiled_share > 0.5) == compile
        with pytest.raises((RuntimeError, ValueError), match=r"(?i)class|index"):
            svi.step(x, y + 1)
    assert np.allclose(*losses, rtol=1e-10)
