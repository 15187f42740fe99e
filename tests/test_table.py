"""The whole table of parts, by the scripts' names, on data that suit the likelihood."""

import dataclasses
import functools
import itertools
import math
from typing import get_args

import pytest
import torch

import pyrovae as pv
from pyrovae.inference.options.building import build, build_objective
from pyrovae.inference.options.options import (
    GuideName,
    LikelihoodName,
    ModelOptions,
    ObjectiveName,
    PriorName,
)
from pyrovae.inference.options.rbm_parts import PHASES

PRIORS = get_args(PriorName)
# The guides of hierarchical models have tests of their own.
GUIDES = tuple(name for name in get_args(GuideName) if name not in ("bottom-up", "top-down"))
# One row each: what they share with a law in the table is tested there.
ALIKE = ("negative-binomial", "zero-inflated-negative-binomial", "log-normal", "beta", "student-t")
LIKELIHOODS = tuple(name for name in get_args(LikelihoodName) if name not in ("auto", *ALIKE))
SIZES = {
    "latent_dim": 2,
    "hidden": (16,),
    "components": 3,
    "flow_hidden": (8,),
    "flow_transforms": 1,
    "rank": 1,
    "guide_components": 2,
    "likelihood_components": 2,
}


@functools.cache
def data_for(likelihood):
    """Few data of the kind that the likelihood is a density of."""
    if likelihood == "bernoulli":
        data = pv.data.load("digits", binarise="static")
    elif likelihood == "continuous-bernoulli":
        data = pv.data.load({"x": pv.data.load("digits").train / 16})
    elif likelihood in ("gamma", "log-normal"):
        data = pv.data.load({"x": pv.data.load("linear-gaussian").train.exp()})
    elif likelihood == "beta":
        data = pv.data.load({"x": pv.data.load("linear-gaussian").train.sigmoid()})
    elif "gaussian" in likelihood or likelihood == "student-t":
        data = pv.data.load("linear-gaussian")
    else:
        data = pv.data.load("digits")
    return dataclasses.replace(data, train=data.train[:128], valid=data.valid[:32], test=data.test[:16])


def trained(data, objective="trace-elbo", **names):
    pair = build(ModelOptions(**names, **SIZES), data, seed=0)
    # Away from the mean image, where few steps on bits have little to gain.
    torch.nn.init.zeros_(pair.model.__self__.likelihood.net.output_bias)
    return pv.fit(*pair, data, objective=build_objective(objective), epochs=4, batch_size=32, lr=2e-2, seed=1)


def check(fit, data):
    figures = [v for row in fit.history for v in row.values()]
    assert all(math.isfinite(v) for v in figures)
    elbo = [row["valid_elbo"] for row in fit.history]
    assert elbo[-1] > elbo[0] + 0.5, elbo
    ev = pv.evidence(fit.model, fit.guide, data.test, estimators=[pv.ELBO(), pv.IS(20)])
    assert ev["IS"].per_datum.isfinite().all()
    assert (ev["IS"].per_datum >= ev["ELBO"].per_datum - 1e-3).all()  # Jensen holds draw by draw


# All pairs of parts in a sixth of their product: every prior meets every guide and every likelihood, and every guide
# meets every likelihood.
ROWS = [
    (prior, GUIDES[(i + j) % len(GUIDES)], likelihood)
    for (i, prior), (j, likelihood) in itertools.product(enumerate(PRIORS), enumerate(LIKELIHOODS))
]


def test_all_pairs_are_there():
    for a, b in itertools.combinations(range(3), 2):
        names = (PRIORS, GUIDES, LIKELIHOODS)
        assert {(row[a], row[b]) for row in ROWS} == set(itertools.product(names[a], names[b]))


@pytest.mark.parametrize(
    ("prior", "guide", "likelihood"), [*ROWS, *(("vamp", "flow", name) for name in ALIKE)]
)
def test_every_combination_trains(prior, guide, likelihood):
    data = data_for(likelihood)
    check(trained(data, prior=prior, guide=guide, likelihood=likelihood), data)


OBJECTIVES = [
    name for name in get_args(ObjectiveName) if name not in PHASES
]  # those train Boltzmann machines


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_trains(objective):
    data = data_for("binomial")
    guide = GUIDES[OBJECTIVES.index(objective) % len(GUIDES)]
    check(trained(data, objective, prior="vamp", guide=guide, likelihood="binomial"), data)
