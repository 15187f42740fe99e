"""Rate, distortion and energies along the path, against the linear-Gaussian's closed form."""

import math

import pytest
import torch

import pyrovae as pv
from pyrovae.evidence.chains.annealed_path import power_schedule
from pyrovae.models.linear_gaussian import LinearGaussian
from pyrovae.thermodynamics.rate_distortion import Records

F64 = torch.float64
N, NOISE = 10, 0.4


def closed_form(m, x, betas):
    """(distortion, rate, ln Z, Var E), `[T, N]`, of pi_beta = N(mu, S), S^-1 = I + beta W^T W / s^2."""
    w, residual = m.weight.detach(), x - m.bias.detach()
    event, latent = w.shape
    out = []
    for beta in betas:
        s = torch.linalg.inv(torch.eye(latent, dtype=F64) + beta * w.T @ w / NOISE)
        mu = beta * residual @ w @ s / NOISE
        error = residual - mu @ w.T
        spread = w @ s @ w.T
        d = 0.5 * event * math.log(2 * math.pi * NOISE)
        d = d + 0.5 * (error.square().sum(-1) + spread.trace()) / NOISE
        r = 0.5 * (s.trace() + mu.square().sum(-1) - latent - s.logdet())
        variance = (0.5 * (spread @ spread).trace() + ((error @ spread) * error).sum(-1)) / NOISE**2
        out.append((d, r, -r - beta * d, variance))
    return (torch.stack(v) for v in zip(*out, strict=True))


@pytest.fixture(scope="module")
def run():
    torch.manual_seed(2)
    m = LinearGaussian(torch.randn(4, 2).double(), noise=NOISE)
    x = m.likelihood(torch.randn(N, 2, dtype=F64)).sample().detach()
    rd = pv.thermodynamics.rate_distortion(m.model, m.guide, x, ais=pv.AIS(60, 300, "prior", 3), seed=1)
    return m, x, rd


def test_against_the_closed_form(run):
    m, x, rd = run
    distortion, rate, log_z, variance = closed_form(m, x, rd.betas)
    assert rd.betas[0] == 0 and rd.betas[-1] == 1 and (rd.betas.diff() > 0).all()
    # Errors of one temperature: about those of 300 independent draws, of unequal weights.
    se = (variance / 150).sqrt()
    assert ((rd.distortion - distortion) / se).abs().max() < 5
    late = rd.betas > 0.3
    assert (rd.log_normaliser - log_z).mean(1).abs()[late].max() < 0.1
    assert (rd.rate - rate).mean(1).abs().max() < 0.1
    assert (rd.energy_variance / variance - 1).mean(1).abs()[late].max() < 0.25
    exact = m.log_evidence(x).detach()
    assert (rd.log_evidence - exact).mean().abs() < 0.05
    assert (rd.thermodynamic_integration - exact).mean().abs() < 0.3


def test_thermodynamic_relations(run):
    _, _, rd = run
    assert torch.equal(rd.entropy, -rd.rate) and torch.equal(rd.free_energy, -rd.log_normaliser)
    assert rd.rate[0].abs().max() < 1e-12 and (rd.rate.mean(1).diff() > -0.05).all()
    assert (rd.distortion.mean(1).diff()[5:] < 0.05).all()
    # F = E - S / beta: beta D - S = -ln Z, at every temperature.
    energy = rd.betas.unsqueeze(-1) * rd.distortion
    torch.testing.assert_close(energy - rd.entropy, rd.free_energy)
    torch.testing.assert_close(rd.heat_capacity, rd.betas.square().unsqueeze(-1) * rd.energy_variance)
    assert rd.work.shape == (300, N)
    torch.testing.assert_close((-rd.work).exp().mean(0).log(), rd.log_evidence)  # Jarzynski
    assert (rd.dissipated_work.mean(0) > 0).all()


def test_lower_and_upper_rates(run):
    m, x, rd = run
    _, rate, _, _ = closed_form(m, x, rd.betas)
    mean = rate.mean(1)
    assert (rd.rate_lower.mean(1) < mean + 0.05).all() and (
        rd.rate_lower.mean(1) < rd.rate.mean(1) + 0.01
    ).all()
    means = rd.curve()
    assert set(means) == {"distortion", "rate", "rate_lower"} and means["rate"][0].shape == (60,)


def test_points_lie_above_the_curve_however_short_the_run():
    """Few temperatures, one leapfrog step: far from equilibrium, still R >= R(D), on average over data."""
    torch.manual_seed(3)
    m = LinearGaussian(torch.randn(6, 3).double() * 1.5, noise=NOISE)
    x = m.likelihood(torch.randn(60, 3, dtype=F64)).sample().detach()
    rd = pv.thermodynamics.rate_distortion(
        m.model, m.guide, x, ais=pv.AIS(8, 4, "prior", 1, power_schedule(8, 2.0))
    )
    fine = torch.linspace(0, 1, 4001, dtype=F64) ** 3 * 3  # beyond beta = 1: chains may overshoot
    d, r, _, _ = closed_form(m, x, fine)
    # Legendre: any q has KL(q || p) >= -ln Z_beta - beta D(q), for every beta.
    log_z = -r - fine.unsqueeze(-1) * d
    above = 0
    for t in range(1, 8):
        bound = (-log_z.mean(1) - fine * rd.distortion[t].mean()).max()
        slack = rd.rate[t].mean() - bound
        se = (rd.rate[t] + rd.distortion[t]).std() / math.sqrt(60)
        assert slack > -4 * se
        above += bool(slack > 0.02)
    assert above >= 3  # the run is short enough for the bound to be loose


def test_energies_of_weight_zero_do_not_count():
    record = Records()
    slope = torch.tensor([[-1.0], [-torch.inf], [-3.0]], dtype=F64)
    point = type("P", (), {"slope": slope})
    record(0, point, torch.tensor([[0.0], [-torch.inf], [0.0]], dtype=F64))
    record(1, point, torch.full((3, 1), -torch.inf, dtype=F64))
    mean, variance, log_z, *_ = record.stacked()
    assert mean[0].item() == 2 and variance[0].item() == 2
    assert log_z[0].item() == pytest.approx(math.log(2 / 3))
    assert mean[1].item() == math.inf and log_z[1].item() == -math.inf


def test_the_path_starts_at_the_prior():
    m = LinearGaussian(torch.randn(4, 2).double())
    with pytest.raises(ValueError, match='start="prior"'):
        pv.thermodynamics.rate_distortion(
            m.model, m.guide, torch.zeros(2, 4, dtype=F64), ais=pv.AIS(5, 4, "guide")
        )
