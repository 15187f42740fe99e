"""The Ising study: exact laws and yardsticks, the measured KL against the enumerated one, the command, its options."""

import json
import math

import pytest
import torch

import pyrovae as pv
from pyrovae.data import T_CRITICAL, IsingTorus
from pyrovae.data.ising.laws import (
    energy_law,
    energy_levels,
    exact_correlation,
    independent_spins_kl,
    magnetisation_only_kl,
    up_spins_law,
)
from pyrovae.inference import evaluate, ising, sample, train
from pyrovae.inference.studies.ising_cells import Question, sample_figures
from pyrovae.inference.studies.ising_study import make_plan
from pyrovae.models.boltzmann import RBM
from pyrovae.models.composing.architectures import Perceptrons
from pyrovae.models.composing.vae import compose

# (T, magnetisation only, independent spins) as published for this project, of draws for L = 8.
YARDSTICKS = {
    4: ((2.0, 0.130, 8.03), (T_CRITICAL, 0.247, 6.61), (3.0, 0.480, 3.23)),
    8: ((2.0, 1.18, 33.9), (T_CRITICAL, 3.28, 26.3), (3.0, 5.90, 10.1)),
}


def every_configuration(L):
    codes = torch.arange(2 ** (L * L)).unsqueeze(-1)
    return ((codes >> torch.arange(L * L)) & 1).float()


@pytest.mark.parametrize("L", YARDSTICKS)
def test_yardsticks(L):
    for T, magnetisation, independent in YARDSTICKS[L]:
        law = IsingTorus(L, T)
        # L = 4 to half a unit of the last digit; those of L = 8 are means over draws, with an SE near 0.03.
        assert magnetisation_only_kl(law) == pytest.approx(magnetisation, abs=6e-4 if L == 4 else 0.1)
        assert independent_spins_kl(law) == pytest.approx(independent, abs=0.06)


@pytest.mark.parametrize("T", [2.0, T_CRITICAL, 3.0])
def test_magnetisation_only_against_draws(T):
    """The same model, its density taken at independent draws of the law."""
    law = IsingTorus(8, T)
    x = law.sample((20_000,), torch.Generator().manual_seed(5))
    n = x.sum(-1).long()
    log_ways = math.lgamma(65) - torch.lgamma(n.double() + 1) - torch.lgamma(65 - n.double())
    difference = law.log_prob(x) - (up_spins_law(law)[n].log() - log_ways)
    error = float(difference.std()) / math.sqrt(len(x))
    assert error < 0.04
    assert abs(float(difference.mean()) - magnetisation_only_kl(law)) < 4 * error


@pytest.mark.parametrize("L", [3, 4])
def test_exact_laws_are_those_of_enumeration(L):
    """Odd sides frustrate some bonds always: not all levels have states."""
    law, x = IsingTorus(L, 2.3), every_configuration(L)
    p = law.log_prob(x).exp()
    by_energy = torch.zeros(L * L + 1, dtype=torch.float64)
    by_energy.index_add_(0, ((pv.data.energy(x) + 2 * L * L) / 4).round().long(), p)
    by_spins = torch.zeros(L * L + 1, dtype=torch.float64).index_add_(0, x.sum(-1).long(), p)
    torch.testing.assert_close(energy_law(law), by_energy, rtol=0, atol=1e-13)
    torch.testing.assert_close(up_spins_law(law), by_spins, rtol=0, atol=1e-13)
    G = (p.unsqueeze(-1) * pv.data.correlation(x)).sum(0)
    torch.testing.assert_close(exact_correlation(law), G, rtol=0, atol=1e-12)


def test_exact_laws_have_the_thermodynamics_of_kaufman():
    for T in (1.0, T_CRITICAL, 5.0):
        law = IsingTorus(8, T)
        p, E = energy_law(law), energy_levels(8)
        mean = float((p * E).sum())
        assert mean == pytest.approx(law.energy, abs=1e-9)
        assert float((p * (E - mean) ** 2).sum()) / T**2 == pytest.approx(law.heat_capacity, abs=1e-8)
        assert -128 * float(exact_correlation(law)[1]) == pytest.approx(law.energy, abs=1e-9)


def test_laws_beyond_the_transfer_matrix_are_of_draws():
    law = IsingTorus(12, 5.0)
    p = energy_law(law)
    n = 20_000
    assert float(p.sum()) == pytest.approx(1)
    mean = float((p * energy_levels(12)).sum())
    assert abs(mean - law.energy) < 6 * math.sqrt(law.heat_capacity * 25 / n)  # chains: a little correlated


def test_figures_of_draws_have_errors():
    law = IsingTorus(6, 3.0)
    found = sample_figures(law.sample((4000,), torch.Generator().manual_seed(1)), law.T)
    assert abs(found["energy"] - law.energy) < 4 * found["energy_se"]
    assert abs(found["heat_capacity"] - law.heat_capacity) < 4 * found["heat_capacity_se"]
    exact = exact_correlation(law)
    for value, error, true in zip(
        found["correlation"][1:], found["correlation_se"][1:], exact[1:], strict=True
    ):
        assert abs(value - true) < 4 * error


def enumerated(law, log_q):
    """KL and the standard deviation of ln p − ln q under p, over all configurations."""
    x = every_configuration(law.L)
    log_p = law.log_prob(x)
    p, difference = log_p.exp(), log_p - log_q(x)
    kl = float((p * difference).sum())
    return kl, math.sqrt(float((p * (difference - kl) ** 2).sum()))


@pytest.mark.slow
def test_measured_kl_of_a_vae_equals_the_enumerated_one():
    """Σ p (ln p − ln p_θ) over 2^16 configurations, ln p_θ by a sum over the plane that shares nothing with IS."""
    data = pv.data.load("ising", L=4, T=T_CRITICAL, train=3000, valid=100, test=3000)
    torch.manual_seed(0)
    vae = compose(data, Perceptrons((32,)), 2)
    fit = pv.fit(vae.model, vae.guide, data, epochs=4, batch_size=50, lr=5e-3, seed=0)
    u = torch.linspace(-6, 6, 81)
    z = torch.cartesian_prod(u, u)
    log_prior = vae.prior().log_prob(z).double() + 2 * math.log(float(u[1] - u[0]))
    with torch.no_grad():
        logits = vae.likelihood.net(z).double()
    base = torch.nn.functional.logsigmoid(-logits).sum(-1) + log_prior

    def log_q(x):
        parts = [torch.logsumexp(b.double() @ logits.mT + base, -1) for b in x.split(512)]
        return torch.cat(parts)

    law = IsingTorus(4, T_CRITICAL)
    everywhere = log_q(every_configuration(4))  # 4 10^8 terms
    assert float(torch.logsumexp(everywhere, 0)) == pytest.approx(0, abs=1e-4)
    exact, deviation = enumerated(law, lambda _: everywhere)
    found = pv.divergences.forward_kl(data, fit.model, fit.guide, estimator=pv.IS(500))
    error = deviation / math.sqrt(3000)  # the true error, not the estimated one
    assert found.se_data == pytest.approx(error, rel=0.3)
    assert abs(found.value - found.bias - exact) < 4 * math.hypot(error, found.se_mc)
    assert exact < 0.5 * independent_spins_kl(law)


def test_measured_kl_of_an_rbm_equals_the_enumerated_one():
    data = pv.data.load("ising", L=4, T=3.0, train=2000, valid=100, test=3000)
    torch.manual_seed(0)
    rbm = RBM.initialised_to(data.train, 10)
    fit = pv.fit(
        rbm.model,
        rbm.guide,
        data,
        objective=pv.objectives.PersistentCD(1, 50),
        epochs=30,
        batch_size=50,
        lr=pv.Exponential(0.02, 0.001, 30),
    )
    x = every_configuration(4)
    with torch.no_grad():
        log_f = -rbm.free_energy(x).double()
    log_z = torch.logsumexp(log_f, 0)  # over the visible layer; the library sums over the hidden one
    exact, deviation = enumerated(IsingTorus(4, 3.0), lambda _: log_f - log_z)
    error = deviation / math.sqrt(3000)
    by_sum = pv.divergences.forward_kl(data, fit.model, fit.guide, estimator=pv.Exact())
    assert abs(by_sum.value - exact) < 4 * error
    by_ais = pv.divergences.forward_kl(
        data, fit.model, fit.guide, estimator=pv.Normalised(betas=300, num_chains=100)
    )
    assert abs(by_ais.value - by_sum.value) < 4 * by_ais.se_mc + 1e-3
    assert by_ais.direction == "<="  # ln Z too small: the likelihood overstated, the KL understated
    assert exact < independent_spins_kl(IsingTorus(4, 3.0))


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    out = tmp_path / "ising"
    argv = ["--quick", "--L", "4", "--temperatures", "3", "2", "--models", "vae", "rbm", "--out", str(out)]
    argv += ["--jobs", "1", "--quiet"]
    assert ising.main(argv) == 0
    text = (out / "ising.json").read_text()
    study = json.loads(text)
    assert study["temperatures"] == [2.0, 3.0]
    assert [(c["model"], c["T"]) for c in study["cells"]] == [
        ("vae", 2.0),
        ("rbm", 2.0),
        ("vae", 3.0),
        ("rbm", 3.0),
    ]
    for cell in study["cells"]:
        for key in ("kl", "kl_se_data", "kl_elbo", "inference_gap", "energy", "heat_capacity_se"):
            assert math.isfinite(cell[key]), key
        assert sum(cell["energy_law"]) == pytest.approx(1)
    hot = study["exact"]["at"][1]
    for cell in study["cells"][2:]:
        # Two epochs of a quick run: it need not be good, but it is a model of these data.
        assert cell["kl"] - 4 * cell["kl_se_data"] < hot["independent_spins_kl"]
    table = (out / "ising.md").read_text()
    assert "*magnetisation only* | 0.130 | 0.480 |" in table and "| RBM |" in table
    assert table in capsys.readouterr().out
    names = ("latent", "order", "free_energy", "kl", "heat_capacity", "energies", "correlations")
    for name in names:
        assert 0 < (out / f"ising_{name}.png").stat().st_size < 300_000
    # A second call trains nothing and says the same; other options are not passed over in silence.
    before = (out / "vae-T2" / "weights.safetensors").stat().st_mtime_ns
    assert ising.main([*argv, "--format", "svg"]) == 0
    assert (out / "vae-T2" / "weights.safetensors").stat().st_mtime_ns == before
    assert all((out / f"ising_{name}.svg").exists() for name in names)
    assert (out / "ising.json").read_text() == text
    capsys.readouterr()
    assert ising.main([*argv, "--epochs", "1"]) == 1
    assert "got others" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv, word",
    [
        (["--L", "1"], "--L from 2 to 64"),
        (["--temperatures", "0"], "--temperatures > 0"),
        (["--temperatures", "2", "2"], "each once"),
        (["--models", "vae", "vae"], "each once"),
        (["--epochs", "0"], "--epochs >= 1"),
    ],
)
def test_bad_input_of_the_command(argv, word, tmp_path, capsys):
    assert ising.main([*argv, "--out", str(tmp_path / "x"), "--quick", "--quiet"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and word in err
    assert not (tmp_path / "x").exists()


def test_options_of_the_scripts_come_back_with_the_run(tmp_path, capsys):
    out = tmp_path / "run"
    argv = [
        "--data",
        "ising",
        "--L",
        "4",
        "--T",
        "3",
        "2.5",
        "--train-size",
        "60",
        "--epochs",
        "1",
        "--hidden",
        "8",
    ]
    assert train.main([*argv, "--out", str(out), "--quiet", "--device", "cpu"]) == 0
    run = pv.load(out, device="cpu")
    assert run.data.train.shape == (60, 16) and run.data.parameters["T"].tolist() == [3.0, 2.5]
    assert run.config["data"]["L"] == 4
    quiet = ["--quiet", "--device", "cpu"]
    assert evaluate.main([str(out), "--num-samples", "10", "--limit", "20", *quiet]) == 0
    assert sample.main([str(out), "--num", "3", "--only", "samples", "--device", "cpu"]) == 0
    # Saved from Python, a data set of other sizes comes back too.
    data = pv.data.load("ising", L=3, T=[2.0, 3.0], train=50, valid=20, test=30)
    vae = compose(data, Perceptrons((4,)), 1)
    fit = pv.fit(vae.model, vae.guide, data, epochs=1)
    pv.save(fit, tmp_path / "saved", data=data)
    again = pv.load(tmp_path / "saved", device="cpu", model=vae.model, guide=vae.guide).data
    assert again.spec == data.spec and torch.equal(again.log_evidence["test"], data.log_evidence["test"])


@pytest.mark.parametrize(
    "argv, word",
    [
        (["--data", "ising", "--L", "1"], "--L from 2 to 1024"),
        (["--data", "ising", "--T", "0"], "T > 0"),
        (["--data", "ising", "--T", "-2"], "T > 0"),
        (["--data", "ising", "--T", "2", "2"], "different temperatures"),
        (["--data", "ising", "--train-size", "0"], "--train-size >= 1"),
        (["--data", "digits", "--L", "8"], "not simulated"),
    ],
)
def test_bad_ising_options_of_the_scripts(argv, word, tmp_path, capsys):
    out = tmp_path / "run"
    assert train.main([*argv, "--out", str(out), "--quiet", "--device", "cpu"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and word in err, err
    assert not out.exists()


def test_an_rbm_of_cold_data_is_trained_by_tempering(tmp_path):
    plan = make_plan(tmp_path, 4, (1.5, 2.0), ("vae", "rbm"), 1, 100, Question())
    kind = {(c.name, c.data.T): c.recipe.train.objective for c in plan.cells}
    assert kind["rbm", (1.5,)] == "tempering" and kind["rbm", (2.0,)] == "pcd"
    assert kind["vae", (1.5,)] == kind["vae", (2.0,)] == "trace-elbo"
