"""Which plate is that of the data, and which context is indexed along it: told apart, or refused."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv

from .every_way import CALLS, X, check_all, figures, normal

# -- plates and context -----------------------------------------------------------------------------------------------


def series(size, **options):
    """x `[T, N]`: series in columns, and a plate over the columns."""

    def plate(x):
        return pyro.plate("data", size(x), **{k: v(x) for k, v in options.items()})

    def model(x):
        with plate(x):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            with pyro.plate("time", x.shape[0], dim=-2):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with plate(x):
            pyro.sample("z", dist.Normal(x.sum(0) / (1 + len(x)), (1 + len(x)) ** -0.5))

    return model, guide


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (12, 1), (2, 1), (1, 5), (3, 2)])
@pytest.mark.parametrize("idiom", ["columns", "subsample_size"])
def test_a_plate_that_is_not_of_the_rows_of_x_is_refused(shape, idiom):
    torch.manual_seed(0)
    size, options = (lambda x: x.shape[1]), {}
    if idiom == "subsample_size":
        size, options = (lambda x: 100), {"subsample_size": lambda x: x.shape[1]}
    model, guide = series(size, **options)
    with pytest.raises(ValueError, match=rf"len\(x\) = {shape[0]} data.*x\.T"):
        pv.evidence(model, guide, torch.randn(*shape))


@pytest.mark.parametrize("n", [2, 5])
def test_square_data_whose_columns_are_the_data_are_refused(n):
    """The plate has len(x) rows, but a datum in it is no row of x: one row more changes all of them."""
    x = torch.randn(n, n, generator=torch.Generator().manual_seed(0)).double()
    model, guide = series(lambda x: x.shape[1])
    with pytest.raises(ValueError, match="density of each datum that is its own"):
        pv.evidence(model, guide, x)


def test_subsampling_within_a_datum_is_refused():
    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            with pyro.plate("numbers", x.shape[1], subsample_size=2, dim=-1) as i:
                pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, i])

    def guide(x):
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal(x.mean(-1, keepdim=True), 0.4))

    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).double()
    for call in (c for c in CALLS if c != "sandwich"):  # which refuses another breach first
        with pytest.raises(ValueError, match=r"got it in 'numbers' at 'x'.*subsample_size"):
            CALLS[call](model, guide, x)


def test_plates_of_a_latent_that_differ_are_refused():
    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            with pyro.plate("numbers", 2, dim=-1):
                z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0), obs=x.unsqueeze(-1))

    def guide(x):
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal(x.unsqueeze(-1) / 2, 1.0))

    with pytest.raises(ValueError, match=r"same plates.*'z'"):
        pv.log_weights(model, guide, X, num_samples=5)


def book_of(n, rows=None):
    """x from a mixture around the rows of a codebook (all data share it), moved by context of each datum."""
    torch.manual_seed(0)
    x, book, own = torch.randn(n, 3).double(), torch.randn(rows or n, 3).double(), torch.randn(n, 3).double()
    weights = np.full(len(book), 1 / len(book))

    def right(i, x=x, book=book, own=own):
        parts = normal(x[i].numpy(), book.numpy() + own[i].numpy(), math.sqrt(2)).sum(-1)
        return np.log((weights * np.exp(parts)).sum())

    def model(x, book, own):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            law = dist.Normal(book + (z + own).unsqueeze(-2), 1.0).to_event(1)
            pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(x.new_ones(len(book))), law), obs=x)

    def guide(x, book, own):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0).to_event(1))

    return model, guide, (x, book, own), np.array([right(i) for i in range(n)])


@pytest.mark.parametrize("n", [1, 2, 3, 6])
@pytest.mark.parametrize("how", ["unmarked", "marked", "half marked"])
def test_a_shared_tensor_with_as_many_rows_as_data_is_not_cut(n, how):
    model, guide, (x, book, own), right = book_of(n)
    if how != "unmarked":
        book = pv.shared(book)
    if how == "marked":
        own = pv.per_datum(own)
    for chunk in (pv.Chunk(2, 1000), None, pv.Chunk(n, 4000)):
        lw = pv.log_weights(model, guide, x, book, own, num_samples=4000, chunk=chunk)
        w = lw.exp().numpy()
        error = w.std(0) / np.sqrt(len(w)) / w.mean(0)
        assert (np.abs(np.log(w.mean(0)) - right) < 4.5 * error).all()


def nested(kind):
    """The same with its context in a container."""
    model, guide, (x, book, own), _ = book_of(6)
    pack = {
        "tuple": (lambda b, o: (b, o), lambda c: c),
        "list": (lambda b, o: [b, [o]], lambda c: (c[0], c[1][0])),
        "dict": (lambda b, o: {"book": b, "own": o}, lambda c: (c["book"], c["own"])),
    }[kind]
    return (
        lambda x, c: model(x, *pack[1](c)),
        lambda x, c: guide(x, *pack[1](c)),
        x,
        pack[0](book, own),
        pack[0](pv.shared(book), pv.per_datum(own)),
        (model, guide, book, own),
    )


@pytest.mark.filterwarnings("ignore:this program is not compiled")
@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("kind", ["tuple", "list", "dict"])
def test_context_in_containers_is_told_apart_too(kind, compile):
    model, guide, x, plain, marked, (bare, own_guide, book, own) = nested(kind)
    options = {"num_samples": 5, "chunk": pv.Chunk(2, 5)}
    expected = pv.log_weights(bare, own_guide, x, pv.shared(book), pv.per_datum(own), **options)
    for context in (plain, marked):
        got = pv.log_weights(model, guide, x, context, compile=compile, **options)
        torch.testing.assert_close(got, expected)
        ev = pv.evidence(model, guide, x, context, estimators=[pv.IS(5)], chunk=pv.Chunk(2, 5))
        torch.testing.assert_close(ev["IS"].per_datum, expected.logsumexp(0) - math.log(5))


def test_marks_reach_every_function():
    model, guide, (x, book, own), _ = book_of(6)
    marked = (pv.shared(book), pv.per_datum(own))
    assert pv.posterior(model, guide, x, *marked, num_samples=5).log_weights.shape == (5, 6)
    assert pv.sandwich(model, guide, x, *marked, simulate=9, ais=pv.AIS(3, 2), num_samples=4).gap.shape == (
        9,
    )
    assert pv.sandwich(model, guide, x, book, own, simulate=9, ais=pv.AIS(3, 2), num_samples=4).gap.shape == (
        9,
    )
    assert pv.gaps(model, guide, x, *marked, num_samples=5, fit=pv.LocalFit(2), flow=False).total.mean > -100
    hashes = [pv.evidence(model, guide, x, *c).attributes["data_hash"] for c in (marked, (book, own))]
    assert hashes[0] == hashes[1]


def test_marks_that_do_not_fit_are_refused():
    model, guide, (x, book, own), _ = book_of(6, rows=4)
    with pytest.raises(ValueError, match=r"pv\.per_datum to have len\(x\) = 6 rows, got shape \(4, 3\)"):
        pv.log_weights(model, guide, x, pv.per_datum(book), own, num_samples=5)
    with pytest.raises(TypeError, match="tensor"):
        pv.per_datum("rows")
    with pytest.raises(ValueError, match="parameters to train"):  # and not of the mark, which fits
        pv.fit(model, guide, (x, pv.shared(book), own), epochs=1)


def test_context_that_cannot_be_told_names_the_marks():
    model, guide, (x, book, own), _ = book_of(6)

    def fickle(x, book, own):  # no run of a part of the data agrees with that of all
        model(x * (1 + 0.1 * len(x)), book, own)

    with pytest.raises(ValueError, match=r"pv\.per_datum\(tensor\) or pv\.shared\(tensor\)"):
        pv.log_weights(fickle, guide, x, book, own, num_samples=5)


def test_rows_taken_from_the_front_are_rows_of_the_data():
    """own[:len(x)] runs with the whole context as well, on the wrong rows."""
    torch.manual_seed(0)
    own = torch.randn(3).double()

    def model(x, own):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(own[: len(x)], 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x, own):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x + own[: len(x)]) / 2, math.sqrt(0.5)))

    right = normal(X.numpy(), own.numpy(), math.sqrt(2))
    check_all(right, figures(model, guide, X, own, chunk=pv.Chunk(1, 3), exact=False))


def test_simulations_tell_apart_what_all_data_share():
    """A table of as many rows as the example has data is no row a datum: repeated, its sum would be another."""

    def model(x, table, names):
        with pyro.plate("data", len(x)):
            own = torch.tensor([{"a": 0.0, "b": 100.0}[n] for n in names])
            pyro.sample("x", dist.Normal(table.sum() + own, 0.01), obs=x)

    drawn = pv.simulate(model, 7, torch.zeros(2), torch.tensor([1.0, 2.0]), ["a", "b"]).x
    torch.testing.assert_close(drawn, 3 + 100.0 * (torch.arange(7) % 2), rtol=0, atol=0.1)
