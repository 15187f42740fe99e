"""Log-weights of any program against exact evidence; chunks, memory, random state, modes."""

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyrovae as pv
from pyrovae.evidence.core.chunks import choose_chunk
from pyrovae.evidence.core.execution import Execution
from pyrovae.evidence.core.log_weights import iterate
from pyrovae.evidence.estimators.importance_sampling import block_curve
from pyrovae.evidence.weights.diagnostics import effective_sample_size
from pyrovae.models.linear_gaussian import LinearGaussian
from pyrovae.programs import ParameterStore, inspect_program
from pyrovae.programs.compile.compiled_weights import CompiledWeights
from pyrovae.programs.compile.noise import Noise
from pyrovae.programs.memory import LiveBytes, bytes_per_pair

from . import handwritten as hw

F64 = torch.float64
CHUNK = pv.Chunk(4, 128)


@pytest.fixture(params=hw.CASES)
def case(request):
    with warnings.catch_warnings():
        # "fixed shape" and "mixes particles" fall back to a loop, with a warning (tested below).
        warnings.filterwarnings("ignore", "this program gives other numbers")
        yield hw.CASES[request.param]()


def draw(case, guide, num_samples, **options):
    return pv.log_weights(case.model, guide, *case.args, num_samples=num_samples, **case.options, **options)


def check_against(exact, log_weights):
    """IS within 4 SE of the exact evidence, datum by datum and in the mean."""
    k = len(log_weights)
    estimate = log_weights.logsumexp(0) - math.log(k)
    se = (1 / effective_sample_size(log_weights) - 1 / k).sqrt()
    assert (se > 1e-4).all(), "the guide is not wrong enough to test anything"
    assert (se < 0.3).all(), "the guide is too wrong to test anything"
    assert ((estimate - exact).abs() < 4 * se).all(), (estimate - exact) / se
    assert abs((estimate - exact).mean()) < 4 * se.square().mean().sqrt() / math.sqrt(len(se))


def test_exact_guide(case):
    if case.exact is None:
        return
    lw = draw(case, case.exact, 9)
    assert lw.shape == (9, hw.N) and lw.dtype == F64
    assert (lw - case.log_evidence).abs().max() < 1e-9
    # Chunks of one datum, and of samples that do not divide K.
    assert (draw(case, case.exact, 9, chunk=pv.Chunk(1, 4)) - case.log_evidence).abs().max() < 1e-9


def test_wrong_guide(case):
    lw = draw(case, case.wrong, 5000 if case.vectorised else 300)
    check_against(case.log_evidence, lw)


def test_how_it_is_run(case):
    program = inspect_program(case.model, case.wrong, *case.args, **case.options)
    assert (program.arguments.calling, program.vectorised) == (case.calling, case.vectorised)


def test_particles_mixed_in_silence_are_noticed():
    case = hw.mixes_particles()
    with pytest.warns(UserWarning, match="other numbers when samples are vectorised"):
        program = inspect_program(case.model, case.wrong, *case.args)
    assert not program.vectorised
    # Forced, it would be far off: it is seen as it runs.
    forced = inspect_program(case.model, case.wrong, *case.args, vectorised=True)
    with pytest.raises(ValueError, match="log-density of one sample is its own"):
        list(iterate(forced, 2000))


def test_particles_mixed_before_an_enumerated_site_are_noticed():
    case = hw.enumerated_in_model()

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(hw.PI), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(hw.CENTRES[c], 1.0).to_event(1))
            mixed = z.reshape(len(x), -1, hw.L).transpose(0, 1)
            pyro.sample("x", hw.likelihood(mixed), obs=x)

    with (
        pytest.warns(UserWarning, match="other numbers"),
        pytest.raises(ValueError, match="program that broadcasts over a particle plate"),
    ):
        pv.log_weights(model, case.wrong, hw.X, num_samples=3)


# The oracle ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def oracle():
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(6, 3, generator=generator, dtype=F64)
    noise = 0.2 + torch.rand(6, generator=generator, dtype=F64)
    model = LinearGaussian(weight, torch.randn(6, generator=generator, dtype=F64), noise, learn=False)
    x = 2 * torch.randn(40, 6, generator=generator, dtype=F64)

    def wrong(x):
        q = model.posterior(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(q.loc + 0.2, 1.7 * q.covariance_matrix))

    return model, wrong, x


@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-9), (torch.float32, 1e-3)])
def test_oracle_exact(oracle, dtype, tolerance):
    model, _, x = oracle
    exact = model.log_evidence(x)
    model = LinearGaussian(model.weight.to(dtype), model.bias.to(dtype), model.log_noise.exp().to(dtype))
    lw = pv.log_weights(model.model, model.guide, x.to(dtype), num_samples=50)
    assert lw.dtype == F64  # sites are summed in float64, whatever the program runs in
    assert (lw - exact).abs().max() < tolerance


def test_oracle_wrong_guide(oracle):
    model, wrong, x = oracle
    lw = pv.log_weights(model.model, wrong, x, num_samples=5000)
    exact = model.log_evidence(x)
    check_against(exact, lw)
    # E[w] / p(x) = 1, over all draws at once.
    ratio = (lw - exact).exp().flatten()
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(len(ratio))
    # L_K over disjoint blocks never falls with K, and stays below ln p(x), within errors.
    curve = {k: v for k, v in block_curve(lw).items() if k <= 512}
    means = torch.stack([v.mean() for v in curve.values()])
    spread = torch.stack(
        [
            (lw[: 5000 // k * k].reshape(-1, k, len(x)).logsumexp(1) - math.log(k))
            .std(0)
            .square()
            .sum()
            .sqrt()
            / len(x)
            / math.sqrt(5000 // k)
            for k in curve
        ]
    )
    assert (means.diff() > -4 * (spread[1:] ** 2 + spread[:-1] ** 2).sqrt()).all()
    assert (means < exact.mean() + 4 * spread).all()
    assert means[3] - means[0] > 0.1, "the bound must tighten"


# Chunks and noise ----------------------------------------------------------------------------


@pytest.mark.parametrize("num_samples", [1, 7, 129, 5000])
def test_exactly_k_samples(num_samples, oracle):
    model, wrong, x = oracle
    lw = pv.log_weights(model.model, wrong, x[:3], num_samples=num_samples, chunk=CHUNK)
    assert lw.shape == (num_samples, 3)
    assert len(lw[:, 0].unique()) == num_samples, "each sample its own noise"


def test_equal_chunks_give_equal_numbers(oracle):
    model, wrong, x = oracle
    first = pv.log_weights(model.model, wrong, x, num_samples=300, chunk=CHUNK, seed=3)
    torch.randn(17)
    pv.log_weights(model.model, wrong, x[:9], num_samples=11)
    again = pv.log_weights(model.model, wrong, x, num_samples=300, chunk=CHUNK, seed=3)
    assert torch.equal(first, again)
    # A chunk's noise depends on its place alone: any part is what it is in the whole.
    program = inspect_program(model.model, wrong, x)
    for indices, block in reversed(list(iterate(program, 300, Execution(3), chunk=CHUNK))):
        assert torch.equal(first[:, indices], block)
    shorter = pv.log_weights(model.model, wrong, x[:8], num_samples=256, chunk=CHUNK, seed=3)
    assert torch.equal(first[:256, :8], shorter)
    assert not torch.equal(first, pv.log_weights(model.model, wrong, x, num_samples=300, chunk=CHUNK, seed=4))
    # The noise of different data is different, inside a chunk and between chunks.
    ratio = first - model.log_evidence(x)
    assert len(ratio[0].unique()) == len(x)
    # The same twice without a chunk given: the choice is not a matter of luck.
    auto = [pv.log_weights(model.model, wrong, x, num_samples=200, budget=10**6) for _ in range(2)]
    assert torch.equal(*auto)


def test_memory_does_not_grow_with_k(oracle):
    model, wrong, x = oracle
    program = inspect_program(model.model, wrong, x[:8])
    peaks = {}
    for num_samples in (500, 5000):
        with LiveBytes() as counter:
            for _, block in iterate(program, num_samples, chunk=pv.Chunk(4, 100)):
                size = block.untyped_storage().nbytes()
                del block
        peaks[num_samples] = counter.peak
        # The blocks of two chunks of data may be alive at once.
        assert counter.peak > size == 8 * 4 * num_samples
        peaks[num_samples] -= size
    extra = 8 * 4 * (5000 - 500)  # one more block, no more
    assert peaks[5000] - peaks[500] <= extra + 10_000
    peaks = {}
    for num_samples in (500, 5000):
        with LiveBytes() as counter:
            for _ in iterate(inspect_program(model.model, wrong, x[:4]), num_samples, chunk=pv.Chunk(4, 100)):
                pass
        peaks[num_samples] = counter.peak - 8 * 4 * num_samples
    assert peaks[500] > 8 * 4 * 100 * 6
    # Two passes of size K, inside _check_weights, of one byte a weight: no tensors of the program.
    assert peaks[5000] <= max(peaks[500], 3 * 4 * 5000 + 10_000)


def test_the_chunk_does_not_depend_on_when_garbage_is_collected():
    """Tensors in reference cycles, as of inverses of transforms, live until then: other chunks, and so other noise."""

    def model(x, cycles):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(8), 1.0).to_event(1))
            for _ in range(10):
                tensors = [z.exp().unsqueeze(-1) * torch.ones(64)]
                if cycles:
                    tensors.append(tensors)
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x, cycles):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 1.0).to_event(1))

    x = torch.zeros(4, 8)
    with_cycles, without = (bytes_per_pair(inspect_program(model, guide, x, c)) for c in (True, False))
    assert with_cycles == pytest.approx(without, rel=0.01)


def test_budget_bounds_the_chunk(oracle):
    model, wrong, x = oracle
    program = inspect_program(model.model, wrong, x)
    one = bytes_per_pair(program)
    assert 8 * 6 <= one <= 8 * 6 * 40
    small = choose_chunk(program, 5000, budget=one * 60)
    assert small.data * small.samples <= 60
    assert choose_chunk(program, 5000, budget=1) == pv.Chunk(1, 1)
    with pytest.raises(ValueError, match="budget"):
        choose_chunk(program, 5000, budget=-1)
    with pytest.raises(ValueError, match="at least one datum"):
        pv.Chunk(0, 5)


@pytest.mark.parametrize("bad", [0, -3, 2.0, True, None, "5"])
def test_bad_k(bad, oracle):
    model, wrong, x = oracle
    with pytest.raises(ValueError, match="num_samples"):
        pv.log_weights(model.model, wrong, x, num_samples=bad)
    if bad is not None:
        with pytest.raises(ValueError, match="num_samples"):
            pv.ELBO(bad)
        with pytest.raises(ValueError, match="num_samples"):
            pv.IS(bad)


def test_random_state_untouched(oracle):
    model, wrong, x = oracle
    torch.manual_seed(5)
    before = torch.get_rng_state()
    pv.log_weights(model.model, wrong, x, num_samples=10)
    pv.evidence(model.model, wrong, x[:5], estimators=[pv.IS(50)])
    inspect_program(model.model, wrong, x)
    assert torch.equal(before, torch.get_rng_state())


def test_abandoned_run_leaves_nothing_on(oracle):
    model, wrong, x = oracle
    blocks = iterate(inspect_program(model.model, wrong, x), 5, chunk=pv.Chunk(2, 5))
    next(blocks)
    assert torch.is_grad_enabled()
    assert torch.distributions.Distribution._validate_args

    class Fails(pv.IS):
        def estimate(self, log_weights):
            raise RuntimeError("as it happens")

    with pytest.raises(RuntimeError, match="as it happens") as kept:
        pv.evidence(model.model, wrong, x, estimators=[Fails(10)])
    assert torch.is_grad_enabled() and kept is not None


# Modules and parameters ----------------------------------------------------------------------


class Noisy(nn.Module):
    """An encoder whose training mode would spoil the numbers, and whose state must not move."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.BatchNorm1d(hw.D), nn.Dropout(0.5), nn.Linear(hw.D, hw.L)).double()

    def forward(self, x):
        return self.net(x)


def test_evaluates_in_eval_mode_and_restores():
    torch.manual_seed(0)
    net = Noisy()
    net.net[0].eval()  # a mixed state is restored as it was

    def guide(x):
        loc = net(x)
        seen.append(net.net[1].training)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 0.7).to_event(1))

    seen = []
    modes = [m.training for m in net.modules()]
    state = {k: v.clone() for k, v in net.state_dict().items()}
    first = pv.log_weights(hw.plain_model, guide, hw.X, num_samples=2000)
    assert not any(seen)
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    net.eval()
    assert torch.equal(first, pv.log_weights(hw.plain_model, guide, hw.X, num_samples=2000))
    net.train()

    def broken(x):
        net(x)
        raise RuntimeError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        pv.log_weights(hw.plain_model, broken, hw.X, num_samples=2)
    assert net.training and net.net[1].training


def test_bound_programs_leave_the_global_store_alone():
    store = ParameterStore()

    def guide(x):
        loc = pyro.param("loc", torch.zeros(hw.L, dtype=F64))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1).expand([len(x)]))

    pv.evidence(store.bind(hw.plain_model), store.bind(guide), hw.X, estimators=[pv.IS(10)])
    assert list(store.unconstrained()) == ["loc"]
    assert not list(pyro.get_param_store().keys())


def test_gradients_are_off(oracle):
    model, _, x = oracle
    learned = LinearGaussian(model.weight)
    assert not pv.log_weights(learned.model, learned.guide, x, num_samples=3).requires_grad


def test_progress_counts_to_the_end(oracle):
    model, wrong, x = oracle
    calls = []
    pv.log_weights(
        model.model, wrong, x, num_samples=10, chunk=pv.Chunk(7, 4), progress=lambda *a: calls.append(a)
    )
    assert calls[-1] == (400, 400) and len(calls) == 6 * 3
    assert [c[0] for c in calls] == sorted({c[0] for c in calls})


@pytest.mark.slow
def test_single_precision_is_right_to_half_a_milli_nat():
    """784-200-200-50 on bits, with logits as large as trained ones; the same noise in both precisions."""
    pairs, found = {}, {}
    x = (torch.rand(8, 784, generator=torch.Generator().manual_seed(1)) < 0.3).double()
    for dtype in (F64, torch.float32):
        torch.manual_seed(0)
        layers = [nn.Linear(50, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(), nn.Linear(200, 784)]
        decoder = nn.Sequential(*layers)
        torch.manual_seed(2)
        encoder = nn.Linear(784, 100)
        with torch.no_grad():
            for part in (decoder[0], decoder[2], decoder[4]):
                part.weight.mul_(4.0)
        pairs[dtype] = decoder.to(dtype), encoder.to(dtype)
    noise = torch.randn(64, 8, 50, generator=torch.Generator().manual_seed(3), dtype=F64)
    for dtype, (decoder, encoder) in pairs.items():

        def model(x, decoder=decoder, dtype=dtype):
            pyro.module(f"decoder {dtype}", decoder)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(50), 1.0).to_event(1))
                pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

        def guide(x, encoder=encoder, dtype=dtype):
            pyro.module(f"encoder {dtype}", encoder)
            loc, log_scale = encoder(x).chunk(2, -1)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(loc, (log_scale - 1.0).exp()).to_event(1))

        program = inspect_program(model, guide, x.to(dtype))
        compiled = CompiledWeights(program, torch.arange(8), 64)
        same = Noise(compiled.graph.noise[0].like, lambda out: out.copy_(noise))
        assert len(compiled.graph.noise) == 1 and same.like.shape == noise.shape
        compiled.graph.noise[0] = same
        found[dtype] = compiled(torch.arange(8)).double()
    error = (found[torch.float32] - found[F64]).abs().max()
    assert found[F64].std() > 5 and 0 < error < 5e-4
