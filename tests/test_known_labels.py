"""Data whose label is known under a semi-supervised model: the label is certain, and the bound is that of p(x, y)."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from torch import nn

import pyrovae as pv
from pyrovae.models.semi_supervised import SemiSupervisedVAE

WEIGHT = torch.tensor([[1.0, 0.3], [-0.5, 0.8], [0.2, -1.1]])
PLACES = torch.tensor([[2.0, 0.0, 1.0], [-1.0, 1.5, 0.0], [0.0, -2.0, -1.0]])
LABEL_PRIOR = torch.tensor([0.2, 0.5, 0.3])
NOISE = 0.7


class Emission(nn.Module):
    def forward(self, z, y):
        return dist.Normal(z @ WEIGHT.T + y @ PLACES, NOISE).to_event(1)


class Posterior(nn.Module):
    """The exact q(z | x, y)."""

    latent_dim = 2

    def forward(self, x, y):
        precision = torch.eye(2) + WEIGHT.T @ WEIGHT / NOISE**2
        loc = (x - y @ PLACES) @ WEIGHT @ torch.linalg.inv(precision) / NOISE**2
        return dist.MultivariateNormal(loc, precision_matrix=precision)


@pytest.fixture(scope="module")
def m2():
    torch.manual_seed(0)
    prior = pv.priors.StandardNormal(2)
    return SemiSupervisedVAE(prior, Emission(), nn.Linear(3, 3), Posterior(), 3, LABEL_PRIOR)


@pytest.fixture(scope="module")
def x():
    return torch.randn(8, 3, generator=torch.Generator().manual_seed(1)) * 2


Y = torch.tensor([-1, 0, 1, 2, -1, 2, 1, -1])


def joint(x):
    """ln p(x, y) `[N, C]`."""
    covariance = (WEIGHT @ WEIGHT.T + NOISE**2 * torch.eye(3)).numpy()
    laws = [multivariate_normal(p, covariance) for p in PLACES.numpy()]
    return np.stack(
        [math.log(p) + law.logpdf(x.numpy()) for p, law in zip(LABEL_PRIOR.tolist(), laws, strict=True)], 1
    )


def test_evidence_and_the_bound_of_the_paper_are_those_summed_by_hand(m2, x):
    own, known = joint(x), (Y >= 0).numpy()
    labelled = own[np.arange(len(x)), Y.clamp(min=0).numpy()]
    found = pv.evidence(m2.model, m2.guide, x, Y, estimators=[pv.IS(20)], seed=0)["IS"].per_datum
    assert np.allclose(found, np.where(known, labelled, logsumexp(own, 1)), atol=1e-4)
    q = m2.classifier(x).log_softmax(-1).detach().numpy()
    paper = np.where(known, labelled, (np.exp(q) * (own - q)).sum(1))
    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(m2.model, m2.guide, x, Y)
    assert loss == pytest.approx(-paper.sum(), abs=1e-3)


def test_a_known_label_is_certain_in_what_is_embedded_drawn_and_reconstructed(m2, x):
    known = Y >= 0
    means = pv.embed(m2.model, m2.guide, x, Y)["y"]
    assert torch.equal(means[known], torch.eye(3)[Y[known]])
    assert torch.allclose(means[~known], m2.classify(x[~known]), atol=1e-6)
    for made in (pv.simulate(m2.model, len(x), x, Y), pv.reconstruct(m2.model, m2.guide, x, Y)):
        assert torch.equal(made.latents["y"][known].long(), Y[known])


def test_gradients_are_finite_and_leave_the_classifier_out_where_labels_are_known(m2, x):
    m2.zero_grad()
    known = Y >= 0
    TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(m2.model, m2.guide, x[known], Y[known]).backward()
    grads = [p.grad for p in m2.classifier.parameters()]
    assert all(g is None or torch.equal(g, torch.zeros_like(g)) for g in grads)
    TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(m2.model, m2.guide, x, Y).backward()
    assert all(
        bool(p.grad.isfinite().all()) and bool(p.grad.abs().sum() > 0) for p in m2.classifier.parameters()
    )
