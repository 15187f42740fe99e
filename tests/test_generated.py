"""Generated programs: every pair of features that can be combined, against references that share no code with us."""

from itertools import combinations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import pyrovae as pv

from .generated.checks import CHECKS, COMPILED, compiles, run_checks
from .generated.covering import combinable, covering_array, pairs
from .generated.rows import ROWS, MaskedSite

PROGRAMS = covering_array()
# One, as each compiles for seconds (`python -m tests.generated --compiled` takes them all). Steps are compiled in
# tests/test_compiled_programs.py: a generated program keeps a record of its calls, which no graph could write.
COMPILE = [next(rows for rows in PROGRAMS if compiles(rows) and any(r.discrete for r in rows))]


def name_of(rows):
    return " + ".join(r.name for r in rows)


# All take more than a minute: `make test` takes every third one, `make test-slow` the others.
MOST_ARE_SLOW = [
    pytest.param(rows, id=name_of(rows), marks=[pytest.mark.slow] if i % 3 else [])
    for i, rows in enumerate(PROGRAMS)
]


def test_every_pair_that_can_be_combined_is_in_a_program():
    able, never = combinable()
    assert able <= set().union(*map(pairs, PROGRAMS))
    assert not any(p & never.keys() for p in map(pairs, PROGRAMS))
    assert len(able) + len(never) == len(list(combinations(ROWS, 2)))
    assert all(sum(r.law is not None for r in rows) == 1 for rows in PROGRAMS)


@pytest.mark.parametrize("rows", MOST_ARE_SLOW)
def test_a_generated_program_has_its_exact_answers(rows):
    assert run_checks(rows) == {}


@pytest.mark.slow
@pytest.mark.parametrize("rows", COMPILE, ids=name_of)
def test_a_generated_program_compiled_is_the_same(rows):
    assert run_checks(rows, names=COMPILED) == {}


def test_a_fault_in_one_row_is_found():
    """The checks can fail: here the model forgets its mask, and the reference does not."""

    class Forgets(MaskedSite):
        def model(self, s):
            s.args["site_seen"] = s.args["site_seen"] | True
            super().model(s)

        def guide(self, s):
            pass

    rows = (next(r for r in ROWS if r.law), Forgets())
    found = run_checks(rows)
    assert {n for n in CHECKS if "exact guide" in n} <= found.keys()
    assert np.isin("Exact", list(found))


# What the generator found --------------------------------------------------------------------------


def from_noise(x):
    """The exact posterior of z ~ N(0, 1), x ~ N(z, 1), as a function of noise; the Delta carries the Jacobian."""
    scale = pyro.param("scale", torch.tensor(0.5, dtype=x.dtype).sqrt())
    with pyro.plate("data", len(x)):
        noise = pyro.sample("noise", dist.Normal(0 * x, 1.0), infer={"is_auxiliary": True})
        pyro.sample("z", dist.Delta(x / 2 + scale * noise, log_density=-scale.log().expand(len(x))))


def unit_normals(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0 * x, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def test_the_kl_of_a_delta_is_not_taken_in_closed_form():
    """Pyro's leaves out log_density: the bound was .35 nats above ln p(x), with three data unseen by any check."""
    x = torch.tensor([0.3, -0.5, 1.0], dtype=torch.float64)
    with pytest.raises(ValueError, match="a latent site whose KL has a closed form, got none"):
        pv.evidence(unit_normals, from_noise, x, estimators=[pv.ClosedELBO(100)])
    mean_field = pyro.infer.TraceMeanField_ELBO()
    with pytest.raises(ValueError, match=r"Delta sites have no log_density .* got one at \['z'\]"):
        pv.fit(unit_normals, from_noise, x, objective=mean_field, epochs=1)


def test_a_masked_factor_is_served():
    """It has no support to check: that ended in a RuntimeError of shapes."""
    x, seen = torch.tensor([0.3, -0.5, 1.0]), torch.tensor([True, False, True])

    @pv.program(density="exact")
    def model(x, seen):
        with pyro.plate("data", len(x)), poutine.mask(mask=seen):
            z = pyro.sample("z", dist.Normal(0 * x, 1.0))
            pyro.factor("x", dist.Normal(z, 1.0).log_prob(x))
            pyro.sample("sign", dist.Bernoulli(0.5), obs=(x > 0).float())

    def guide(x, seen):
        with pyro.plate("data", len(x)), poutine.mask(mask=seen):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))

    right = torch.where(seen, dist.Normal(0.0, 2**0.5).log_prob(x) - np.log(2), 0.0)
    got = pv.log_weights(model, guide, x, seen, num_samples=3)
    torch.testing.assert_close(got, right.double().expand(3, 3), rtol=0, atol=1e-5)
