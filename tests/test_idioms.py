"""Pyro's own idioms: plates, training, and reasons given. Each figure is held against a loop by hand."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate
from torch import nn

import pyrovae as pv
from pyrovae.programs import inspect_program, module_mode, seeded

from .by_hand import log_joint, log_weight

N, D, L, C = 6, 4, 2, 3
X = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
LABELS = torch.eye(C)[torch.tensor([0, 1, 2, 2, 1, 0])]
K = 3


def drawn(model, guide, *args, seed=0, **options):
    """Log-weights `[K, N]` and the guide's draws, of one run on all data."""
    program = inspect_program(model, guide, *args, **options)
    indices = torch.arange(len(args[0]))
    with (
        torch.no_grad(),
        module_mode(program.model, program.guide, training=False),
        seeded(seed, "by hand", device="cpu"),
        pyro.validation_enabled(False),
    ):
        sites = program.run(indices, K)
    return program, sites


def rows_of(args, n):
    return tuple(a[n : n + 1] if isinstance(a, torch.Tensor) else a for a in args)


def check_by_hand(model, guide, *args, skip=(), seeds=(0, 1, 2), **options):
    """Every weight of every datum, under several draws, is that of the loop."""
    for seed in seeds:
        program, sites = drawn(model, guide, *args, seed=seed, **options)
        found = sites.log_weights()
        for k in range(K):
            for n in range(len(args[0])):
                values = {}
                for name, site in sites.traces[0].nodes.items():
                    if site["type"] == "sample" and name in sites.guide:
                        values[name] = site["value"][k, n : n + 1]
                assert found[k, n] == pytest.approx(
                    log_weight(model, guide, rows_of(args, n), values, skip), abs=1e-4
                )
    return program


class Net(nn.Module):
    def __init__(self, size, wide):
        super().__init__()
        self.linear = nn.Linear(size, 2 * wide)

    def forward(self, *parts):
        shape = torch.broadcast_shapes(*[p.shape[:-1] for p in parts])
        out = self.linear(torch.cat([p.expand(*shape, -1) for p in parts], -1))
        loc, scale = out.chunk(2, -1)
        return loc, scale.exp()


def without_a_size():
    """As in semi-supervised VAEs: labels that may be given, a plate that has no size."""
    encoder, decoder, classify = Net(D + C, L), Net(L + C, D), nn.Linear(D, C)

    def model(x, y=None):
        pyro.module("decoder", decoder)
        with pyro.plate("data"):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), L), 1.0).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(x.new_ones(len(x), C) / C), obs=y)
            pyro.sample("x", dist.Normal(*decoder(z, y)).to_event(1), obs=x)

    def guide(x, y=None):
        pyro.module("encoder", encoder)
        with pyro.plate("data"):
            if y is None:
                y = pyro.sample("y", dist.OneHotCategorical(logits=classify(x)))
            pyro.sample("z", dist.Normal(*encoder(x, y)).to_event(1))

    return model, guide


# Plates --------------------------------------------------------------------------------------------


def test_a_plate_without_a_size():
    model, guide = without_a_size()
    program = check_by_hand(model, guide, X, LABELS)
    assert program.arguments.calling == "sliced" and program.vectorised


def test_a_plate_without_a_size_and_a_latent_that_is_summed_out():
    model, guide = without_a_size()
    guide = config_enumerate(guide, "parallel", expand=True)
    for seed in range(3):
        _, sites = drawn(model, guide, X, seed=seed)
        z = sites.traces[0].nodes["z"]["value"]  # [C, K, N, L]
        for k in range(K):
            for n in range(N):
                terms = []
                for c in range(C):
                    values = {"y": torch.eye(C)[c : c + 1], "z": z[c, k, n : n + 1]}
                    terms.append(
                        log_joint(model, values, (X[n : n + 1],))
                        - log_joint(guide, values, (X[n : n + 1],), skip=("y",))
                    )
                by_hand = torch.tensor(terms, dtype=torch.float64).logsumexp(0)
                assert sites.log_weights()[k, n] == pytest.approx(float(by_hand), abs=1e-4)


def test_a_plate_without_a_size_trains_as_one_with_a_size():
    def sized(fn):
        plate = pyro.plate

        def run(*args):
            pyro.plate = lambda name: plate(name, len(args[0]))
            try:
                return fn(*args)
            finally:
                pyro.plate = plate

        return run

    losses = []
    for change in (lambda fn: fn, sized):
        pyro.set_rng_seed(1)
        model, guide = map(change, without_a_size())
        fit = pv.fit(model, guide, (X, LABELS), epochs=3, batch_size=4, compile=False)
        losses.append([row["loss"] for row in fit.history] + [row["elbo"] for row in fit.history])
    assert losses[0] == losses[1]


def test_one_draw_for_all_data_is_refused():
    def model(x):
        with pyro.plate("data"):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))  # in Pyro one number, whatever x is
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    def guide(x):
        with pyro.plate("data"):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match=r"'z' with one row per datum .* batch shape \(\)"):
        pv.log_weights(model, guide, X, num_samples=2)


def test_given_indices_are_kept():
    """A table of latents' scales, of which a batch takes its own rows."""
    table = torch.linspace(0.5, 2.0, 50)

    def model(x, ind):
        with pyro.plate("data", 50, subsample=ind) as i:
            z = pyro.sample("z", dist.Normal(0.0, table[i]))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    def guide(x, ind):
        with pyro.plate("data", 50, subsample=ind) as i:
            pyro.sample("z", dist.Normal(x[:, 0] / 2, table[i]))

    ind = torch.tensor([40, 3, 17, 21, 9, 33])
    check_by_hand(model, guide, X, ind)


def test_data_as_the_given_subsample():
    """`subsample=x`, by which some programs say that the plate is as long as x."""

    def model(x):
        with pyro.plate("data", len(x), subsample=x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    def guide(x):
        with pyro.plate("data", len(x), subsample=x):
            pyro.sample("z", dist.Normal(x[:, 0] / 2, 1.0))

    check_by_hand(model, guide, X)


def test_a_guide_that_alone_subsamples():
    def model(x):
        with pyro.plate("data", len(x)) as i:
            z = pyro.sample("z", dist.Normal(torch.zeros(len(i)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[i][:, 0])

    def guide(x):
        with pyro.plate("data", len(x), subsample_size=4) as i:
            pyro.sample("z", dist.Normal(x[i][:, 0] / 2, 0.5**0.5))  # the posterior: all weights are p(x)

    weights = pv.log_weights(model, guide, X, num_samples=K)
    truth = dist.Normal(0.0, 2**0.5).log_prob(X[:, 0])
    assert (weights - truth).abs().max() < 1e-5
    assert math.isfinite(
        pv.fit(
            model,
            lambda x: guide(x + pyro.param("shift", torch.zeros(()))),
            X,
            epochs=1,
            compile=False,
        ).history[0]["loss"]
    )


def test_a_sequential_plate_is_called_so():
    def model(x):
        for i in pyro.plate("data", len(x)):
            z = pyro.sample(f"z{i}", dist.Normal(0.0, 1.0))
            pyro.sample(f"x{i}", dist.Normal(z, 1.0), obs=x[i, 0])

    def guide(x):
        for i in pyro.plate("data", len(x)):
            pyro.sample(f"z{i}", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match=r"got a sequential one .*at 'z0'"):
        pv.log_weights(model, guide, X, num_samples=2)


def test_a_plate_over_columns_that_subsamples_is_refused():
    """Other indices change what is observed, but not by rows of x."""

    def model(x):
        with pyro.plate("data", x.shape[1], subsample_size=2) as i:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1), 1.0).expand([2, len(x)]).to_event(1), obs=x[:, i].T)

    def guide(x):
        with pyro.plate("data", x.shape[1], subsample_size=2):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    for x in (X, X[:, :3], X[:D]):  # more, fewer, and as many rows as columns
        with pytest.raises(ValueError, match="subsample of the rows of x"):
            pv.log_weights(model, guide, x, num_samples=2)


# Training ------------------------------------------------------------------------------------------


def test_a_program_without_parameters_is_refused():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, 0] / 2, 1.0))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    with pytest.raises(ValueError, match="with parameters to train, got none"):
        pv.fit(model, guide, X, epochs=1)


def test_enumeration_over_sequences_of_varying_length_given_their_laws():
    """An HMM whose probabilities are global latents, known; the answer is Pyro's, of each sequence alone."""
    lengths = torch.tensor([4, 3, 2, 1])
    sequences = (torch.rand(4, 4, 2, generator=torch.Generator().manual_seed(3)) < 0.4).float()

    def model(sequences, lengths):
        moves = pyro.sample("moves", dist.Dirichlet(torch.ones(C, C)).to_event(1))
        tones = pyro.sample("tones", dist.Beta(torch.ones(C, 2), 1.0).to_event(2))
        with pyro.plate("data", len(sequences), dim=-2):
            state = 0
            for t in pyro.markov(range(int(lengths.max()))):
                with poutine.mask(mask=(t < lengths).unsqueeze(-1)):
                    law = dist.Categorical(moves[state])
                    state = pyro.sample(f"state{t}", law, infer={"enumerate": "parallel"})
                    with pyro.plate(f"dims{t}", 2, dim=-1):
                        pyro.sample(f"x{t}", dist.Bernoulli(tones[state.squeeze(-1)]), obs=sequences[:, t])

    given = {"moves": dist.Dirichlet(torch.ones(C, C)).sample(), "tones": torch.rand(C, 2)}
    found = pv.log_weights(model, lambda *a: None, sequences, lengths, num_samples=1, given=given)[0]
    known = poutine.block(poutine.condition(model, given), hide=list(given))
    for n in range(4):
        truth = -TraceEnum_ELBO(max_plate_nesting=2).loss(
            known, lambda *a: None, sequences[n : n + 1], lengths[n : n + 1]
        )
        assert found[n] == pytest.approx(truth, abs=1e-4)


# Reasons -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["model", "guide", "likelihood"])
def test_a_missing_to_event_is_named(missing):
    def law(where, loc):
        normal = dist.Normal(loc, 1.0)
        return normal if where == missing else normal.to_event(1)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", law("model", x.new_zeros(len(x), L)))
            pyro.sample("x", law("likelihood", z.sum(-1, keepdim=True) + torch.zeros(D)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", law("guide", x[:, :L] + pyro.param("shift", torch.zeros(L))))

    site, width = ("x", D) if missing == "likelihood" else ("z", L)
    match = rf"law of '{site}' with one row per datum .*size 6.*got {width} in the plate's dim; try .to_event\(1\)"
    for run in (lambda: pv.log_weights(model, guide, X, num_samples=2), lambda: pv.fit(model, guide, X)):
        with pytest.raises(ValueError, match=match):
            run()


def test_a_pair_in_place_of_model_and_guide():
    class Pair:
        model, guide = without_a_size()

    for call in (
        lambda: pv.fit(Pair(), X),
        lambda: pv.evidence(Pair(), X),
        lambda: pv.log_weights(Pair(), X, num_samples=2),
    ):
        with pytest.raises(TypeError, match=r"model and guide as two arguments.*got a Tensor"):
            call()


def test_a_batch_size_that_has_no_part_is_said():
    def pair(size, subsample_size):
        def model(x):
            with pyro.plate("data", size, subsample_size=subsample_size) as i:
                z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0).expand([len(i)]))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x[i][:, 0])

        def guide(x):
            shift = pyro.param("shift", torch.zeros(()))
            with pyro.plate("data", size, subsample_size=subsample_size) as i:
                pyro.sample("z", dist.Normal(x[i][:, 0] / 2 + shift, 1.0))

        return model, guide

    with pytest.warns(UserWarning, match="batch_size=4 has no part .* takes 2 of the 6 data"):
        pv.fit(*pair(N, 2), X, batch_size=4, epochs=1, compile=False)
    with pytest.warns(UserWarning, match="batch_size=4 has no part .* takes 6 of the 6 data"):
        pv.fit(*pair(N, None), X, batch_size=4, epochs=1, compile=False)


def test_plates_that_hold_no_density_are_listed():
    def model(x):
        with pyro.plate("rows", len(x)):
            pyro.deterministic("d", x)
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x[0, 0])

    with pytest.raises(ValueError, match=r"got plates: 'rows' \(size \d\)"):
        pv.log_weights(model, lambda x: None, X, num_samples=2)


def test_a_factor_in_the_guide_is_said_to_be_there():
    """A classification loss beside the latent: blocked, the weights are those without it."""
    model, guide = without_a_size()

    def with_loss(x, y):
        guide(x, y)
        with pyro.plate("data", len(x)):
            pyro.factor("loss", x.sum(-1), has_rsample=False)

    with pytest.raises(ValueError, match=r"factor at \['loss'\] in the guide.*poutine.block\(guide, hide="):
        pv.log_weights(model, with_loss, X, LABELS, num_samples=3)
    found = pv.log_weights(model, poutine.block(with_loss, hide=["loss"]), X, LABELS, num_samples=3)
    assert torch.equal(found, pv.log_weights(model, guide, X, LABELS, num_samples=3))


# Found by combining features ---------------------------------------------------------------------


def test_given_where_the_guide_draws_globals_alone():
    """All that is left of the guide is nothing: the latents inside of the plate are summed out."""
    x = torch.tensor([0.3, -1.0, 2.0])

    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.tensor([0.6, 0.4])), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(torch.tensor([-1.0, 1.5])[c] + w, 1.0), obs=x)

    def guide(x):
        pyro.sample("w", dist.Normal(0.0, 1.0))

    terms = torch.tensor([0.6, 0.4]).log() + dist.Normal(torch.tensor([-0.8, 1.7]), 1.0).log_prob(x[:, None])
    ev = pv.evidence(
        model, guide, x, estimators=[pv.IS(3), pv.Exact()], given={"w": torch.tensor(0.2)}
    ).per_datum
    for found in ev.values():
        torch.testing.assert_close(found, terms.logsumexp(1).double(), rtol=0, atol=1e-5)


def test_a_name_that_is_used_twice_is_said_to_be():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def again(x):
        data = pyro.plate("data", len(x))
        with data:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with data:
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))

    x = torch.tensor([0.3, -1.0])
    with pytest.raises(ValueError, match="a name of its own for every site and plate, got 'data' twice"):
        pv.log_weights(model, guide, x, num_samples=2)
    truth = dist.Normal(0.0, 2**0.5).log_prob(x).double()
    found = pv.log_weights(again, guide, x, num_samples=2)  # as the error advises
    torch.testing.assert_close(found, truth.expand(2, -1), rtol=0, atol=1e-5)


def test_reparameterised_latents_leave_the_measure_known_and_observed_ones_are_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 2.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z_decentered", dist.Normal(x / 2, 1.0))

    x = torch.tensor([0.3, -1.0])
    config = pyro.infer.reparam.LocScaleReparam(0.0)
    ev = pv.evidence(pyro.poutine.reparam(model, {"z": config}), guide, x, estimators=[pv.IS(10), pv.Exact()])
    assert ev.measure.kind == "density" and not any("not known" in w for w in ev.warnings)
    truth = dist.Normal(0.0, 4.25**0.5).log_prob(x).double()
    torch.testing.assert_close(ev["Exact"].per_datum, truth, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"in the units of the data, got \['x'\] under LocScaleReparam"):
        pv.log_weights(pyro.poutine.reparam(model, {"x": config}), guide, x, num_samples=2)

    def positive(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.LogNormal(pyro.sample("z", dist.Normal(0.0, 2.0)), 0.5), obs=x)

    based = pyro.poutine.reparam(positive, {"x": pyro.infer.reparam.TransformReparam()})
    with pytest.raises(
        ValueError, match=r"got \['x'\] under TransformReparam: .* as ln x of a LogNormal, without"
    ):
        pv.log_weights(based, guide, x.exp(), num_samples=2)


def test_a_squeeze_that_drops_the_dim_of_one_datum():
    """A chunk of one datum and many samples: `.squeeze()` leaves the samples alone."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.squeeze(), 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.unsqueeze(-1) * 0.8, 0.5).to_event(1))

    with pytest.warns(UserWarning, match="does not take 40 samples at once"):
        found = pv.log_weights(model, guide, X[:3, 0], num_samples=40, chunk=pv.Chunk(1, 40))
    right = dist.Normal(0.0, 1.25**0.5).log_prob(X[:3, 0]).double()
    error = found.exp().std(0) / 40**0.5 / right.exp()
    assert ((found.logsumexp(0) - math.log(40) - right).abs() < 4.5 * error).all()


def test_a_linear_hmm_is_named_and_reparametrised_has_its_density():
    """A random walk observed under noise: all steps together are one Gaussian with covariance min(s, t) + [s = t]."""
    from scipy import stats

    steps, x = 5, torch.randn(3, 5, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def model(x):
        one = dist.Normal(x.new_zeros(1), 1.0).to_event(1)
        eye = torch.eye(1, dtype=x.dtype)
        start = dist.Normal(x.new_zeros(1), 1e-6).to_event(1)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.LinearHMM(start, eye, one, eye, one, duration=steps), obs=x)

    def guide(x):
        pass

    with pytest.raises(ValueError, match=r"law of 'x' with a density, got LinearHMM.*LinearHMMReparam\(\)"):
        pv.log_weights(model, guide, x, num_samples=1)
    named = poutine.reparam(model, {"x": pyro.infer.reparam.LinearHMMReparam()})
    found = pv.log_weights(named, guide, x, num_samples=1)[0]
    times = torch.arange(1, steps + 1)
    covariance = torch.minimum(times, times[:, None]).double() + torch.eye(steps)
    truth = stats.multivariate_normal(cov=covariance.numpy()).logpdf(x[..., 0].numpy())
    assert (found - torch.as_tensor(truth)).abs().max() < 1e-6
