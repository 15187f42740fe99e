"""ln p(x) of a program by every way there is, held against plain NumPy."""

import math

import numpy as np
import torch

import pyrovae as pv

F64 = torch.float64
X = torch.tensor([0.3, -0.5, 1.0], dtype=F64)
# Every function that takes a pair and data.
CALLS = {
    "log_weights": lambda m, g, x=X: pv.log_weights(m, g, x, num_samples=5),
    "evidence": lambda m, g, x=X: pv.evidence(m, g, x),
    "AIS": lambda m, g, x=X: pv.evidence(m, g, x, estimators=[pv.AIS(4, 2)]),
    "posterior": lambda m, g, x=X: pv.posterior(m, g, x, num_samples=5),
    "sandwich": lambda m, g, x=X: pv.sandwich(m, g, x, simulate=3),
    "free_energy": lambda m, g, x=X: pv.thermodynamics.free_energy(m, g, x, temperatures=[1.0, 2.0]),
    "gaps": lambda m, g, x=X: pv.gaps(m, g, x, num_samples=5),
    "fit": lambda m, g, x=X: pv.fit(m, g, x, epochs=1),
}


def normal(x, loc, scale=1.0):
    return -0.5 * ((x - loc) / scale) ** 2 - np.log(scale) - 0.5 * math.log(2 * math.pi)


def nothing(*_):
    pass


def figures(model, guide, *args, exact=True, **options):
    """ln p(x_n) by every way there is: log-weights eager and compiled, IS, Exact, the history of a fit."""
    k = options.pop("num_samples", 3)
    found = {
        "log_weights": pv.log_weights(model, guide, *args, num_samples=k, **options).double()[0],
        "IS": pv.evidence(model, guide, *args, estimators=[pv.IS(k)], **options).per_datum["IS"],
    }
    if exact:
        found["Exact"] = pv.evidence(model, guide, *args, estimators=[pv.Exact()], **options).per_datum[
            "Exact"
        ]
    return found


def check_all(right, found, tolerance=2e-5):
    for name, value in found.items():
        np.testing.assert_allclose(value, right, rtol=0, atol=tolerance, err_msg=name)
