"""Boltzmann machines: energies, gradients and ln Z against brute force; training by two phases."""

import itertools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO

import pyrovae as pv
from pyrovae.data import T_CRITICAL, IsingTorus
from pyrovae.evidence.estimators.log_partition import LogPartition, bootstrapped
from pyrovae.inference import evaluate, sample, train
from pyrovae.inference.options.rbm_parts import machine_of
from pyrovae.models.boltzmann import RBM
from pyrovae.models.boltzmann.ising_machine import ising_log_constant
from pyrovae.models.boltzmann.visible_units import GaussianUnits
from pyrovae.models.linear_gaussian import LinearGaussian
from pyrovae.objectives import ContrastiveDivergence, ParallelTempering, PersistentCD
from pyrovae.programs import annealed_family, inspect_program

torch.set_num_threads(1)


def states(n):
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=n)), dtype=torch.float64)


def machine(visible=5, hidden=4, scale=1.0, seed=0, units=None):
    torch.manual_seed(seed)
    rbm = RBM(visible, hidden, units).double()
    with torch.no_grad():
        for p in rbm.parameters():
            p.normal_(0, scale)
        rbm.base_bias.normal_()
    return rbm


@torch.no_grad()
def brute_energies(rbm):
    """-v·b - c·h - v·W h written out, [states of v, states of h]."""
    v, h = states(len(rbm.visible_bias)), states(len(rbm.hidden_bias))
    return v, h, -(v @ rbm.visible_bias)[:, None] - (h @ rbm.hidden_bias)[None] - v @ rbm.weight @ h.T


# The program --------------------------------------------------------------------------------------


def test_energies_and_conditionals_are_those_of_the_table():
    rbm = machine()
    v, h, energy = brute_energies(rbm)
    pairs = rbm.energy(v[:, None].expand(-1, len(h), -1), h[None].expand(len(v), -1, -1))
    assert torch.allclose(pairs, energy, atol=1e-12)
    assert torch.allclose(rbm.free_energy(v), -torch.logsumexp(-energy, 1), atol=1e-12)
    for probs, values, given, d in (
        (torch.softmax(-energy, 1), h, v, rbm.posterior),
        (torch.softmax(-energy, 0).T, v, h, rbm.likelihood),
    ):
        log_prob = d(given.unsqueeze(1)).log_prob(values.unsqueeze(0))
        assert torch.allclose(log_prob.exp(), probs, atol=1e-12)
    assert rbm.exact_log_partition().value == pytest.approx(
        float(torch.logsumexp(-energy.flatten(), 0)), abs=1e-12
    )


@pytest.mark.parametrize(("visible", "hidden"), [(9, 3), (3, 9), (6, 6)])
def test_either_layer_is_enumerated_in_blocks(visible, hidden, monkeypatch):
    rbm = machine(visible, hidden)
    _, _, energy = brute_energies(rbm)
    whole = rbm.exact_log_partition()
    monkeypatch.setattr("pyrovae.models.boltzmann.partition.NUMBERS", 32)
    assert rbm.exact_log_partition().value == pytest.approx(whole.value, abs=1e-12)
    assert whole.value == pytest.approx(float(torch.logsumexp(-energy.flatten(), 0)), abs=1e-12)
    assert f"2^{min(visible, hidden)}" in whole.method


def test_log_weights_are_minus_the_free_energy():
    rbm = machine().float()
    v = states(5).float()
    with torch.no_grad():
        weights = pv.log_weights(rbm.model, rbm.guide, v, num_samples=7)
        assert torch.allclose(weights, -rbm.free_energy(v).double().expand(7, -1), atol=2e-5)


def test_images_keep_their_shape():
    torch.manual_seed(0)
    x = (torch.rand(20, 1, 3, 2) < 0.5).float()
    rbm = RBM.initialised_to(x, 3)
    assert rbm.gibbs(x, 2).shape == x.shape and rbm.free_energy(x).shape == (20,)
    assert rbm.sample(4, 3).shape == (4, 1, 3, 2)
    assert pv.log_weights(rbm.model, rbm.guide, x, num_samples=2).shape == (2, 20)
    with pytest.raises(ValueError, match="expected data"):
        rbm.free_energy(x.flatten(1))


def test_the_base_rates_are_those_of_the_data():
    x = (torch.rand(500, 6, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    rbm = RBM.initialised_to(x, 3)
    with torch.no_grad():
        rbm.weight.zero_()
    assert torch.allclose(torch.sigmoid(rbm.visible_bias), x.mean(0), atol=2e-3)
    # Without weights the machine is its own start, and ln Z is known.
    assert float(rbm.start_log_partition()) == pytest.approx(rbm.exact_log_partition().value, abs=1e-6)


# Gaussian visible units ---------------------------------------------------------------------------


def test_gaussian_units_are_a_mixture_of_gaussians():
    rbm = machine(3, 4, units=GaussianUnits(0.7))
    h = states(4)
    # exp(-E) integrated over v for each h, by hand: N(v; b + s W h, s²) up to this constant.
    a = h @ rbm.weight.T
    log_z = (
        h @ rbm.hidden_bias
        + (rbm.visible_bias * a / 0.7 + a**2 / 2).sum(1)
        + 1.5 * math.log(2 * math.pi * 0.49)
    )
    assert rbm.exact_log_partition().value == pytest.approx(float(torch.logsumexp(log_z, 0)), abs=1e-12)
    components = dist.Normal(rbm.visible_bias + 0.7 * a, 0.7).to_event(1)
    law = dist.MixtureSameFamily(dist.Categorical(logits=log_z), components)
    v = torch.randn(6, 3, dtype=torch.float64)
    assert torch.allclose(rbm.log_evidence(v), law.log_prob(v), atol=1e-12)
    weights = pv.log_weights(rbm.model, rbm.guide, v, num_samples=3)
    assert torch.allclose(weights, -rbm.free_energy(v).expand(3, -1), atol=1e-12)
    found = pv.log_partition(rbm.model, betas=200, num_chains=200)
    assert abs(found.value - rbm.exact_log_partition().value) < 4 * found.error < 1


# Gradients ----------------------------------------------------------------------------------------


class Exactly(ContrastiveDivergence):
    """The negative phase over all states, each as often as it is likely."""

    def differentiable_loss(self, model, guide, *args, **kwargs):
        with annealed_family(model) as family:
            v = states(len(family.visible_bias))
            free = family.free_energy(v)
            share = torch.softmax(-free.detach(), 0)
            return len(args[0]) * (family.free_energy(args[0]).mean() - (share * free).sum())


def gradients(rbm):
    return torch.cat([p.grad.flatten() for p in rbm.parameters()])


def test_the_surrogates_gradient_is_that_of_the_likelihood():
    rbm, x = machine(), states(5)[[1, 7, 19, 30]]
    loss = -(-rbm.free_energy(x) - torch.logsumexp(-rbm.free_energy(states(5)), 0)).sum()
    loss.backward()
    exact = gradients(rbm)
    rbm.zero_grad()
    Exactly().loss_and_grads(rbm.model, rbm.guide, x)
    assert torch.allclose(gradients(rbm), exact, atol=1e-12)
    # The class's own, with as many draws as make its mean: CD with a long chain.
    torch.manual_seed(0)
    rounds = []
    for _ in range(40):
        rbm.zero_grad()
        ContrastiveDivergence(50).loss_and_grads(rbm.model, rbm.guide, x.repeat(100, 1))
        rounds.append(gradients(rbm) / 100)
    rounds = torch.stack(rounds)
    assert ((rounds.mean(0) - exact).abs() < 5 * rounds.std(0) / 40**0.5 + 1e-9).all()


# Training -----------------------------------------------------------------------------------------

OBJECTIVES = {
    "cd": lambda: ContrastiveDivergence(2),
    "pcd": lambda: PersistentCD(1, 32),
    "tempering": lambda: ParallelTempering(1, 16, (1.0, 1.5, 3.0)),
}


def task(seed=0):
    """Spins of a small torus, and a machine to learn them."""
    data = IsingTorus(3, 2.5).sample((600,), torch.Generator().manual_seed(0))
    torch.manual_seed(seed)
    return RBM.initialised_to(data, 5), data[:500], data[500:]


def run(name, rbm, x, valid, **options):
    arguments = {"objective": OBJECTIVES[name](), "epochs": 4, "batch_size": 50, "lr": 0.05, "valid": valid}
    return pv.fit(rbm.model, rbm.guide, x, **{**arguments, **options})


@pytest.mark.parametrize("name", OBJECTIVES)
def test_training_raises_the_exact_likelihood(name):
    rbm, x, valid = task()
    before = float(rbm.log_evidence(valid).mean())
    objective = OBJECTIVES[name]()
    objective.exact = True
    fit = run(name, rbm, x, valid, objective=objective, epochs=8, lr=pv.Exponential(0.1, 0.01, 8), ema=0.9)
    rows = fit.history
    assert float(rbm.log_evidence(valid).mean()) > before + 0.3
    assert fit.best_epoch == 1 + max(range(8), key=lambda i: rows[i]["valid_log_likelihood"])
    assert rows[-1]["valid_log_likelihood"] > rows[0]["valid_log_likelihood"]
    for row in rows:  # the phases apart, and their difference the loss
        assert row["positive_phase"] - row["negative_phase"] == pytest.approx(row["loss"], abs=1e-4)
    assert ("swap_acceptance" in rows[0]) == (name == "tempering")
    assert all(0 < r.get("swap_acceptance", 0.5) <= 1 for r in rows)


def test_pseudo_likelihood_is_exact_where_all_dims_are_drawn():
    rbm, x, _ = task()
    _, _, energy = brute_energies(rbm.double())
    joint = torch.logsumexp(-energy, 1)
    program = inspect_program(rbm.model, rbm.guide, x)
    found = [ContrastiveDivergence().measure(program, seed=s)["pseudo_log_likelihood"] for s in range(20)]
    index = (x.double() @ (2.0 ** torch.arange(8, -1, -1, dtype=torch.float64))).long()
    exact = sum(
        (joint[index] - torch.logaddexp(joint[index], joint[index ^ (1 << i)])).mean() for i in range(9)
    )
    found = torch.tensor(found)
    assert abs(found.mean() - exact) < 4 * found.std() / 20**0.5


@pytest.mark.parametrize("name", OBJECTIVES)
def test_chains_are_part_of_checkpoints(name, tmp_path, monkeypatch):
    """Killed in the middle of an epoch and resumed: the run that was never killed."""

    class Killed(BaseException):
        pass

    whole_rbm, x, valid = task()
    whole = run(name, whole_rbm, x, valid, ema=0.9)
    own, done = pv.Trainer.step, []

    def step(self):
        if len(done) == 17:
            raise Killed
        done.append(1)
        return own(self)

    options = {"checkpoint": tmp_path / "c", "checkpoint_steps": 3, "ema": 0.9}
    with monkeypatch.context() as patch:
        patch.setattr(pv.Trainer, "step", step)
        with pytest.raises(Killed):
            run(name, *task(), **options)
    rbm, *data = task(seed=5)
    again = run(name, rbm, *data, resume=True, **options)
    assert repr(again.history) == repr(whole.history)
    assert all(torch.equal(a, b) for a, b in zip(rbm.parameters(), whole_rbm.parameters(), strict=True))
    other = ParallelTempering(1, 16, (1.0, 2.0, 3.0)) if name == "tempering" else OBJECTIVES[name]()
    other.steps += name != "tempering"
    with pytest.raises(ValueError, match="objective"):
        run(name, *task(), resume=True, objective=other, **options)


def test_a_new_fit_starts_new_chains():
    objective = PersistentCD(1, 8)
    first, second = (run("pcd", *task(), objective=objective, epochs=1).history for _ in range(2))
    assert repr(first) == repr(second)


def test_exchanges_leave_each_temperature_its_law():
    """A machine with two modes: the chains at T = 1, mixed by exchanges alone, keep p(v)."""
    rbm = machine(3, 2, 1.5)
    objective = ParallelTempering(1, 4000, (1.0, 2.0, 4.0))
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(60):
            drawn = objective.negative(rbm, torch.zeros(1, 3, dtype=torch.float64))
    _, _, energy = brute_energies(rbm)
    p = torch.softmax(torch.logsumexp(-energy, 1), 0)
    counts = torch.bincount((drawn @ torch.tensor([4.0, 2, 1], dtype=torch.float64)).long(), minlength=8)
    error = (p * (1 - p) / 4000).sqrt()
    assert ((counts / 4000 - p).abs() < 4.5 * error + 1e-9).all(), (counts / 4000, p)


def test_a_program_by_hand_is_trained_and_normalised():
    """A Boltzmann machine of two visible spins, as functions with their own parameter."""

    class Pairs:
        def free_energy(self, x):
            return -pyro.param("coupling", torch.tensor(0.0)) * (2 * x[..., 0] - 1) * (2 * x[..., 1] - 1)

        def free_energy_change(self, x, old, new):
            return (torch.as_tensor(new) - torch.as_tensor(old)) * self.free_energy(x).double()

        def transition(self, x, steps, beta=1.0):
            for _ in range(steps):  # heat bath, one spin and then the other and back: reversible
                for i in (0, 1, 0):
                    field = 2 * beta * pyro.param("coupling") * (2 * x[..., 1 - i] - 1)
                    spin = (torch.rand(len(x)) < torch.sigmoid(field)).float()
                    x = torch.stack([spin if j == i else x[..., j] for j in (0, 1)], -1)
            return x

        def start(self, num):
            return (torch.rand(num, 2) < 0.5).float()

        def start_log_partition(self):
            return torch.tensor(math.log(4.0), dtype=torch.float64)

    @pv.program(density="unnormalised", annealed=Pairs)
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("nothing", dist.Normal(0.0, 1.0))
            pyro.factor("f", -Pairs().free_energy(x))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("nothing", dist.Normal(0.0, 1.0))

    x = torch.tensor([[1.0, 1.0]] * 9 + [[1.0, 0.0]] * 3)  # p(equal) = 3/4: coupling ½ ln 3
    fit = pv.fit(model, guide, x, objective=PersistentCD(1, 400), epochs=150, batch_size=12, lr=0.02, ema=0.9)
    learned = float(fit.store.state_dict()["coupling"])
    assert learned == pytest.approx(0.5 * math.log(3), abs=0.12)
    exact = math.log(4 * math.cosh(learned))
    found = pv.log_partition(fit.model, betas=30, num_chains=400)
    assert abs(found.value - exact) < 4 * found.error < 0.2
    e = pv.evidence(fit.model, fit.guide, x, estimators=[pv.Normalised(found)])["Normalised"]
    assert e.per_datum[0] == pytest.approx(learned - found.value, abs=1e-5)


# ln Z ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_annealing_brackets_the_exact_partition_function(seed):
    rbm = machine(8, 5, 1.0, seed)
    exact = rbm.exact_log_partition().value
    forward = pv.log_partition(rbm.model, betas=300, num_chains=200, seed=seed)
    v = states(8)
    draws = v[torch.multinomial(torch.softmax(-rbm.free_energy(v).detach(), 0), 200, replacement=True)]
    backward = pv.log_partition(rbm.model, betas=300, draws=draws, seed=seed)
    for found in (forward, backward):
        assert abs(found.value - exact) < 4 * found.error < 0.3
    assert (forward.direction, backward.direction) == ("<=", ">=")
    assert 20 < forward.ess <= 200 and forward.num_chains == 200 and forward.num_temperatures == 300


def test_few_temperatures_are_biased_in_the_direction_that_is_said():
    """Few and coarse steps: the mean of ln Z over runs is below forwards, above backwards, clearly."""
    rbm = machine(8, 5, 1.5, 7)
    exact = rbm.exact_log_partition().value
    v = states(8)
    p = torch.softmax(-rbm.free_energy(v).detach(), 0)
    low, high = [], []
    for seed in range(200):
        torch.manual_seed(seed)
        draws = v[torch.multinomial(p, 4, replacement=True)]
        low.append(pv.log_partition(rbm.model, betas=4, num_chains=4, seed=seed).value)
        high.append(pv.log_partition(rbm.model, betas=4, draws=draws, seed=seed).value)
    low, high = torch.tensor(low) - exact, torch.tensor(high) - exact
    assert low.mean() < -4 * low.std() / 200**0.5
    assert high.mean() > 4 * high.std() / 200**0.5


def test_weights_backwards_are_the_mirror_image():
    """Of one step: E_p0[w] = Z/Z0 and E_p1[1/w] = Z0/Z, over all states and so without noise."""
    rbm = machine()
    v = states(5)
    change = rbm.free_energy_change(v, 0.0, 1.0)
    base = rbm.visible.energy(v, rbm.base_bias)
    p0, p1 = torch.softmax(-base, 0), torch.softmax(-rbm.free_energy(v), 0)
    ratio = rbm.exact_log_partition().value - float(rbm.start_log_partition())
    assert float((p0 * (-change).exp()).sum().log()) == pytest.approx(ratio, abs=1e-10)
    assert float(-(p1 * change.exp()).sum().log()) == pytest.approx(ratio, abs=1e-10)


def test_the_bootstrap_error_is_that_of_repeated_runs():
    g = torch.Generator().manual_seed(0)
    runs = [bootstrapped(0.5 * torch.randn(100, generator=g, dtype=torch.float64)) for _ in range(300)]
    values, errors = (torch.tensor(column) for column in zip(*runs, strict=True))
    assert float(errors.mean() / values.std()) == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("L", [2, 3, 4])
@pytest.mark.parametrize("T", [0.5, T_CRITICAL, 5.0])
def test_the_ising_torus_is_a_machine(L, T):
    law = IsingTorus(L, T)
    rbm = RBM.from_ising(law)
    assert rbm.weight.shape == (L**2, 2 * L**2)
    x = states(L**2)[:: 1 if L < 4 else 97]
    expected = -pv.data.energy(x) / T + ising_log_constant(law)
    assert torch.allclose(-rbm.free_energy(x), expected, rtol=1e-12, atol=1e-9)
    log_z = rbm.exact_log_partition().value - ising_log_constant(law)
    assert log_z == pytest.approx(law.log_partition, abs=1e-9)


def test_ising_is_bracketed_from_exact_draws():
    law = IsingTorus(6, T_CRITICAL)
    rbm = RBM.from_ising(law).float()
    exact = law.log_partition + ising_log_constant(law)
    draws = law.sample((64,), torch.Generator().manual_seed(0))
    forward = pv.log_partition(rbm.model, betas=400, num_chains=64)
    backward = pv.log_partition(rbm.model, betas=400, draws=draws)
    assert abs(forward.value - exact) < 4 * forward.error < 1
    assert abs(backward.value - exact) < 4 * backward.error < 1


# Evidence -----------------------------------------------------------------------------------------


def test_evidence_says_which_way_it_errs():
    rbm, v = machine(), states(5)
    exact = pv.evidence(rbm.model, rbm.guide, v, estimators=[pv.ELBO(2), pv.Exact()])
    assert float(exact["Exact"].per_datum.logsumexp(0)) == pytest.approx(0.0, abs=1e-10)
    assert exact["Exact"].direction == "~" and exact["ELBO"].direction == "none"
    assert exact.best.name == "Exact" and "figures of ELBO are ln f(x)" in exact.verdict
    assert torch.allclose(exact["Exact"].per_datum, rbm.log_evidence(v), atol=1e-12)
    forward = pv.log_partition(rbm.model, betas=40, num_chains=50)
    ev = pv.evidence(rbm.model, rbm.guide, v, estimators=[pv.IS(10), pv.Normalised(forward)])
    e = ev["Normalised"]
    assert e.direction == ">=" and e.certificate is None and ev.best is e
    assert "OVERSTATED" in ev.verdict and f"{forward.value:.3f}" in ev.verdict
    # One ln Z for all data: their number does not make its error smaller.
    assert e.se_mc == pytest.approx(forward.error) and e.shared_error == forward.error
    assert "≤" in ev.table() and "chains" in ev.table("markdown")
    with pytest.raises(ValueError, match="only bounds"):
        e.interval()
    assert ev.compare(exact).se >= forward.error
    backward = pv.log_partition(rbm.model, betas=40, draws=rbm.sample(50).double())
    e = pv.evidence(rbm.model, rbm.guide, v, estimators=[pv.Normalised(backward)])["Normalised"]
    assert e.direction == "<="
    e = pv.evidence(rbm.model, rbm.guide, v, estimators=[pv.Normalised(rbm.exact_log_partition())])[
        "Normalised"
    ]
    assert e.direction == "~" and e.shared_error == 0 and torch.allclose(e.per_datum, rbm.log_evidence(v))
    alone = pv.evidence(rbm.model, rbm.guide, v, estimators=[pv.Normalised(betas=20, num_chains=10)])
    assert alone["Normalised"].details["num_temperatures"] == 20


def test_chains_of_ln_z_that_tell_nothing_are_named():
    """Weights 3 times as large as a few temperatures can follow: ESS 1 to 5 of 50, and no word."""
    rbm, v = machine(), states(5)
    with torch.no_grad():
        for p in rbm.parameters():
            p.mul_(6)
    exact = rbm.exact_log_partition().value
    for betas, chains, said in ((2, 50, "ESS"), (1000, 3, "too few"), (1000, 50, None)):
        asked = pv.Normalised(betas=betas, num_chains=chains)
        ev = pv.evidence(rbm.model, rbm.guide, v, estimators=[asked])
        words = [w for w in ev.warnings if w.startswith("Normalised")]
        assert (said is None and not words) or said in words[0]
        if said is None:
            assert abs(ev["Normalised"].details["log_partition"] - exact) < 5 * ev["Normalised"].se_mc


def test_results_of_ln_z_describe_themselves():
    found = LogPartition(451.28, 0.04, "<=", "AIS")
    assert "ln Z ≥ 451.2800 ± 0.0400" in repr(found)
    low, high = found.interval
    assert low == pytest.approx(451.28 + math.log(0.88)) and high == pytest.approx(451.28 + math.log(1.12))
    assert LogPartition(0.0, 0.5, "<=", "AIS").interval[0] == -math.inf


# Scripts ------------------------------------------------------------------------------------------


def test_scripts_train_evaluate_and_draw(tmp_path, capsys):
    out = tmp_path / "run"
    options = ["--model", "rbm", "--data", "ising", "--hidden", "6", "--epochs", "2", "--batch-size", "500"]
    quiet = ["--quiet", "--device", "cpu"]
    phases = ["--objective", "tempering", "--gibbs-chains", "10", "--ladder", "1", "2", "--exact-likelihood"]
    assert train.main([*options, *phases, *quiet, "--out", str(out)]) == 0
    assert "validation log-likelihood" in capsys.readouterr().out
    assert (out / "training.png").stat().st_size < 300_000
    machine = machine_of(pv.load(out))
    assert machine is not None and machine.weight.shape == (64, 6)
    assert evaluate.main([str(out), *quiet, "--limit", "50"]) == 0
    assert "ln p(x) is exact" in " ".join(capsys.readouterr().out.split())
    assert "log_likelihood" in repr(pv.load(out))
    estimators = ["--estimators", "exact", "normalised", "--partition-temperatures", "100"]
    assert evaluate.main([str(out), *quiet, "--limit", "50", *estimators]) == 0
    ev = pv.load(out).stored_evidence
    assert ev["Normalised"].direction == ">="
    assert abs(ev["Normalised"].log_evidence - ev["Exact"].log_evidence) < 4 * ev["Normalised"].se_mc
    assert sample.main([str(out), "--num", "9", "--steps", "5"]) == 0
    with np.load(out / "samples.npz") as arrays:
        assert arrays["x"].shape == arrays["mean"].shape == (9, 64)
        assert set(np.unique(arrays["x"])) <= {0.0, 1.0}
    assert (out / "samples.png").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "digits", "--objective", "pcd"], "expected binary or real data for an rbm, got levels"),
        (["--data", "ising"], "normalised density for Trace_ELBO"),
        (["--data", "ising", "--objective", "cd", "--gibbs-steps", "0"], "--gibbs-steps >= 1"),
        (["--data", "ising", "--objective", "tempering", "--ladder", "1", "3", "2"], "rise from 1"),
        (["--data", "ising", "--objective", "pcd", "--hidden", "8", "8"], "one --hidden number"),
        (
            ["--data", "ising", "--objective", "pcd", "--hidden", "26", "--exact-likelihood"],
            "at most 25 units",
        ),
    ],
)
def test_scripts_refuse(options, message, tmp_path, capsys):
    assert (
        train.main(["--model", "rbm", *options, "--quiet", "--out", str(tmp_path / "run"), "--epochs", "1"])
        == 2
    )
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# Bad input ----------------------------------------------------------------------------------------


def test_bad_input():
    x = torch.zeros(4, 5)
    with pytest.raises(ValueError, match="binary data"):
        RBM.initialised_to(x + 0.5, 3)
    rbm = machine().float()
    with pytest.raises(ValueError, match="support of Bernoulli"):
        pv.fit(rbm.model, rbm.guide, x + 0.5, objective=PersistentCD(), epochs=1)
    with pytest.raises(ValueError, match="support of Bernoulli"):
        pv.evidence(rbm.model, rbm.guide, x + 0.5)
    large = RBM(30, 40)
    for refused in (large.exact_log_partition, lambda: large.log_evidence(torch.zeros(2, 30))):
        with pytest.raises(ValueError, match=r"at most 25 units .* got 30 visible and 40 hidden"):
            refused()
    with pytest.raises(ValueError, match="at most 25"):
        pv.fit(large.model, large.guide, torch.zeros(4, 30), objective=PersistentCD(exact=True), epochs=1)
    for make in (
        lambda: ContrastiveDivergence(0),
        lambda: PersistentCD(True),
        lambda: PersistentCD(1, 0),
        lambda: RBM(0, 3),
        lambda: rbm.gibbs(x, 0),
        lambda: GaussianUnits(0.0),
        lambda: pv.Normalised(num_chains=1),
        lambda: pv.log_partition(rbm.model, betas=1),
        lambda: pv.log_partition(rbm.model, num_chains=1),
    ):
        with pytest.raises(ValueError, match="expected"):
            make()
    for ladder in ((1.0,), (1.0, 3.0, 2.0), (2.0, 3.0), (1.0, math.inf)):
        with pytest.raises(ValueError, match="rise from 1"):
            ParallelTempering(1, 10, ladder)
    for path in ([0.0, 0.6, 0.5, 1.0], [0.1, 1.0], [0.0, 0.9], [0.0, 0.5, 0.5, 1.0]):
        with pytest.raises(ValueError, match="rise from 0 to 1"):
            pv.log_partition(rbm.model, betas=path)


def test_objectives_and_programs_must_match():
    rbm, x = machine().float(), torch.zeros(4, 5)
    with pytest.raises(ValueError, match="normalised density for Trace_ELBO"):
        pv.fit(rbm.model, rbm.guide, x, objective=Trace_ELBO(), epochs=1)
    gaussian = LinearGaussian(torch.zeros(5, 2))
    with pytest.raises(ValueError, match="declared density='unnormalised' for PersistentCD, got 'exact'"):
        pv.fit(gaussian.model, gaussian.guide, x, objective=PersistentCD(), epochs=1)
    plain = pv.program(density="unnormalised")(lambda v: rbm.model(v))
    with pytest.raises(ValueError, match="declares the family"):
        pv.fit(plain, rbm.guide, x, objective=PersistentCD(), epochs=1)
    with pytest.raises(ValueError, match="KL term"):
        pv.fit(rbm.model, rbm.guide, x, objective=PersistentCD(), beta=0.5, epochs=1)
    with pytest.raises(ValueError, match="exact=True"):
        pv.fit(rbm.model, rbm.guide, x, valid=x, objective=PersistentCD(), patience=2, epochs=1)


@pytest.mark.parametrize("estimator", [pv.Exact(), pv.Normalised(betas=20, num_chains=5), pv.IS(5)])
def test_data_that_no_unit_can_take_are_refused(estimator):
    """ln p(v) of a formula has a value for any v; of bits it means something for bits alone."""
    machine = RBM(6, 4)
    with pytest.raises(ValueError, match="in the support of Bernoulli"):
        pv.evidence(machine.model, machine.guide, torch.full((3, 6), 0.4), estimators=[estimator])
