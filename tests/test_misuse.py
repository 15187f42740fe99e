"""The library used wrongly from Python: every misuse is one error of the form "expected ..., got ...; try ..."."""

import re
import threading

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(torch.cat([z, z], -1), 1.0).to_event(1), obs=x)


def guide(x):
    loc = pyro.param("loc", torch.zeros(2))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))


def without_plate(x):
    z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(torch.cat([z, z], -1), 1.0).to_event(1), obs=x[0])


def without_latents(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(torch.zeros(4), 1.0).to_event(1), obs=x)


def without_observed(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))


def empty(x):
    return None


def of_two(x, y):
    return model(x)


def other_site(x):
    with pyro.plate("data", len(x)):
        pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))


X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
FEW = {"epochs": 1, "compile": False}


def fit(*args, **kwargs):
    return pv.fit(*args, **{**FEW, **kwargs})


def adam(params):
    return torch.optim.Adam(params)


class Boundless:
    def __call__(self, epoch):
        return "fast"


FIT = {
    "model None": lambda: fit(None, guide, X),
    "guide None": lambda: fit(model, None, X),
    "model a string": lambda: fit("vae", guide, X),
    "pair in place of model": lambda: fit((model, guide), guide, X),
    "a module class": lambda: fit(torch.nn.Linear, guide, X),
    "data None": lambda: fit(model, guide, None),
    "data a list": lambda: fit(model, guide, [[1.0, 2.0, 3.0, 4.0]] * 9),
    "data a string": lambda: fit(model, guide, "digits"),
    "data a dict": lambda: fit(model, guide, {"x": X}),
    "data a number": lambda: fit(model, guide, 3),
    "data of no rows": lambda: fit(model, guide, X[:0]),
    "data without dims": lambda: fit(model, guide, torch.tensor(1.0)),
    "data with NaN": lambda: fit(model, guide, torch.full((9, 4), torch.nan)),
    "data with inf": lambda: fit(model, guide, torch.full((9, 4), torch.inf)),
    "data of text": lambda: fit(model, guide, np.array([["a", "b"]])),
    "data of objects": lambda: fit(model, guide, np.array([[None, 1]], dtype=object)),
    "data complex": lambda: fit(model, guide, torch.zeros(9, 4, dtype=torch.complex64)),
    "data of another width": lambda: fit(model, guide, torch.zeros(9, 5)),
    "valid of another width": lambda: fit(model, guide, X, valid=torch.zeros(9, 5)),
    "valid None-like": lambda: fit(model, guide, X, valid="test"),
    "valid empty": lambda: fit(model, guide, X, valid=X[:0]),
    "context of other length": lambda: fit(of_two, of_two, (X, X[:3])),
    "context missing": lambda: fit(of_two, of_two, X),
    "context too many": lambda: fit(model, guide, (X, X)),
    "epochs 1.5": lambda: fit(model, guide, X, epochs=1.5),
    "epochs text": lambda: fit(model, guide, X, epochs="ten"),
    "epochs None": lambda: fit(model, guide, X, epochs=None),
    "epochs True": lambda: fit(model, guide, X, epochs=True),
    "epochs 0": lambda: fit(model, guide, X, epochs=0),
    "batch 0": lambda: fit(model, guide, X, batch_size=0),
    "batch 1.5": lambda: fit(model, guide, X, batch_size=1.5),
    "batch None": lambda: fit(model, guide, X, batch_size=None),
    "batch text": lambda: fit(model, guide, X, batch_size="8"),
    "seed negative": lambda: fit(model, guide, X, seed=-1),
    "seed 1.5": lambda: fit(model, guide, X, seed=1.5),
    "seed None": lambda: fit(model, guide, X, seed=None),
    "seed text": lambda: fit(model, guide, X, seed="a"),
    "lr text": lambda: fit(model, guide, X, lr="fast"),
    "lr negative": lambda: fit(model, guide, X, lr=-1.0),
    "lr NaN": lambda: fit(model, guide, X, lr=float("nan")),
    "lr a list": lambda: fit(model, guide, X, lr=[0.1]),
    "lr schedule of text": lambda: fit(model, guide, X, lr=Boundless()),
    "beta text": lambda: fit(model, guide, X, beta="warm"),
    "beta negative": lambda: fit(model, guide, X, beta=-1.0),
    "beta None": lambda: fit(model, guide, X, beta=None),
    "free bits negative": lambda: fit(model, guide, X, free_bits=-1),
    "free bits text": lambda: fit(model, guide, X, free_bits="a"),
    "patience 0": lambda: fit(model, guide, X, valid=X, patience=0),
    "patience 1.5": lambda: fit(model, guide, X, valid=X, patience=1.5),
    "patience without valid": lambda: fit(model, guide, X, patience=2),
    "clip text": lambda: fit(model, guide, X, clip_norm="a"),
    "clip negative": lambda: fit(model, guide, X, clip_norm=-1.0),
    "ema 2": lambda: fit(model, guide, X, ema=2.0),
    "ema text": lambda: fit(model, guide, X, ema="a"),
    "metric samples 0": lambda: fit(model, guide, X, metric_samples=0),
    "metric samples 1.5": lambda: fit(model, guide, X, metric_samples=1.5),
    "compile text": lambda: fit(model, guide, X, compile="yes"),
    "compile None": lambda: fit(model, guide, X, compile=None),
    "compile 1": lambda: fit(model, guide, X, compile=2),
    "returns text": lambda: fit(model, guide, X, max_returns="a"),
    "returns negative": lambda: fit(model, guide, X, max_returns=-1),
    "objective a string": lambda: fit(model, guide, X, objective="elbo"),
    "objective a class": lambda: fit(model, guide, X, objective=pyro.infer.Trace_ELBO),
    "optim a string": lambda: fit(model, guide, X, optim="adam"),
    "optim an object": lambda: fit(model, guide, X, optim=object()),
    "groups a list": lambda: fit(model, guide, X, groups=["prior"]),
    "groups unknown": lambda: fit(model, guide, X, groups={"nothing*": {"lr": 1.0}}),
    "groups of numbers": lambda: fit(model, guide, X, groups={"loc": 0.1}),
    "keep 0": lambda: fit(model, guide, X, keep=0, checkpoint="nowhere-at-all"),
    "checkpoint a number": lambda: fit(model, guide, X, checkpoint=3),
    "checkpoint every 0": lambda: fit(model, guide, X, checkpoint="nowhere-at-all", checkpoint_every=0),
    "resume without folder": lambda: fit(model, guide, X, resume=True),
    "on_epoch a string": lambda: fit(model, guide, X, on_epoch="print"),
    "plate unknown": lambda: fit(model, guide, X, plate="rows"),
    "plate a number": lambda: fit(model, guide, X, plate=3),
    "model without plate": lambda: fit(without_plate, guide, X),
    "model without latents": lambda: fit(without_latents, guide, X),
    "model without data": lambda: fit(without_observed, guide, X),
    "empty model": lambda: fit(empty, guide, X),
    "empty guide": lambda: fit(model, empty, X),
    "guide of another site": lambda: fit(model, other_site, X),
    "data on another device": lambda: fit(model, guide, X.to("meta")),
    "valid on another device": lambda: fit(model, guide, X, valid=X.to("meta")),
}

EVIDENCE = {
    "x None": lambda: pv.evidence(model, guide, None),
    "x a list": lambda: pv.evidence(model, guide, [1.0]),
    "x a string": lambda: pv.evidence(model, guide, "test"),
    "x a data set": lambda: pv.evidence(model, guide, pv.data.load("digits")),
    "x without rows": lambda: pv.evidence(model, guide, X[:0]),
    "x of another width": lambda: pv.evidence(model, guide, torch.zeros(3, 5)),
    "x on another device": lambda: pv.evidence(model, guide, X.to("meta")),
    "model None": lambda: pv.evidence(None, guide, X),
    "guide None": lambda: pv.evidence(model, None, X),
    "estimators None": lambda: pv.evidence(model, guide, X, estimators=None),
    "estimators one": lambda: pv.evidence(model, guide, X, estimators=pv.IS(5)),
    "estimators text": lambda: pv.evidence(model, guide, X, estimators=["is"]),
    "estimators a class": lambda: pv.evidence(model, guide, X, estimators=[pv.IS]),
    "estimators empty": lambda: pv.evidence(model, guide, X, estimators=[]),
    "delta 0": lambda: pv.evidence(model, guide, X, delta=0),
    "delta text": lambda: pv.evidence(model, guide, X, delta="a"),
    "seed None": lambda: pv.evidence(model, guide, X, seed=None),
    "seed negative": lambda: pv.evidence(model, guide, X, seed=-3),
    "shard a number": lambda: pv.evidence(model, guide, X, shard=3),
    "shard of text": lambda: pv.evidence(model, guide, X, shard=("a", "b")),
    "chunk a number": lambda: pv.evidence(model, guide, X, chunk=3),
    "budget text": lambda: pv.evidence(model, guide, X, budget="a"),
    "budget 0": lambda: pv.evidence(model, guide, X, budget=0),
    "compile text": lambda: pv.evidence(model, guide, X, compile="yes"),
    "resume a number": lambda: pv.evidence(model, guide, X, resume=3),
    "IS 0": lambda: pv.evidence(model, guide, X, estimators=[pv.IS(0)]),
    "IS 1.5": lambda: pv.evidence(model, guide, X, estimators=[pv.IS(1.5)]),
    "IS text": lambda: pv.evidence(model, guide, X, estimators=[pv.IS("many")]),
    "AIS 1": lambda: pv.AIS(1),
    "MLMC 0": lambda: pv.evidence(model, guide, X, estimators=[pv.MLMC(replicates=0)]),
    "empty guide": lambda: pv.evidence(model, empty, X),
    "log_weights K None": lambda: pv.log_weights(model, guide, X, num_samples=None),
    "log_weights x None": lambda: pv.log_weights(model, guide, None, num_samples=2),
    "gaps model None": lambda: pv.gaps(None, guide, X),
    "gaps fit text": lambda: pv.gaps(model, guide, X, fit="fast"),
    "sandwich x None": lambda: pv.sandwich(model, guide, None, simulate=3),
    "sandwich simulate 1.5": lambda: pv.sandwich(model, guide, X, simulate=1.5),
    "free_energy temperatures 0": lambda: pv.thermodynamics.free_energy(model, guide, X, temperatures=(0.0,)),
    "posterior K 0": lambda: pv.posterior(model, guide, X, num_samples=0),
    "merge of nothing": lambda: pv.merge_evidence([]),
    "merge of None": lambda: pv.merge_evidence(None),
}

REST = {
    "load a number": lambda: pv.load(3),
    "load None": lambda: pv.load(None),
    "load nothing there": lambda: pv.load("nowhere-at-all"),
    "load device": lambda: pv.load("nowhere-at-all", device="gpu"),
    "save None": lambda: pv.save(None, "nowhere-at-all", data=X),
    "save folder None": lambda: pv.save(None, None, data=X),
    "data None": lambda: pv.data.load(None),
    "data unknown": lambda: pv.data.load("digitz"),
    "data seed text": lambda: pv.data.load("digits", seed="a"),
    "data seed 1.5": lambda: pv.data.load("digits", seed=1.5),
    "data valid 2.0": lambda: pv.data.load("digits", valid=2.0),
    "data binarise": lambda: pv.data.load("digits", binarise="sometimes"),
    "svi loss text": lambda: pv.SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), loss="elbo"),
    "svi compile": lambda: pv.SVI(
        model, guide, pyro.optim.Adam({"lr": 1e-3}), loss=pyro.infer.Trace_ELBO(), compile=3
    ),
    "warmup 0": lambda: pv.Warmup(0),
    "exponential": lambda: pv.Exponential(0.0, 1.0, 3),
}

KINDS = {"fit": FIT, "evidence": EVIDENCE, "other": REST}
CASES = {f"{kind}: {name}": case for kind, cases in KINDS.items() for name, case in cases.items()}


def test_there_are_many():
    assert len(CASES) >= 70


@pytest.mark.parametrize("name", CASES)
def test_misuse(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, TypeError, FileNotFoundError)) as caught:
        CASES[name]()
    text = str(caught.value)
    assert re.search(r"\bexpected\b.*\b(got|found)\b", text, re.DOTALL), text
    assert not list(tmp_path.iterdir()), "something is left over"


def test_numpy_is_taken_where_a_tensor_is():
    fitted = pv.fit(model, guide, X.numpy(), valid=X.numpy(), **FEW)
    assert torch.equal(
        pv.evidence(fitted.model, fitted.guide, X.double().numpy()[:9], estimators=[pv.IS(5)])[
            "IS"
        ].per_datum,
        pv.evidence(fitted.model, fitted.guide, X[:9], estimators=[pv.IS(5)])["IS"].per_datum,
    )
    weights = pv.log_weights(fitted.model, fitted.guide, X.numpy(), num_samples=np.int64(3))
    assert weights.shape == (3, 40)


def test_the_cause_of_a_programs_own_error_is_kept():
    def fails(x):
        raise RuntimeError("of the user's own")

    with pytest.raises(ValueError, match=r"on x of shape \(40, 4\).*of the user's own") as caught:
        pv.evidence(fails, guide, X)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_second_thread_is_refused():
    """Pyro's handlers and parameters are the process's: sites of one thread's program would be the other's, too."""
    inside, done, found = threading.Event(), threading.Event(), []

    def model(x):
        inside.set()
        done.wait(20)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))

    def asked():
        found.append(pv.log_weights(model, guide, torch.zeros(3), num_samples=2))

    other = threading.Thread(target=asked)
    other.start()
    assert inside.wait(20)
    with pytest.raises(RuntimeError, match=r"one thread that runs programs.*try processes"):
        pv.fit(model, guide, torch.zeros(3))
    done.set()
    other.join()
    assert len(found) == 1 and pv.log_weights(model, guide, torch.zeros(3), num_samples=2).shape == (2, 3)


@pytest.mark.parametrize("shape", [(5, 0), (0, 3), (0,), ()])
def test_data_without_numbers_are_refused(shape):
    with pytest.raises(ValueError, match="expected x of shape"):
        pv.log_weights(lambda x: None, lambda x: None, torch.zeros(shape), num_samples=2)
