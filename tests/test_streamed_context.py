"""Context of streamed data: the same story as in memory, bit for bit."""

import pyro
import pytest
import torch

import pyrovae as pv
from pyrovae.distributed import Split

from .test_arguments import KINDS, SHIFTS, N, X, pair, truth


class Items(torch.utils.data.Dataset):
    def __init__(self, *columns):
        self.columns = columns

    def __len__(self):
        return len(self.columns[0])

    def __getitem__(self, i):
        return tuple(c[i] for c in self.columns)


def marked(value):
    """Marks context for a stream: tensors are per datum, all else that has rows is marked."""
    if isinstance(value, dict):
        return {k: pv.per_datum(v) if k == "shift" else v for k, v in value.items()}
    return pv.per_datum(value) if isinstance(value, tuple | list) or hasattr(value, "batch_sizes") else value


def losses(data, shifts, **options):
    """Result of a fit whose modules and noise start alike."""
    pyro.set_rng_seed(0)
    model, guide = pair(shifts)
    options = {"epochs": 3, "batch_size": 4, "lr": 0.05, "compile": False} | options
    fit = pv.fit(model, guide, data, **options)
    return [tuple(v for k, v in row.items() if k != "compiled_share") for row in fit.history]


@pytest.mark.parametrize("kind", KINDS)
def test_streamed_context_makes_the_run_of_that_in_memory(kind):
    shifts, context, _ = KINDS[kind]
    streamed = pv.data.Stream(Items(X), context=tuple(map(marked, context)))
    assert losses(streamed, shifts) == losses((X, *context), shifts)


@pytest.mark.parametrize("how", ["plain", "compiled", "micro-batches", "workers"])
def test_labels_that_are_parts_of_the_items(how):
    """Beside a table that all data share, where steps are not compiled."""
    labels, options = torch.tensor([3, 1, 1, 0, 5, 2]), {}
    if how == "compiled":
        options = {"compile": True}
    elif how == "micro-batches":
        options = {"split": Split(accumulate=2), "batch_size": 2}
    streamed = pv.data.Stream(Items(X, labels, SHIFTS), parts=2, workers=how == "workers")

    def shifts(x, labels):
        return SHIFTS.index_select(0, labels)

    assert losses(streamed, shifts, **options) == losses((X, labels), shifts, **options)


def test_what_all_data_share_is_streamed_and_validated_on():
    labels = torch.tensor([3, 1, 1, 0, 5, 2])
    given = (pv.shared(SHIFTS), labels)  # as many rows as data, and no row is a datum's
    streamed = pv.data.Stream(Items(X), (X, *given), context=given)
    model, guide = pair(lambda x, table, labels: table[labels])
    fit = pv.fit(model, guide, streamed, epochs=1, batch_size=2, lr=1e-6, compile=False)
    for name in ("loss", "valid_elbo"):
        assert abs(fit.history[0][name]) == pytest.approx(-float(truth(SHIFTS[labels]).mean()), abs=1e-3)


def test_a_streamed_run_resumes_on_the_same_context_alone(tmp_path):
    shifts, _, _ = KINDS["a number"]
    model, guide = pair(shifts)
    options = {"batch_size": 2, "compile": False, "checkpoint": tmp_path}
    for epochs, number in ((1, 0.7), (2, 0.7)):
        data = pv.data.Stream(Items(X), context=(number,))
        pv.fit(model, guide, data, epochs=epochs, resume=epochs > 1, **options)
    for other in (pv.data.Stream(Items(X), context=(0.8,)), pv.data.Stream(Items(X), context=(SHIFTS,))):
        with pytest.raises(ValueError, match="data"):
            pv.fit(model, guide, other, epochs=3, resume=True, **options)


@pytest.mark.parametrize(
    ("context", "error", "match"),
    [
        ((["a"] * N,), ValueError, "expected a mark .* N = 6 rows"),
        (({"shift": SHIFTS},), ValueError, "expected a mark"),
        ((SHIFTS[:3],), ValueError, r"each of the 6 data, got shape \(3,\); try pv.shared"),
        ((torch.tensor(1.0),), ValueError, r"got shape \(\); try pv.shared"),
        ((pv.per_datum(["a", "b"]),), ValueError, "each of the 6 data"),
        (SHIFTS, TypeError, r"expected context to be a tuple, got Tensor; try context=\(labels,\)"),
    ],
)
def test_context_that_cannot_be_told_is_refused(context, error, match):
    with pytest.raises(error, match=match):
        pv.data.Stream(Items(X), context=context)


def test_parts_that_are_not_there_are_refused():
    with pytest.raises(TypeError, match="at least 2 parts"):
        pv.data.Stream(Items(X), parts=2)
    with pytest.raises(ValueError, match="parts >= 1"):
        pv.data.Stream(Items(X), parts=0)
