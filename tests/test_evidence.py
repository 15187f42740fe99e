"""Estimators and results: certificates, intervals, diagnostics, comparisons."""

import math
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.evidence.core.estimate import Estimate
from pyrovae.evidence.estimators.importance_sampling import block_curve
from pyrovae.evidence.notes import estimate_notes
from pyrovae.evidence.weights.delete_one import jackknife_shift
from pyrovae.evidence.weights.diagnostics import effective_sample_size, khat_threshold, pareto_khat
from pyrovae.programs.checks.measure import kind_of

from . import handwritten as hw

F64 = torch.float64


def lognormal(sigma, num_samples, num_data, seed=0):
    """Log-weights whose evidence is known: E exp(lw) = 1."""
    generator = torch.Generator().manual_seed(seed)
    return sigma * torch.randn(num_samples, num_data, generator=generator, dtype=F64) - sigma**2 / 2


def gaussian(x, variance):
    return dist.Normal(torch.zeros((), dtype=F64), math.sqrt(variance)).log_prob(x)


def one_latent(scale, shift=0.0, density=None):
    """x ~ N(0, 1 + 1), z given x ~ N(x/2, 1/2); a guide that misses by `shift`, `scale` times as wide."""

    @pv.program(density=density)
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=F64), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2 + shift, scale * math.sqrt(0.5)))

    return model, guide, lambda x: gaussian(x, 2.0)


# The certificate -----------------------------------------------------------------------------


def test_certificate_holds():
    """400 repeats of 4 data with a guide whose E[w^2] is infinite; violated with probability <= 5 %."""
    repeats, num_data, delta = 400, 4, 0.05
    x = torch.randn(num_data, generator=torch.Generator().manual_seed(0), dtype=F64)
    model, guide, exact = one_latent(scale=0.6, shift=0.5)
    program = [pv.IS(8)]
    ev = pv.evidence(model, guide, x.repeat(repeats), estimators=program, delta=delta)
    truth = float(exact(x).mean())
    # Each repeat through the same code, from its own part of the draws.
    groups = ev["IS"].per_datum.reshape(repeats, num_data).mean(1)
    certificates = groups - (ev["IS"].log_evidence - ev["IS"].certificate) * repeats
    one = pv.evidence(model, guide, x, estimators=program, delta=delta, seed=1)["IS"]
    assert one.certificate == pytest.approx(one.log_evidence - math.log(1 / delta) / num_data, abs=1e-12)
    assert float(certificates[0]) == pytest.approx(float(groups[0]) - math.log(1 / delta) / num_data)
    violated = int((certificates > truth).sum())
    assert violated <= repeats * delta + 4 * math.sqrt(repeats * delta * (1 - delta))
    # Without the price the mean is above the truth far more often: the price is what certifies.
    assert int((groups > truth).sum()) > repeats * delta + 4 * math.sqrt(repeats * delta * (1 - delta))
    # Nor is it so low that it could not be violated: at delta = 0.9 it is.
    assert int((groups - math.log(1 / 0.9) / num_data > truth).sum()) > 20


def test_certificate_only_where_there_is_one():
    x = torch.zeros(3, dtype=F64)
    model, guide, _ = one_latent(1.2)
    ev = pv.evidence(model, guide, x, estimators=[pv.ELBO(), pv.IS(30)])
    assert ev["ELBO"].certificate is None and ev["ELBO"].direction == "<="
    assert ev["IS"].certificate is not None and ev["IS"].direction == "<="
    model, guide, _ = one_latent(1.2, density="unnormalised")
    ev = pv.evidence(model, guide, x, estimators=[pv.ELBO(), pv.IS(30)])
    assert ev["IS"].certificate is None and ev["IS"].direction == "none"
    assert "not normalised" in ev.verdict
    for delta in (0.0, 1.0, -1):
        with pytest.raises(ValueError, match="delta"):
            pv.evidence(model, guide, x, delta=delta)
    for bad in ([], [pv.IS(3), pv.IS(4)]):
        with pytest.raises(ValueError, match="no name twice"):
            pv.evidence(model, guide, x, estimators=bad)


# Intervals and diagnostics -------------------------------------------------------------------


def test_intervals_cover_where_given():
    x = torch.randn(300, generator=torch.Generator().manual_seed(0), dtype=F64)
    model, guide, exact = one_latent(1.5)
    e = pv.evidence(model, guide, x, estimators=[pv.IS(2000)])["IS"]
    assert e.reliable.all() and e.unreliable_share == 0
    for level in (0.5, 0.95):
        low, high = e.interval(level).unbind(-1)
        inside = float(((low <= exact(x)) & (exact(x) <= high)).double().mean())
        assert abs(inside - level) < 4 * math.sqrt(level * (1 - level) / 300) + 0.01
    assert e.se_mc == pytest.approx(float(e.variance.sum().sqrt()) / 300)
    z = (e.per_datum - exact(x)) / e.variance.sqrt()
    assert abs(float(z.square().mean()) - 1) < 4 * math.sqrt(2 / 300)  # the variance is what it says
    for level in (0.0, 1.0, 1.5):
        with pytest.raises(ValueError, match="level"):
            e.interval(level)


def test_intervals_are_refused():
    k = 1000
    lw = torch.cat([lognormal(0.3, k, 1), lognormal(4.0, k, 1), torch.zeros(k, 1, dtype=F64)], 1)
    part = pv.IS(k).estimate(lw)
    e = Estimate("IS", "<=", k, part.log_evidence, part.variance, part.bias, part.ess, part.khat)
    assert e.reliable.tolist() == [True, False, True]
    assert part.ess[1] < 200 < part.ess[0]
    assert torch.isfinite(e.interval()[0]).all() and e.interval()[1].isnan().all()
    assert (e.interval()[2].abs() < 1e-7).all(), "equal weights are exact"
    # Either diagnostic refuses alone.
    good = dict(name="IS", direction="<=", num_samples=k, per_datum=torch.zeros(1), variance=torch.ones(1))
    good |= dict(bias=torch.zeros(1))
    for ess, khat, reliable in (
        (200, 0.5, True),
        (199, 0.5, False),
        (900, 0.68, False),
        (900, math.nan, False),
    ):
        one = Estimate(**good, ess=torch.tensor([float(ess)]), khat=torch.tensor([khat]))
        assert bool(one.reliable) is reliable
    model, guide, _ = one_latent(0.4, 1.0)
    x = torch.zeros(20, dtype=F64)
    ev = pv.evidence(model, guide, x, estimators=[pv.ELBO(), pv.IS(100)])
    assert ev["IS"].interval().isnan().all()
    assert any("no two-sided interval" in w for w in ev.warnings)
    with pytest.raises(ValueError, match="only bounds"):
        ev["ELBO"].interval()


def test_khat_against_theory():
    """Posterior N(0, 1), q = N(0, s^2): the weights' tail index is 1 - s^2."""
    generator = torch.Generator().manual_seed(0)
    for s in (0.55, 0.7, 0.85):
        z = s * torch.randn(100_000, 8, generator=generator, dtype=F64)
        lw = dist.Normal(0.0, 1.0).log_prob(z) - dist.Normal(0.0, s).log_prob(z)
        assert abs(pareto_khat(lw).mean() - (1 - s**2)) < 0.1


def test_khat_extremes():
    assert pareto_khat(torch.zeros(24, 2)).isnan().all()
    assert (pareto_khat(torch.zeros(30, 2)) == -torch.inf).all()
    assert (pareto_khat(torch.full((30, 2), -torch.inf)) == torch.inf).all()
    one = torch.full((1000, 1), -torch.inf, dtype=F64)
    one[3] = 0.0
    assert not pareto_khat(one) <= khat_threshold(1000)


def test_threshold():
    assert khat_threshold(1) == khat_threshold(10) == 0.0
    assert khat_threshold(100) == pytest.approx(0.5)
    assert khat_threshold(1000) == pytest.approx(2 / 3)
    assert khat_threshold(5000) == khat_threshold(10**6) == 0.7


def test_ess():
    assert effective_sample_size(torch.full((7, 1), -900.0)) == pytest.approx(7)
    one = torch.full((7, 1), -torch.inf)
    assert effective_sample_size(one) == 0
    one[2] = 800.0
    assert effective_sample_size(one) == pytest.approx(1)
    w = torch.tensor([[1.0], [2.0], [3.0]], dtype=F64)
    assert effective_sample_size(w.log()) == pytest.approx(36 / 14)
    # E(w/Z)^2 = s^2 / sqrt(2 s^2 - 1) for posterior N(0, 1), q = N(0, s^2).
    s, k = 1.3, 200_000
    z = s * torch.randn(k, 1, generator=torch.Generator().manual_seed(0), dtype=F64)
    lw = dist.Normal(0.0, 1.0).log_prob(z) - dist.Normal(0.0, s).log_prob(z)
    assert k / float(effective_sample_size(lw)) == pytest.approx(s**2 / math.sqrt(2 * s**2 - 1), rel=0.02)


def brute_jackknife(lw):
    k = len(lw)
    full = lw.logsumexp(0) - math.log(k)
    without = [torch.cat([lw[:i], lw[i + 1 :]]).logsumexp(0) - math.log(k - 1) for i in range(k)]
    return k * full - (k - 1) * torch.stack(without).mean(0) - full


def test_jackknife():
    lw = lognormal(1.5, 40, 6)
    lw[7, 1] = 60.0  # one weight holds all but e^-60 of the sum
    lw[:, 2] = -3.0
    lw[::2, 3] = -torch.inf
    torch.testing.assert_close(jackknife_shift(lw), brute_jackknife(lw), rtol=1e-9, atol=1e-9)
    pair = brute_jackknife(lw[:2])
    pair[3] = math.nan  # one of two weights is zero: without the other nothing is left
    torch.testing.assert_close(jackknife_shift(lw[:2]), pair, rtol=1e-9, atol=1e-9, equal_nan=True)
    assert jackknife_shift(lw[:1]).isnan().all()
    # It takes off the bias -Var(w) / (2 K) to first order: nearer to 0 than IS.
    many = lognormal(1.0, 50, 20_000)
    plain = (many.logsumexp(0) - math.log(50)).mean()
    assert plain < -0.01 and abs(plain + jackknife_shift(many).mean()) < abs(plain) / 3
    part = pv.IS(50).estimate(many)
    torch.testing.assert_close(part.log_evidence - part.bias, part.log_evidence + jackknife_shift(many))


@pytest.mark.parametrize("num_samples", [1, 2, 3, 8, 100])
def test_block_curve(num_samples):
    lw = lognormal(1.0, num_samples, 3)
    curve = block_curve(lw)
    assert list(curve) == [2**i for i in range(int(math.log2(num_samples)) + 1)]
    for k, value in curve.items():
        blocks = [lw[i * k : (i + 1) * k].logsumexp(0) - math.log(k) for i in range(num_samples // k)]
        torch.testing.assert_close(value, torch.stack(blocks).mean(0))


def test_zero_weights():
    lw = lognormal(0.5, 100, 3)
    lw[::2, 0] = -torch.inf
    lw[:, 1] = -torch.inf
    part = pv.IS(100).estimate(lw)
    expected = lw[1::2, 0].logsumexp(0) - math.log(100)
    torch.testing.assert_close(part.log_evidence[0], expected)
    assert part.log_evidence[1] == -torch.inf and part.ess[1] == 0
    assert pv.ELBO().estimate(lw).log_evidence.isinf().tolist() == [True, True, False]


def test_data_the_guide_never_hits():
    """Likelihoods of zero: -inf and a warning, no crash; NaN is an error."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=F64), 1.0))
            density = torch.where((x - z).abs() < 2, -math.log(4.0), -torch.inf)
            density = density + extra[0]
            pyro.sample("x", dist.Delta(x, log_density=density, validate_args=False), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))

    extra = [0.0]
    x = torch.tensor([0.0, 50.0, 1.0], dtype=F64)
    ev = pv.evidence(model, guide, x, estimators=[pv.ELBO(), pv.IS(100)])
    assert ev["IS"].per_datum.isinf().tolist() == [False, True, False]
    assert any("only zero weights" in w for w in ev.warnings)
    assert ev["IS"].certificate == -math.inf and ev["IS"].interval()[1].isnan().all()
    assert "nats" in ev.table() and ev.table("markdown").startswith("| estimator")
    assert ev.compare(ev).difference == 0
    for extra[0] in (math.nan, math.inf):
        with pytest.raises(ValueError, match="finite log-weights"):
            pv.evidence(model, guide, x)


# Results -------------------------------------------------------------------------------------


def test_estimators_share_their_draws():
    x = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=F64)
    model, guide, exact = one_latent(1.4, 0.3)
    ev = pv.evidence(
        model,
        guide,
        x,
        estimators=[
            pv.IS(300),
            pv.ELBO(),
        ],
        chunk=pv.Chunk(5, 64),
        seed=2,
    )
    lw = pv.log_weights(model, guide, x, num_samples=300, chunk=pv.Chunk(5, 64), seed=2)
    torch.testing.assert_close(ev["IS"].per_datum, lw.logsumexp(0) - math.log(300), rtol=0, atol=1e-12)
    torch.testing.assert_close(ev["ELBO"].per_datum, lw.mean(0), rtol=0, atol=1e-12)
    assert ev["ELBO"].se_mc == pytest.approx(float((lw.var(0) / 300).sum().sqrt() / 12))
    assert list(ev) == ["IS", "ELBO"] and len(ev) == 2 and ev.best is ev["IS"]
    assert ev.gap == pytest.approx(float((lw.logsumexp(0) - math.log(300) - lw.mean(0)).mean()))
    # The gap is KL(q || p(z|x)), here the same for all data, less the bias of IS.
    posterior, q = dist.Normal(0.0, math.sqrt(0.5)), dist.Normal(0.3, 1.4 * math.sqrt(0.5))
    gap = float(torch.distributions.kl_divergence(q, posterior))
    se = math.hypot(ev["ELBO"].se_mc, ev["IS"].se_mc)
    assert abs(float((exact(x) - ev["ELBO"].per_datum).mean()) - gap) < 4 * se
    assert ev["IS"].se_data == pytest.approx(float(ev["IS"].per_datum.std() / math.sqrt(12)))
    assert ev["IS"].num_samples == 300 and ev.attributes["chunk"] == (5, 64)
    assert ev["IS"].curve[1] == pytest.approx(float(lw.mean()))
    fewer = pv.evidence(model, guide, x, estimators=[pv.IS(300), pv.ELBO(10)], chunk=pv.Chunk(5, 64), seed=2)
    torch.testing.assert_close(fewer["ELBO"].per_datum, lw[:10].mean(0), rtol=0, atol=1e-12)
    with pytest.raises(KeyError, match="expected one of"):
        ev["AIS"]
    with pytest.raises(ValueError, match="style"):
        ev.table("html")


def test_few_samples_and_one_datum():
    model, guide, _ = one_latent(1.4)
    ev = pv.evidence(model, guide, torch.zeros(1, dtype=F64), estimators=[pv.IS(1), pv.ELBO()])
    assert math.isnan(ev["IS"].se_data) and math.isnan(ev["IS"].se_mc)
    assert any("too few for tail diagnostics" in w for w in ev.warnings)
    assert ev.table() and math.isnan(ev.compare(ev).se)


def test_comparison_is_paired():
    x = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=F64)
    model, guide, exact = one_latent(1.0)

    def worse(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=F64), 1.0))
            pyro.sample("x", dist.Normal(z, 1.1), obs=x)

    def its_guide(x):
        s2 = 1.21
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / (1 + s2), math.sqrt(s2 / (1 + s2))))

    first = pv.evidence(model, guide, x, estimators=[pv.IS(30)])
    second = pv.evidence(worse, its_guide, x, estimators=[pv.IS(30)])
    d = exact(x) - gaussian(x, 2.21)
    c = first.compare(second)
    assert c.difference == pytest.approx(float(d.mean()), abs=1e-9)
    assert c.se == pytest.approx(float(d.std() / math.sqrt(200)), rel=1e-6)
    assert c.se < 0.3 * first["IS"].se_data, "pairing takes off what the data share"
    assert not c.directed and "no direction" in repr(c) and c.num_data == 200
    for other in (x[:100], x.flip(0), x.float()):
        with pytest.raises(ValueError, match="same data"):
            first.compare(pv.evidence(model, guide, other, estimators=[pv.IS(5)]))


def test_scales_are_named_in_the_warnings():
    case = hw.scaled()
    ev = pv.evidence(case.model, case.exact, hw.X, estimators=[pv.IS(5)])
    assert any("carry a scale" in w for w in ev.warnings)
    torch.testing.assert_close(ev["IS"].per_datum, case.log_evidence)


# Report --------------------------------------------------------------------------------------


def every_estimator(**options):
    x = torch.randn(30, generator=torch.Generator().manual_seed(0), dtype=F64)
    model, guide, _ = one_latent(1.3)
    estimators = [pv.ELBO(), pv.IS(300), pv.Jackknife(300), pv.MLMC(8), pv.Exact()]
    return pv.evidence(model, guide, x, estimators=estimators, **options)


def test_table_has_what_the_estimators_have():
    ev = every_estimator(label="simulated, test split")
    text = ev.table()
    assert "simulated, test split: N = 30 data" in text and ev.attributes["data_hash"][:8] in text
    assert f"torch {torch.__version__}" in text and "seed 0" in text and "float64" in text
    assert "…" not in text, "no column is cut"
    head, _, *body = ev.table("markdown").splitlines()
    cells = [c.strip() for c in head.strip("|").split("|")]
    assert "cost/datum" in cells and "acceptance" not in cells and "Δ ± SE (paired)" not in cells
    rows = {r.split("|")[1].strip(): [c.strip() for c in r.strip("|").split("|")] for r in body[:5]}
    assert list(rows) == ["ELBO", "IS", "Jackknife", "MLMC", "Exact"]
    assert rows["IS"][1].startswith("≥") and rows["Jackknife"][1].startswith("≈")
    assert rows["Exact"][cells.index("K")] == "–" and rows["MLMC"][cells.index("cost/datum")] != "–"
    assert "known by quadrature" in ev.verdict and "exact" not in ev.verdict
    # What estimators report in their details has a column of its own.
    details = {"num_temperatures": 1000, "acceptance": torch.tensor([0.6, 0.7])}
    annealed = replace(ev["IS"], name="AIS", details=details)
    table = replace(ev, estimates={"AIS": annealed, "IS": ev["IS"]}).table("markdown")
    assert "| temperatures | acceptance |" in table and "| 1,000 | 0.65 |" in table


def test_table_with_paired_differences():
    first, second = every_estimator(), every_estimator(seed=1)
    table = first.table("markdown", against=second)
    assert "Δ ± SE (paired)" in table
    c = first["IS"].per_datum - second["IS"].per_datum
    assert f"{float(c.mean()):+.4f} ± {float(c.std() / math.sqrt(30)):.4f}" in table
    with pytest.raises(ValueError, match="same data"):
        first.table(against=replace(second, attributes={**second.attributes, "data_hash": "0" * 64}))


def test_who_has_an_interval():
    ev = every_estimator()
    with pytest.raises(ValueError, match="only bounds"):
        ev["ELBO"].interval()
    for name in ("IS", "Jackknife", "Exact"):
        assert torch.isfinite(ev[name].interval()).all(), name
    assert not ev["ELBO"].reliable.any() and ev["Exact"].reliable.all()
    upper = replace(ev["IS"], direction=">=")
    assert not upper.reliable.any()
    with pytest.raises(ValueError, match="only bounds"):
        upper.interval()
    few = replace(ev["Jackknife"], ess=torch.full((30,), 199.0, dtype=F64))
    assert few.interval().isnan().all()


def test_a_module_left_in_train_mode_is_named():
    net = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(1, 1)).double()

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1, dtype=F64), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(net(z), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 1.0).to_event(1))

    x = torch.zeros(3, 1, dtype=F64)
    assert any("Dropout were left in train mode" in w for w in pv.evidence(model, guide, x).warnings)
    assert net.training, "and is left as it was"
    net.eval()
    assert not any("train mode" in w for w in pv.evidence(model, guide, x).warnings)


def test_a_minibatch_is_not_passed_off_as_a_data_set():
    case = hw.scaled_plate()
    ev = pv.evidence(case.model, case.exact, *case.args, estimators=[pv.IS(5)], **case.options)
    assert any("of the data passed, not of the data set" in w for w in ev.warnings)


def test_ais_below_importance_sampling_is_named():
    ev = every_estimator()
    low = replace(ev["IS"], name="AIS", per_datum=ev["IS"].per_datum - 1.0)
    assert any("AIS is 1.00 nats below IS" in w for w in estimate_notes({"IS": ev["IS"], "AIS": low}))
    same = replace(ev["IS"], name="AIS")
    assert not any("below IS" in w for w in estimate_notes({"IS": ev["IS"], "AIS": same}))


# Mass and density --------------------------------------------------------------------------------


def counted(law, measure=None, factor=False):
    """z ~ N(0, 1), two columns of x given z under `law(z)`; the guide is the prior."""

    @pv.program(density="exact" if factor else None, measure=measure)
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), dtype=F64), 1.0)).unsqueeze(-1)
            if factor:
                pyro.factor("x", law(z).log_prob(x).sum(-1))
            else:
                pyro.sample("x", law(z).expand((*z.shape[:-1], 2)).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), dtype=F64), 1.0))

    return model, guide


COUNTS = torch.arange(8, dtype=F64).reshape(4, 2)


def normal(z):
    return dist.Normal(z, 1.0)


def poisson(z):
    return dist.Poisson(z.exp())


def test_a_mass_and_a_density_are_not_compared():
    density = pv.evidence(*counted(normal), COUNTS, estimators=[pv.IS(20)])
    mass = pv.evidence(*counted(poisson), COUNTS, estimators=[pv.IS(20)])
    assert density.attributes["measure"] == "density" and mass.attributes["measure"] == "mass"
    for pair in ((density, mass), (mass, density)):
        with pytest.raises(ValueError, match=r"mass.*density|density.*mass") as error:
            pair[0].compare(pair[1])
        assert all(
            w in str(error.value) for w in ("Normal at 'x'", "Poisson at 'x'", "--likelihood binomial")
        )
        with pytest.raises(ValueError, match="figures of one kind"):
            pair[0].table(against=pair[1])
    assert density.compare(density).difference == 0 and "nats, density" in repr(density["IS"])


def test_a_density_is_called_one_and_gives_no_bits_of_whole_numbers():
    density, mass = (pv.evidence(*counted(law), COUNTS, estimators=[pv.IS(20)]) for law in (normal, poisson))
    for style in ("terminal", "markdown"):
        assert "ln p(x) [nats], density" in density.table(style), "rich takes [nats] for a style"
        assert "ln p(x) [nats]" in mass.table(style) and "density" not in mass.table(style)
    row = density.table("markdown").splitlines()[2].split("|")
    assert row[3].strip() == "–" and mass.table("markdown").splitlines()[2].split("|")[3].strip() != "–"
    assert any("x holds whole numbers" in w and "--likelihood binomial" in w for w in density.warnings)
    real = pv.evidence(*counted(normal), COUNTS + 0.1 * torch.rand(4, 2), estimators=[pv.IS(20)])
    assert not any("whole numbers" in w for w in real.warnings)
    levels = torch.randint(5, (200, 2), generator=torch.Generator().manual_seed(0)).double()
    standardised = pv.evidence(*counted(normal), (levels - 2) / 1.7, estimators=[pv.IS(20)])
    assert any("only 5 distinct values among 400" in w for w in standardised.warnings)


@pytest.mark.parametrize(
    ("law", "kind"),
    [
        (dist.Normal(0.0, 1.0).expand([2]).to_event(1), "density"),
        (dist.LogNormal(0.0, 1.0), "density"),
        (dist.Bernoulli(0.5).expand([2]).mask(False).to_event(1), "mass"),
        (dist.Multinomial(3, torch.ones(2)), "mass"),
        (dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Poisson(torch.ones(2))), "mass"),
        (dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(torch.ones(2), 1.0)), "density"),
        (dist.ZeroInflatedPoisson(torch.tensor(1.0), gate=torch.tensor(0.1)), "mass"),
        (dist.ZeroInflatedDistribution(dist.Gamma(1.0, 1.0), gate=torch.tensor(0.1)), "mixed"),
        (dist.Delta(torch.zeros(())), "unknown"),
        (
            dist.TransformedDistribution(dist.Bernoulli(0.5), [dist.transforms.AffineTransform(0.0, 2.0)]),
            "unknown",
        ),
        (pv.distributions.Counts(5, torch.zeros(2)), "mass"),
        (pv.distributions.Levels(torch.zeros(2, 3)), "mass"),
        (pv.distributions.ContinuousBernoulli(torch.zeros(2)), "density"),
        (pv.distributions.DiscretizedLogistic(*torch.ones(3, 2, 1), 4), "mass"),
    ],
)
def test_kind_of_a_law(law, kind):
    assert kind_of(law) == kind


def test_kind_of_a_program():
    found = pv.evidence(*counted(poisson, factor=True), COUNTS, estimators=[pv.IS(20)])
    assert found.attributes["measure"] == "unknown" and any("measure=" in w for w in found.warnings)
    told = pv.evidence(*counted(poisson, measure="mass", factor=True), COUNTS, estimators=[pv.IS(20)])
    assert told.attributes["measure"] == "mass" and not any("measure=" in w for w in told.warnings)

    def both(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), dtype=F64), 1.0))
            pyro.sample("a", dist.Poisson(z.exp()), obs=x[..., 0])
            pyro.sample("b", dist.Normal(z, 1.0), obs=x[..., 1])

    mixed = pv.evidence(both, counted(normal)[1], COUNTS, estimators=[pv.IS(20)])
    assert mixed.attributes["observed"]["kinds"] == {"a": "mass", "b": "density"}
    assert "ln p(x) [nats], mass × density" in mixed.table()
    with pytest.raises(ValueError, match="a mass in some sites and a density in others"):
        mixed.compare(told)
    with pytest.raises(ValueError, match=r"expected measure to be one of"):
        pv.program(measure="volume")
