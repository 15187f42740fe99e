"""`pv.compare` on data that give more than x, have gaps or own units: the numbers of `pv.fit` and `pv.evidence`."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO

import pyrovae as pv
from pyrovae.inference import compare
from pyrovae.models.composing.architectures import Perceptrons
from pyrovae.models.composing.conditional import compose_conditional
from pyrovae.models.composing.markov import compose_markov
from pyrovae.models.composing.semi_supervised import compose_semi_supervised
from pyrovae.models.composing.vae import compose
from pyrovae.objectives import Classified

from .small import FLAGS

ESTIMATORS = (pv.ELBO(), pv.IS(20))
FIT = {"epochs": 1, "lr": 1e-2, "progress": False, "compile": False}


def x_alone(data):
    return compose(data, Perceptrons((6,)), 2)


def given_c(data):
    return compose_conditional(data, Perceptrons((6,)), 2)


def m2(data):
    return compose_semi_supervised(data, Perceptrons((6,)), 2)


def markov(data):
    return compose_markov(data, 2, 6)


def clouds():
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 120)
    return pv.data.load({"x": (4 * np.eye(3)[y] + random.normal(size=(120, 3))).astype(np.float32), "y": y})


def table(**options):
    random = np.random.default_rng(1)
    frame = pd.DataFrame(random.normal(size=(120, 3)) * [50, 1, 0.1] + [1000, 0, 0], columns=["a", "b", "c"])
    if options:
        frame.loc[random.random(120) < 0.2, "a"] = np.nan
    return pv.data.load(frame, standardize=True, **options)


def walks():
    random = np.random.default_rng(2)
    x = random.normal(size=(80, 5, 2)).astype(np.float32)
    return pv.data.load({"x": x, "lengths": random.integers(2, 6, 80)})


# Data, a program for them, its objective, and one for other data (or None), which is refused beside it.
CASES = {
    "labels": (lambda: pv.data.conditioned(clouds()), given_c, None, x_alone),
    "column of a standardised table": (lambda: pv.data.conditioned(table(), ["b"]), given_c, None, x_alone),
    "and gaps": (lambda: pv.data.conditioned(table(missing="ignore"), ["b"]), given_c, None, x_alone),
    "gaps alone": (lambda: table(missing="ignore"), x_alone, None, given_c),
    "some labels, summed out": (
        lambda: pv.data.partly_labelled(clouds(), 9),
        m2,
        TraceEnum_ELBO(max_plate_nesting=1),
        x_alone,
    ),
    "some labels, told": (lambda: pv.data.partly_labelled(clouds(), 9), m2, Classified(None, 5.0), given_c),
    "lengths": (walks, markov, None, x_alone),
}


@pytest.mark.parametrize("name", CASES)
def test_a_cell_is_a_fit_and_its_evidence(name, tmp_path):
    load, program, objective, other = CASES[name]
    data = load()
    objectives = ("trace-elbo",) if objective is None else {"own": objective}
    programs = {"one": program, "other": other}
    result = pv.compare(programs, data, objectives=objectives, seeds=[3], estimators=ESTIMATORS, **FIT)
    assert list(result) == [f"one {next(iter(objectives))}"]
    (why,) = result.failed.values()
    assert "expected" in why
    torch.manual_seed(3)
    owner = program(data)
    fit = pv.fit(owner.model, owner.guide, data, objective=objective, seed=3, **FIT)
    alone = pv.evidence(
        fit.model, fit.guide, *data.arguments("test"), estimators=list(ESTIMATORS), seed=3, progress=False
    )
    found = result["one", 3].evidence
    for e in ESTIMATORS:
        assert torch.equal(found[e.name].per_datum, alone[e.name].per_datum)
    if name == "labels":
        page = result.report(tmp_path / "report.html").read_text()
        assert page.count("<img") == 4 - page.count("left out:") and f"{why[:40]}" in page
    words = {"labels": "given label", "lengths": "given lengths"}.get(
        name, "given b" if "b" in data.spec.given else ""
    )
    assert words in result.title and words in fit.evidence(estimators=[pv.IS(5)]).table()


def test_a_grid_of_names_is_of_what_is_given(tmp_path, capsys, unrendered):
    """p(x | c) for a condition; what a VampPrior cannot be is a row with its reason, in Python and by the command."""
    random = np.random.default_rng(0)
    np.savez(tmp_path / "clouds.npz", x=random.normal(size=(90, 3)).astype(np.float32), y=np.arange(90) % 3)
    data = pv.data.conditioned(pv.data.load(tmp_path / "clouds.npz"))
    sizes = {"latent_dim": 2, "hidden": (6,), "epochs": 1, "lr": 1e-2, "compile": False, "progress": False}
    result = pv.compare(data=data, priors=["standard", "vamp"], estimators=ESTIMATORS, **sizes)
    assert list(result) == ["standard diagonal trace-elbo"]
    assert "whose pseudo-inputs have nothing given" in result.failed["vamp diagonal trace-elbo"]
    argv = [
        "--data",
        str(tmp_path / "clouds.npz"),
        "--condition",
        "label",
        "--guides",
        "diagonal",
        "--jobs",
        "1",
    ]
    argv += ["--priors", "standard", "vamp", "--objectives", "trace-elbo", "--out", str(tmp_path / "out")]
    argv += ["--latent-dim", "2", "--hidden", "6", "--epochs", "1", "--num-samples", "20", *FLAGS]
    assert compare.main(argv) == 0
    said = (tmp_path / "out" / "table.md").read_text()
    assert "given label" in said and "vamp diagonal trace-elbo refused: expected another --prior" in said
    with pytest.raises(ValueError, match="expected parts by name for data with label given, got functions"):
        pv.compare(data=data, priors={"own": lambda d: pv.priors.StandardNormal(2)}, **sizes)
    with pytest.raises(
        ValueError, match=r"--model semi-supervised .* \(in Python: of models.composing.semi_super"
    ):
        pv.compare(data=pv.data.partly_labelled(clouds(), 9), priors=["standard"], **sizes)
    with pytest.raises(TypeError, match="data with a test split, got a Stream"):
        pv.compare({"x": x_alone}, pv.data.Stream(torch.utils.data.TensorDataset(data.train)), **FIT)


def test_the_classifier_of_another_program_is_refused():
    """Its term would train nothing that the guide uses, in silence."""
    data = pv.data.partly_labelled(clouds(), 9)
    owner, other = m2(data), m2(data)
    with pytest.raises(ValueError, match="no parameters of the program; try Classified"):
        pv.fit(owner.model, owner.guide, data, objective=other.objective(5.0), **FIT)
    pyro.clear_param_store()
    y = data.context["train"][0]
    losses = []
    for objective in (owner.objective(5.0), Classified(None, 5.0)):
        torch.manual_seed(0)
        losses.append(objective.loss(owner.model, owner.guide, data.train, y))
    assert losses[0] == losses[1]
    with pytest.raises(ValueError, match="a guide of a module with a classifier"):
        Classified(None, 1.0).loss(owner.model, lambda x, y: owner.guide(x, y), data.train, y)


def of_width(width):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(pyro.param("m", torch.tensor(0.0)), width))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("k", torch.tensor(0.5)) * x, 0.7))

    return model, guide


def test_data_of_one_number_each_are_compared_as_they_are(tmp_path):
    x = torch.randn(60, generator=torch.Generator().manual_seed(0))
    programs = {"narrow": of_width(1.0), "wide": of_width(5.0)}
    result = pv.compare(programs, x, seeds=2, estimators=ESTIMATORS, out=tmp_path / "out", **FIT)
    data, cell = result.data, result["narrow", 1]
    rows = torch.cat([data.rows[s] for s in ("train", "valid", "test")])
    assert data.spec.event_shape == data.test.shape[1:] == ()
    assert torch.equal(torch.cat([data.train, data.valid, data.test]), x[rows])
    fit = pv.fit(*of_width(1.0), data, seed=1, **FIT)
    alone = fit.evidence(estimators=list(ESTIMATORS), seed=1, progress=False)
    for e in ESTIMATORS:
        assert torch.equal(cell.evidence[e.name].per_datum, alone[e.name].per_datum)
    assert result.best.name == "narrow trace-elbo" and result.differences["wide trace-elbo"].num_data == 12
    assert "left out:" not in result.report(tmp_path / "report.html").read_text()
    scores = cell.fit.score(x.numpy()[:5]).log_evidence
    assert len(scores) == 5 and torch.equal(cell.fit.score(x[:5, None]).log_evidence, scores)
    split = {"train": x[:40], "valid": x[40:50], "test": x[50:]}
    assert torch.equal(pv.compare(programs, split, estimators=ESTIMATORS, **FIT).data.test, x[50:])
    with pytest.raises(ValueError, match=r"try x\[:, None\] where every datum is one number"):
        pv.compare(data=x, priors=["standard"], **FIT)


def shifted(width):
    """Exact: ln p(x | c) = ln N(x; c, width^2 + 1); the guide is the posterior of width 1."""

    def model(x, c):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(c, width))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x, c):
        k = pyro.param("k", torch.tensor(0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(k * (x + c), 0.5**0.5))

    return model, guide


def test_x_and_its_context_are_compared_as_fit_takes_them():
    random = torch.Generator().manual_seed(0)
    x, c = torch.randn(60, generator=random), torch.randn(60, generator=random)
    programs = {"own": shifted(1.0), "wide": shifted(3.0)}
    result = pv.compare(programs, (x, c), estimators=ESTIMATORS, epochs=1, lr=0.0, progress=False)
    test, context = result.data.arguments("test")
    exact = dist.Normal(context, 2.0**0.5).log_prob(test).double()
    torch.testing.assert_close(result["own"].evidence["IS"].per_datum, exact, rtol=0, atol=1e-5)
    assert result.data.spec.given == ("context",) and result.best.name.startswith("own")
    with pytest.raises(ValueError, match="expected 60 rows of 'context'"):
        pv.compare(programs, (x, c[:50]), **FIT)
    with pytest.raises(TypeError, match="or what it takes, got tuple"):
        pv.compare(programs, (x, pv.shared(c)), **FIT)
