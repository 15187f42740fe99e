"""The ELBO with its KL in closed form: the same bound, with less noise, and refused where the form is another's."""

import subprocess
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.models import ground_truths as gt
from pyrovae.programs import inspect_program
from pyrovae.programs.latents.closed_kl import closed_sites

from . import handwritten as hw

F64 = torch.float64


def pair(law=dist.Normal):
    """z ~ N(0, 1), x ~ N(z, 1), q = N(x/2 + 0.3, 0.6): every term is known."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", law(x / 2 + 0.3, x.new_full((len(x),), 0.6)))

    return model, guide


def test_it_is_the_elbo_without_the_noise_of_the_kl():
    model, guide = pair()
    x = torch.linspace(-2, 2, 30, dtype=F64)
    ev = pv.evidence(model, guide, x, estimators=[pv.ELBO(400), pv.ClosedELBO(400)], seed=3)
    posterior = dist.Normal(x / 2, 0.5**0.5)
    q = dist.Normal(x / 2 + 0.3, torch.tensor(0.6, dtype=F64))
    exact = dist.Normal(torch.zeros((), dtype=F64), 2.0**0.5).log_prob(x)
    exact = exact - torch.distributions.kl_divergence(q, posterior)
    closed = ev["ELBO (closed KL)"]
    error = (closed.per_datum - exact) / closed.variance.sqrt()
    assert error.abs().max() < 5 and abs(error.mean()) < 4 / 30**0.5 and error.std() > 0.5
    assert closed.direction == "<=" and closed.certificate is None
    assert closed.details["closed"] == "z" and "ELBO (closed KL)" in ev.table()
    # Where the likelihood says little about z, the KL was the noise.
    flat = pv.evidence(*weak(), x, estimators=[pv.ELBO(400), pv.ClosedELBO(400)], seed=3)
    assert flat["ELBO (closed KL)"].variance.mean() < 0.01 * flat["ELBO"].variance.mean()


def weak():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(0.01 * z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 0.5))

    return model, guide


@pytest.mark.parametrize(
    "name", ["x[ind], size fixed", "x[ind], all", ".mask()", "inner plate", "context", "fixed shape"]
)
@pytest.mark.filterwarnings("ignore:this program gives other numbers")
def test_programs_of_every_shape(name):
    case = hw.CASES[name]()
    ev = pv.evidence(
        case.model, case.wrong, *case.args, estimators=[pv.ELBO(300), pv.ClosedELBO(300)], **case.options
    )
    elbo, closed = ev["ELBO"], ev["ELBO (closed KL)"]
    z = (elbo.per_datum - closed.per_datum) / (elbo.variance + closed.variance).sqrt()
    assert z.abs().max() < 5 and not torch.equal(elbo.per_datum, closed.per_datum)


def test_levels_of_a_bottom_up_guide_keep_their_densities():
    """There the KL given the parents is another number than the KL."""
    truth = gt.hierarchical_linear_gaussian(2, 12)
    program = inspect_program(truth.model, truth.guide, truth.x)
    kept = closed_sites(program)
    ev = pv.evidence(truth.model, truth.guide, truth.x, estimators=[pv.ELBO(2000), pv.ClosedELBO(2000)])
    elbo, closed = ev["ELBO"], ev["ELBO (closed KL)"]
    z = (elbo.per_datum - closed.per_datum) / (elbo.variance + closed.variance).sqrt()
    assert z.abs().max() < 5 and 0 < len(kept) < 2


class Shifted(dist.Normal):
    """A Normal by name, with a density of its own: torch has it a Normal's KL."""

    def log_prob(self, value):
        return super().log_prob(value) + 0.5

    def expand(self, batch_shape, _instance=None):
        return Shifted(self.loc.expand(batch_shape), self.scale.expand(batch_shape))


def test_a_closed_form_of_another_law_is_refused():
    model, guide = pair(Shifted)
    x = torch.linspace(-2, 2, 30, dtype=F64)
    with pytest.raises(ValueError, match=r"closed-form KL of site 'z'.*differs by 0.4"):
        pv.evidence(model, guide, x, estimators=[pv.ClosedELBO(50)])


def test_refusals():
    case = hw.CASES["enumerated in the guide"]()
    with pytest.raises(ValueError, match=r"enumerated ones; try pv\.ELBO"):
        pv.evidence(case.model, case.wrong, *case.args, estimators=[pv.ClosedELBO(5)], **case.options)
    mixture = gt.mixture_prior(4)
    with pytest.raises(ValueError, match="closed form, got none"):
        pv.evidence(mixture.model, mixture.guide, mixture.x, estimators=[pv.ClosedELBO(5)])
    with pytest.raises(ValueError, match="num_samples"):
        pv.ClosedELBO(0)


def test_closed_forms_are_there_in_a_fresh_process():
    """They were registered by a room that nothing had to import: what was closed hung on what ran before."""
    code = (
        "import pyrovae as pv, torch, torch.distributions as td; pv.ClosedELBO; "
        "td.kl_divergence(td.MultivariateNormal(torch.zeros(2), torch.eye(2)), "
        "td.Independent(td.Normal(torch.zeros(2), torch.ones(2)), 1))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
