"""Gradients of IWAE, STL and DReG: the right mean, and a small variance where the theory says so."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

import pyrovae as pv
from pyrovae.models.vae import VAE
from pyrovae.objectives import IWAE, STL, DReG

from . import handwritten as hw
from .test_importance_objectives import F64, OBJECTIVES, ZERO

# Gradients ------------------------------------------------------------------------------------------------
# Every datum is a repeat: it has its own copy of all parameters, so one run gives R independent gradients.

R = 20000
X0 = 1.4


def repeats(start, r=R):
    return {k: torch.full((r,), float(v), dtype=F64, requires_grad=True) for k, v in start.items()}


def gradients(objective, program, start, r=R, seed=0):
    """Means and standard errors of the gradient of -loss, by parameter."""
    parameters = repeats(start, r)
    model, guide = program(parameters)
    torch.manual_seed(seed)
    loss = objective.differentiable_loss(model, guide, torch.full((r,), X0, dtype=F64))
    grads = torch.autograd.grad(-loss, list(parameters.values()))
    return {
        k: (float(g.mean()), float(g.std()) / math.sqrt(r)) for k, g in zip(parameters, grads, strict=True)
    }


def single(v):
    """x ~ N(z + shift, 1), z ~ N(0, 1)."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(ZERO, 1.0))
            pyro.sample("x", dist.Normal(z + v["shift"], 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(v["a"] * x + v["b"], v["log_s"].exp()))

    return model, guide


def shared(v):
    """As a VampPrior: the prior is a mixture of the guide at two pseudo-inputs, which are learned."""

    def q(x):
        return dist.Normal(v["a"] * x + v["b"], v["log_s"].exp())

    def mixture():
        us = torch.stack([v["u1"], v["u2"]], -1)
        parts = dist.Normal(v["a"][:, None] * us + v["b"][:, None], v["log_s"].exp()[:, None].expand(-1, 2))
        return dist.MixtureSameFamily(dist.Categorical(torch.ones(len(us), 2, dtype=F64)), parts)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", mixture())
            pyro.sample("x", dist.Normal(z + v["shift"], 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", q(x))

    return model, guide


def bottom_up(v):
    """Two levels; h2's distribution depends on the draw of h1: its path carries gradient."""

    def model(x):
        with pyro.plate("data", len(x)):
            h2 = pyro.sample("h2", dist.Normal(v["m"], 1.0))
            h1 = pyro.sample("h1", dist.Normal(h2, 1.0))
            pyro.sample("x", dist.Normal(h1, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            h1 = pyro.sample("h1", dist.Normal(v["a"] * x + v["b"], v["log_s"].exp()))
            pyro.sample("h2", dist.Normal(v["c"] * h1 + v["d"], v["log_t"].exp()))

    return model, guide


START = {
    single: {"shift": 0.3, "a": 0.2, "b": -0.3, "log_s": -0.1},
    shared: {"shift": 0.3, "a": 0.6, "b": -0.1, "log_s": -0.2, "u1": -0.5, "u2": 1.1},
    bottom_up: {"m": 0.2, "a": 0.4, "b": 0.3, "log_s": 0.1, "c": 0.2, "d": 0.1, "log_t": 0.1},
}


def agree(first, second=None, sigmas=4.5):
    for name, (mean, se) in first.items():
        other, se2 = second[name] if isinstance(second[name], tuple) else (second[name], 0.0)
        assert abs(mean - other) < sigmas * math.hypot(se, se2) + 1e-12, (name, mean, se, other, se2)


@pytest.mark.parametrize("program", [single, shared, bottom_up])
@pytest.mark.parametrize("vectorize", [True, False])
def test_means_of_gradients(program, vectorize):
    """DReG has IWAE's mean, STL the ELBO's; also with parameters that model and guide share."""
    r = R if vectorize else 4000
    start, options = START[program], {"vectorize_particles": vectorize}
    plain = gradients(IWAE(4), program, start)
    dreg = gradients(DReG(4, **options), program, start, r, seed=1)
    agree(dreg, plain)
    elbo = gradients(IWAE(1), program, start)
    agree(gradients(STL(3, **options), program, start, r, seed=1), elbo)
    # They are not the same: the test would see the one for the other.
    with pytest.raises(AssertionError):
        agree(gradients(STL(3), program, start, seed=1), plain)


def quadrature(v, beta, nodes=60):
    """The exact objective of two draws, by Gauss-Hermite over both noises: an independent ground truth."""
    e, w = np.polynomial.hermite_e.hermegauss(nodes)
    e, w = torch.tensor(e), torch.tensor(w / w.sum())
    s = v["log_s"].exp()
    z = v["a"] * X0 + v["b"] + s * e
    q = dist.Normal(v["a"] * X0 + v["b"], s).log_prob(z)
    if "u1" in v:
        p = [dist.Normal(v["a"] * v[u] + v["b"], s).log_prob(z) for u in ("u1", "u2")]
        prior = torch.logaddexp(*p) - math.log(2)
    else:
        prior = dist.Normal(ZERO, 1.0).log_prob(z)
    lw = dist.Normal(z + v["shift"], 1.0).log_prob(torch.tensor(X0, dtype=F64)) + beta * (prior - q)
    two = torch.logaddexp(lw[:, None], lw[None]) - math.log(2)
    return (w[:, None] * w[None] * two).sum(), (w * lw).sum()


@pytest.mark.parametrize("program", [single, shared])
@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0, 2.5])
def test_gradients_against_quadrature(program, beta):
    start = START[program]
    v = {k: torch.tensor(x, dtype=F64, requires_grad=True) for k, x in start.items()}
    two, one = quadrature(v, beta)

    def exact(value):
        grads = torch.autograd.grad(value, list(v.values()), allow_unused=True, retain_graph=True)
        return {k: 0.0 if g is None else float(g) for k, g in zip(v, grads, strict=True)}

    def weighed(objective):  # through the handlers, as BetaELBO does
        class Weighed:
            def differentiable_loss(self, model, guide, x):
                from pyrovae.programs.handlers.scaling import scale_latents

                return objective.differentiable_loss(
                    scale_latents(model, beta), scale_latents(guide, beta), x
                )

        return Weighed()

    agree(gradients(weighed(IWAE(2)), program, start), exact(two))
    agree(gradients(weighed(DReG(2)), program, start, seed=1), exact(two))
    agree(gradients(weighed(STL(2)), program, start, seed=2), exact(one))


def test_variance_near_the_optimum():
    """At the exact guide STL's gradient is zero, and DReG's for the guide; close to it both stay small."""
    exact = {"shift": 0.0, "a": 0.5, "b": 0.0, "log_s": math.log(0.5) / 2}
    guide_only = ("a", "b", "log_s")
    for objective in (STL(), STL(5), DReG(5)):
        got = gradients(objective, single, exact, 100)
        assert max(abs(m) + s for m, s in (got[k] for k in guide_only)) < 1e-12
    for objective, k in ((Trace_ELBO(), 1), (IWAE(5), 5)):
        plain = gradients(IWAE(k), single, exact, 1000)
        assert plain["log_s"][1] > 1e-3, objective
    near = {**exact, "b": 0.02, "log_s": exact["log_s"] + 0.02}
    for ours, plain in ((STL(5), IWAE(1)), (DReG(5), IWAE(5))):
        small, large = gradients(ours, single, near, 2000), gradients(plain, single, near, 2000)
        assert all(small[k][1] < 0.2 * large[k][1] for k in guide_only)


def test_exact_hierarchical_guide():
    """h1 | x ~ N(2x/3, 2/3), h2 | h1 ~ N(h1/2, 1/2): zero too, where the guide has two levels."""
    exact = {"m": 0.0, "a": 2 / 3, "b": 0.0, "log_s": math.log(2 / 3) / 2, "c": 0.5, "d": 0.0}
    exact["log_t"] = math.log(0.5) / 2
    for objective in (STL(), DReG(4)):
        got = gradients(objective, bottom_up, exact, 100)
        assert max(abs(m) + s for k, (m, s) in got.items() if k != "m") < 1e-12


def test_signal_to_noise_of_many_particles():
    """IWAE's gradient for the guide drowns as K grows (Rainforth et al. 2018); DReG's does not."""

    def ratio(objective):
        mean, se = gradients(objective, single, START[single], 3000)["b"]
        return abs(mean) / (se * math.sqrt(3000))

    assert ratio(DReG(256)) > ratio(DReG(4)) > ratio(IWAE(4)) > ratio(IWAE(256))


def test_shared_parameters_of_a_vamp_prior():
    """The library's own VampPrior: gradients of DReG and IWAE agree for every tensor."""
    torch.manual_seed(0)
    guide = pv.guides.DiagonalGaussian(nn.Linear(3, 4), latent_dim=2)
    prior = pv.priors.VampPrior(guide, torch.randn(4, 3))
    vae = VAE(prior=prior, likelihood=pv.likelihoods.Gaussian(nn.Linear(2, 3)), guide=guide).double()
    x = hw.X
    sums = {}
    for i, objective in enumerate((IWAE(4), DReG(4))):
        torch.manual_seed(i)
        draws = []
        for _ in range(300):
            vae.zero_grad()
            objective.loss_and_grads(vae.model, vae.guide, x.repeat(20, 1))
            draws.append(torch.cat([p.grad.flatten() for p in vae.parameters()]) / 20)
        draws = torch.stack(draws)
        sums[i] = draws.mean(0), draws.std(0) / math.sqrt(len(draws))
    z = (sums[0][0] - sums[1][0]) / torch.hypot(sums[0][1], sums[1][1])
    assert z.abs().max() < 4.8 and z.square().mean() < 2.0  # 49 numbers


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("program", [single, bottom_up])
def test_traced_gradients_are_the_eager_ones(name, program):
    """make_fx with fake tensors: nothing reads a number back, and the hooks of DReG are in the graph."""
    objective = OBJECTIVES[name]()
    x = torch.tensor([0.4, -1.0, 2.0], dtype=F64)
    values = repeats(START[program], 3)
    leaves = list(values.values())
    model, guide = program(values)

    def step(leaves, x):
        values.update(zip(START[program], leaves, strict=True))
        with pyro.validation_enabled(False):
            surrogate, value = objective.surrogate_and_value(model, guide, x)
        return [value.detach(), *torch.autograd.grad(surrogate, leaves, allow_unused=True)]

    objective.loss(model, guide, x)  # looks at the program, as the first step of SVI does
    graph = make_fx(step, tracing_mode="fake", _allow_non_fake_inputs=True)(leaves, x)
    torch.manual_seed(5)
    traced = graph(leaves, x)
    torch.manual_seed(5)
    eager = step(leaves, x)
    for a, b in zip(traced, eager, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b)
    assert any(g is not None and (g != 0).any() for g in eager[1:])
