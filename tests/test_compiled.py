"""The compiled step: the numbers of the eager one given the same noise, for all that it takes on."""

import functools
import shutil
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule, PyroParam
from torch import nn

import pyrovae as pv
from pyrovae.objectives import BetaELBO, FreeBits
from pyrovae.programs.compile import decompositions
from pyrovae.programs.compile.tracing import UntraceableError, trace

from .pairs import D, L, Pair

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None,
    reason="no C++ compiler: nothing compiles here",
)

N = 12
ADAM = functools.partial(torch.optim.Adam, lr=1e-2)


@pytest.fixture(autouse=True)
def fresh():
    pyro.clear_param_store()
    torch.manual_seed(0)


def data():
    return (torch.rand(N, D, generator=torch.Generator().manual_seed(1)) > 0.5).float()


class Shared(Pair):
    """A prior that uses the guide's encoder."""

    def model(self, x):
        pyro.module("prior", self.enc)
        pyro.module("dec", self.dec)
        loc, raw = self.enc(torch.full((D,), 0.5)).chunk(2, -1)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.dec(z)).to_event(1), obs=x)


class Params:
    """pyro.param with constraints, two latents, a subsampling scale, a mask."""

    def model(self, x):
        w = pyro.param("w", lambda: torch.randn(L, D))
        scale = pyro.param("scale", torch.tensor(0.7), constraint=dist.constraints.positive)
        with pyro.plate("data", 100, subsample_size=len(x)):
            a = pyro.sample("a", dist.Normal(0.0, scale))
            z = pyro.sample("z", dist.Normal(a.unsqueeze(-1).expand(len(x), L), 1.0).to_event(1))
            with pyro.poutine.mask(mask=x[:, 0] > 0):
                pyro.sample("x", dist.Bernoulli(logits=z @ w).to_event(1), obs=x)

    def guide(self, x):
        v = pyro.param("v", lambda: torch.randn(D, L))
        s = pyro.param("s", torch.ones(L), constraint=dist.constraints.positive)
        with pyro.plate("data", 100, subsample_size=len(x)):
            a = pyro.sample("a", dist.Normal(x.mean(-1), 0.5))
            pyro.sample("z", dist.Normal(x @ v + a.unsqueeze(-1), s).to_event(1))


class Q(PyroModule):
    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(L))
        self.scale = PyroParam(torch.ones(L), constraint=dist.constraints.positive)

    def forward(self):
        return dist.Normal(self.loc, self.scale).to_event(1)


class Subsampled(Pair):
    """x[ind] in a plate that draws its own batch."""

    def model(self, x):
        pyro.module("dec", self.dec)
        with pyro.plate("data", len(x), subsample_size=5) as ind:
            z = pyro.sample("z", dist.Normal(torch.zeros(L), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.dec(z)).to_event(1), obs=x[ind])

    def guide(self, x):
        pyro.module("enc", self.enc)
        with pyro.plate("data", len(x), subsample_size=5) as ind:
            loc, raw = self.enc(x[ind]).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))


class WithPyroModule:
    """PyroModule parameters, plain and constrained."""

    def __init__(self):
        self.dec = PyroModule[nn.Linear](L, D)
        self.q = Q()

    def model(self, x):
        pyro.module("dec", self.dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(L), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.dec(z)).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.q())


OBJECTIVES = {
    "trace": Trace_ELBO,
    "mean-field": TraceMeanField_ELBO,
    "particles": lambda: Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1),
    "looped particles": lambda: Trace_ELBO(num_particles=2),
    "renyi": lambda: RenyiELBO(alpha=0.5, num_particles=4, vectorize_particles=True, max_plate_nesting=1),
    "iwae": lambda: RenyiELBO(num_particles=3),
    "beta, free bits": lambda: BetaELBO(FreeBits(TraceMeanField_ELBO(), 0.3), 0.7),
}
CASES = [(Pair, name) for name in OBJECTIVES] + [
    (p, "trace") for p in (Shared, Params, Subsampled, WithPyroModule)
]
# Code takes seconds to generate: these have every operation that is in one of the others, whose graphs run as traced.
GENERATED = {
    (Pair, "trace"),
    (Pair, "iwae"),
    (Pair, "beta, free bits"),
    (Params, "trace"),
    (Subsampled, "trace"),
}


def steps(pair, objective, compile, num=5, optim=ADAM, batches=None):
    """Losses and final parameters of some steps under the same noise."""
    pyro.clear_param_store()
    torch.manual_seed(3)
    pair = pair()
    store = pv.ParameterStore()
    svi = pv.SVI(store.bind(pair.model), store.bind(pair.guide), optim, objective, compile=compile)
    losses = []
    for i in range(num):
        torch.manual_seed(10 + i)
        with store.active():
            losses.append(svi.step(batches[i] if batches else data()))
    return torch.tensor(losses), store.state_dict(), svi


@pytest.mark.parametrize(("pair", "name"), CASES, ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_compiled_steps_are_the_eager_ones(pair, name, request):
    optim = ADAM
    if (pair, name) not in GENERATED:
        request.getfixturevalue("interpreted")
        optim = functools.partial(torch.optim.SGD, lr=1e-2)  # Adam does not see a gradient's size
    objective = OBJECTIVES[name]
    eager, weights, _ = steps(pair, objective(), compile=False, optim=optim)
    losses, compiled, svi = steps(pair, objective(), compile=True, optim=optim)
    assert svi.refused is None and svi.compiled_objective is not None
    torch.testing.assert_close(losses, eager, rtol=2e-5, atol=1e-4)
    for k, v in weights.items():
        torch.testing.assert_close(compiled[k], v, rtol=1e-3, atol=2e-4)


def test_noise_is_fresh_and_follows_the_seed(interpreted):
    losses, _, svi = steps(
        Pair, Trace_ELBO(), compile=True, num=4, optim=functools.partial(torch.optim.SGD, lr=0.0)
    )
    assert len(set(losses.tolist())) == 4
    torch.manual_seed(12)
    again = svi.step(data())
    assert abs(again - float(losses[2])) < 1e-4


def test_ragged_batches_have_a_graph_of_their_own():
    batches = [data(), data(), data()[:5], data(), data()[:5]]
    eager, weights, _ = steps(Pair, Trace_ELBO(), compile=False, batches=batches)
    losses, compiled, svi = steps(Pair, Trace_ELBO(), compile=True, batches=batches)
    assert svi.compiled_share == 3 / 5 and svi.compiled_objective.key[0][0] == (5, D)
    torch.testing.assert_close(losses, eager, rtol=2e-5, atol=1e-4)
    for k, v in weights.items():
        torch.testing.assert_close(compiled[k], v, rtol=1e-3, atol=2e-4)


def test_beta_anneals_without_recompilation(interpreted):
    objective = BetaELBO(Trace_ELBO(), 0.0)
    pair = Pair()
    svi = pv.SVI(pair.model, pair.guide, functools.partial(torch.optim.SGD, lr=0.0), objective, compile=True)
    losses = []
    for beta in (0.0, 0.0, 0.5, 1.0):
        objective.beta = beta
        torch.manual_seed(4)
        losses.append(svi.step(data()))
    graph = svi.compiled_objective
    reference = pv.SVI(
        pair.model, pair.guide, functools.partial(torch.optim.SGD, lr=0.0), Trace_ELBO(), compile=False
    )
    torch.manual_seed(4)
    assert abs(losses[-1] - reference.step(data())) < 1e-3
    assert abs((losses[1] + losses[3]) / 2 - losses[2]) < 1e-3  # linear in beta under the same noise
    assert abs(losses[3] - losses[1]) > 0.1 and svi.compiled_objective is graph


@pytest.mark.parametrize(
    "optim",
    [
        pyro.optim.Adam({"lr": 1e-2}),
        functools.partial(torch.optim.AdamW, lr=1e-2),
        functools.partial(torch.optim.SGD, lr=1e-2, momentum=0.9),
    ],
)
def test_optimizers(optim):
    _, weights, _ = steps(Pair, Trace_ELBO(), compile=False, optim=optim)
    if isinstance(optim, pyro.optim.PyroOptim):
        optim = pyro.optim.Adam({"lr": 1e-2})
    _, compiled, svi = steps(Pair, Trace_ELBO(), compile=True, optim=optim)
    assert svi.compiled_objective is not None
    for k, v in weights.items():
        torch.testing.assert_close(compiled[k], v, rtol=1e-3, atol=2e-4)


def test_the_fused_state_is_the_optimizers_own():
    _, _, svi = steps(Pair, Trace_ELBO(), compile=True, num=4)
    state = svi.optimizer.state_dict()["state"]
    assert len(state) == 4 and all(float(s["step"]) == 4 for s in state.values())
    assert all(float(s["exp_avg_sq"].sum()) > 0 for s in state.values())


class Refused:
    """Programs that are no graph: each runs eagerly, with the reason said."""

    def control_flow(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            loc = z if float(z.sum()) > -1e9 else -z  # never, but a graph cannot know
            pyro.sample("x", dist.Normal(loc.unsqueeze(-1).expand(-1, D), 1.0).to_event(1), obs=x)

    unregistered = nn.Linear(1, D)

    def trainable(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(self.unregistered(z.unsqueeze(-1)), 1.0).to_event(1), obs=x)

    def draws(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("a", dist.Normal(z, 1.0), obs=torch.empty(len(x)).geometric_(0.5))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1).expand(-1, D), 1.0).to_event(1), obs=x)

    norm = nn.BatchNorm1d(D)

    def normalises(self, x):
        pyro.module("norm", self.norm)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            loc = self.norm(z.unsqueeze(-1).expand(-1, D))
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("control_flow", "values"),
        ("trainable", "trainable"),
        ("draws", "draws by"),
        ("normalises", "BatchNorm"),
    ],
)
def test_what_is_no_graph_runs_eagerly_and_says_so(program, reason):
    model = getattr(Refused(), program)

    def guide(x):
        loc = pyro.param("loc", torch.zeros(()))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0))

    svi = pv.SVI(model, guide, ADAM, Trace_ELBO(), compile=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(4):
            assert svi.step(data()) == pytest.approx(svi.evaluate_loss(data()), rel=10)
    said = [str(w.message) for w in caught if "runs eagerly" in str(w.message)]
    assert len(said) == 1 and reason in said[0] and reason in svi.refused


def test_discrete_and_unknown_objectives_fall_back():
    pair = Pair()

    def guide(x):
        p = pyro.param("p", torch.tensor(0.5), constraint=dist.constraints.unit_interval)
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Bernoulli(p))

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.4))
            pyro.sample("x", dist.Normal(c.unsqueeze(-1).expand(-1, D), 1.0).to_event(1), obs=x)

    for m, g, loss, word in (
        (model, guide, Trace_ELBO(), "pathwise"),
        (pair.model, pair.guide, TraceGraph_ELBO(), "TraceGraph"),
    ):
        svi = pv.SVI(m, g, ADAM, loss, compile=True)
        with pytest.warns(UserWarning, match=word):
            svi.step(data())
            svi.step(data())
        assert svi.compiled_objective is None


def test_fit_compiled_equals_fit_eager():
    def run(compile):
        torch.manual_seed(0)
        pair = Pair()
        x = data().repeat(5, 1)
        return pv.fit(
            pair.model, pair.guide, x, epochs=3, batch_size=16, beta=pv.Warmup(2), seed=2, compile=compile
        )

    eager, compiled = run(False), run(True)
    for k, v in eager.store.state_dict().items():
        torch.testing.assert_close(compiled.store.state_dict()[k], v, rtol=1e-3, atol=2e-4)
    again = run(True)
    for k, v in compiled.store.state_dict().items():
        assert torch.equal(again.store.state_dict()[k], v)


def test_compile_argument():
    with pytest.raises(ValueError, match="compile"):
        pv.SVI(lambda: None, lambda: None, ADAM, Trace_ELBO(), compile="always")


def test_trace_refuses_writes_to_inputs():
    def write(leaves, inputs):
        inputs[0].add_(1.0)
        return [inputs[0].sum()]

    with pytest.raises(UntraceableError, match="in place"):
        trace(write, [], [torch.zeros(3)])


def test_decompositions_are_as_accurate_as_float32():
    x = torch.cat([torch.linspace(-90, 90, 20_001), torch.logspace(-8, 1, 500), -torch.logspace(-8, 1, 500)])
    exact = x.double()
    assert (decompositions.tanh(x).double() - torch.tanh(exact)).abs().max() < 1.5e-7
    for target in (0.0, 0.3, 1.0):
        y = torch.full_like(x, target)
        got = decompositions.binary_cross_entropy_with_logits(x, y, reduction=0).double()
        want = torch.nn.functional.binary_cross_entropy_with_logits(exact, y.double(), reduction="none")
        assert ((got - want).abs() <= 2e-7 + 1.5e-7 * want.abs()).all()
    assert decompositions.tanh(exact) is NotImplemented  # float64 keeps its own accuracy


@pytest.mark.parametrize("pair", [Pair, Shared, Params, WithPyroModule])
def test_compiled_weights_are_the_eager_ones(pair, request):
    """Also where the last chunks of data and samples are smaller, and with the module's live weights."""
    if (pair, "trace") not in GENERATED:
        request.getfixturevalue("interpreted")
    pair = pair()
    store = pv.ParameterStore()
    model, guide = store.bind(pair.model), store.bind(pair.guide)
    options = {"num_samples": 50, "chunk": pv.Chunk(5, 16), "seed": 4}
    eager = pv.log_weights(model, guide, data(), **options)
    torch.testing.assert_close(
        pv.log_weights(model, guide, data(), compile=True, **options), eager, rtol=1e-5, atol=1e-4
    )
    with torch.no_grad():
        for leaf in store.unconstrained().values():
            leaf.add_(0.1)
    moved = pv.log_weights(model, guide, data(), compile=True, **options)
    torch.testing.assert_close(moved, pv.log_weights(model, guide, data(), **options), rtol=1e-5, atol=1e-4)
    assert (moved - eager).abs().max() > 0.01


def test_weights_of_what_is_no_graph_run_eagerly():
    model = Refused().control_flow

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.1, 1.0))

    options = {"num_samples": 20, "chunk": pv.Chunk(5, 8)}
    with pytest.warns(UserWarning, match="runs eagerly"):
        lw = pv.log_weights(model, guide, data(), compile=True, **options)
    assert torch.equal(lw, pv.log_weights(model, guide, data(), **options))
