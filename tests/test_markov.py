"""Deep Markov models: a linear-Gaussian one against a Kalman filter, lengths, and the scripts."""

import csv
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyrovae as pv
from pyrovae.distributions import GaussianChain
from pyrovae.inference import evaluate, sample, sandwich, score, train
from pyrovae.models.markov import DeepMarkov, Smoother
from tests.small import FLAGS

Z, D, T = 2, 3, 6
A = np.array([[0.9, -0.4], [0.3, 0.8]])
Q, R = 0.5, 0.4  # standard deviations of a step and of an observation
H = np.array([[1.0, 0.2], [0.0, 1.0], [0.7, -0.5]])
LENGTHS = torch.tensor([6, 1, 4, 2, 6])


def kalman(x, A=A, H=H, Q=Q, R=R):
    """ln p(x_1, ..., x_L) of one sequence, and each step's share ln p(x_t | x_<t): Kalman 1960."""
    D, Z = H.shape
    mean, cov, parts = np.zeros(Z), np.zeros((Z, Z)), []
    for step in x:
        mean, cov = A @ mean, A @ cov @ A.T + Q**2 * np.eye(Z)
        S = H @ cov @ H.T + R**2 * np.eye(D)
        error = step - H @ mean
        parts.append(
            -0.5 * (D * math.log(2 * math.pi) + np.linalg.slogdet(S)[1] + error @ np.linalg.solve(S, error))
        )
        gain = cov @ H.T @ np.linalg.inv(S)
        mean, cov = mean + gain @ error, cov - gain @ H @ cov
    return sum(parts), parts


class Linear(nn.Module):
    """z_t ~ N(A z_{t-1}, Q^2), z_0 = 0."""

    def __init__(self, A=A, Q=Q):
        super().__init__()
        self.A, self.Q, self.latent_dim = nn.Parameter(torch.tensor(A), requires_grad=False), Q, len(A)

    def forward(self, lengths, num_steps):
        def step(before, _):
            loc = before @ self.A.T
            return loc, torch.full_like(loc, self.Q)

        return GaussianChain(step, torch.zeros(self.latent_dim, dtype=torch.float64), lengths, num_steps)


class Emit(nn.Module):
    def __init__(self, H=H, R=R):
        super().__init__()
        self.H, self.R = nn.Parameter(torch.tensor(H), requires_grad=False), R

    def forward(self, z):
        return dist.Normal(z @ self.H.T, self.R).to_event(1)


def sequences(seed=0, A=A, H=H, Q=Q, R=R):
    D, Z = H.shape
    rng = np.random.default_rng(seed)
    x = np.zeros((len(LENGTHS), T, D))
    for n, length in enumerate(LENGTHS.tolist()):
        z = np.zeros(Z)
        for t in range(length):
            z = A @ z + Q * rng.normal(size=Z)
            x[n, t] = H @ z + R * rng.normal(size=D)
    return torch.tensor(x)


class ExactSmoother(nn.Module):
    """q(z_t | z_{t-1}, x_{t:L}), the posterior: by the backward information filter.

    Of one latent dim, where the laws of the chain are diagonal as they are.
    """

    latent_dim = 1

    def __init__(self, a, h, q, r):
        super().__init__()
        self.a, self.h, self.q, self.r = a, h, q, r
        self.own = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x, lengths):
        n, steps = x.shape[:2]
        seen = x.new_zeros(n, steps, 2)
        # p(x_{t:L} | z_t) is proportional to exp(-P z^2 / 2 + u z); below, P and u after the step t.
        P, u = x.new_zeros(n), x.new_zeros(n)
        for t in reversed(range(steps)):
            there = t < lengths
            P_new = P + self.h @ self.h / self.r**2
            u_new = u + x[:, t] @ self.h / self.r**2
            seen[:, t, 0], seen[:, t, 1] = torch.where(there, P_new, 0.0), torch.where(there, u_new, 0.0)
            # Through the step z_t ~ N(a z_{t-1}, q^2):
            k = 1 + self.q**2 * seen[:, t, 0]
            P, u = self.a**2 * seen[:, t, 0] / k, self.a * seen[:, t, 1] / k

        def step(before, info):
            var = 1 / (1 / self.q**2 + info[..., :1])
            return var * (self.a * before / self.q**2 + info[..., 1:]), var.sqrt().expand(before.shape)

        return GaussianChain(step, torch.zeros(1, dtype=x.dtype), lengths, steps, seen)


def test_under_the_exact_smoother_every_draw_is_the_evidence_of_a_kalman_filter():
    a, h, q, r = 0.8, np.array([1.0, -0.4]), 0.6, 0.5
    law = {"A": np.array([[a]]), "H": h[:, None], "Q": q, "R": r}
    model = DeepMarkov(Linear(law["A"], q), Emit(law["H"], r), ExactSmoother(a, torch.tensor(h), q, r))
    x = sequences(**law)
    log_weights = pv.log_weights(model.model, model.guide, x, LENGTHS, num_samples=7)
    each = [kalman(s[:n], **law)[0] for s, n in zip(x.numpy(), LENGTHS.tolist(), strict=True)]
    assert torch.allclose(log_weights, torch.tensor(each).expand(7, -1), atol=1e-9)


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return DeepMarkov(Linear(), Emit(), Smoother(D, Z, 8).double())


def test_importance_sampling_agrees_with_a_kalman_filter(pair):
    x = sequences()
    fit = pv.fit(pair.model, pair.guide, (x, LENGTHS), epochs=150, batch_size=5, lr=2e-2, progress=False)
    estimate = pv.evidence(fit.model, fit.guide, x, LENGTHS, estimators=[pv.IS(20_000)], seed=1)["IS"]
    wanted = np.array([kalman(s[:n])[0] for s, n in zip(x.numpy(), LENGTHS.tolist(), strict=True)])
    z = (estimate.per_datum.numpy() - wanted) / estimate.variance.sqrt().numpy()
    assert np.abs(z).max() < 4.5 and estimate.ess.min() > 200


def test_what_is_beyond_the_end_says_nothing(pair):
    x = sequences()
    other = x.clone()
    other[torch.arange(T) >= LENGTHS.unsqueeze(-1)] = 7.0
    first, second = (
        pv.log_weights(pair.model, pair.guide, v, LENGTHS, num_samples=3, seed=2) for v in (x, other)
    )
    assert torch.equal(first, second)
    # Nor do further steps: a sequence of 4 in 6 is that of 4 in 4.
    law = Linear()
    path = law(LENGTHS[2:3], T).sample()
    beyond = torch.distributions.Normal(0.0, 1.0).log_prob(path[:, 4:]).sum()
    short = law(LENGTHS[2:3], 4).log_prob(path[:, :4])
    assert torch.allclose(law(LENGTHS[2:3], T).log_prob(path), short + beyond)


def test_draws_are_of_the_lengths_given_and_of_the_law_of_a_linear_model(pair):
    """Moments of x_t and z_t by the recursion P_t = A P_{t-1} A' + Q^2; beyond the end stands padding."""
    num = 40_000
    drawn = pv.simulate(pair.model, num, sequences(), LENGTHS, seed=1)
    lengths = LENGTHS[torch.arange(num) % len(LENGTHS)]
    assert not drawn.x[torch.arange(T) >= lengths.unsqueeze(-1)].any()
    P = np.zeros((Z, Z))
    for t in range(T):
        P = A @ P @ A.T + Q**2 * np.eye(Z)
        there = lengths > t
        x, z = drawn.x[there, t].numpy(), drawn.latents["z"][there, t].numpy()
        assert (drawn.x[there, t] != 0).all() and np.allclose(drawn.mean[there, t].numpy(), z @ H.T)
        wanted = np.block([[H @ P @ H.T + R**2 * np.eye(D), H @ P], [P @ H.T, P]])
        found = np.cov(np.concatenate([x, z], 1).T)
        errors = np.sqrt((np.outer(np.diag(wanted), np.diag(wanted)) + wanted**2) / there.sum().item())
        assert np.abs((found - wanted) / errors).max() < 5
        assert np.abs(x.mean(0) / np.sqrt(np.diag(wanted)[:D] / len(x))).max() < 4.5


@pytest.mark.slow
def test_a_sandwich_of_different_lengths_holds_the_evidence_of_a_kalman_filter(pair):
    """E[exp(lower)] = p(x) and E[exp(-upper)] = 1 / p(x), so that both means lie on their sides; and they are near."""
    ais = pv.AIS(60, 16)
    found = pv.sandwich(pair.model, pair.guide, sequences(), LENGTHS, simulate=20, ais=ais, progress=False)
    lengths = LENGTHS[torch.arange(20) % 5].tolist()
    exact = torch.tensor([kalman(s[:n])[0] for s, n in zip(found.x.numpy(), lengths, strict=True)])
    (bracket,) = found.brackets
    for gap in (exact - bracket.lower, bracket.upper - exact):
        mean, se = float(gap.mean()), float(gap.std() / 20**0.5)
        assert -4.5 * se < mean < 0.3, (mean, se)
    assert not found.x[torch.arange(T) >= torch.tensor(lengths).unsqueeze(-1)].any()


def test_what_a_mask_leaves_out_may_stand_for_anything_in_a_program_of_ones_own(pair):
    """x_1 stands in for paddings that a likelihood may not take: draws are data all the same."""

    def model(x, lengths):
        there = torch.arange(T) < lengths.unsqueeze(-1)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            law = dist.Gamma(z.exp().unsqueeze(-1) * torch.ones(T), 1.0).mask(there).to_event(1)
            pyro.sample("x", law, obs=torch.where(there, x, x[:, :1]))

    def guide(x, lengths):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    def changed(x, lengths):
        model(x.log(), lengths)

    x = torch.rand(5, T) * (torch.arange(T) < LENGTHS.unsqueeze(-1)) + 0.1
    assert (pv.simulate(model, 50, x, LENGTHS).x > 0).all()
    ais = pv.AIS(20, 4)
    made = pv.sandwich(model, guide, x, LENGTHS, simulate=10, ais=ais, num_samples=200, progress=False)
    lower, upper = made.importance.lower, made.importance.upper
    grid = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    each = torch.distributions.Gamma(grid.exp()[:, None, None], 1.0).log_prob(made.x.double())
    kept = torch.arange(T) < LENGTHS[torch.arange(10) % 5].unsqueeze(-1)
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(grid)[:, None]
    exact = (prior + (each * kept).sum(-1)).logsumexp(0) + math.log(grid[1] - grid[0])
    assert lower.mean() - 0.1 < exact.mean() < upper.mean() + 0.1
    with pytest.raises(ValueError, match="numbers that it makes of x"):
        pv.simulate(changed, 50, x, LENGTHS)


def test_steps_add_up_to_the_sequence(pair):
    """ln p(x_{1:t}) of growing pieces, whose differences are each step's share."""
    x = sequences()[:1]
    _, parts = kalman(x[0].numpy())
    pieces = x.expand(T, -1, -1).contiguous()
    found = pv.evidence(
        pair.model, pair.guide, pieces, torch.arange(1, T + 1), estimators=[pv.IS(100_000)], seed=3
    )["IS"]
    error = found.per_datum.numpy() - np.cumsum(parts)
    assert np.abs(error / found.variance.sqrt().numpy())[:3].max() < 4.5


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("markov")
    rng = np.random.default_rng(1)
    x = rng.normal(size=(80, 5, 2)).cumsum(1)
    np.savez(folder / "walks.npz", x=x, lengths=rng.integers(2, 6, 80))
    argv = ["--data", str(folder / "walks.npz"), "--model", "markov", "--latent-dim", "2", "--hidden", "8"]
    assert train.main(["--out", str(folder / "run"), *argv, "--epochs", "2", *FLAGS]) == 0
    return folder / "run"


def test_the_scripts_give_evidence_per_sequence_and_per_step(run, tmp_path, capsys):
    assert evaluate.main([str(run), "--num-samples", "30", "--estimators", "is", *FLAGS]) == 0
    said = capsys.readouterr().out
    loaded = pv.load(run)
    x, lengths = loaded.data.arguments("test")
    ev = loaded.evidence(estimators=[pv.IS(30)])["IS"]
    step = float(said.split("ln p a step, nats: IS ≥ ")[1].split()[0])
    assert step == pytest.approx(float(ev.per_datum.sum() / lengths.sum()), abs=1e-4)
    np.savez(tmp_path / "new.npz", x=x.numpy()[:, : int(lengths.max())], lengths=lengths.numpy())
    out = tmp_path / "s.csv"
    argv = [
        str(run),
        str(tmp_path / "new.npz"),
        "--estimators",
        "is",
        "--num-samples",
        "30",
        "--out",
        str(out),
    ]
    assert score.main([*argv, *FLAGS]) == 0
    found = [float(r["log_evidence"]) for r in csv.DictReader(out.open())]
    assert np.allclose(found, ev.per_datum, atol=1e-4)


def test_scripts_draw_sequences_and_bound_their_evidence(run, tmp_path):
    out = ["--out", str(tmp_path / "s"), "--num", "7", "--num-samples", "5", "--limit", "5"]
    assert sample.main([str(run), *out, *FLAGS]) == 0
    with np.load(tmp_path / "s" / "samples.npz") as drawn:
        beyond = np.arange(5) >= drawn["given_0"][:, None]
        assert len(drawn["x"]) == 7 and beyond.any()
        assert not drawn["x"][beyond].any() and drawn["x"][~beyond].all()
    few = ["--simulate", "3", "--temperatures", "3", "--chains", "2", "--num-samples", "20"]
    assert sandwich.main([str(run), "--out-dir", str(tmp_path), *few, *FLAGS]) == 0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"x": np.zeros((9, 4)), "lengths": np.ones(9)}, r"\[N, T, D\]"),
        ({"x": np.zeros((9, 4, 1)), "lengths": np.zeros(9)}, "1 to 4 steps"),
        ({"x": np.zeros((9, 4, 1)), "lengths": np.full(9, 5)}, "1 to 4 steps"),
        ({"x": np.zeros((9, 4, 1)), "lengths": np.ones(8)}, "each of the 9"),
        ({"x": np.zeros((9, 4, 1)), "lengths": np.ones(9), "y": np.ones(9)}, "x and lengths"),
    ],
)
def test_lengths_that_are_none_are_refused(data, words):
    with pytest.raises(ValueError, match=words):
        pv.data.load(data)


def test_sequences_are_for_the_markov_model_alone(run, tmp_path, capsys):
    data = ["--data", str(run.parent / "walks.npz"), "--out", str(tmp_path / "a"), *FLAGS]
    for argv, words in (
        ([*data], "--model markov"),
        (["--model", "markov", "--out", str(tmp_path / "a"), *FLAGS], "lengths"),
        ([*data, "--model", "markov", "--prior", "mixture"], "--prior"),
        ([*data, "--model", "markov", "--hidden", "8", "8"], "one --hidden"),
    ):
        assert train.main(argv) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        ([7, 1, 4, 2, 6], "1 to 6 steps .* from 1 to 7"),
        ([6, 0, 4, 2, 6], "1 to 6 steps .* from 0 to 6"),
        ([6, 1, 4, 2], r"lengths \[N\], got \[5, 6, 3\] and \[4\]|5 rows of context"),
        ([6.0, 1.0, 4.0, 2.0, 6.5], "whole numbers"),
    ],
)
def test_lengths_that_the_sequences_do_not_have_are_refused_in_python(pair, lengths, words):
    x, wrong = torch.zeros(5, T, D).double(), torch.tensor(lengths)
    fit = pv.fit(pair.model, pair.guide, (x, LENGTHS), epochs=1, compile=False, progress=False)
    for call in (
        lambda: pv.evidence(pair.model, pair.guide, x, wrong, estimators=[pv.IS(2)]),
        lambda: pv.evidence(fit.model, fit.guide, x, wrong, estimators=[pv.IS(2)]),
        lambda: pv.fit(pair.model, pair.guide, (x, wrong), epochs=1, compile=False, progress=False),
        lambda: pv.reconstruct(pair.model, pair.guide, x, wrong),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_sequences_have_no_units_and_no_roles():
    x, lengths = np.random.default_rng(0).normal(size=(20, 4, 2)), np.full(20, 3)
    for options in ({"standardize": True}, {"missing": "ignore"}, {"columns": "auto"}, {"label_column": "y"}):
        with pytest.raises(ValueError, match=r"rows \[N, D\]|no columns="):
            pv.data.load({"x": x, "lengths": lengths}, **options)
