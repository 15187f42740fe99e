"""A datum's density must not depend on where it stands, nor on the data beside it."""

import subprocess
import sys

import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.programs import inspect_program

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


OTHERS = {
    "a sum along the plate": lambda z, x: z.cumsum(-1),
    "a mean over the draws": lambda z, x: z - z.mean(-1, keepdim=True),
    "the data's mean": lambda z, x: z + x.mean(),
    "the data's spread": lambda z, x: z + x / x.std(),
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
