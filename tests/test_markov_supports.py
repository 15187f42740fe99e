"""Deep Markov models of values that are never 0, as what stands beyond a sequence's end is."""

import math

import pytest
import torch

import pyrovae as pv
from pyrovae.models.markov import DeepMarkov, Smoother, Transition


@pytest.mark.parametrize("kind", ["Gamma", "LogNormal", "Beta"])
def test_steps_beyond_the_end_have_no_part_in_value_or_gradient(kind):
    torch.manual_seed(0)
    lengths = torch.tensor([1, 2, 4, 3])
    x = torch.rand(4, 4, 2) * 0.8 + 0.1
    x = x * (torch.arange(4) < lengths[:, None])[..., None]
    emit = getattr(pv.likelihoods, kind)(pv.networks.MLP(2, (4,), 4))
    markov = DeepMarkov(Transition(2, 4), emit, Smoother(2, 2, 4))
    fit = pv.fit(markov.model, markov.guide, (x, lengths), epochs=2, compile=False)
    assert all(math.isfinite(row["elbo"]) for row in fit.history)
    whole = pv.evidence(fit.model, fit.guide, x, lengths, estimators=[pv.IS(2000)], seed=0)["IS"]
    short = pv.evidence(fit.model, fit.guide, x[:1, :1], lengths[:1], estimators=[pv.IS(2000)], seed=0)["IS"]
    se = (whole.variance[0] + short.variance[0]).sqrt()
    assert abs(whole.per_datum[0] - short.per_datum[0]) < 5 * se + 1e-4
