"""Jackknife, MLMC, coverage of intervals; evaluations killed, resumed, split and merged."""

import math
import os
import signal
import time
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.evidence.core.estimate import Estimate
from pyrovae.evidence.core.unsupported import refuse_unsupported
from pyrovae.evidence.estimators.mlmc_levels import LevelSums, decay
from pyrovae.evidence.verdict import verdict
from pyrovae.evidence.weights.coverage import interval_coverage
from pyrovae.evidence.weights.coverage import lognormal as lognormal_law
from pyrovae.models import ground_truths as gt

from . import handwritten as hw

F64 = torch.float64
MODERATE = [gt.linear_gaussian(24), gt.hierarchical_linear_gaussian(3, 24), gt.mixture_prior(24)]
MODERATE += [gt.discrete(24), gt.gamma_poisson(24), gt.beta_binomial(24), gt.nonlinear(2, 24)]


def lognormal(sigma, num_samples, num_data, seed=0):
    """Log-weights whose evidence is known: E exp(lw) = 1."""
    generator = torch.Generator().manual_seed(seed)
    return sigma * torch.randn(num_samples, num_data, generator=generator, dtype=F64) - sigma**2 / 2


# Jackknife ---------------------------------------------------------------------------------------


def pseudo_values(lw):
    k = len(lw)
    full = lw.logsumexp(0) - math.log(k)
    without = [torch.cat([lw[:i], lw[i + 1 :]]).logsumexp(0) - math.log(k - 1) for i in range(k)]
    return k * full - (k - 1) * torch.stack(without)


def delete_one_variance(lw, estimate):
    """(K-1)^2 Var_j / K by a plain loop."""
    k = len(lw)
    found = torch.stack([estimate(torch.cat([lw[:j], lw[j + 1 :]])) for j in range(k)])
    return (k - 1) ** 2 * found.var(0) / k


def test_jackknife_is_the_mean_of_its_pseudo_values():
    lw = lognormal(1.5, 40, 6)
    lw[7, 1] = 60.0  # one weight holds all but e^-60 of the sum
    lw[:, 2] = -3.0
    lw[::2, 3] = -torch.inf
    part, brute = pv.Jackknife(40).estimate(lw), pseudo_values(lw)
    torch.testing.assert_close(part.log_evidence, brute.mean(0), rtol=1e-10, atol=1e-10)
    expected = delete_one_variance(lw, lambda w: pseudo_values(w).mean(0))
    torch.testing.assert_close(part.variance, expected, rtol=1e-8, atol=1e-12)
    assert part.details["max_share"][1] == 1 and part.details["max_share"][2] == pytest.approx(1 / 40)
    dead = pv.Jackknife(10).estimate(torch.full((10, 1), -torch.inf))
    assert dead.log_evidence == -torch.inf and not torch.isfinite(dead.variance).any()
    with pytest.raises(ValueError, match=">= 2 for a jackknife"):
        pv.Jackknife(1)


def test_bias_orders():
    """Bias against K on log-log axes: slope -1 for IS, -2 for the jackknife (ln E w = 0)."""
    ks, biases, sigma2 = (4, 8, 16, 32), {"IS": [], "Jackknife": []}, 0.5
    for k in ks:
        total = torch.zeros(2, dtype=F64)
        runs = 6
        for seed in range(runs):
            lw = lognormal(math.sqrt(sigma2), k, 30_000, seed=1000 * k + seed)
            # The noise of the mean weight dwarfs the bias: its first two orders, whose mean is
            # known, are a control variate.
            off = lw.exp().mean(0) - 1
            control = off - off.square() / 2
            known = -math.expm1(sigma2) / (2 * k)
            for j, value in enumerate((lw.logsumexp(0) - math.log(k), fast_jackknife(lw))):
                total[j] += (value - control).mean() + known
        for name, value in zip(biases, total / runs, strict=True):
            biases[name].append(abs(float(value)))
    for name, slope, tolerance in (("IS", -1, 0.2), ("Jackknife", -2, 0.3)):
        y, x = torch.tensor(biases[name]).log(), torch.tensor(ks, dtype=torch.float32).log()
        fitted = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
        assert abs(float(fitted) - slope) < tolerance, (name, biases[name])


def fast_jackknife(lw):
    """The estimator without its diagnostics, which take most of the time."""
    from pyrovae.evidence.weights.delete_one import jackknife_shift

    return lw.logsumexp(0) - math.log(len(lw)) + jackknife_shift(lw)


def test_jackknife_shares_its_draws_and_warns_where_it_cancels():
    truth = gt.linear_gaussian(8, width=1.3)
    ev = pv.evidence(truth.model, truth.guide, truth.x, estimators=[pv.ELBO(), pv.IS(200), pv.Jackknife(200)])
    difference = ev["Jackknife"].per_datum - ev["IS"].per_datum
    torch.testing.assert_close(difference, -ev["IS"].bias, rtol=0, atol=1e-11)
    assert ev["Jackknife"].direction == "~" and ev["Jackknife"].certificate is None
    assert not any("jackknife cancels" in w for w in ev.warnings)
    bad = gt.psis_tail(0.25, 40)
    ev = pv.evidence(bad.model, bad.guide, bad.x, estimators=[pv.Jackknife(100)])
    assert any("jackknife cancels" in w for w in ev.warnings)
    assert ev["Jackknife"].interval().isnan().all()


def test_what_claims_to_be_ln_p_is_refused_where_its_weights_do_not_support_it():
    """Nats off by many of its errors, the jackknife of uneven weights is no estimate; a lower bound stays one."""
    bad = gt.linear_gaussian(6, latent_dim=2, width=0.15)
    estimators = [pv.IS(1000), pv.Jackknife(1000), pv.MLMC(replicates=32, base=8)]
    ev = pv.evidence(bad.model, bad.guide, bad.x, estimators=estimators)
    exact = float(bad.log_evidence.mean())
    assert abs(float(ev["Jackknife"].per_datum.mean()) - exact) > 5 * ev["Jackknife"].se_mc, (
        "it would be wrong"
    )
    rows = {r.split("|")[1].strip(): r for r in ev.table("markdown").splitlines() if r.startswith("| ")}
    for name in ("Jackknife", "MLMC"):
        e = ev[name]
        assert e.refused and e.symbol == "?" and math.isnan(e.log_evidence) and "≈" not in repr(e)
        assert "refused" in rows[name] and "≈" not in rows[name]
        assert any(w.startswith(f"{name} is refused") for w in ev.warnings)
    assert ev["IS"].log_evidence < exact and "≥" in rows["IS"] and "Jackknife" not in ev.verdict
    alone = pv.evidence(bad.model, bad.guide, bad.x, estimators=[pv.Jackknife(1000)])
    assert alone.verdict.startswith("Jackknife is refused")


def test_one_datum_without_support_is_named_and_the_others_keep_their_mean():
    lw = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lw *= torch.tensor([0.1, 0.1, 4.0, 0.1], dtype=torch.float64)
    e = refuse_unsupported(as_estimate(pv.Jackknife(1000), lw))
    assert e.reliable.tolist() == [True, True, False, True] and e.details["refused_data"].tolist() == [
        0,
        0,
        1,
        0,
    ]
    assert "1 of 4 data (2)" in e.refused and f"{float(e.per_datum[e.reliable].mean()):.4f}" in e.refused
    even = as_estimate(pv.Jackknife(1000), lw[:, :2])
    assert refuse_unsupported(even) is even and even.symbol == "≈"


def as_estimate(e, lw):
    part = e.estimate(lw)
    return Estimate(
        e.name,
        e.direction,
        len(lw),
        part.log_evidence,
        part.variance,
        part.bias,
        ess=part.ess,
        khat=part.khat,
        details=part.details,
    )


# Verdict -----------------------------------------------------------------------------------------


def test_the_interval_of_a_mean_covers_and_is_that_of_one_datum():
    """Lognormal weights of mean 1: of one datum and of few, 95 % of the intervals given hold 0."""
    generator = torch.Generator().manual_seed(0)
    for n, variance, least in ((1, 1.0, 40), (4, 0.5, 40), (16, 0.1, 60)):
        given, covered = 0, 0
        for _ in range(80):
            lw = torch.randn(1000, n, generator=generator, dtype=torch.float64) * variance**0.5 - variance / 2
            e = as_estimate(pv.IS(1000), lw)
            low, high = e.mean_interval()
            assert math.isnan(low) == (not e.reliable.all())
            if n == 1 and not math.isnan(low):
                assert (low, high) == pytest.approx(e.interval()[0].tolist(), abs=1e-12)
            given, covered = given + (low == low), covered + (low <= 0 <= high)
        assert given >= least and covered / given > 0.95 - 4 * math.sqrt(0.05 * 0.95 / given)
    shared = replace(e, details={**e.details, "shared_error": 1.0})
    assert shared.mean_interval()[0] == pytest.approx(float((e.per_datum - e.bias).mean()) - 1.96, abs=0.01)


def test_the_verdict_states_the_interval_and_does_not_praise_weights_that_leave_room():
    even = torch.randn(2, 1000, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)[0]
    for lw, praised in ((0.1 * even, True), (0.9 * even, False)):
        e = as_estimate(pv.IS(1000), lw)
        low, high = e.mean_interval()
        words = verdict({"IS": e})
        assert e.reliable.all() and f"[{low:.4f}, {high:.4f}]" in words
        assert ("well behaved" in words) == praised and ("leave room" in words) != praised
        assert "within its errors" not in words


@pytest.mark.parametrize("truth", MODERATE, ids=lambda t: t.name)
def test_estimates_of_the_ground_truths(truth):
    """Errors within 4 SE, per data set; the intervals that are given cover."""
    names = [pv.IS(1000), pv.Jackknife(1000), pv.MLMC(replicates=40)]
    ev = pv.evidence(truth.model, truth.guide, truth.x, estimators=names)
    for e in ev.values():
        error = e.per_datum - torch.nan_to_num(e.bias) - truth.log_evidence
        assert abs(float(error.mean())) < 4 * e.se_mc, e.name
        chi2 = float((error / e.variance.sqrt()).square().mean())
        assert abs(chi2 - 1) < 5 * math.sqrt(2 / 24) + 0.1, e.name


# Coverage ----------------------------------------------------------------------------------------


def test_intervals_are_given_ever_more_seldom():
    """None of 150 for weights so uneven that half of all intervals would miss; all where they are even."""
    laws = [lognormal_law(v) for v in (0.1, 1.0, 2.0, 4.0, 9.0)]
    given = [c.given for c in interval_coverage([pv.IS(1000)], laws, repeats=150)]
    assert given == sorted(given, reverse=True) and given[0] == 1 and given[-1] == 0


# MLMC --------------------------------------------------------------------------------------------


def test_mlmc_is_unbiased_where_its_parts_are_not():
    """K0 = 2: L_{K0} is far from ln p(x), the mean of MLMC is not."""
    truth = gt.linear_gaussian(200, latent_dim=2, width=1.5)
    ev = pv.evidence(
        truth.model, truth.guide, truth.x, estimators=[pv.IS(2), pv.MLMC(replicates=300, base=2)]
    )
    bias = float((ev["IS"].per_datum - truth.log_evidence).mean())
    e = ev["MLMC"]
    assert bias < -0.05 and e.se_mc < 0.01
    assert abs(float((e.per_datum - truth.log_evidence).mean())) < 4 * e.se_mc
    assert abs(e.details["mean_cost"] / pv.MLMC(replicates=300, base=2).mean_cost - 1) < 0.1
    assert e.direction == "~" and e.details["decay"] > 1.5 and e.details["max_level"] == 16
    assert -1e-3 < e.bias_indicator < 0, "the truncation's bias, stated"


def test_mlmc_truncated_is_importance_sampling_of_its_last_level():
    """E = E L_K with K = 2^max_level K0: the bias that `bias` states."""
    truth = gt.linear_gaussian(400, latent_dim=2, width=1.5)
    e = pv.evidence(truth.model, truth.guide, truth.x, estimators=[pv.MLMC(400, 2, max_level=2)])["MLMC"]
    error = float((e.per_datum - truth.log_evidence).mean())
    assert error + 4 * e.se_mc < 0
    isv = pv.evidence(truth.model, truth.guide, truth.x.repeat(20, 1), estimators=[pv.IS(8)])["IS"]
    expected = float((isv.per_datum - truth.log_evidence.repeat(20)).mean())
    assert abs(error - expected) < 4 * math.hypot(e.se_mc, isv.se_mc)
    assert e.bias_indicator == pytest.approx(expected, rel=0.3)


def test_mlmc_refuses_where_its_variance_is_not_finite():
    bad = gt.psis_tail(0.5, 60)
    ev = pv.evidence(bad.model, bad.guide, bad.x, estimators=[pv.IS(50), pv.MLMC()])
    assert ev["MLMC"].per_datum.isnan().all() and ev["MLMC"].interval().isnan().all()
    assert torch.isfinite(ev["IS"].per_datum).all(), "the other estimates stand"
    assert "expected faster than 2^(-1.5 l)" in ev["MLMC"].details["refused"]
    assert any(w.startswith("MLMC is refused") for w in ev.warnings)
    tail = gt.psis_tail(0.7, 60)  # k = .51: from so few levels the decay alone does not tell
    ev = pv.evidence(tail.model, tail.guide, tail.x, estimators=[pv.MLMC()])
    assert any("k-hat is above 0.40" in w or "refused" in w for w in ev.warnings)
    few = gt.linear_gaussian(1)
    ev = pv.evidence(few.model, few.guide, few.x, estimators=[pv.MLMC(replicates=4)])
    assert any("too few replicates" in w for w in ev.warnings)
    for bad_options in ({"rate": 1.0}, {"rate": 2.0}, {"replicates": 1}, {"base": 0}, {"max_level": 0}):
        with pytest.raises(ValueError, match="expected"):
            pv.MLMC(**bad_options)


def test_decay_recovers_known_rates():
    generator = torch.Generator().manual_seed(0)
    for rate in (0.5, 1.0, 2.0):
        sums = LevelSums(6, 2)
        for level in range(1, 6):
            scale = 2 ** (-rate * level / 2)
            deltas = scale * torch.randn(2000 // 2**level, 2, generator=generator, dtype=F64)
            sums.add(level, deltas, torch.arange(2))
        slope, se = decay(sums, torch.tensor([True, True]))
        assert abs(slope - rate) < 4 * se < 1


@pytest.mark.parametrize(
    "case", [hw.plain_guide, hw.enumerated_in_model, hw.fixed_plate, hw.python_loop, hw.with_context]
)
def test_mlmc_serves_programs_of_every_calling(case):
    case = hw.scaled() if case is hw.plain_guide else case()
    e = pv.evidence(case.model, case.wrong, *case.args, estimators=[pv.MLMC(12, 8, max_level=3)])["MLMC"]
    assert abs(float((e.per_datum - case.log_evidence).mean())) < 5 * e.se_mc + 0.05
    if case.exact is not None:
        e = pv.evidence(case.model, case.exact, *case.args, estimators=[pv.MLMC(2, 2, max_level=3)])["MLMC"]
        torch.testing.assert_close(e.per_datum, case.log_evidence, rtol=0, atol=1e-9)


def test_mlmc_repeats_itself_and_counts_its_progress():
    truth, seen = gt.linear_gaussian(10), []
    runs = [
        pv.evidence(
            truth.model,
            truth.guide,
            truth.x,
            estimators=[pv.MLMC(8)],
            seed=s,
            progress=lambda *a: seen.append(a),
        )["MLMC"].per_datum
        for s in (0, 0, 1)
    ]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    assert seen[-1][0] == seen[-1][1] > 0


# Killed, resumed, split, merged ------------------------------------------------------------------


def evaluate(**options):
    truth = gt.linear_gaussian(23, latent_dim=2)
    estimators = options.pop("estimators", [pv.ELBO(), pv.IS(60), pv.Jackknife(60)])
    chunk = options.pop("chunk", pv.Chunk(5, 16))
    return pv.evidence(truth.model, truth.guide, truth.x, estimators=estimators, chunk=chunk, **options)


def assert_same(first, second):
    assert list(first) == list(second)
    for name, e in first.items():
        other = second[name]
        for key in ("per_datum", "variance", "bias", "ess", "khat"):
            a, b = getattr(e, key), getattr(other, key)
            assert (a is None and b is None) or torch.equal(
                torch.nan_to_num(a, nan=7.5), torch.nan_to_num(b, nan=7.5)
            )
        assert e.curve == other.curve and e.certificate == other.certificate
        assert e.details.keys() == other.details.keys()
    assert torch.equal(first.x, second.x) and first.warnings == second.warnings


class Killed(Exception):
    pass


def test_killed_and_resumed_gives_the_same_numbers(tmp_path):
    whole = evaluate()
    calls = []
    for attempt in range(30):  # noqa: B007

        def die(done, total):
            calls.append((done, total))
            if len(calls) % 7 == 0:
                raise Killed

        try:
            resumed = evaluate(resume=tmp_path, progress=die)
            break
        except Killed:
            continue
    assert attempt >= 2, "it was killed more than once"
    assert_same(resumed, whole)
    assert len(list(tmp_path.glob("*.safetensors"))) == 5 and len(list(tmp_path.iterdir())) == 5
    again = []
    assert_same(evaluate(resume=tmp_path, progress=lambda *a: again.append(a)), whole)
    assert again == [], "all was there"


def test_damaged_and_foreign_partial_results(tmp_path):
    whole = evaluate(resume=tmp_path)
    first, second, *_ = sorted(tmp_path.iterdir())
    first.write_bytes(first.read_bytes()[:50])
    second.unlink()
    assert_same(evaluate(resume=tmp_path), whole)
    # Another seed, K, data or parameters: none of these files is theirs.
    before = set(tmp_path.iterdir())
    assert_same(evaluate(resume=tmp_path, seed=1), evaluate(seed=1))
    assert len(set(tmp_path.iterdir()) - before) == 5
    # A program whose constants changed has the same parameters: the probe tells.
    constant = [1.0]

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=F64), 1.0))
            pyro.sample("x", dist.Normal(constant[0] * z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 1.0))

    x = torch.linspace(-1, 1, 6, dtype=F64)
    pv.evidence(model, guide, x, estimators=[pv.IS(10)], resume=tmp_path)
    constant[0] = 2.0
    with pytest.raises(ValueError, match="same parameters and other log-weights"):
        pv.evidence(model, guide, x, estimators=[pv.IS(10)], resume=tmp_path)


def test_estimators_that_run_the_program_are_resumed_too(tmp_path):
    estimators = [pv.IS(60), pv.MLMC(4), pv.Exact()]
    whole = evaluate(estimators=estimators)
    assert_same(evaluate(estimators=estimators, resume=tmp_path), whole)
    again = []
    resumed = evaluate(estimators=estimators, resume=tmp_path, progress=lambda *a: again.append(a))
    assert again == []
    assert_same(resumed, whole)
    assert resumed["MLMC"].details["mean_cost"] == whole["MLMC"].details["mean_cost"]


@pytest.mark.parametrize("shared", [False, True])
def test_four_shards_merged_equal_the_whole(tmp_path, shared):
    whole = evaluate()
    options = {"resume": tmp_path} if shared else {}
    shards = [evaluate(shard=(i, 4), **options) for i in range(4)]
    assert sorted(len(s.x) for s in shards) == [5, 5, 5, 8]
    assert_same(pv.merge_evidence(shards[::-1]), whole)
    if shared:  # the folder alone will do
        calls = []
        assert_same(evaluate(resume=tmp_path, progress=lambda *a: calls.append(a)), whole)
        assert calls == []


def test_shards_that_do_not_fit_are_refused():
    shards = [evaluate(shard=(i, 3)) for i in range(3)]
    for bad, words in (
        ([], "got none"),
        (shards[:2], "each of 3 shards once"),
        ([*shards, shards[0]], "each of 3 shards once"),
        ([shards[0], evaluate()], "without shard"),
        ([*shards[:2], evaluate(shard=(2, 3), seed=1)], "one evaluation, got different"),
    ):
        with pytest.raises(ValueError, match=words):
            pv.merge_evidence(bad)
    for shard, words in (((3, 3), "0 <= i < n"), ((7, 9), "with data")):
        with pytest.raises(ValueError, match=words):
            evaluate(shard=shard)
    with pytest.raises(ValueError, match="made of log-weights for a shard"):
        evaluate(shard=(0, 2), estimators=[pv.IS(5), pv.Exact()])


def test_sigkill(tmp_path):
    """A process killed for good, in the middle: the folder holds whole files, and the rest follows."""
    whole = evaluate()
    pid = os.fork()  # a process that has imported everything
    if pid == 0:
        try:
            evaluate(resume=tmp_path, progress=lambda *_: time.sleep(0.05))
        finally:
            os._exit(0)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("[!.]*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    done = len(list(tmp_path.glob("[!.]*.safetensors")))
    assert 1 <= done < 5, "killed in the middle"
    calls = []
    assert_same(evaluate(resume=tmp_path, progress=lambda *a: calls.append(a)), whole)
    assert len(calls) == (5 - done) * 4
