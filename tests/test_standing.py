"""A datum's density must not depend on where it stands, nor on the data beside it."""

import math
import subprocess
import sys
import warnings

import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.ops.indexing import Vindex

import pyrovae as pv
from pyrovae.programs import inspect_program
from pyrovae.programs.generate.latent_space import latent_space

X = torch.linspace(-2.0, 3.0, 6)
SCALES = torch.linspace(0.3, 3.0, 6)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 1.0))


def model_of(size, observed, loc=lambda z, x: z):
    def model(x):
        with pyro.plate("data", size or len(x), subsample_size=len(x)) as i:
            z = pyro.sample("z", dist.Normal(x.new_tensor(0.0), 1.0))
            pyro.sample("x", dist.Normal(loc(z, x), observed(i)), obs=x)

    return model


@pytest.mark.parametrize("size", [None, 6])
def test_what_the_plate_indexes_belongs_to_its_datum(size):
    model = model_of(size, lambda i: SCALES[i])
    truth = dist.Normal(0.0, (1 + SCALES**2).sqrt()).log_prob(X)
    for chunk in (None, pv.Chunk(2, 500)):
        weights = pv.log_weights(model, guide, X, num_samples=4000, chunk=chunk)
        found = weights.logsumexp(0) - torch.tensor(4000.0).log()
        assert (found - truth).abs().max() < 0.1


def test_parameters_of_the_guide_that_the_plate_indexes():
    def own(x):
        loc = pyro.param("loc", lambda: X / 2)
        with pyro.plate("data", len(x)) as i:
            pyro.sample("z", dist.Normal(loc[i], 0.5**0.5))

    model = model_of(None, lambda i: 1.0)
    weights = pv.log_weights(model, own, X, num_samples=3, chunk=pv.Chunk(2, 3))
    assert (weights - dist.Normal(0.0, 2**0.5).log_prob(X)).abs().max() < 1e-5


TABLES = {
    "the plate's index": lambda i, n, table: table[i],
    "its first rows": lambda i, n, table: table[:n],
    "numbers made of places": lambda i, n, table: table[torch.arange(n)],
    "picked and masked": lambda i, n, table: torch.where(i > 2, table[i], table[0]),
}
# Where a row's number acts: far from most draws, or at few of them.
ACTS = {
    "beyond a bend": lambda z, row: z.clamp(max=1.5) + row * torch.relu(z - 1.5),
    "in a narrow window": lambda z, row: z + row * torch.exp(-0.5 * ((z + 1.8) / 0.1) ** 2),
    "everywhere": lambda z, row: z + row,
}
ROWS = {
    "all differ": torch.linspace(-6.0, 6.0, 12),
    "one differs": torch.where(torch.arange(12) == 10, 4.0, 0.0),
    "pairs are alike": torch.tensor([1.0, -3.0, -3.0, 1.0] * 3),
}


@pytest.mark.parametrize("table", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("acts", ACTS.values(), ids=ACTS)
@pytest.mark.parametrize("read", TABLES.values(), ids=TABLES)
def test_a_table_that_counts_at_few_draws_alone(read, acts, table):
    """Held against sums over a grid of z, in chunks of three data and without."""

    def model(x):
        with pyro.plate("data", len(x)) as i:
            z = pyro.sample("z", dist.Normal(x.new_tensor(0.0), 1.0))
            pyro.sample("x", dist.Normal(acts(z, read(i, len(x), table.double())), 0.7), obs=x)

    x = torch.linspace(-5.0, 5.0, 12).double()
    z = torch.linspace(-8.0, 8.0, 160_001).double()
    places = torch.arange(12)
    loc = acts(z[:, None], read(places, 12, table.double()))
    joint = dist.Normal(0.0, 1.0).log_prob(z)[:, None] + dist.Normal(loc, 0.7).log_prob(x)
    truth = joint.logsumexp(0) + math.log(1e-4)
    assert inspect_program(model, guide, x).arguments.calling == "whole"
    ev = pv.evidence(model, guide, x, estimators=[pv.Exact()], progress=False)
    torch.testing.assert_close(ev["Exact"].per_datum, truth, rtol=0, atol=1e-3)


PICKS = {
    "x[i]": lambda i, z, x: (z, x[i]),
    "x.index_select(0, i)": lambda i, z, x: (z, x.index_select(0, i)),
    "z[..., i]": lambda i, z, x: (z[..., i], x),
    "Vindex": lambda i, z, x: (Vindex(torch.stack([z, -z], -1))[..., (x < 0).long()], x),
    "nothing": lambda i, z, x: (z * torch.ones(len(x)), x),
}


@pytest.mark.parametrize("n", [5, 29, 60])
@pytest.mark.parametrize("pick", PICKS.values(), ids=PICKS)
def test_rows_of_its_own_are_no_table(pick, n):
    def model(x):
        with pyro.plate("data", len(x)) as i:
            z = pyro.sample("z", dist.Normal(x.new_tensor(0.0), 1.0))
            z, x = pick(i, z, x)
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.linspace(-2.0, 3.0, n)
    assert inspect_program(model, guide, x).arguments.calling == "sliced"


@pytest.mark.parametrize("read", [False, True])
def test_a_guide_that_lists_its_values(read):
    """Values that are listed for all data are no table; a table beside them is one, though it counts at no value."""
    locs, table = torch.tensor([-1.0, 0.0, 2.0]), torch.linspace(-6.0, 6.0, 60)

    def model(x):
        with pyro.plate("data", len(x)) as i:
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.2, 0.5, 0.3])))
            shift = torch.where(k == 5, table[i], 0.0) if read else 0.0
            pyro.sample("x", dist.Normal(locs[k] + shift, 1.0), obs=x)

    def listing(x):
        with pyro.plate("data", len(x)):
            logits = -((x[:, None] - locs) ** 2) / 4
            pyro.sample("k", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})

    for n in (5, 60):
        called = inspect_program(model, listing, torch.linspace(-2.0, 3.0, n)).arguments.calling
        assert called == ("whole" if read else "sliced")


OTHERS = {
    "a sum along the plate": lambda z, x: z.cumsum(-1),
    "a mean over the draws": lambda z, x: z - z.mean(-1, keepdim=True),
    "the data's mean": lambda z, x: z + x.mean(),
    "the data's spread": lambda z, x: z + x / x.std(),
    "their mean, far from the guide's draws": lambda z, x: z + torch.relu(z - 2.5) * x.mean(),
}


@pytest.mark.filterwarnings("ignore:std")
@pytest.mark.parametrize("name", OTHERS)
def test_a_density_that_depends_on_other_data_is_refused(name):
    with pytest.raises(ValueError, match="factorise over the data"):
        pv.log_weights(model_of(None, lambda i: 1.0, OTHERS[name]), guide, X, num_samples=2)


def test_a_guide_may_look_at_other_data():
    def own(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2 + 0.1 * x.mean(), 1.0))

    weights = pv.log_weights(model_of(None, lambda i: 1.0), own, X, num_samples=4000)
    found = weights.logsumexp(0) - torch.tensor(4000.0).log()
    assert (found - dist.Normal(0.0, 2**0.5).log_prob(X)).abs().max() < 0.1


N = 48
PLACES = {
    "rows in order of their groups": lambda i, n: torch.tensor([0.0, 3.0, -2.0])[(torch.arange(N) // 40)[i]],
    "a flag of the last rows": lambda i, n: (torch.arange(N) >= 45).float()[i],
    "the first rows of a table": lambda i, n: torch.linspace(0.0, 1.0, N)[:n],
    "its last rows": lambda i, n: torch.linspace(0.0, 1.0, N)[-n:],
    "the place itself": lambda i, n: 0.01 * torch.arange(n),
    "a period": lambda i, n: 0.1 * (i % 7),
    "how many there are": lambda i, n: torch.full((n,), 1.0 / n),
}


def shifted_by(place, start=None):
    """z ~ N(b place, 1), x ~ N(z, 1); b is 1, or a parameter."""

    def model(x):
        b = 1.0 if start is None else pyro.param("b", torch.tensor(start))
        with pyro.plate("data", len(x)) as i:
            z = pyro.sample("z", dist.Normal(b * place(i, len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    return model


@pytest.mark.parametrize("name", PLACES)
def test_what_is_read_by_place_is_that_of_its_datum(name):
    """Also where the first and the last of the rows that are looked at have the same, and coefficients start at 0."""
    x, place = torch.linspace(-2.0, 3.0, N), PLACES[name]
    truth = dist.Normal(place(torch.arange(N), N), 2**0.5).log_prob(x)
    weights = pv.log_weights(shifted_by(place), guide, x, num_samples=2000, chunk=pv.Chunk(7, 500))
    ratio = (weights.double() - truth).exp()
    assert ((ratio.mean(0) - 1) / (ratio.std(0) / 2000**0.5)).abs().max() < 4.8
    pyro.clear_param_store()
    for b in (None, 0.0):
        assert inspect_program(shifted_by(place, b), guide, x).arguments.calling == "whole"


def test_a_coefficient_that_starts_at_0_is_fitted_to_rows_of_a_table():
    random = torch.Generator().manual_seed(0)
    c = torch.randn(100, generator=random)
    x = 3 * c + 2**0.5 * torch.randn(100, generator=random)

    def own(x):
        k = pyro.param("k", torch.tensor(0.5))
        with pyro.plate("data", len(x)) as i:
            pyro.sample("z", dist.Normal(k * x + pyro.param("l", torch.tensor(0.0)) * c[i], 0.7))

    pyro.clear_param_store()
    with pytest.warns(UserWarning, match=r"model\(x, table\)"):
        fit = pv.fit(
            shifted_by(lambda i, n: c[i], 0.0),
            own,
            x,
            epochs=150,
            batch_size=20,
            lr=0.05,
            progress=False,
            compile=False,
        )
    least_squares = float((x * c).sum() / (c * c).sum())
    with fit.store.active():
        assert abs(pyro.param("b").item() - least_squares) < 0.15


@pytest.mark.parametrize("rows", [40_000, 40])
def test_a_table_beyond_the_first_rows_is_looked_at(rows):
    """Few data are looked at, unless the program reads anything by their place: then all."""
    table = (torch.arange(rows) >= rows - 3).float()
    model = shifted_by(lambda i, n: table[i])
    assert inspect_program(model, guide, torch.zeros(rows)).arguments.calling == "whole"


@pytest.mark.parametrize("odd", [1, 4])
def test_numbers_that_python_makes_of_the_data_are_the_datums(odd):
    """Also where most data have the same."""
    table = [-1.0, 2.0]
    x = torch.zeros(40)
    x[odd] = 1.0

    def model(x):
        loc = torch.tensor([table[int(v)] for v in x.tolist()])
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(loc, 1.0))
            pyro.sample("x", dist.Bernoulli(logits=z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    assert inspect_program(model, guide, x).arguments.calling == "sliced"


def test_what_all_data_have_is_no_matter_of_place():
    scale = torch.linspace(0.5, 1.0, N)  # as many numbers as data, which all of them have
    model = shifted_by(lambda i, n: scale.mean().expand(n))
    assert inspect_program(model, guide, torch.linspace(-2.0, 3.0, N)).arguments.calling == "sliced"


@pytest.mark.parametrize("start", [None, 0.0])
def test_a_density_that_depends_on_the_datum_before_late_in_the_plate_is_refused(start):
    x = torch.linspace(-2.0, 3.0, N)

    def model(x):
        b = 1.0 if start is None else pyro.param("b", torch.tensor(start))
        with pyro.plate("data", len(x)):
            late = torch.cat([torch.zeros(1), x[:-1] * (torch.arange(len(x) - 1) > 40)])
            z = pyro.sample("z", dist.Normal(b * late, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    pyro.clear_param_store()
    with pytest.raises(ValueError, match="factorise over the data"):
        inspect_program(model, guide, x)


FAR = 1000
LATE = torch.arange(FAR) >= 600
WORDS = ["yes" if late else "no" for late in LATE]
FRAME = pd.DataFrame({"arm": WORDS, "other": 1.0})
IDS = {700, 800}
LATE_PLACES = {
    "a change point": lambda i, n: (i >= 600).float(),
    "a table of more rows": lambda i, n: torch.cat([LATE, LATE]).float()[i],
    "rows of a slice": lambda i, n: LATE[:n].float(),
    "a list": lambda i, n: torch.tensor([float(w == "yes") for w in WORDS[:n]]),
    "a column of words": lambda i, n: torch.tensor((FRAME["arm"] == "yes").to_numpy()).float()[i],
    "a NumPy slice": lambda i, n: torch.from_numpy(LATE.numpy()[:n]).float(),
    "groups by division": lambda i, n: torch.tensor([0.0, 1.0])[(i // 600).clamp(max=1)],
    "a set of two": lambda i, n: torch.tensor([float(k in IDS) for k in range(n)]),
}


@pytest.mark.parametrize("start", [None, 0.0])
@pytest.mark.parametrize("name", LATE_PLACES)
def test_what_is_read_late_in_wide_data_is_noticed(name, start):
    """The first rows, of which a few are looked at, all have the same."""
    place = LATE_PLACES[name]

    def model(x):
        b = 1.0 if start is None else pyro.param("b", torch.tensor(start))
        with pyro.plate("data", len(x)) as i:
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            loc = (z + b * place(i, len(x))).unsqueeze(-1) + torch.zeros(100)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def own(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.mean(-1), 0.1))

    pyro.clear_param_store()
    x = torch.randn(FAR, 100, generator=torch.Generator().manual_seed(0))
    assert inspect_program(model, own, x).arguments.calling == "whole"


@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4])
def test_an_ordinary_program_takes_slices_whatever_the_scale_of_its_data(scale):
    """Gradients at a held draw are all rounding where loc is many scales: of one row they are others than of many."""
    torch.manual_seed(0)
    encoder = torch.nn.Linear(3, 8)

    def model(x):
        w = pyro.param("w", torch.ones(4, 3))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ w, 1.0).to_event(1), obs=x)

    def own(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            loc, raw = encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, torch.nn.functional.softplus(raw) + 1e-6).to_event(1))

    pyro.clear_param_store()
    x = scale * (1 + torch.rand(200, 3, generator=torch.Generator().manual_seed(1)))
    assert inspect_program(model, own, x).arguments.calling == "sliced"


def test_a_program_that_takes_no_gradients_is_looked_at_without():
    table = torch.linspace(0.0, 1.0, N)
    weight = torch.nn.Parameter(torch.ones(()))

    def model(x):
        with pyro.plate("data", len(x)):
            loc = torch.from_numpy(weight.numpy() * table[: len(x)].numpy())
            z = pyro.sample("z", dist.Normal(loc, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    assert inspect_program(model, guide, torch.linspace(-2.0, 3.0, N)).arguments.calling == "whole"


def test_a_look_does_not_import_the_compiler():
    program = (
        "import sys, torch\n"
        "import pyrovae as pv\n"
        "from pyrovae.models import ground_truths as gt\n"
        "from pyrovae.programs import inspect_program\n"
        "pair = gt.linear_gaussian(1000, latent_dim=2, event_dim=100)\n"
        "inspect_program(pair.model, pair.guide, pair.x)\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Guides that look at other data --------------------------------------------------------------------

BESIDE = {
    "the mean": lambda x, c: (x - x.mean(0)) / 2,
    "the largest": lambda x, c: (x - x.max(0).values) / 4,
    "ranks": lambda x, c: (x.argsort(0).argsort(0).to(x.dtype) - 2.0) / 30,
    "the first": lambda x, c: (x - x[:1]) / 2,
    "the last": lambda x, c: (x - x[-1:]) / 2,
    "the one in the middle": lambda x, c: (x - x[len(x) // 2]) / 2,
    "the context's mean": lambda x, c: (x - (c - c.mean())[:, None]) / 2,
    "the context's largest": lambda x, c: (x - (c / c.max())[:, None]) / 2,
    "whether any is large": lambda x, c: x / 2 - (x > 4.0).any().to(x.dtype),
}


def plain(loc):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_tensor(0.0), 1.0))
            pyro.sample("x", dist.Normal(loc(z, x), 1.0), obs=x)

    return model


def pair_beside(name):
    def model(x, c):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(x.shape[-1]), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z + c[..., None], 1.0).to_event(1), obs=x)

    def own(x, c):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(BESIDE[name](x, c), 0.7).to_event(1))

    return model, own


@pytest.mark.parametrize("shape", [(60, 1), pytest.param((60, 600), marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", BESIDE)
def test_a_guide_that_looks_at_other_data_is_run_on_all_of_them(name, shape):
    """E_q ln p - ln q has a closed form; data and context are sorted, and half of the rows are alike at the start."""
    model, own = pair_beside(name)
    order = torch.linspace(-2.0, 3.0, shape[0]).clamp(min=0.5)
    x = 0.2 * torch.randn(shape, generator=torch.Generator().manual_seed(0)) + order[:, None]
    x[-1] += 3.0
    c = order.clone()
    m, s, k = BESIDE[name](x, c).double(), 0.7, math.log(2 * math.pi)
    terms = -((x - c[:, None] - m) ** 2 + s * s) / 2 - (m**2 + s * s) / 2 + 0.5 + math.log(s) - k / 2
    truth = terms.sum(-1)
    for chunk in (None, pv.Chunk(5, 100)):
        found = pv.evidence(model, own, x, c, estimators=[pv.ELBO(400)], chunk=chunk, progress=False)["ELBO"]
        assert abs(found.log_evidence - float(truth.mean())) < 4.5 * found.se_mc
    assert torch.allclose(pv.embed(model, own, x, c).double(), m, atol=1e-5)
    draws = pv.posterior(model, own, x, c, num_samples=200, budget=2**16).draws["z"].double()
    assert ((draws.mean(0) - m).abs() < 6 * s / 200**0.5).all()


def test_a_guide_that_looks_at_other_data_trains_on_batches():
    x = torch.randn(60, 1, generator=torch.Generator().manual_seed(0))
    c = torch.zeros(60)
    model, _ = pair_beside("the mean")

    def own(x, c):
        scale = pyro.param("scale", torch.tensor(0.5), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x - x.mean(0)) / 2, scale).to_event(1))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = pv.fit(model, own, (x, c), valid=(x, c), epochs=20, batch_size=20, lr=0.05, progress=False)
    assert fit.history[-1]["step"] == 60
    with fit.store.active():
        assert abs(pyro.param("scale").item() - 0.5**0.5) < 0.1
    program = inspect_program(fit.model, fit.guide, x, c)
    assert program.beside and program.arguments.calling == "whole"
    assert program.in_parts().arguments.calling == "sliced"


def test_statistics_that_are_kept_are_no_other_data():
    """Batch normalisation in eval mode."""
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm1d(1)
    norm.running_mean += 0.3

    def own(x):
        pyro.module("norm", norm)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(norm(x[:, None])[:, 0] / 2, 0.7))

    program = inspect_program(plain(lambda z, x: z), own, torch.randn(50))
    assert not program.beside and program.arguments.calling == "sliced"


def test_what_follows_from_a_guide_that_looks_at_other_data():
    x = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
    model, own = pair_beside("the mean")
    c = torch.linspace(0.0, 5.0, 12)
    space = latent_space(model, own, x, c)
    made = space.decode(torch.zeros(3, 2), datum=11)
    assert torch.allclose(made.mean, torch.full((3, 2), 5.0)), "the context is that datum's"
    quick = pv.gaps(model, own, x, c, fit=pv.LocalFit(steps=3), flow=False, num_samples=400, progress=False)
    m = BESIDE["the mean"](x, c).double()
    terms = -((x - c[:, None] - m) ** 2 + 0.49) / 2 - (m**2 + 0.49) / 2 + 0.5 + math.log(0.7 / math.tau**0.5)
    assert abs(quick.elbo.log_evidence - float(terms.sum(-1).mean())) < 5 * quick.elbo.se_mc
    x[3, 1] = torch.nan

    def masked(x, c):
        there, known = ~x.isnan(), x.nan_to_num(0.0)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            law = dist.Normal(z.mean(-1, keepdim=True) + c[..., None], 1.0).mask(there)
            pyro.sample("x", law.to_event(1), obs=known)

    def over(x, c):
        known = x.nan_to_num(0.0)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((known - known.mean(0)) / 4, 0.9).to_event(1))

    drawn = pv.posterior(masked, over, x, c, num_samples=5000)
    filled = pv.impute(masked, over, x, c, num_samples=500)
    expected = drawn.resampled["z"][:, 3].mean() + c[3]
    assert abs(filled.mean[3, 1] - expected) < 5 * (0.6 / 500) ** 0.5


@pytest.mark.parametrize("n", [2, 10, 30, 50, 70, 90, 200])
@pytest.mark.parametrize("row", [0, -1, "middle"])
def test_one_datum_as_the_baseline_of_all_is_refused_at_any_size(n, row):
    x = 1.5 * torch.randn(n, generator=torch.Generator().manual_seed(n))
    with pytest.raises(ValueError, match="factorise over the data"):
        inspect_program(plain(lambda z, x: z + x[len(x) // 2 if row == "middle" else row]), guide, x)
