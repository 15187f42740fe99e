"""Programs whose evidence was wrong in silence: each against plain NumPy, or refused by name."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import pyrovae as pv

ENUMERATE = {"enumerate": "parallel"}
PI, MU = np.array([0.6, 0.4]), np.array([-1.0, 1.5])


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


# -- masks over enumerated sites --------------------------------------------------------------------------------------


def mixture(where):
    """c ~ Categorical, x ~ Normal(mu[c], 1), and a mask over the whole plate, over c alone, or inside the law of c."""

    def model(x, seen):
        over, inside = where in ("plate", "law and plate"), where in ("law", "law and plate")
        with pyro.plate("data", len(x)):
            law = dist.Categorical(torch.tensor(PI, dtype=x.dtype)).expand([len(x)])
            with poutine.mask(mask=seen if over or where == "latent" else torch.ones_like(seen)):
                c = pyro.sample("c", law.mask(seen) if inside else law, infer=ENUMERATE)
            with poutine.mask(mask=seen if over else torch.ones_like(seen)):
                pyro.sample("x", dist.Normal(torch.tensor(MU, dtype=x.dtype)[c], 1.0), obs=x)

    def guide(x, seen):
        with pyro.plate("data", len(x)), poutine.mask(mask=seen):
            pyro.sample("c", dist.Categorical(torch.tensor([0.3, 0.7], dtype=x.dtype)), infer=ENUMERATE)

    return model, guide


@pytest.mark.parametrize("side", ["model", "guide"])
@pytest.mark.parametrize("where", ["plate", "latent", "law", "law and plate"])
def test_a_mask_leaves_the_law_of_an_enumerated_latent_normalised(where, side):
    x, seen = torch.tensor([0.3, 0.3, -2.0], dtype=torch.float64), torch.tensor([True, False, True])
    model, guide = mixture(where)
    right = np.array([np.log((PI * np.exp(normal(v, MU))).sum()) for v in x.numpy()])
    if where in ("plate", "law and plate"):
        right = np.where(seen.numpy(), right, 0.0)
    check_all(right, figures(model, guide if side == "guide" else nothing, x, seen))


def chain(how):
    """A hidden Markov chain of each datum's own length."""
    start, move = torch.tensor([0.7, 0.3]).double(), torch.tensor([[0.9, 0.1], [0.4, 0.6]]).double()

    def model(x, lengths):
        shift = pyro.param("shift", torch.zeros(()).double())
        with pyro.plate("data", len(x)):
            state = None
            steps = pyro.markov(range(x.shape[1])) if how != "plain loop" else range(x.shape[1])
            for t in steps:
                with poutine.mask(mask=t < lengths):
                    law = dist.Categorical(start if state is None else move[state])
                    state = pyro.sample(f"s{t}", law, infer=ENUMERATE)
                    pyro.sample(f"x{t}", dist.Normal(torch.tensor(MU)[state] + shift, 1.0), obs=x[:, t])

    def forward(x, length):
        alpha = np.log(start.numpy())
        for t in range(length):
            if t:
                alpha = np.log(np.exp(alpha) @ move.numpy())
            alpha = alpha + normal(x[t], MU)
        return np.log(np.exp(alpha).sum()) if length else 0.0

    return model, forward


@pytest.mark.parametrize("how", ["markov", "plain loop"])
def test_a_chain_of_varying_length_has_the_evidence_of_the_forward_algorithm(how):
    torch.manual_seed(1)
    x, lengths = torch.randn(4, 4).double(), torch.tensor([4, 2, 0, 1])
    model, forward = chain(how)
    right = np.array([forward(v, n) for v, n in zip(x.numpy(), lengths.tolist(), strict=True)])
    check_all(right, figures(model, nothing, x, lengths))
    fit = pv.fit(model, nothing, (x, lengths), objective=pyro.infer.TraceEnum_ELBO(), epochs=1, lr=1e-12)
    assert fit.history[-1]["elbo"] == pytest.approx(right.mean(), abs=1e-5)


def labels(side):
    """Labels known for some data: c observed there, summed out elsewhere."""

    def model(x, label, known):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.tensor(PI)), obs=label, obs_mask=known)
            pyro.sample("x", dist.Normal(torch.tensor(MU)[c], 1.0), obs=x)

    def guide(x, label, known):
        with pyro.plate("data", len(x)), poutine.mask(mask=~known):
            pyro.sample("c_unobserved", dist.Categorical(torch.tensor([0.5, 0.5]).double()), infer=ENUMERATE)

    if side == "guide":
        return model, guide
    return pyro.infer.config_enumerate(model, "parallel"), nothing


@pytest.mark.parametrize("side", ["model", "guide"])
def test_labels_known_for_some_data_count_once(side):
    x = torch.tensor([0.3, 0.3, -0.5], dtype=torch.float64)
    label, known = torch.tensor([1, 0, 0]), torch.tensor([True, False, True])
    joint = np.log(PI) + normal(x.numpy()[:, None], MU)
    right = np.where(known, joint[np.arange(3), label], np.log(np.exp(joint).sum(1)))
    model, guide = labels(side)
    check_all(right, figures(model, guide, x, label, known))
