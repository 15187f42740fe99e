"""Errors over data and over seeds, apart: against their definition, by simulation, and in the table."""

import math

import numpy as np
import pytest
import torch

from pyrovae.comparing import Entry, comparison_table, difference, over_seeds
from pyrovae.comparing.table import Without
from pyrovae.evidence import Estimate, Evidence
from pyrovae.evidence.core.paired import paired_difference
from pyrovae.programs import Measure


def estimate(values, name="IS", **more):
    values = torch.as_tensor(values, dtype=torch.float64)
    ess = torch.full_like(values, 50.0) if name == "IS" else None
    flat = torch.zeros_like(values)
    return Estimate(name, "<=", 100, values, flat + 0.01, flat, ess, None if ess is None else flat, **more)


def evidence(values, **more):
    found = {
        "ELBO": estimate(torch.as_tensor(values) - 1, "ELBO"),
        "IS": estimate(values, certificate=-9.0, **more),
    }
    about = {
        "data_hash": f"of {len(values)}",
        "measure": "mass",
        "observed": Measure({"x": "mass"}).to_json(),
    }
    return Evidence(found, [], about, torch.zeros(len(values), 1))


def entry(name, by_seed, **more):
    evidences = {seed: evidence(values) for seed, values in by_seed.items()}
    return Entry("", (name, "iwae"), evidences, 1.0, {seed: [] for seed in by_seed}, None, **more)


def test_the_errors_are_those_of_their_definition():
    table = np.random.default_rng(0).normal(size=(4, 30))
    found = over_seeds([torch.tensor(row) for row in table])
    assert found.mean == pytest.approx(table.mean(), rel=1e-12)
    assert found.se_data == pytest.approx(table.mean(0).std(ddof=1) / math.sqrt(30), rel=1e-12)
    assert found.sd_seeds == pytest.approx(table.mean(1).std(ddof=1), rel=1e-12)
    assert found.se_seeds == pytest.approx(table.mean(1).std(ddof=1) / 2, rel=1e-12)
    assert found.se == pytest.approx(math.hypot(found.se_data, found.se_seeds), rel=1e-12)
    assert (found.num_seeds, found.num_data) == (4, 30)


def test_one_seed_is_the_single_evidence():
    values = torch.tensor(np.random.default_rng(1).normal(size=30))
    found = over_seeds([values])
    assert found.mean == float(values.mean()) and found.se_data == estimate(values).se_data == found.se
    assert math.isnan(found.sd_seeds) and found.stands() is None


@pytest.mark.parametrize("sds", [(1.0, 0.5, 0.5), (0.2, 1.0, 0.1), (0.1, 0.0, 2.0)])
def test_the_square_of_both_errors_is_the_variance_of_the_mean_and_the_rest_once_more(sds):
    """In the two-way layout: data, seeds, rest."""
    rng, (datum, seed, rest), (S, N), trials = np.random.default_rng(2), sds, (3, 12), 3000
    tables = (
        datum * rng.normal(size=(trials, 1, N))
        + seed * rng.normal(size=(trials, S, 1))
        + rest * rng.normal(size=(trials, S, N))
    )
    found = [over_seeds(list(torch.tensor(t))) for t in tables]
    squares = np.array([f.se**2 for f in found])
    variance = datum**2 / N + seed**2 / S + rest**2 / (N * S)
    error = squares.std() / math.sqrt(trials)
    assert abs(squares.mean() - variance - rest**2 / (N * S)) < 4 * error
    means = np.array([f.mean for f in found])
    assert abs(means.var() - variance) < 4 * variance * math.sqrt(2 / trials)


def test_of_equal_programs_the_best_rarely_stands_out():
    """Chosen after the fact among four: without the correction for all pairs, in one of four comparisons."""
    rng, trials, S = np.random.default_rng(3), 1500, 4
    told = {1: 0, 4: 0}
    for means in rng.normal(size=(trials, 4, S)):
        best = means[means.mean(1).argmax()]
        rest = [over_seeds([torch.full((2,), d) for d in means[i] - best]) for i in range(4)]
        for among in told:
            told[among] += any(d.stands(among) for d in rest if d.mean != 0)
    allowed = 0.05 + 4 * math.sqrt(0.05 * 0.95 / trials)
    assert told[4] / trials < allowed < told[1] / trials


def test_differences_are_paired_over_data_and_seeds():
    rng = np.random.default_rng(4)
    common = 10 * rng.normal(size=(3, 40))  # what both programs have alike, seed by seed and datum by datum
    a, b = common - 0.5 + 0.1 * rng.normal(size=(3, 40)), common
    first, second = (entry(n, dict(enumerate(torch.tensor(t)))) for n, t in (("a", a), ("b", b)))
    found = difference(first, second, among=2)
    d = a - b
    assert found.mean == pytest.approx(d.mean(), rel=1e-9)
    assert found.se_data == pytest.approx(d.mean(0).std(ddof=1) / math.sqrt(40), rel=1e-9)
    assert found.sd_seeds == pytest.approx(d.mean(1).std(ddof=1), rel=1e-6)
    assert found.se < 0.1 < first.figure("IS").se
    assert found.order_stands and found.behind == 3 and not found.directed and found.estimator == "IS"


def test_an_order_within_the_monte_carlo_error_is_open():
    """Figures of all seeds made of the same draws have a spread that says nothing of these."""
    first = entry("a", {0: [1.0, 2.0], 1: [1.0, 2.0], 2: [1.0, 2.0]})
    mc = math.sqrt(2 * 0.01 / 2)  # of the difference: variances of 0.01, two data, two programs
    for ahead, stands in ((1.9 * mc, False), (2.0 * mc, True)):
        second = entry("b", {s: [1.0 + ahead, 2.0 + ahead] for s in range(3)})
        found = difference(first, second, among=2)
        assert found.se_mc == pytest.approx(mc) and found.sd_seeds < 1e-12
        assert found.order_stands is stands


def test_differences_are_of_the_seeds_that_both_have():
    first = entry("a", {0: [1.0, 2.0], 1: [5.0, 5.0]})
    second = entry("b", {1: [4.0, 5.0], 2: [0.0, 0.0]})
    found = difference(first, second)
    assert (found.mean, found.num_seeds) == (0.5, 1) and found.order_stands is None
    # None in common: the means over each one's seeds are paired over the data.
    third = entry("c", {7: [1.0, 1.0], 8: [3.0, 2.0]})
    apart = difference(third, second)
    assert apart.mean == pytest.approx(-0.5) and apart.order_stands is None and apart.per_seed == ()
    assert apart.se_seeds == pytest.approx(
        math.hypot(third.figure("IS").se_seeds, second.figure("IS").se_seeds)
    )


def test_one_seed_gives_the_paired_difference_of_two_evidences():
    first, second = entry("a", {0: [1.0, 2.0, -math.inf]}), entry("b", {0: [0.5, 2.5, -math.inf]})
    found, plain = difference(first, second), paired_difference(first.evidence["IS"], second.evidence["IS"])
    assert (found.mean, found.se_data) == (plain.difference, plain.se)


def test_the_table_keeps_both_errors_apart():
    rows = [
        entry("a", {0: [1.0, 2.0], 1: [1.5, 2.5], 2: [1.0, 2.4]}),
        entry("b", {0: [0.0, 1.1], 1: [0.4, 1.5]}, lost={2: "out of memory"}),
        Without(("c", "iwae"), "refused", "no density"),
    ]
    table = comparison_table(rows, heads=("program", "objective"))
    found = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [r["seeds"] for r in found] == ["3", "2 of 3", "refused"]
    a = rows[0].figure("IS")
    assert found[0]["IS evidence ± se"] == f"{a.mean:.3f} ± {a.se_data:.3f}"
    assert found[0]["sd over seeds"] == f"{a.sd_seeds:.3f}" and found[0]["± seeds"] == f"{a.se_seeds:.3f}"
    assert found[0]["Δ to best ± se"] == "best" and found[1]["order"].endswith("2 of 2")
    assert table.reasons == ["b iwae failed with seed 2: out of memory", "c iwae refused: no density"]
    assert any("paired over data and seeds" in note for note in table.notes)
    single = comparison_table([entry("a", {0: [1.0, 2.0]})], heads=("program", "objective"))
    assert not {"seeds", "± seeds", "order"} & set(single.columns)


def test_a_certificate_over_seeds_is_the_mean_of_theirs():
    table = comparison_table([entry("a", {0: [1.0, 2.0], 1: [1.5, 2.5]})], heads=("program", "objective"))
    assert dict(zip(table.columns, table.rows[0], strict=True))["certified ≥"] == "-9.000"
    assert "mean ln p(x) over its seeds ≥ -9.000" in table.notes[-1]
