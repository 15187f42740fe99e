"""evaluate with every estimator, gaps, sandwich and truth: what they write, and how they end on wrong input."""

import json
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import integrate, stats

import pyrovae as pv
from pyrovae.inference import cli, evaluate, gaps, sandwich, train, truth
from pyrovae.runs import read_evidence

FLAGS = ["--device", "cpu", "--quiet"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    options = ["--epochs", "1", "--hidden", "16", "--latent-dim", "2", "--compile", "off"]
    assert train.main(["--out", str(folder), *options, *FLAGS]) == 0
    return folder


@pytest.mark.slow
def test_every_estimator(run, capsys):
    small = [
        "--num-samples",
        "60",
        "--replicates",
        "4",
        "--temperatures",
        "4",
        "--chains",
        "2",
        "--limit",
        "6",
    ]
    names = ["elbo", "is", "jackknife", "mlmc", "ais", "exact"]
    assert evaluate.main([str(run), "--estimators", *names, *small, *FLAGS]) == 0
    out = capsys.readouterr().out
    assert "digits, 6 drawn from the test split" in out and "AIS" in out and "exact" in out.lower()
    ev = read_evidence(run / "evidence.nc")
    assert list(ev) == ["ELBO", "IS", "Jackknife", "MLMC", "AIS", "Exact"]
    # Details are kept on disk, per datum or not.
    assert ev["AIS"].details["acceptance"].shape == (6,) and ev["AIS"].details["num_temperatures"] == 4
    assert (
        ev["Jackknife"].details["max_share"].shape == (6,) and "quadrature" in ev["Exact"].details["method"]
    )
    assert ev.best is ev["Exact"] and ev.verdict in " ".join(out.split())
    # Asked the same again it is read; asked with other temperatures it is computed.
    again = [str(run), "--estimators", *names, *small, "--reuse", *FLAGS]
    assert evaluate.main(again) == 0 and "from evidence.nc" in capsys.readouterr().out
    other = [*again, "--temperatures", "5"]
    assert evaluate.main(other) == 0 and "from evidence.nc" not in capsys.readouterr().out


def test_shards_and_resume_give_the_whole(run, capsys):
    argv = [str(run), "--num-samples", "200", "--compile", "off", *FLAGS]
    assert evaluate.main(argv) == 0
    whole = read_evidence(run / "evidence.nc")
    (run / "evidence.nc").unlink()
    for i in range(2):
        assert evaluate.main([*argv, "--resume", "--shard", f"{i}/2"]) == 0
        assert f"shard {i} of 2" in capsys.readouterr().out and not (run / "evidence.nc").exists()
    assert list((run / "partial").iterdir())
    assert evaluate.main([*argv, "--resume"]) == 0
    put_together = read_evidence(run / "evidence.nc")
    assert torch.equal(put_together["IS"].per_datum, whole["IS"].per_datum)
    assert not (run / "partial").exists(), "they have done their work"


def test_gaps_writes_table_figure_and_figures(run, capsys):
    small = ["--steps", "5", "--particles", "2", "--draws", "20", "--num-samples", "20", "--limit", "3"]
    assert gaps.main([str(run), *small, "--label", "eights and threes", *FLAGS]) == 0
    assert "eights and threes" in capsys.readouterr().out
    found = json.loads((run / "gaps.json").read_text())
    parts = {k: v["mean"] for k, v in found["parts"].items()}
    assert parts["amortisation"] + parts["approximation"] == pytest.approx(parts["total"])
    assert (run / "gaps.png").stat().st_size > 5000 and "amortisation" in (run / "gaps.md").read_text()


def test_sandwich_writes_table_figure_and_figures(run, capsys):
    small = ["--simulate", "4", "--temperatures", "3", "5", "--chains", "2", "--num-samples", "20"]
    assert sandwich.main([str(run), *small, "--leapfrog", "1", *FLAGS]) == 0
    assert "4 data simulated" in capsys.readouterr().out
    found = json.loads((run / "sandwich.json").read_text())
    assert [b["effort"] for b in found["brackets"]] == [20, 3, 5] and found["num_data"] == 4
    assert (run / "sandwich.png").stat().st_size > 5000 and "≤" in (run / "sandwich.md").read_text()
    # What it has found stands beside later figures of these weights, and of no others.
    argv = [str(run), "--num-samples", "20", "--limit", "4", *FLAGS]
    assert evaluate.main(argv) == 0 and "BDMC gap" in capsys.readouterr().out
    (run / "sandwich.json").write_text(json.dumps({**found, "weights_hash": "of other weights"}))
    assert evaluate.main(argv) == 0 and "BDMC gap" not in capsys.readouterr().out


WRONG = [
    (evaluate, ["--estimators", "is", "is"], "each estimator once"),
    (evaluate, ["--estimators", "ais", "--temperatures", "1"], "--temperatures >= 2"),
    (evaluate, ["--shard", "0/2"], "--resume"),
    (evaluate, ["--resume", "--shard", "2/2"], "0 <= i < n"),
    (evaluate, ["--resume", "--shard", "half"], "0 <= i < n"),
    (evaluate, ["--num-samples", "0"], "--num-samples >= 1"),
    (gaps, ["--steps", "0"], "steps >= 1"),
    (gaps, ["--limit", "0"], "--limit >= 1"),
    (sandwich, ["--temperatures", "1"], "--temperatures >= 2"),
    (sandwich, ["--simulate", "0"], "simulate"),
]


@pytest.mark.parametrize(("script", "options", "words"), WRONG)
def test_wrong_input_ends_in_one_line(run, script, options, words, capsys):
    code = script.main([str(run), *options, *FLAGS])
    err = capsys.readouterr().err
    assert code == 2 and err.count("\n") == 1 and "error:" in err and words in err, err


def test_a_folder_that_is_no_run(tmp_path, capsys):
    for script in (gaps, sandwich):
        assert script.main([str(tmp_path / "none"), *FLAGS]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 2 and "Traceback" not in err


def test_the_command_knows_them(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert {"gaps", "sandwich", "truth"} <= set(out.split())
    for name in ("gaps", "sandwich", "truth"):
        with pytest.raises(SystemExit) as end:
            cli.main([name, "--help"])
        assert end.value.code == 0
    assert "--temperatures" in capsys.readouterr().out


def test_truth_refuses_nothing_to_do(capsys, tmp_path):
    assert truth.main(["--num-data", "1", "--out", str(tmp_path), "--quiet"]) == 2
    assert "--num-data >= 2" in capsys.readouterr().err


def test_the_best_lower_bound_is_the_highest():
    """AIS above IS where both are certified; exact above all; paired differences are of one estimator."""
    from pyrovae.models import ground_truths as gt

    truth = gt.linear_gaussian(12, width=0.5)
    asked = [pv.ELBO(), pv.IS(5), pv.AIS(8, 4, leapfrog=2)]
    ev = pv.evidence(truth.model, truth.guide, truth.x, estimators=asked)
    assert ev["AIS"].log_evidence > ev["IS"].log_evidence and ev.best is ev["AIS"]
    assert "AIS is the higher" in ev.verdict
    is_alone = pv.evidence(truth.model, truth.guide, truth.x, estimators=[pv.IS(5)])
    assert ev.compare(is_alone).difference == pytest.approx(
        float((ev["IS"].per_datum - is_alone["IS"].per_datum).mean()), abs=1e-12
    )
    whole = pv.evidence(truth.model, truth.guide, truth.x, estimators=[pv.IS(5), pv.Exact()])
    assert whole.best is whole["Exact"]


def test_draws_beyond_the_prior_s_support_weigh_nothing():
    """Gaps, which are infinite then, name them; none is taken for a program that does not broadcast."""

    def model(x):
        with pyro.plate("data", len(x)):
            p = pyro.sample("p", dist.Beta(torch.tensor(2.0), 2.0))
            pyro.sample("x", dist.Normal(p, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("p", dist.Normal(torch.full((len(x),), 0.5), 0.6))

    x = torch.zeros(4)
    # ln of the integral of 6 p (1 - p) exp(-p^2 / 2) / sqrt(2 pi) over 0 to 1
    exact = math.log(integrate.quad(lambda p: 6 * p * (1 - p) * stats.norm.pdf(p), 0, 1)[0])
    weights = pv.log_weights(model, guide, x, num_samples=40_000)
    assert bool((weights == -torch.inf).any())
    found = weights.logsumexp(0) - math.log(len(weights))
    error = (weights - found).exp().std(0) / len(weights) ** 0.5
    assert bool(((found - exact).abs() < 4 * error).all())
    with pytest.raises(ValueError, match=r"ELBO is finite.*'p' in .*Beta has the support.*infinite"):
        pv.gaps(model, guide, x)
    ev = pv.evidence(model, guide, x, estimators=[pv.AIS(4, 4, leapfrog=1)])
    assert torch.isfinite(ev["AIS"].per_datum).any()


def test_the_coverage_figure_shows_every_estimator():
    from pyrovae.evidence.weights.coverage import interval_coverage, lognormal
    from pyrovae.plots import plot_coverage

    figure = plot_coverage(
        interval_coverage([pv.IS(50), pv.Jackknife(50)], [lognormal(0.1), lognormal(4.0)], repeats=10)
    )
    left, right = figure.axes
    assert {t.get_text() for t in left.get_legend().get_texts()} == {"IS", "Jackknife", "nominal 95%"}
    assert len(right.lines) == 2 and right.get_ylim() == (0, 1)
    with pytest.raises(ValueError, match="points of interval_coverage"):
        plot_coverage([])
