"""Terms of the ELBO by columns: against closed forms, against the ELBO itself, on the command line."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.evidence import ColumnTerms
from pyrovae.evidence.core.tables import render
from pyrovae.inference import evaluate, score, train
from pyrovae.inference.drawing.pictures import Pictures
from pyrovae.inference.options.given.lines import least_likely
from pyrovae.inference.options.pair import Pair
from tests import handwritten as hw
from tests.small import FLAGS

W = torch.tensor([[1.0, 0.5], [-0.3, 2.0], [0.0, 0.0]], dtype=torch.float64)
S = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
M, V = torch.tensor([0.4, -0.2], dtype=torch.float64), torch.tensor([0.5, 1.2], dtype=torch.float64)
X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ W.T, S).to_event(1), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(M.expand(len(x), 2), V).to_event(1))


def test_terms_are_the_closed_forms():
    found = pv.column_terms(model, guide, X, num_samples=4000, columns=["a", "b", "c"])
    spread = (W**2 @ V**2) / S**2
    exact = -0.5 * (math.log(2 * math.pi) + 2 * S.log() + ((X - W @ M) / S) ** 2 + spread)
    # A square of a normal number: variance 4 m^2 v + 2 v^2, of half the square a quarter of it.
    error = (((X - W @ M) ** 2 / S**2 * spread) + spread**2 / 2).sqrt() / math.sqrt(4000)
    assert bool(((found.reconstruction - exact).abs() <= 4.5 * error + 1e-12).all())
    kl = 0.5 * (V**2 + M**2 - 1 - 2 * V.log()).sum()
    assert bool(((found.kl - kl).abs() < 4.5 * 2 / math.sqrt(4000)).all())
    assert torch.allclose(found.elbo, found.reconstruction.sum(1) - found.kl)
    table = found.table(most=1)
    assert "2 more" in table and "sum: ELBO" in table and "does not divide" in table


def sampled(x):
    """The same guide, one draw at a time: it takes a number into Python."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(M.expand(len(x), 2), V).to_event(1))
        float(z.sum())


def test_a_guide_that_runs_draw_by_draw():
    found = pv.column_terms(model, sampled, X, num_samples=40)
    exact = pv.column_terms(model, guide, X, num_samples=4000)
    # ln w has a standard deviation of 6.5 nats, the mean is over 40 draws of 6 data.
    assert float((found.elbo - exact.elbo).mean().abs()) < 4.5 * 6.5 / math.sqrt(40 * len(X))


def masked(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ W.T, S).to_event(1).mask(x[:, 0] > 0), obs=x)


def joint(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
        pyro.sample("x", dist.MultivariateNormal(z @ W.T, scale_tril=torch.diag(S)), obs=x)


def two(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ W.T, S).to_event(1), obs=x)
        pyro.sample("y", dist.Normal(torch.zeros(()).double(), 1.0), obs=x[:, 0])


def test_what_does_not_divide_is_refused():
    for program, words in ((masked, "independent|mask"), (joint, "independent"), (two, "one observed site")):
        with pytest.raises(ValueError, match=words):
            pv.column_terms(program, guide, X)
    with pytest.raises(ValueError, match="a name for each of 3 columns"):
        pv.column_terms(model, guide, X, columns=["a"])
    with pytest.raises(ValueError, match="names that differ, got 'a', 'a'"):
        pv.column_terms(model, guide, X, columns=["a", "b", "a"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"age": rng.normal(size=80), "visits": rng.poisson(3, 80), "city": rng.choice(["u", "v"], 80)}
    )
    table.loc[::7, "age"] = np.nan
    table.index = [f"row{i}" for i in table.index]
    table.to_csv(folder / "table.csv")
    argv = ["--data", str(folder / "table.csv"), "--columns", "auto", "--missing", "ignore", "--epochs", "1"]
    argv += ["--hidden", "4", "--latent-dim", "2", "--compile", "off", "--out", str(folder / "run"), *FLAGS]
    assert train.main(argv) == 0
    return folder


def test_an_evaluation_and_scores_of_a_table_tell_its_terms(run, capsys):
    assert evaluate.main([str(run / "run"), "--num-samples", "30", "--estimators", "elbo", *FLAGS]) == 0
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if "sum: ELBO" in line)
    elbo = float(next(row for row in said.splitlines() if row.startswith("│ ELBO")).split("≥")[1].split()[0])
    assert float(line.split("│")[2]) == pytest.approx(elbo, abs=0.5) and "│ visits" in said
    names = [line.split("│")[1].strip() for line in said.splitlines() if line.startswith("│ row")][-5:]
    loaded = pv.load(run / "run")
    ev = pv.evidence(loaded.model, loaded.guide, loaded.data.test, estimators=[pv.ELBO(30)], progress=False)[
        "ELBO"
    ]
    assert names == [loaded.data.row_names("test")[i] for i in ev.per_datum.argsort()[:5]]
    argv = [str(run / "run"), str(run / "table.csv"), "--num-samples", "30", "--estimators", "is", *FLAGS]
    assert score.main(argv) == 0
    written = pd.read_csv(run / "run/scores-table.csv")
    assert (written["ln p(age | z)"][::7] == 0).all() and (written["ln p(visits | z)"] < 0).all()
    terms = loaded.score(run / "table.csv", num_samples=30, progress=False).terms
    assert np.allclose(
        terms.elbo, written[[c for c in written if c.startswith("ln p(")]].sum(axis=1) - written.KL
    )


def test_tables_below_the_evidence_are_markdown_where_it_is_and_in_the_file(run, tmp_path, capsys):
    """The figures are those that the library gives for the rows; a bar in a name does not end its cell."""
    out = tmp_path / "table.md"
    argv = [str(run / "run"), "--num-samples", "30", "--out", str(out), *FLAGS]
    assert evaluate.main([*argv, "--markdown"]) == 0
    said = capsys.readouterr().out
    assert not set("│┃━─┏") & set(said)
    loaded = pv.load(run / "run", device="cpu")
    best, names = loaded.stored_evidence.best, loaded.data.row_names("test")
    least = int(best.per_datum.argmin())
    for text in (said, out.read_text()):
        assert f"| {names[least]} | {float(best.per_datum[least]):.3f} |" in text
        assert "rows of least ln p" in text and "E_q ln p(x_d|z) of each column" in text
    text = render("markdown", ["row", "a"], [["x|y", "1"]], "t", [])
    assert "| x\\|y | 1 |" in text


def test_reconstructions_of_a_table_are_drawn_column_by_column(run):
    loaded = pv.load(run / "run")
    figure = Pictures(Pair(loaded.model, loaded.guide), loaded.data).reconstructions()
    assert [ax.get_title() for ax in figure.axes] == ["age", "visits", "city"]
    x = loaded.data.test
    for d in (0, 1):
        assert len(figure.axes[d].lines[0].get_xdata()) == int((~x[:, d].isnan()).sum())
    assert [t.get_text() for t in figure.axes[2].get_xticklabels()] == ["u", "v"]
    with pytest.raises(ValueError, match="D names"):
        pv.plots.plot_columns(x, x, ["a"])


def test_a_missing_value_is_not_what_makes_a_row_unlikely():
    # Columns of scale 1e-6 have terms of +10 nats, so that the 0 of a missing value is far below their mean.
    x = torch.tensor([[0.0, 1.0], [math.nan, 3.0], [math.nan, math.nan], [0.0, 2.0]]).double()
    reconstruction = torch.tensor([[8.0, -1.0], [0.0, -4.0], [0.0, 0.0], [12.0, -1.0]]).double()
    terms = ColumnTerms(("small", "b"), reconstruction, torch.zeros(4).double(), 1)
    estimate = SimpleNamespace(
        per_datum=terms.elbo, variance=torch.zeros(4), ess=None, name="ELBO", symbol="≥"
    )
    said = least_likely(SimpleNamespace(best=estimate, x=x), ["n0", "n1", "n2", "n3"], terms).splitlines()
    found = [[c.strip() for c in line.split("│")[1:-1]] for line in said if line.startswith("│ n")]
    assert [[row[0], *row[-2:]] for row in found] == [
        ["n1", "b", "2.000"],
        ["n2", "–", "–"],
        ["n0", "small", "2.000"],
        ["n3", "b", "-1.000"],
    ]


def test_rows_keep_their_names():
    table = pd.DataFrame(
        {"a": np.arange(20.0) ** 2, "b": np.cos(np.arange(20.0))}, index=[f"r{i}" for i in range(20)]
    )
    data = pv.data.load(table)
    assert data.row_names("test") == tuple(f"r{i}" for i in data.rows["test"])
    plain = pv.data.load(table.reset_index(drop=True))
    assert plain.row_names("test") == tuple(map(str, plain.rows["test"].tolist()))
    parts = pv.data.load({"train": table[:15], "test": table[15:]})
    assert parts.row_names("test") == tuple(f"r{i}" for i in range(15, 20))
    assert parts.row_names("valid") == tuple(f"r{i}" for i in parts.rows["valid"])


@pytest.mark.parametrize("name", ["x[ind], size fixed", "x[ind], at most"])
def test_plates_that_pick_their_rows_are_those_that_do_not(name):
    """The last subsample is filled up with repetitions, which are no rows of a result."""
    plain, picked = hw.CASES["plain"](), hw.CASES[name]()
    right = pv.column_terms(plain.model, plain.exact, *plain.args, num_samples=4000)
    found = pv.column_terms(picked.model, picked.exact, *picked.args, num_samples=4000)
    assert found.reconstruction.shape == right.reconstruction.shape
    # A reconstruction term of one draw scatters by some 2 nats: .3 is more than six errors of a difference.
    assert (found.reconstruction - right.reconstruction).abs().max() < 0.3
    assert (found.kl - right.kl).abs().max() < 0.3
