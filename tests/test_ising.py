"""The Ising torus: exact thermodynamics against enumeration, samplers against exact laws, and the data set."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch

from pyrovae import data
from pyrovae.data import T_CRITICAL, IsingTorus, correlation, energy, log_partition, magnetisation
from pyrovae.data.ising.swendsen_wang import autocorrelation_time, swendsen_wang

TEMPERATURES = (0.05, 0.5, 1.0, 2.0, T_CRITICAL, 3.0, 10.0, 1e4)
# As printed, to half a unit of their last digit.
REFERENCE = {
    2: (4.3820266, 5e-8),
    3: (9.0202134, 5e-8),
    4: (15.5219155, 5e-8),
    16: (238.642256635, 5e-10),
    64: (3808.6722834, 5e-8),
}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def energy_by_loops(bits, L):
    """Bond by bond, on each of the two axes: nothing shared with the library."""
    s = 2 * bits.astype(np.int64).reshape(-1, L, L) - 1
    total = np.zeros(len(s), dtype=np.int64)
    for i, j in itertools.product(range(L), range(L)):
        total -= s[:, i, j] * s[:, (i + 1) % L, j] + s[:, i, j] * s[:, i, (j + 1) % L]
    return total


def every_configuration(L):
    codes = np.arange(2 ** (L * L))
    return (codes[:, None] >> np.arange(L * L)) & 1


@pytest.mark.parametrize("L", REFERENCE)
def test_log_partition_has_the_reference_values(L):
    value, tolerance = REFERENCE[L]
    assert IsingTorus(L, T_CRITICAL).log_partition == pytest.approx(value, abs=tolerance, rel=0)


@pytest.mark.parametrize("L", [2, 3, 4])
def test_thermodynamics_equals_enumeration(L):
    E = torch.from_numpy(energy_by_loops(every_configuration(L), L)).double()
    for T in TEMPERATURES:
        log_z = torch.logsumexp(-E / T, 0)
        p = (-E / T - log_z).exp()
        mean = (p * E).sum()
        variance = (p * (E - mean).square()).sum()
        law = IsingTorus(L, T)
        assert law.log_partition == pytest.approx(float(log_z), abs=1e-10, rel=0)
        assert law.energy == pytest.approx(float(mean), abs=1e-10, rel=0)
        assert law.entropy == pytest.approx(float(-(p * (-E / T - log_z)).sum()), abs=1e-10, rel=0)
        assert law.heat_capacity == pytest.approx(float(variance) / T**2, abs=1e-10, rel=1e-9)
        assert law.free_energy == pytest.approx(-T * float(log_z), abs=1e-10, rel=1e-12)


def test_limits_of_low_and_high_temperature():
    cold, hot = IsingTorus(64, 0.05), IsingTorus(64, 1e4)
    assert cold.log_partition == pytest.approx(math.log(2) + 8192 / 0.05, abs=1e-9)
    assert cold.energy == pytest.approx(-8192, abs=1e-9)
    assert abs(cold.heat_capacity) < 1e-4
    # Series in K: ln Z = L² (ln 2 + K²) + O(K⁴), so C = 2 L² K².
    assert hot.log_partition == pytest.approx(4096 * (math.log(2) + 1e-8), abs=1e-9)
    assert hot.heat_capacity == pytest.approx(8192e-8, rel=1e-6)
    for T in (0.05, 0.3, 1.0, T_CRITICAL, 5.0, 100.0):
        law = IsingTorus(64, T)
        assert 0.69 < law.entropy < 4096 * math.log(2), T
    # Onsager: at T_c the energy per spin of the infinite lattice is -sqrt 2; the torus adds O(1/L).
    sizes = [abs(IsingTorus(L, T_CRITICAL).energy / L**2 + math.sqrt(2)) for L in (16, 32, 64)]
    assert sizes[0] / sizes[1] == pytest.approx(2, abs=0.02)
    assert sizes[1] / sizes[2] == pytest.approx(2, abs=0.02)


def test_derivatives_are_those_of_the_value():
    K = torch.tensor([0.1, 1 / T_CRITICAL, 0.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda k: log_partition(k, 6), (K,))
    assert torch.autograd.gradgradcheck(lambda k: log_partition(k, 6), (K,))
    assert log_partition(K.detach().float(), 6).dtype == torch.float64


@pytest.mark.parametrize("L", [2, 3])
def test_log_prob_is_normalised_and_symmetric(L):
    x = torch.from_numpy(every_configuration(L)).float()
    law = IsingTorus(L, 1.7)
    assert float(torch.logsumexp(law.log_prob(x), 0)) == pytest.approx(0, abs=1e-12)
    assert torch.equal(law.log_prob(x), law.log_prob(1 - x))


@pytest.mark.parametrize("L", [2, 3])
def test_exact_sampler_has_the_right_frequencies(L):
    num = 40_000
    law = IsingTorus(L, 2.5)
    x = law.sample((num,), seeded(0))
    codes = (x.long() * 2 ** torch.arange(L * L)).sum(-1)
    counts = torch.bincount(codes, minlength=2 ** (L * L)).numpy()
    expected = num * law.log_prob(torch.from_numpy(every_configuration(L)).float()).exp().numpy()
    big = expected >= 5
    seen, wanted = np.append(counts[big], counts[~big].sum()), np.append(expected[big], expected[~big].sum())
    if wanted[-1] < 5:
        seen, wanted = seen[:-1], wanted[:-1] * (seen[:-1].sum() / wanted[:-1].sum())
    assert scipy.stats.chisquare(seen, wanted).pvalue > 6e-5  # 4 sigma


@pytest.mark.parametrize("T", [1.5, 2.0, T_CRITICAL, 3.0, 5.0])
def test_exact_sampler_has_the_exact_energy(T):
    law = IsingTorus(8, T)
    E = energy(law.sample((4000,), seeded(1)))
    assert abs(float(E.mean()) - law.energy) < 4 * float(E.std()) / 4000**0.5
    assert float(E.var()) / T**2 == pytest.approx(law.heat_capacity, rel=0.25)


@pytest.mark.parametrize("T", [T_CRITICAL, 1.5, 5.0])
def test_swendsen_wang_has_the_exact_energy(T):
    chains = swendsen_wang(16, T, 1000, seeded(2))
    E = energy(chains.samples).mean(0)  # chains are independent: their means carry the autocorrelation
    law = IsingTorus(16, T)
    assert abs(float(E.mean()) - law.energy) < 4 * float(E.std()) / len(E) ** 0.5
    assert 0.5 <= chains.autocorrelation < 10
    assert chains.spacing >= 4 * chains.autocorrelation


def test_swendsen_wang_has_the_law_of_the_exact_sampler():
    law = IsingTorus(2, 3.0)  # double bonds
    x = swendsen_wang(2, 3.0, 8000, seeded(3)).samples.flatten(0, 1)
    codes = (x.long() * 2 ** torch.arange(4)).sum(-1)
    expected = len(x) * law.log_prob(torch.from_numpy(every_configuration(2)).float()).exp().numpy()
    counts = torch.bincount(codes, minlength=16).numpy()
    assert scipy.stats.chisquare(counts, expected).pvalue > 6e-5


def test_draws_far_below_the_critical_temperature():
    x = IsingTorus(10, 0.05).sample((64,), seeded(4))
    assert torch.equal(magnetisation(x).abs(), torch.ones(64, dtype=torch.float64))
    assert 0 < int((magnetisation(x) > 0).sum()) < 64
    x = IsingTorus(12, 0.05).sample((64,), seeded(5))
    assert torch.equal(magnetisation(x).abs(), torch.ones(64, dtype=torch.float64))


def test_autocorrelation_time_of_an_autoregression():
    noise = np.random.default_rng(0).normal(size=(2000, 50))
    series = np.zeros_like(noise)
    for t in range(1, 2000):
        series[t] = 0.8 * series[t - 1] + noise[t]
    assert autocorrelation_time(series[100:]) == pytest.approx(0.5 * 1.8 / 0.2, rel=0.05)
    assert autocorrelation_time(noise) == pytest.approx(0.5, abs=0.05)
    assert autocorrelation_time(np.ones((10, 3))) == 0.5


def test_observables_of_known_configurations():
    up = torch.ones(2, 36)
    board = ((torch.arange(6)[:, None] + torch.arange(6)) % 2).flatten().float()
    stripes = (torch.arange(6) % 2).repeat(6).float()
    assert torch.equal(magnetisation(up), torch.ones(2, dtype=torch.float64))
    assert energy(up).tolist() == [-72, -72]
    assert float(energy(board)) == 72
    assert float(energy(stripes)) == 0
    assert float(magnetisation(board)) == 0
    assert correlation(board).tolist() == [1, -1, 1, -1]
    assert correlation(stripes).tolist() == [1, 0, 1, 0]
    x = torch.randint(0, 2, (5, 36), generator=seeded(6)).float()
    assert energy(x).tolist() == energy_by_loops(x.numpy(), 6).tolist()
    assert torch.allclose(correlation(x)[:, 1], -energy(x) / 72)  # the nearest neighbours are the bonds


def test_data_set_at_one_temperature():
    d = data.load("ising", L=6, T=2.27, train=500, valid=50, test=100)
    assert d.spec.splits == {"train": 500, "valid": 50, "test": 100}
    assert d.spec.support == "binary"
    assert d.spec.image_shape == (6, 6)
    assert d.train.dtype == torch.float32
    assert d.labels is None
    law = IsingTorus(6, 2.27)
    for name in ("train", "valid", "test"):
        assert torch.equal(d.log_evidence[name], law.log_prob(d.split(name)))
    assert not torch.equal(d.valid, d.test[:50])
    se = float(d.log_evidence["train"].std()) / 500**0.5
    assert abs(float(d.log_evidence["train"].mean()) + law.entropy) < 4 * se
    again = data.load("ising", L=6, T=2.27, train=500, valid=50, test=100)
    assert again.spec == d.spec
    assert data.load("ising", L=6, T=2.27, train=500, valid=50, test=100, seed=1).spec.hash != d.spec.hash


def test_data_set_defaults_to_the_critical_8_by_8():
    d = data.load("ising", train=20, valid=5, test=5)
    assert d.spec.event_shape == (64,)
    assert d.parameters["T"].tolist() == [T_CRITICAL]
    assert d.spec.from_json(d.spec.to_json()).image_shape == (8, 8)


def test_data_set_at_several_temperatures_is_a_mixture():
    T = [1.5, 2.27, 4.0]
    d = data.load("ising", L=4, T=np.array(T), train=301, valid=30, test=60)
    assert d.parameters["T"].tolist() == T
    assert torch.bincount(d.labels["train"]).tolist() == [101, 100, 100]
    assert len(set(d.labels["train"][:50].tolist())) == 3  # shuffled
    by_law = torch.stack([IsingTorus(4, t).log_prob(d.test).exp() for t in T]).mean(0)
    assert torch.allclose(d.log_evidence["test"].exp(), by_law, rtol=1e-10)
    cold, hot = (energy(d.train[d.labels["train"] == m]).mean() for m in (0, 2))
    assert cold < hot - 5  # labels belong to their rows


def test_data_set_beyond_the_exact_sampler_tells_its_autocorrelation():
    d = data.load("ising", L=12, T=3.0, train=64, valid=32, test=32)
    assert d.train.shape == (64, 144)
    assert 0.5 <= float(d.parameters["autocorrelation"][0]) < 10
    assert int(d.parameters["spacing"][0]) >= 2
    assert torch.equal(d.log_evidence["test"], IsingTorus(12, 3.0).log_prob(d.test))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"L": 1}, "side L >= 2"),
        ({"L": 4.0}, "side L >= 2"),
        ({"T": 0.0}, "T > 0"),
        ({"T": -1.0}, "T > 0"),
        ({"T": math.nan}, "T > 0"),
        ({"T": math.inf}, "T > 0"),
        ({"T": []}, "at least one temperature"),
        ({"T": [2.0, 2.0]}, "different temperatures"),
        ({"T": [1.0, 2.0], "test": 1}, "at least one a temperature"),
        ({"T": "hot"}, "got T='hot'"),
        ({"T": True}, "T > 0"),
        ({"T": [2.0, None]}, "T > 0"),
        ({"valid": 0.5}, "number of data"),
        ({"train": 0}, "number of data"),
        ({"binarise": "static", "train": 20, "valid": 5, "test": 5, "L": 3}, "binary already"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        data.load("ising", **options)


def test_other_sources_refuse_the_torus_options():
    with pytest.raises(ValueError, match="expected L=None"):
        data.load("digits", L=8)
    with pytest.raises(ValueError, match="expected T=None"):
        data.load("linear-gaussian", T=2.0)
    with pytest.raises(ValueError, match="expected train=None"):
        data.load(torch.ones(5, 2), train=3)


def test_bad_configurations_are_refused():
    law = IsingTorus(3, 2.0)
    with pytest.raises(ValueError, match="bits 0 and 1"):
        law.log_prob(-torch.ones(9))
    with pytest.raises(ValueError, match="configurations"):
        law.log_prob(torch.ones(16))
    with pytest.raises(ValueError, match="configurations"):
        energy(torch.ones(4, 5))
    with pytest.raises(ValueError, match="positive and finite"):
        log_partition(torch.tensor([0.5, 0.0]), 4)
    with pytest.raises(ValueError, match="swendsen_wang"):
        from pyrovae.data.ising.transfer_matrix import transfer_matrix_sample

        transfer_matrix_sample(11, 2.0, 5)
