"""Training: the loop, its state and its schedules."""

import csv
import math
import pickle
import subprocess
import sys
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO

import pyrovae as pv
from pyrovae.inference.running.summary import note_of
from pyrovae.models.linear_gaussian import LinearGaussian
from pyrovae.programs import ParameterStore, inspect_program
from pyrovae.training import measure
from pyrovae.training.schedules import as_schedule

from .training_pair import F64, RISING, VALID, D, L, Pair, X, assert_equal, data, flat, trainer

# Schedules -----------------------------------------------------------------------------------------


def test_schedules():
    assert [pv.Warmup(4)(e) for e in (0, 1, 3.5, 4, 9)] == [0, 0.25, 0.875, 1, 1]
    assert [pv.Warmup(2, 0.5, 0.1)(e) for e in (0, 1, 2)] == pytest.approx([0.5, 0.3, 0.1])
    cyclical = pv.Cyclical(10, rise=0.5)
    assert [cyclical(e) for e in (0, 2.5, 5, 9.9, 10, 12.5)] == pytest.approx([0, 0.5, 1, 1, 0, 0.5])
    exponential = pv.Exponential(1e-1, 1e-3, 10)
    assert [exponential(e) for e in (0, 5, 10, 20)] == pytest.approx([1e-1, 1e-2, 1e-3, 1e-3])
    assert pv.Constant(0.3)(7) == as_schedule(0.3)(7) == 0.3 and as_schedule(cyclical) is cyclical
    for bad in (
        lambda: pv.Warmup(0),
        lambda: pv.Cyclical(0),
        lambda: pv.Cyclical(5, rise=0),
        lambda: pv.Cyclical(5, rise=1.5),
        lambda: pv.Exponential(0, 1, 5),
        lambda: pv.Exponential(1, 1, 0),
    ):
        with pytest.raises(ValueError, match="expected"):
            bad()


def test_schedules_reach_the_steps():
    t = trainer(beta=pv.Warmup(2), lr=pv.Exponential(0.1, 0.001, 2), batch_size=25)
    seen = []
    for _ in range(5):
        t.step()
        seen.append((t.objective.beta, t.svi.optimizer.param_groups[0]["lr"]))
    assert [s[0] for s in seen] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert [s[1] for s in seen] == pytest.approx([10 ** -(1 + i / 2) for i in range(5)])
    # A row tells what its epoch's last step was trained with, at the end of a cycle too.
    t = trainer(beta=pv.Cyclical(1, rise=0.5), batch_size=25)
    assert t.run_epoch()["beta"] == 1.0


def test_an_objective_keeps_its_own_kl_weight():
    """Given as a `BetaELBO`, whose weight the default of `beta` would take away; two weights are refused."""
    own = pv.objectives.BetaELBO(Trace_ELBO(), 0.25)
    first, second = trainer(objective=own), trainer(objective=Trace_ELBO(), beta=0.25)
    assert first.run_epoch() == second.run_epoch() and first.last_beta(0) == 0.25
    assert_equal(first.weights(), second.weights())
    for beta in (0.5, pv.Warmup(2)):
        with pytest.raises(
            ValueError, match="expected an ELBO with a KL term to weigh by beta, got BetaELBO"
        ):
            trainer(objective=own, beta=beta)


@pytest.mark.parametrize("make", [lambda p: torch.optim.SGD(p, lr=0.5), torch.optim.Adam])
def test_a_given_optimizer_keeps_its_learning_rate(make):
    own = make([torch.zeros(1, requires_grad=True)]).param_groups[0]["lr"]
    t = trainer(optim=make, lr=None, batch_size=25)
    t.step(), t.step()
    assert t.svi.optimizer.param_groups[0]["lr"] == own != 0.01
    t = trainer(optim=make, lr=0.01, batch_size=25)
    t.step()
    assert t.svi.optimizer.param_groups[0]["lr"] == 0.01
    assert trainer(lr=None).svi.optimizer.param_groups[0]["lr"] == 1e-3
    with pytest.raises(ValueError, match=r"pyro.optim"):
        trainer(optim=pyro.optim.Adam({"lr": 0.1}), lr=0.01)


# State ---------------------------------------------------------------------------------------------

STEPS = 9
ALONE = """
import pickle, sys
import torch
from tests import test_training as t
trainer = t.trainer(seed=int(sys.argv[1]), norm=True)
for _ in range(t.STEPS):
    trainer.step()
with open(sys.argv[2], "wb") as f:
    pickle.dump(trainer.weights(), f)
"""


@pytest.mark.slow
def test_interleaved_fits_are_those_run_alone(tmp_path):
    root = Path(__file__).parents[1]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", ALONE, str(seed), str(tmp_path / str(seed))],
            cwd=root,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in (0, 1)
    ]
    torch.set_num_threads(1)  # as in the other processes: sums are split by thread
    trainers = [trainer(seed=seed, norm=True) for seed in (0, 1)]
    for _ in range(STEPS):
        for t in trainers:
            t.step()
            torch.randn(3)
    assert set(trainers[0].store.unconstrained()) == set(trainers[1].store.unconstrained())
    for seed, process in enumerate(running):
        _, error = process.communicate()
        assert process.returncode == 0, error
        alone = pickle.loads((tmp_path / str(seed)).read_bytes())
        assert_equal(trainers[seed].weights(), alone)
        start = trainer(seed=seed, norm=True).weights()
        changed = [k for k, v in flat(start).items() if not torch.equal(v, flat(alone)[k])]
        assert len(changed) >= len(start["parameters"]), "all of it was trained"


@pytest.mark.parametrize("steps", [4, 6])  # at the end of an epoch, and in the middle of one
@pytest.mark.parametrize("kind", ["torch", "pyro"])
def test_state_continues_bit_for_bit(steps, kind):
    options = {} if kind == "torch" else {"optim": pyro.optim.Adam({"lr": 0.01}), "lr": None}
    straight = trainer(norm=True, beta=pv.Warmup(3), **options)
    for _ in range(steps):
        straight.step()
    state = straight.state_dict()
    for _ in range(5):
        straight.step()  # must not reach into the state that was taken
    options = {} if kind == "torch" else {"optim": pyro.optim.Adam({"lr": 0.01}), "lr": None}
    resumed = trainer(norm=True, beta=pv.Warmup(3), **options)
    resumed.step()
    resumed.load_state_dict(state)
    assert (resumed.epoch, resumed.batch, resumed.global_step) == (steps // 4, steps % 4, steps)
    for _ in range(5):
        resumed.step()
    assert_equal(straight.weights(), resumed.weights())
    assert straight.step() == resumed.step()


def test_state_of_another_run_is_refused():
    state = trainer().state_dict()
    with pytest.raises(ValueError, match="seed 1, got seed 0"):
        trainer(seed=1).load_state_dict(state)
    with pytest.raises(ValueError, match="buffers"):
        trainer(norm=True).load_state_dict(state)
    state["parameters"]["other"] = torch.zeros(1)
    with pytest.raises(ValueError, match="another architecture"):
        trainer().load_state_dict(state)


def test_a_bound_store_is_taken_up():
    """A model that carries a store, though empty, is trained in that one."""
    pair, store = Pair(), ParameterStore()
    t = pv.Trainer(store.bind(pair.model), pair.guide, X)
    assert t.store is store and {"scale"} < set(store.unconstrained())
    again = pv.fit(t.model, t.guide, X, epochs=1)
    assert again.store is store
    with pytest.raises(ValueError, match="one parameter store"):
        pv.Trainer(ParameterStore().bind(pair.model), t.guide, X)


def test_initial_parameters_follow_the_seed():
    def guide(x):
        loc = pyro.param("loc", lambda: torch.randn(L, dtype=F64))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1).expand([len(x)]))

    starts = [pv.Trainer(Pair().model, guide, X, seed=s).store.state_dict()["loc"] for s in (0, 0, 1)]
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])


# Fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [None, TraceMeanField_ELBO()])
def test_fit(objective, tmp_path):
    pair = Pair()
    pyro.param("encoder$$$0.bias", torch.ones(3))  # of another program; must neither be used nor changed
    before = {k: v.clone() for k, v in pyro.get_param_store().items()}
    torch.manual_seed(11)
    state = torch.get_rng_state()
    rows = []
    fit = pv.fit(
        pair.model,
        pair.guide,
        X,
        valid=VALID,
        objective=objective,
        epochs=25,
        batch_size=10,
        lr=0.02,
        on_epoch=rows.append,
    )
    assert torch.equal(state, torch.get_rng_state())
    after = dict(pyro.get_param_store().items())
    pyro.clear_param_store()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
    history = fit.history
    assert rows == history and len(history) == 25
    metrics = ["elbo", "reconstruction", "kl", "active_units"]
    assert list(history[0]) == [
        *("epoch", "step", "loss", "beta", "lr", "compiled_share"),
        *metrics,
        *(f"valid_{m}" for m in metrics),
    ]
    assert len(fit.timing) == 25 and all(t > 0 for t in fit.timing) and fit.seconds >= sum(fit.timing)
    assert [r["epoch"] for r in history] == list(range(1, 26)) and history[-1]["step"] == 125
    first, last = history[0], history[-1]
    assert last["valid_elbo"] > first["valid_elbo"] + 0.5 and last["elbo"] > first["elbo"] + 0.5
    for r in history:
        assert r["elbo"] == pytest.approx(r["reconstruction"] - r["kl"]) and r["beta"] == 1
    assert last["active_units"] in (1, 2)
    assert abs(last["loss"] + last["elbo"]) < 1, "the loss is minus the ELBO, per datum"
    # The programs carry their parameters; the evidence of them agrees with what was logged.
    best = max(history, key=lambda r: r["valid_elbo"])
    assert fit.best_epoch == best["epoch"]
    elbo = pv.evidence(fit.model, fit.guide, VALID, estimators=[pv.ELBO(2000)])["ELBO"]
    assert abs(elbo.log_evidence - best["valid_elbo"]) < 4 * elbo.se_mc * math.sqrt(2000)
    assert not dict(pyro.get_param_store().items())
    assert all(m.training for m in pair.modules())
    fit.write_csv(tmp_path / "history.csv")
    with (tmp_path / "history.csv").open() as f:
        read = list(csv.DictReader(f))
    assert [float(r["valid_elbo"]) for r in read] == [r["valid_elbo"] for r in history]


def test_fit_reaches_the_exact_evidence():
    """Probabilistic PCA with its exact guide: SVI is maximum likelihood, whose optimum is known."""
    x = data(400)
    centred = x - x.mean(0)
    values = torch.linalg.eigvalsh(centred.T @ centred / len(x)).flip(0)
    noise = values[L:].mean()
    best = -0.5 * (D * math.log(2 * math.pi) + values[:L].log().sum() + (D - L) * noise.log() + D)
    torch.manual_seed(0)
    model = LinearGaussian(torch.randn(D, L, dtype=F64))
    fit = pv.fit(model.model, model.guide, x, epochs=500, batch_size=400, lr=pv.Exponential(0.1, 1e-3, 500))
    reached = pv.evidence(fit.model, fit.guide, x, estimators=[pv.IS(10)])["IS"].log_evidence
    assert best - 1e-4 < reached <= best + 1e-9


def test_restore_best_and_patience():
    def run(**options):
        pair = Pair()
        options = {"valid": VALID, "lr": RISING, "epochs": 12, "batch_size": 10} | options
        return pv.fit(pair.model, pair.guide, X, **options), pair

    fit, pair = run()
    scores = [r["valid_elbo"] for r in fit.history]
    assert fit.best_epoch == scores.index(max(scores)) + 1 < 12
    stopped = run(epochs=fit.best_epoch, restore_best=False)[1]
    for a, b in zip(pair.parameters(), stopped.parameters(), strict=True):
        assert torch.equal(a, b)
    last, _ = run(restore_best=False)
    assert last.best_epoch == 12
    patient, _ = run(patience=1)
    fall = next(i for i in range(1, 12) if scores[i] <= max(scores[:i]))
    assert len(patient.history) == fall + 1
    # While beta still changes, no epoch is the best one.
    warm, _ = run(beta=pv.Warmup(11), patience=1)
    assert warm.best_epoch == 12 and len(warm.history) == 12
    for bad, match in (
        ({"patience": 0}, "patience"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
    ):
        with pytest.raises(ValueError, match=match):
            run(**bad)
    with pytest.raises(ValueError, match="validation data with patience"):
        run(valid=None, patience=3)
    with pytest.raises(ValueError, match="seed to be a whole number >= 0"):
        run(seed=-1)


def test_restore_best_takes_running_statistics_along():
    pair = Pair(norm=True)
    fit = pv.fit(pair.model, pair.guide, X, valid=VALID, lr=RISING, epochs=10, batch_size=10)
    assert fit.best_epoch < 10
    again = Pair(norm=True)
    pv.fit(again.model, again.guide, X, valid=VALID, lr=RISING, epochs=fit.best_epoch, batch_size=10)
    assert torch.equal(pair.encoder[0].running_mean, again.encoder[0].running_mean)


def test_modes_are_restored():
    pair = Pair(norm=True)
    pair.eval()
    pair.decoder.train()
    modes = [m.training for m in pair.modules()]
    pv.fit(pair.model, pair.guide, X, epochs=1)
    assert [m.training for m in pair.modules()] == modes
    assert pair.encoder[0].num_batches_tracked > 0, "trained in training mode all the same"


def test_loss_that_is_not_finite():
    with pytest.raises(FloatingPointError, match=r"in epoch \d+, batch \d+ .*lower learning rate"):
        pv.fit(Pair().model, Pair().guide, X, epochs=50, lr=1e6, optim=torch.optim.SGD)


def test_free_bits_and_beta_leave_the_logged_elbo_alone():
    pair = Pair()
    fit = pv.fit(
        pair.model, pair.guide, X, epochs=2, free_bits=50.0, beta=0.5, objective=TraceMeanField_ELBO()
    )
    row = fit.history[-1]
    assert row["loss"] > 0.5 * 50 and row["elbo"] == pytest.approx(row["reconstruction"] - row["kl"])
    assert row["elbo"] > -20 and row["kl"] < 10


def test_the_kl_is_its_own_terms_whatever_the_size_of_the_reconstruction():
    """A reconstruction of -1.5e8 nats in float32 (16 nats apart) beside a KL of 84.6."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.full((len(x), 2), 9.0), 0.1).to_event(1))

    x = torch.full((20, 1), 17321.0)
    found = measure(inspect_program(model, guide, x), num_samples=500)
    exact = 81 + 0.01 - 1 - math.log(0.01)
    sd = 2**0.5 * (0.9**2 + (1 - 0.01) ** 2 / 2) ** 0.5  # of ln q - ln p, a draw
    assert abs(found.kl_sites["z"] - exact) < 4 * sd / 100
    assert found.kl == sum(found.kl_sites.values())
    assert found.elbo == found.reconstruction - found.kl and found.reconstruction < -1e8


def test_summed_out_latents_leave_no_kl_and_the_words_say_none():
    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.tensor([0.6, 0.4])), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(torch.tensor([-1.0, 1.5])[c], 1.0), obs=x)

    x = torch.tensor([0.3, -2.0])
    found = measure(inspect_program(model, lambda x: None, x))
    exact = (
        dist.Normal(-1.0, 1.0).log_prob(x).exp() * 0.6 + dist.Normal(1.5, 1.0).log_prob(x).exp() * 0.4
    ).log()
    assert found.elbo == pytest.approx(float(exact.mean()), abs=1e-6)
    assert math.isnan(found.kl) and math.isnan(found.reconstruction)
    assert note_of(found.row()) == f"ELBO {found.elbo:.2f} valid nan"


def test_the_logged_loss_is_a_mean_over_data():
    """50 data in batches of 16: the last one has 2, of weight 2/50."""
    t, other = trainer(), trainer()
    losses = [t.step() for _ in range(4)]
    row = other.run_epoch()
    assert row["loss"] == pytest.approx((16 * sum(losses[:3]) + 2 * losses[3]) / 50, rel=1e-6)
    assert abs(row["loss"] - sum(losses) / 4) > 0.01
