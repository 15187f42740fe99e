"""An estimator that refuses a program leaves the others their figures, and says why wherever it would stand."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.runs import read_evidence, write_evidence

X = torch.tensor([0.3, -1.0, 2.0])


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal((x / 5).unsqueeze(-1), torch.ones(4)).to_event(1))


def test_the_others_have_their_figures(tmp_path):
    alone = pv.evidence(model, guide, X, estimators=[pv.IS(50)])
    ev = pv.evidence(model, guide, X, estimators=[pv.Exact(), pv.IS(50)])
    assert (
        torch.equal(ev["IS"].per_datum, alone["IS"].per_datum) and list(ev) == ["IS"] and ev.best is ev["IS"]
    )
    assert "got 4, and no exact" in ev.refused["Exact"] and ev.warnings[0].startswith(
        "Exact is refused: expected 1-2"
    )
    with pytest.raises(ValueError, match="serves this program, got Exact: expected 1-2 latent dims"):
        ev["Exact"]
    assert "│ Exact     │                 refused" in ev.table() and "| Exact | refused | – |" in ev.table(
        "markdown"
    )
    write_evidence(ev, tmp_path / "evidence.nc")
    again = read_evidence(tmp_path / "evidence.nc")
    assert again.refused == ev.refused and "refused" in again.table()


def test_nothing_but_refusals_is_an_error():
    with pytest.raises(ValueError, match="expected 1-2 latent dims"):
        pv.evidence(model, guide, X, estimators=[pv.Exact()])

    def mixed(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.5))
            z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1) + c, 1.0), obs=x)

    def mixed_guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Bernoulli(0.5))
            pyro.sample("z", dist.Normal((x / 5).unsqueeze(-1), torch.ones(4)).to_event(1))

    with pytest.raises(ValueError, match="expected 1-2 latent dims"):
        pv.evidence(mixed, mixed_guide, X, estimators=[pv.Exact(), pv.AIS(4, 4)])


def test_a_certificate_that_was_named_is_not_passed_over():
    def classes(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.tensor([0.6, 0.4])), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(torch.tensor([-1.0, 1.5])[c], 1.0), obs=x)

    both = [pv.IS(20), pv.AIS(4, 4)]
    ev = pv.evidence(classes, lambda x: None, X, estimators=both)
    assert list(ev) == ["IS"] and "AIS" in ev.refused
    with pytest.raises(ValueError, match="a continuous latent"):
        pv.evidence(classes, lambda x: None, X, estimators=both, certify="AIS")


def test_data_outside_of_a_support_are_refused_by_all():
    """The weights refuse grey values for bits; a declared ln p(x) would have a number for them."""

    @pv.program(log_evidence=lambda x: -x)
    def bits(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Bernoulli(logits=z), obs=x)

    def own(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    with pytest.raises(ValueError, match="in the support of Bernoulli"):
        pv.evidence(bits, own, torch.tensor([0.0, 0.5]), estimators=[pv.IS(5), pv.Exact()])


def test_a_program_that_the_weights_refuse_has_no_figures_at_all():
    """Its scale goes by all draws at once: quadrature would give a number for it."""

    def widened(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            scale = torch.where(z.abs().max() < 2.5, 1.0, 2.0)
            pyro.sample("x", dist.Normal(z, scale), obs=x)

    def own(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.7))

    with pytest.raises(ValueError, match="log-density of one sample is its own"):
        pv.evidence(widened, own, X, estimators=[pv.IS(4000), pv.Exact()], chunk=pv.Chunk(3, 4000))


def test_a_matrix_without_factors_where_one_looks():
    """A kernel over times is 0 / 0 at lengths near 0, where `Exact` looks and no draw lies."""
    grid = torch.linspace(0, 1, 5)

    def kernels(x):
        with pyro.plate("data", len(x)):
            length = pyro.sample("length", dist.Gamma(2.0, 4.0))
            squares = (grid[:, None] - grid) ** 2 / length[..., None, None] ** 2
            law = dist.MultivariateNormal(torch.zeros(5), (-0.5 * squares).exp() + 0.1 * torch.eye(5))
            pyro.sample("x", law, obs=x)

    def lengths(x):
        with pyro.plate("data", len(x)):
            pyro.sample("length", dist.Gamma(1.5, 4.0).expand([len(x)]))

    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    ev = pv.evidence(kernels, lengths, x, estimators=[pv.IS(500), pv.Exact()], progress=False)
    assert list(ev) == ["IS"] and "a matrix that has no factors" in ev.refused["Exact"]
    with pytest.raises(ValueError, match="a matrix that has no factors"):
        pv.evidence(kernels, lengths, x, estimators=[pv.Exact()], progress=False)
