"""Tables of each kind under each way to keep, go on with and estimate a fit: the same numbers, or a refusal."""

import numpy as np
import pandas as pd
import pytest
import torch

import pyrovae as pv
from pyrovae import runs
from pyrovae.data import conditioned, load, partly_labelled
from pyrovae.models.composing.architectures import Perceptrons
from pyrovae.models.composing.conditional import compose_conditional
from pyrovae.models.composing.markov import compose_markov
from pyrovae.models.composing.semi_supervised import compose_semi_supervised
from pyrovae.models.composing.vae import compose

KINDS = ("standardised", "missing", "mixed", "conditional", "semi-supervised", "markov")
MAKERS = {"conditional": compose_conditional, "semi-supervised": compose_semi_supervised}
ROLES = {"income": "positive", "kind": "label"}


def table():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(60, 2))
    return pd.DataFrame(
        {
            "size": 100 + 20 * z[:, 0] + 5 * rng.normal(size=60),
            "income": np.exp(z[:, 1] + 0.3 * rng.normal(size=60)),
            "visits": rng.poisson(np.exp(1 + 0.4 * z[:, 0])),
            "bit": (z[:, 0] > 0).astype(int),
            "city": np.select([z[:, 1] > 0.5, z[:, 1] < -0.5], ["u", "v"], "w"),
            "kind": np.where(z.sum(1) > 0, "A", "B"),
        }
    )


def data_of(kind):
    whole, gaps = table(), table()
    gaps.loc[::7, "size"], gaps.loc[1::9, "city"] = np.nan, None
    if kind == "markov":
        rng = np.random.default_rng(1)
        return load({"x": rng.normal(size=(60, 4, 2)).cumsum(1), "lengths": rng.integers(1, 5, 60)})
    if kind == "standardised":
        return load(whole[["size", "income"]], standardize=True, log=["income"])
    if kind == "missing":
        return load(gaps[["size", "income"]], standardize=True, missing="ignore")
    if kind == "semi-supervised":
        return partly_labelled(load(whole.assign(kind=whole.kind.where(whole.index % 2 > 0)), columns=ROLES))
    mixed = load(gaps, columns=ROLES, standardize=True, missing="ignore")
    return mixed if kind == "mixed" else conditioned(mixed, ["label", "visits"])


def program_of(kind, data, seed=0):
    torch.manual_seed(seed)
    if kind == "markov":
        return compose_markov(data, 2, 8)
    return MAKERS.get(kind, compose)(data, Perceptrons((8,)), 2)


def fitted(kind, data, epochs=2, **options):
    program = program_of(kind, data)
    own = {"objective": program.objective(1.0)} if kind == "semi-supervised" else {}
    options |= {"batch_size": 16, "compile": False, "progress": False, "seed": 1}
    return pv.fit(program.model, program.guide, data, epochs=epochs, **own, **options)


@pytest.fixture(scope="module", params=KINDS)
def case(request):
    data = data_of(request.param)
    return request.param, data, fitted(request.param, data)


def importance(fit, rows, samples=300, **options):
    asked = {"estimators": [pv.IS(samples)], "compile": False, "progress": False} | options
    return pv.evidence(fit.model, fit.guide, *rows, **asked)


def test_a_fit_goes_on_to_the_same_numbers(case, tmp_path):
    kind, data, fit = case
    fitted(kind, data, 1, checkpoint=tmp_path)
    again = fitted(kind, data, 2, checkpoint=tmp_path, resume=True)
    wanted, found = ([row["loss"] for row in f.history] for f in (fit, again))
    assert found == pytest.approx(wanted, rel=1e-6)
    rows = data.arguments("test")
    ours, theirs = (importance(f, rows, 20)["IS"].per_datum for f in (fit, again))
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_what_is_kept_is_the_same(case, tmp_path):
    kind, data, fit = case
    own = importance(fit, data.arguments("test"), 20)
    runs.write_evidence(own, tmp_path / "evidence.nc")
    assert torch.equal(runs.read_evidence(tmp_path / "evidence.nc")["IS"].per_datum, own["IS"].per_datum)
    assert own.to_arviz() is not None
    fit.save(tmp_path / "run")
    other = program_of(kind, data, seed=7)
    run = pv.load(tmp_path / "run", model=other.model, guide=other.guide, data=data)
    assert torch.allclose(
        importance(run, data.arguments("test"), 20)["IS"].per_datum, own["IS"].per_datum, atol=1e-6
    )
    page = run.report(tmp_path / "report.html", estimators=[pv.IS(20)], compile=False, progress=False)
    assert "ln p(x" in page.read_text(encoding="utf-8")


def test_estimators_agree_or_refuse(case):
    kind, data, fit = case
    rows = tuple(t[:4] for t in data.arguments("test"))
    base = importance(fit, rows, 1000)["IS"]
    ais = pv.AIS(num_temperatures=8, num_chains=4)
    for estimator in (
        (ais,) if kind == "markov" else (pv.Adaptive(0.05), ais)
    ):  # of paths it takes half a minute
        if kind == "semi-supervised":
            with pytest.raises(ValueError, match=r"got discrete ones at \['y'\]"):
                importance(fit, rows, estimators=[estimator])
            continue
        (found,) = importance(fit, rows, estimators=[estimator]).estimates.values()
        # Both lie below ln p(x) on average, by no more than a few tenths of a nat here.
        error = (base.se_mc**2 + found.se_mc**2) ** 0.5
        assert abs(found.log_evidence - base.log_evidence) < 4.5 * error + 0.1
