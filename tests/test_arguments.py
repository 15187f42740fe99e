"""Arguments of every kind, told apart alike by weights, evidence, posterior and training."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import pyrovae as pv

N = 6
X = torch.randn(N, generator=torch.Generator().manual_seed(0))
SHIFTS = torch.linspace(-1.0, 1.0, N)
LENGTHS = torch.tensor([4, 3, 3, 2, 1, 1])


def pair(shifts):
    """x ~ N(0, 2) about a shift that `shifts(x, *context)` makes of the context; with the exact posterior."""

    def model(x, *context):
        loc = shifts(x, *context)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(loc, 1.0).expand([len(x)]))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x, *context):
        loc = pyro.param("off", torch.tensor(0.0)) + (x + shifts(x, *context)) / 2
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 0.5**0.5))

    return model, guide


def truth(shifts):
    return dist.Normal(shifts, 2**0.5).log_prob(X)


def sums(parts):
    return torch.stack([p.sum() for p in parts])


def packed(lengths=LENGTHS):
    rows = (torch.arange(N * 4.0).reshape(N, 4) / 10)[: len(lengths)]
    return pack_padded_sequence(rows, lengths, batch_first=True, enforce_sorted=False)


def of_packed(x, sequences):
    padded, _ = pad_packed_sequence(sequences, batch_first=True)
    return padded.sum(1) / 3


RAGGED = [torch.full((n,), 0.1) for n in LENGTHS.tolist()]
NAMES = ["a", "b", "b", "c", "a", "c"]
TABLE = {"a": -1.0, "b": 0.0, "c": 2.0}
PADDED = pad_packed_sequence(packed(), batch_first=True)[0]

# Name to: what makes the shift, the context, the shifts that it makes.
KINDS = {
    "None": (lambda x, c: x.new_zeros(len(x)), (None,), torch.zeros(N)),
    "a number": (lambda x, c: x.new_zeros(len(x)) + c, (0.7,), torch.full((N,), 0.7)),
    "a text": (lambda x, c: x.new_zeros(len(x)) + TABLE[c], ("c",), torch.full((N,), 2.0)),
    "a dict": (
        lambda x, c: c["shift"] + c["scale"] * c["all"].sum(),
        ({"shift": SHIFTS, "scale": 2.0, "all": torch.ones(3), "none": None},),
        SHIFTS + 6.0,
    ),
    "a tuple": (lambda x, c: c[0] * c[1], ((SHIFTS, 2 * SHIFTS),), 2 * SHIFTS**2),
    "ragged sequences": (lambda x, c: sums(c), (RAGGED,), sums(RAGGED)),
    "labels": (
        lambda x, c: torch.tensor([TABLE[name] for name in c]),
        (NAMES,),
        torch.tensor([TABLE[n] for n in NAMES]),
    ),
    "lists of different lengths": (
        lambda x, c: torch.tensor([float(sum(v)) for v in c]),
        ([[1.0], [1.0, 0.5], [], [2.0], [0.1, 0.1, 0.1], [-1.0]],),
        torch.tensor([1.0, 1.5, 0.0, 2.0, 0.3, -1.0]),
    ),
    "a list of numbers": (lambda x, c: torch.tensor(c), (SHIFTS.tolist(),), SHIFTS),
    "packed sequences": (of_packed, (packed(),), PADDED.sum(1) / 3),
    "a numpy array": (lambda x, c: c, (SHIFTS.double().numpy(),), SHIFTS),
    "numpy labels": (lambda x, c: SHIFTS[c], (np.array([3, 1, 1, 0, 5, 2]),), SHIFTS[[3, 1, 1, 0, 5, 2]]),
    "arrays in a dict": (lambda x, c: c["shift"], ({"shift": SHIFTS.numpy()},), SHIFTS),
}


@pytest.mark.parametrize("kind", KINDS)
def test_context_of_every_kind(kind):
    shifts, context, expected = KINDS[kind]
    model, guide = pair(shifts)
    for chunk in (None, pv.Chunk(2, 2)):
        weights = pv.log_weights(model, guide, X, *context, num_samples=3, chunk=chunk)
        assert (weights - truth(expected)).abs().max() < 1e-4
    found = pv.evidence(model, guide, X, *context, estimators=[pv.IS(3)])
    assert found["IS"].log_evidence == pytest.approx(float(truth(expected).mean()), abs=1e-4)
    draws = pv.posterior(model, guide, X, *context, num_samples=3)
    assert (draws.log_weights - truth(expected)).abs().max() < 1e-4
    fit = pv.fit(model, guide, (X, *context), epochs=2, batch_size=2, lr=1e-6, compile=False)
    for row in fit.history:
        assert row["loss"] == pytest.approx(-float(truth(expected).mean()), abs=1e-3)


@pytest.mark.parametrize(
    "kind",
    [
        "ragged sequences",
        "labels",
        "packed sequences",
        "a tuple",
        "a numpy array",
        "lists of different lengths",
    ],
)
def test_context_may_be_marked(kind):
    shifts, context, expected = KINDS[kind]
    model, guide = pair(shifts)
    marked = tuple(map(pv.per_datum, context))
    weights = pv.log_weights(model, guide, X, *marked, num_samples=2, chunk=pv.Chunk(2, 2))
    assert (weights - truth(expected)).abs().max() < 1e-4
    fit = pv.fit(model, guide, (X, *marked), epochs=1, batch_size=2, lr=1e-6, compile=False)
    assert fit.history[0]["loss"] == pytest.approx(-float(truth(expected).mean()), abs=1e-3)


def test_shared_context_in_training():
    """A table of N rows that all data look up by their own labels."""
    labels = torch.tensor([3, 1, 1, 0, 5, 2])
    model, guide = pair(lambda x, table, labels: table[labels])
    given = (pv.shared(SHIFTS), labels)
    weights = pv.log_weights(model, guide, X, *given, num_samples=2)
    assert (weights - truth(SHIFTS[labels])).abs().max() < 1e-5
    fit = pv.fit(model, guide, (X, *given), valid=(X, *given), epochs=2, batch_size=2, lr=1e-6, compile=False)
    for name in ("loss", "valid_elbo"):
        assert abs(fit.history[0][name]) == pytest.approx(-float(truth(SHIFTS[labels]).mean()), abs=1e-3)


def test_training_resumes_on_the_same_context_alone(tmp_path):
    shifts, context, _ = KINDS["a number"]
    model, guide = pair(shifts)
    options = {"batch_size": 2, "compile": False, "checkpoint": tmp_path}
    pv.fit(model, guide, (X, *context), epochs=1, **options)
    with pytest.raises(ValueError, match="data"):
        pv.fit(model, guide, (X, 0.8), epochs=2, resume=True, **options)
    pv.fit(model, guide, (X, *context), epochs=2, resume=True, **options)


def test_partial_results_of_other_context_are_others(tmp_path):
    model, guide = pair(KINDS["a number"][0])
    for number in (0.7, 0.2):
        found = pv.evidence(model, guide, X, number, estimators=[pv.IS(3)], resume=tmp_path)
        assert found["IS"].log_evidence == pytest.approx(
            float(truth(torch.full((N,), number)).mean()), abs=1e-4
        )


def test_a_list_that_may_be_columns_or_items_is_refused():
    model, guide = pair(lambda x, c: c[0])
    square = [torch.ones(N)] * N
    with pytest.raises(ValueError, match="one item a datum, or columns"):
        pv.log_weights(model, guide, X, pv.per_datum(square), num_samples=2)


@pytest.mark.parametrize(
    "wrong", [["a", "b"], {"names": ["a", "b"], "shift": SHIFTS}, SHIFTS[:2], packed(LENGTHS[:3])]
)
def test_marked_context_of_other_rows_is_refused(wrong):
    """A list that is no item a datum reached the program whole."""
    model, guide = pair(lambda x, c: 0.0)
    with pytest.raises(ValueError, match=r"len\(x\) = 6 rows, got .*pv\.shared"):
        pv.log_weights(model, guide, X, pv.per_datum(wrong), num_samples=2)


def test_a_tensor_with_other_rows_names_the_mark():
    model, guide = pair(lambda x, c: c.sum())
    with pytest.raises(ValueError, match=r"pv\.shared"):
        pv.fit(model, guide, (X, torch.ones(2)), epochs=1)


def test_sequences_padded_to_the_longest_are_run_together():
    """A program that takes the longest sequence's length runs on parts that have it, and on all."""

    def shifts(x, sequences):
        padded, _ = pad_packed_sequence(sequences, batch_first=True)
        return padded[:, 0] + 0 * padded[:, 3]

    model, guide = pair(shifts)
    weights = pv.log_weights(model, guide, X, packed(), num_samples=2, chunk=pv.Chunk(2, 2))
    assert (weights - truth(PADDED[:, 0])).abs().max() < 1e-5


# Precision -----------------------------------------------------------------------------------------


def network_pair():
    net = nn.Linear(2, 2)

    def model(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(net(z), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(net(x), 1.0).to_event(1))

    return model, guide


WIDE = torch.randn(N, 2, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["float64", "float16"])
def test_data_of_another_precision_are_cast(kind):
    model, guide = network_pair()
    x = WIDE.to(getattr(torch, kind))
    with pytest.warns(UserWarning, match=rf"torch.{kind}.*cast to torch.float32"):
        weights = pv.log_weights(model, guide, x, num_samples=2)
    assert torch.equal(weights, pv.log_weights(model, guide, x.float(), num_samples=2))
    with pytest.warns(UserWarning, match="cast to torch.float32"):
        fit = pv.fit(model, guide, x, epochs=2, batch_size=4, compile=False)
    assert math.isfinite(fit.history[-1]["loss"])


def test_numpy_data_are_taken_as_they_are():
    model, guide = network_pair()
    assert torch.equal(
        pv.log_weights(model, guide, WIDE.double().numpy(), num_samples=2),
        pv.log_weights(model, guide, WIDE, num_samples=2),
    )


# Missing values ------------------------------------------------------------------------------------


def masked_pair(mask=True):
    def model(x):
        seen = ~x.isnan()
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0).expand([len(x)]))
            law = dist.Normal(z.unsqueeze(-1), 1.0).expand((*z.shape, 2))
            pyro.sample("x", (law.mask(seen) if mask else law).to_event(1), obs=x)

    def guide(x):
        shift = pyro.param("off", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.nan_to_num(0.0).mean(-1) + shift, 1.0))

    return model, guide


def test_missing_values_that_are_masked():
    x = WIDE.clone()
    x[1, 0] = x[4, 1] = torch.nan
    x[5] = torch.nan
    model, guide = masked_pair()
    weights = pv.log_weights(model, guide, x, num_samples=20_000)
    found = weights.logsumexp(0) - math.log(20_000)
    for n in range(N):
        row = x[n][~x[n].isnan()]
        exact = (
            dist.MultivariateNormal(torch.zeros(len(row)), torch.eye(len(row)) + 1).log_prob(row)
            if len(row)
            else 0
        )
        assert abs(found[n] - exact) < 0.1
    with pytest.raises(ValueError, match=r"nan_to_num"):
        pv.fit(model, guide, x, epochs=1)


def test_missing_values_that_nothing_masks():
    x = WIDE.clone()
    x[1, 0] = torch.nan
    with pytest.raises(ValueError, match="finite data, got NaN or inf in 1 of 6"):
        pv.log_weights(*masked_pair(mask=False), x, num_samples=2)
    with pytest.raises(ValueError, match="finite data, got NaN or inf in 1 of 6"):
        pv.log_weights(*network_pair(), x, num_samples=2)
    wrong = poutine.mask(mask=torch.arange(N) != 2)  # another datum's
    model, guide = masked_pair(mask=False)
    with pytest.raises(ValueError, match="finite data"):
        pv.log_weights(wrong(model), guide, x, num_samples=2)


def test_infinite_data_are_refused():
    x = WIDE.clone()
    x[0, 0] = torch.inf
    with pytest.raises(ValueError, match="finite data"):
        pv.log_weights(*masked_pair(), x, num_samples=2)


def test_bfloat16_works_and_counts_its_rounding():
    wide = network_pair()
    x = WIDE.to(torch.bfloat16)
    narrow = [nn.Linear(2, 2) for _ in range(2)]
    exact = pv.evidence(*wide, x.float(), estimators=[pv.IS(2000)])["IS"]

    def half(x):
        net = wide[0].__closure__[0].cell_contents
        own = narrow[0].to(torch.bfloat16)
        own.load_state_dict(net.state_dict())
        return own

    def model(x):
        net = half(x)
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(net(z), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(half(x)(x), 1.0).to_event(1))

    found = pv.evidence(model, guide, x, estimators=[pv.IS(2000)])["IS"]
    assert found.rounding > 1e-4
    assert abs(found.log_evidence - exact.log_evidence) < 4 * math.hypot(found.se_mc, exact.se_mc) + 0.05
    assert math.isfinite(pv.fit(model, guide, x, epochs=1, batch_size=3, compile=False).history[0]["loss"])
