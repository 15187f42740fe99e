"""Context of one's own beside loaded data, and a plate of another name that is told once."""

import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyrovae as pv

FIT = {"epochs": 2, "progress": False, "compile": False, "plate": "N"}
ESTIMATORS = [pv.ELBO(), pv.IS(20)]


class Pair(nn.Module):
    """x ~ N(z + c, 1) with one latent number, its plate called N."""

    def __init__(self):
        super().__init__()
        self.enc = nn.Linear(2, 2)

    def model(self, x, c):
        shift = pyro.param("shift", torch.tensor(0.1))
        with pyro.plate("N", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal((z + shift).unsqueeze(-1) + c, 1.0).to_event(1), obs=x)

    def guide(self, x, c):
        pyro.module("enc", self.enc)
        with pyro.plate("N", len(x)):
            loc, raw = self.enc(torch.cat([x, c], -1)).unbind(-1)
            pyro.sample("z", dist.Normal(loc, raw.exp()))


def rows():
    random = torch.Generator().manual_seed(0)
    return torch.randn(90, 1, generator=random), torch.randn(90, 1, generator=random)


@pytest.fixture(scope="module")
def data():
    x, c = rows()
    return pv.data.with_context(pv.data.load(x), c.numpy().astype(np.float64), names=["time"])


def test_each_datum_keeps_its_own_context(data):
    x, c = rows()
    for split in ("train", "valid", "test"):
        found, own = data.arguments(split)
        at = [int((x == value).nonzero()[0, 0]) for value in found]
        assert torch.equal(own, c[at]) and own.dtype == found.dtype
    plain = pv.data.load(x)
    assert data.spec.given == ("time",) and data.spec.hash != plain.spec.hash
    assert "given time" in repr(data)
    split = {s: torch.ones(len(plain.split(s)), 2) for s in ("train", "valid", "test")}
    two = pv.data.with_context(plain, split, c)
    assert two.spec.given == ("context 1", "context 2") and len(two.arguments("test")) == 3


@pytest.mark.parametrize(
    ("context", "names", "words"),
    [
        ((), (), "expected a context"),
        ((torch.ones(9),), (), "expected 90 rows of 'context', one for each that was loaded, got 9"),
        ((torch.ones(90),), ("a", "b"), r"1 name\(s\)"),
        ((torch.ones(90),), ("label",), "none of a column of x, 'label'"),
        ((torch.full((90,), torch.nan),), (), "finite numbers in 'context'"),
        (({"train": torch.ones(63)},), (), "for train, valid, test, got train"),
        (
            ({s: torch.ones(5) for s in ("train", "valid", "test")},),
            (),
            "rows of 'context' in split 'train', got 5",
        ),
        ((["a"] * 90,), (), "expected numbers in 'context'"),
    ],
)
def test_wrong_contexts_are_refused(context, names, words):
    with pytest.raises(ValueError, match=words):
        pv.data.with_context(pv.data.load(rows()[0]), *context, names=names)


def test_contexts_of_data_in_splits_and_of_data_that_have_one(data):
    with pytest.raises(ValueError, match="data without a context"):
        pv.data.with_context(data, rows()[1])
    x = rows()[0]
    splits = pv.data.load({"train": x[:50], "valid": x[50:70], "test": x[70:]})
    with pytest.raises(ValueError, match="which came in splits, got one array"):
        pv.data.with_context(splits, rows()[1])
    with pytest.raises(ValueError, match="expected names of columns, or 'label', to condition on, got 0"):
        pv.data.conditioned(pv.data.load(x), [0])


def test_a_plate_is_told_once(data, tmp_path):
    """The plate told to `pv.fit` holds for the fit, for its run folder and for each cell of a comparison."""
    pair = Pair()
    fit = pv.fit(pair.model, pair.guide, data, **FIT)
    ev = fit.evidence(estimators=ESTIMATORS)
    assert fit.embed().shape[0] == len(data.test)
    with pytest.raises(
        ValueError, match="plate named 'data'"
    ):  # of the user's own functions nothing is changed
        pv.evidence(pair.model, pair.guide, *data.arguments("test"), progress=False)
    other = Pair()
    folder = fit.save(tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what a fit of these functions has trained is loaded, and not missing
        pv.load(folder, model=pair.model, guide=pair.guide, data=data)
    run = pv.load(folder, model=other.model, guide=other.guide, data=data)
    assert torch.equal(run.evidence(estimators=ESTIMATORS)["IS"].per_datum, ev["IS"].per_datum)
    how = FIT | {"estimators": ESTIMATORS, "out": tmp_path / "cmp"}
    for _ in range(2):  # the second time the cells are taken as they are
        result = pv.compare({"a": lambda d: Pair()}, data, **how)
        assert list(result) == ["a trace-elbo"] and "given time" in result.title
    again = result["a"].fit.evidence(estimators=ESTIMATORS)
    assert torch.equal(again["IS"].per_datum, result["a"].evidence["IS"].per_datum)


def test_tensors_of_ones_own_are_needed_again(tmp_path):
    pair, other = Pair(), Pair()
    folder = pv.fit(pair.model, pair.guide, rows(), **FIT).save(tmp_path / "run")
    with pytest.raises(ValueError, match=r"expected the data of .* try pv.load\(..., data=...\)"):
        pv.load(folder, model=other.model, guide=other.guide)
    assert pv.load(folder, model=other.model, guide=other.guide, data=rows()).spec.given == ("argument 1",)
