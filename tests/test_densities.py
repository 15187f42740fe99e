"""Joint densities of unconstrained latents: what a program's own sites say, with Jacobians and gradients."""

import math
import shutil

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.evidence.core.execution import Execution
from pyrovae.models.linear_gaussian import LinearGaussian
from pyrovae.programs import inspect_program, seeded
from pyrovae.programs.compile.compiled_densities import CompiledDensities
from pyrovae.programs.compile.partition import partition, placeholders
from pyrovae.programs.latents.densities import Densities

from . import handwritten as hw

F64 = torch.float64
compiles = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None,
    reason="no C++ compiler: nothing compiles here",
)


def f(value):
    return torch.tensor(value, dtype=F64)


def nested(x):
    """z2 lives in (0, z1); a simplex and an interval beside it, in an inner plate."""
    with pyro.plate("data", len(x), dim=-2):
        z1 = pyro.sample("z1", dist.Gamma(f(2.0), f(0.7)))
        z2 = pyro.sample("z2", dist.Uniform(f(0.0), z1))
        pyro.sample("w", dist.Dirichlet(torch.ones(3, dtype=F64) * 1.5))
        with pyro.plate("dims", 2, dim=-1):
            b = pyro.sample("b", dist.Beta(f(2.0), f(3.0)).expand([2]))
            pyro.sample("x", dist.Poisson(z2 * b + 0.1), obs=x)


def nested_guide(x):
    with pyro.plate("data", len(x), dim=-2):
        z1 = pyro.sample("z1", dist.Gamma(f(2.5), f(0.6)))
        pyro.sample("z2", dist.Uniform(f(0.0), z1))
        pyro.sample("w", dist.Dirichlet(torch.ones(3, dtype=F64)))
        with pyro.plate("dims", 2, dim=-1):
            pyro.sample("b", dist.Beta(f(1.5), f(1.5)).expand([2]))


COUNTS = torch.tensor([[0.0, 3.0], [1.0, 1.0], [5.0, 0.0]], dtype=F64)


def densities(model=nested, guide=nested_guide, args=(COUNTS,), chains=7):
    program = inspect_program(model, guide, *args)
    return Densities(program, torch.arange(len(args[0])), chains)


@pytest.mark.parametrize("start", ["prior", "guide"])
def test_one_vector_of_all_latents(start):
    d = densities()
    assert d.width == 1 + 1 + 2 + 2  # a simplex of 3 has 2 free coordinates
    with seeded(0, "test"):
        u = d.initial(start)
    assert u.shape == (7, 3, 6) and torch.isfinite(u).all()
    values = d.latents(u)
    assert values["w"].shape == (7, 3, 1, 3) and values["b"].shape == (7, 3, 2)
    assert ((values["z2"] > 0) & (values["z2"] < values["z1"])).all()
    z1, z2, w, b = (values[n] for n in ("z1", "z2", "w", "b"))
    prior = (
        dist.Gamma(f(2.0), f(0.7)).log_prob(z1) - z1.log() + dist.Dirichlet(w.new_full((3,), 1.5)).log_prob(w)
    )
    prior = prior.squeeze(-1) + dist.Beta(f(2.0), f(3.0)).log_prob(b).sum(-1)
    jacobian = z1.log() + z2.log() + (1 - z2 / z1).log()  # exp; then z1 sigmoid(u)
    jacobian = jacobian.squeeze(-1) + (b.log() + (1 - b).log()).sum(-1)
    simplex = torch.distributions.biject_to(torch.distributions.constraints.simplex)
    jacobian = jacobian + simplex.log_abs_det_jacobian(simplex.inv(w), w).squeeze(-1)
    torch.testing.assert_close(d.log_prior(u), prior + jacobian)
    likelihood = dist.Poisson(z2 * b + 0.1).log_prob(COUNTS).sum(-1)
    torch.testing.assert_close(d.log_likelihood(u), likelihood)
    guide = dist.Gamma(f(2.5), f(0.6)).log_prob(z1) - z1.log() + math.log(2)
    guide = guide.squeeze(-1) + dist.Beta(f(1.5), f(1.5)).log_prob(b).sum(-1)
    torch.testing.assert_close(d.log_guide(u), guide + jacobian)


def test_densities_of_u_integrate_to_one():
    """exp(log_prior) over a grid of (u1, u2), the support of the second hanging on the first."""

    def model(x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Gamma(f(2.0), f(0.7)))
            z2 = pyro.sample("z2", dist.Uniform(f(0.0), z1))
            pyro.sample("x", dist.Poisson(z2), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.LogNormal(f(1.0), f(0.8)))
            pyro.sample("z2", dist.Uniform(f(0.0), z1))

    x = torch.tensor([0.0, 2.0], dtype=F64)
    grid = torch.linspace(-25, 25, 401, dtype=F64)
    points = torch.cartesian_prod(grid, grid).unsqueeze(1).expand(-1, 2, -1)
    d = densities(model, guide, (x,), len(points))
    cell = 2 * (grid[1] - grid[0]).log()
    for values in (d.log_prior(points), d.log_guide(points)):
        torch.testing.assert_close(
            (values.logsumexp(0) + cell).exp(), torch.ones(2, dtype=F64), rtol=1e-5, atol=0
        )
    # A Gamma(2) times a uniform is exponential: p(x) = r / (1 + r)^(x + 1).
    joint = d.log_prior(points) + d.log_likelihood(points)
    exact = math.log(0.7) - (x + 1) * math.log(1.7)
    torch.testing.assert_close(joint.logsumexp(0) + cell, exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize("start", ["prior", "guide"])
def test_gradients(start):
    d = densities()
    with seeded(0, "test"):
        u = d.initial(start)
    base, slope, *grads = d.evaluate(u, start)
    terms = d.terms(u, guide=start == "guide")
    torch.testing.assert_close((base, slope), terms.along())
    for i in range(d.width):
        h = torch.zeros(d.width, dtype=F64)
        h[i] = 1e-5
        up, down = d.evaluate(u + h, start), d.evaluate(u - h, start)
        for part, grad in enumerate(grads):
            torch.testing.assert_close((up[part] - down[part]) / 2e-5, grad[..., i], rtol=1e-6, atol=1e-6)


AIS_CASES = [
    "two latents",
    "poutine.scale",
    "poutine.mask",
    ".mask()",
    "mask of dims",
    "inner plate",
    "subsample_size=len(x)",
    "x[ind], size fixed",
    "fixed plate",
    "context",
    "images",
    "per-datum parameters",
]


@pytest.mark.parametrize("name", AIS_CASES)
def test_weights_are_those_of_the_site_collector(name):
    """slope of the path from the guide = ln w, in every shape a pair can have (scales out, masks in)."""
    case = hw.CASES[name]()
    program = inspect_program(case.model, case.wrong, *case.args, **case.options)
    indices = program.arguments.chunks(hw.N)[0]
    d = Densities(program, indices, 4)
    for guide, exact in ((case.wrong, False), (case.exact, True)):
        d = Densities(inspect_program(case.model, guide, *case.args, **case.options), indices, 4)
        with seeded(5, "test"), torch.no_grad():
            u = d.initial("guide")
        base, slope, _, _ = d.evaluate(u, "guide")
        if exact:
            truth = case.log_evidence[indices].expand(4, -1)
            torch.testing.assert_close(slope[:, : len(indices)], truth, rtol=1e-9, atol=1e-9)
        else:
            with seeded(5, "test"), torch.no_grad():
                weights = d.program.run(indices, 4).log_weights()
            torch.testing.assert_close(slope[:, : len(indices)], weights, rtol=1e-9, atol=1e-9)
            assert torch.isfinite(base).all()


def test_given_latents_come_back():
    d = densities()
    with seeded(0, "test"):
        program = d.program
        trace = pyro.poutine.trace(program.model).get_trace(COUNTS)
    latents = {n: trace.nodes[n]["value"] for n in ("z1", "z2", "w", "b")}
    u = d.from_latents(latents)
    for name, value in d.latents(u).items():
        torch.testing.assert_close(value, latents[name].expand(7, *latents[name].shape))
    some = Densities(program, torch.tensor([2, 0]), 2)
    torch.testing.assert_close(some.from_latents(latents), u[:2, [2, 0]])


def test_draws_outside_of_the_support_are_marked():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Beta(f(2.0), f(2.0)))
            pyro.sample("x", dist.Normal(z, f(1.0)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(f(0.5), f(0.5)))

    x = torch.zeros(200, dtype=F64)
    d = Densities(inspect_program(model, guide, x, vectorised=True), torch.arange(200), 50)
    with seeded(0, "test"):
        u = d.initial("guide")
    share = torch.isfinite(u).double().mean()
    assert share == pytest.approx(0.6827, abs=4 * math.sqrt(0.22 / 10_000))


@pytest.mark.slow
@compiles
@pytest.mark.parametrize(("kind", "start"), [("nested", "prior"), ("modules", "guide")])
def test_compiled_is_the_same(kind, start):
    if kind == "nested":

        def model(x):
            with pyro.plate("data", len(x)):
                z1 = pyro.sample("z1", dist.LogNormal(f(0.5), f(0.7)))
                z2 = pyro.sample("z2", dist.Uniform(f(0.0), z1))
                pyro.sample("x", dist.Normal(z2, f(1.0)), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                z1 = pyro.sample("z1", dist.LogNormal(f(1.0), f(0.8)))
                pyro.sample("z2", dist.Uniform(f(0.0), z1))

        d, other = densities(model, guide, (COUNTS[:, 0],)), None
    else:
        torch.manual_seed(0)
        m = LinearGaussian.random(5, 2).double()
        x = torch.randn(6, 5, dtype=F64)
        program = inspect_program(m.model, m.guide, x)
        d, other = (Densities(program, torch.arange(3) + i, 7) for i in (0, 3))
    compiled = CompiledDensities(d, start)
    for some in filter(None, (d, other)):
        call = compiled.bind(some)
        for seed in range(2):
            with seeded(seed, "test"):
                u = some.initial(start)
            for got, expected in zip(call(u), some.evaluate(u, start), strict=True):
                torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    if kind == "modules":
        with torch.no_grad():
            m.bias += 1.0  # parameters are inputs of the graph
        with seeded(0, "test"):
            u = d.initial(start)
        torch.testing.assert_close(compiled.bind(d)(u)[1], d.evaluate(u, start)[1])
    with pytest.raises(ValueError, match="one shape"):
        compiled.bind(d)(u[:1])


def test_split_computes_what_does_not_vary_once():
    def compute(a, b):
        heavy = (a @ a).tanh()
        return [(heavy * b).sum(), heavy.sum() + b, b * 2]

    a, b = torch.randn(3, 3), torch.randn(3, 3)
    module = torch.fx.experimental.proxy_tensor.make_fx(compute)(a, b)
    once, each = partition(module, [0, 1])
    assert "mm" in once.module.code and "mm" not in each.module.code
    known = dict(zip(placeholders(module), (a, b), strict=True))
    got = each.run(known | once.run(known))
    for name, expected in zip(each.outputs, compute(a, b), strict=True):
        torch.testing.assert_close(got[name], expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("enumerated in the guide", "auxiliary or discrete sites"),
        ("fixed shape", "broadcasts over a particle plate"),
        ("auxiliary guide site", "auxiliary"),
    ],
)
def test_refusals(name, message):
    case = hw.CASES[name]()
    program = inspect_program(case.model, case.wrong, *case.args)
    with pytest.raises(ValueError, match=message):
        pv.AIS(3, 4).run(program, Execution())


def test_discrete_latents_are_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(f(0.3)))
            pyro.sample("x", dist.Normal(c, f(1.0)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Bernoulli(f(0.5)))

    with pytest.raises(ValueError, match=r"continuous latents alone, got discrete ones at \['c'\]"):
        densities(model, guide, (torch.zeros(3, dtype=F64),))


def classes(x, support=None):
    """z of a class that is summed out, c: ln p(x) is that of a mixture of two Gaussians."""
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Categorical(f([0.4, 0.6])), infer={"enumerate": "parallel"})
        law = dist.Normal(2.0 * c - 1.0, f(0.7)) if support is None else support(c)
        z = pyro.sample("z", law)
        pyro.sample("x", dist.Normal(z, f(0.5)), obs=x)


def of_classes(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.5 * x, f(0.8)))


@pytest.mark.slow
def test_classes_that_the_model_sums_out_are_summed_out_along_chains():
    x, estimators = f([0.3, -1.0, 1.5]), [pv.AIS(20, 100), pv.AIS(20, 100, start="prior"), pv.OwnIS(400)]

    def right(x):
        each = dist.Normal(f([-1.0, 1.0]), f(0.74).sqrt()).log_prob(x[:, None])
        return (f([0.4, 0.6]).log() + each).logsumexp(-1)

    found = pv.evidence(classes, of_classes, x, estimators=estimators, compile=False)
    for estimate in found.values():
        assert ((estimate.per_datum - right(x)).abs() < 4.5 * estimate.variance.sqrt()).all()
        assert estimate.variance.sqrt().max() < 0.1
    d = densities(classes, of_classes, (x,), chains=2)
    with seeded(0, "test"):
        u = d.initial("guide")
    z = d.latents(u)["z"]
    prior = (f([0.4, 0.6]).log() + dist.Normal(f([-1.0, 1.0]), f(0.7)).log_prob(z[..., None])).logsumexp(-1)
    torch.testing.assert_close(d.log_prior(u), prior)
    torch.testing.assert_close(d.log_likelihood(u), dist.Normal(z, f(0.5)).log_prob(x))
    bounds = pv.sandwich(classes, of_classes, x, simulate=20, ais=pv.AIS(40, 10), compile=False)
    for bound in (bounds.lower, bounds.upper, bounds.importance.lower, bounds.importance.upper):
        assert (bound - right(bounds.x)).mean().abs() < 0.1


def test_classes_that_move_a_support_or_are_all_there_is_are_refused():
    x = f([0.3, 0.5])
    with pytest.raises(ValueError, match=r"the same for all values of \['c'\].*at \['z'\]"):
        densities(lambda x: classes(x, lambda c: dist.Uniform(-1.0 - c, f(2.0))), of_classes, (x,))

    def alone(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(f([0.4, 0.6])), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(c.double(), f(0.5)), obs=x)

    with pytest.raises(ValueError, match=r"expected a continuous latent.*try pv.Exact"):
        densities(alone, lambda x: None, (x,))
    with pytest.raises(ValueError, match="a power of a sum is no sum of powers"):
        pv.thermodynamics.free_energy(classes, of_classes, x, temperatures=[1.0, 2.0], estimator=pv.AIS(3, 2))
