"""Draws of wider laws than the guide: unbiased for p(x), and what they find that the guide's do not."""

import itertools
import math
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.evidence.weights.beyond import any_beyond, found_beyond, keys_of
from pyrovae.programs import inspect_program
from pyrovae.programs.particles.all_values import joint_terms
from pyrovae.programs.particles.discrete_values import discrete_latents
from pyrovae.programs.particles.flatter import FlatLaw, flat_draws
from pyrovae.programs.particles.from_prior import prior_weights

HALF = torch.tensor(0.5).double()


def two_bits(table, q):
    """x = 1 with probability `table[z1, z2]` under fair bits; the guide draws each bit as 1 with probability q."""
    table = torch.tensor(table).double()

    def model(x):
        with pyro.plate("data", len(x)):
            first, second = (pyro.sample(name, dist.Bernoulli(HALF)) for name in ("z1", "z2"))
            pyro.sample("x", dist.Bernoulli(table[first.long(), second.long()]), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            for name in ("z1", "z2"):
                pyro.sample(name, dist.Bernoulli(q + 0 * x))

    return model, guide, torch.ones(40).double(), math.log(float(table.mean()))


# -- unbiased ---------------------------------------------------------------------------------------------------------

TABLE = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]).double()


def chain(x):
    """A bit, a class that depends on it, a one-hot class and two bits in one site."""
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Bernoulli(0.3 * torch.ones(()).double()))
        b = pyro.sample("b", dist.Categorical(TABLE[a.long()]))
        c = pyro.sample("c", dist.OneHotCategorical(torch.tensor([0.5, 0.5]).double()))
        d = pyro.sample("d", dist.Bernoulli(torch.tensor([0.2, 0.6]).double()).to_event(1))
        mean = a + b + c[..., 1] + d[..., 0] * d[..., 1]
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def guide_of_chain(x):
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Bernoulli(torch.sigmoid(x - 1)))
        pyro.sample("b", dist.Categorical(logits=torch.stack([0 * (a + x), a + x / 3, a - x], -1)))
        pyro.sample("c", dist.OneHotCategorical(logits=torch.stack([0 * x, x / 2], -1)))
        pyro.sample("d", dist.Bernoulli(logits=torch.stack([x - 2, 0.1 + 0 * x], -1)).to_event(1))


def _exact_of_chain(x):
    terms = []
    for a, b, c, d, e in itertools.product(range(2), range(3), range(2), range(2), range(2)):
        prior = math.log(0.7 if a == 0 else 0.3) + math.log(float(TABLE[a, b])) + math.log(0.5)
        prior += math.log(0.2 if d else 0.8) + math.log(0.6 if e else 0.4)
        terms.append(prior + dist.Normal(float(a + b + c + d * e), 1.0).log_prob(x))
    return torch.stack(terms).logsumexp(0)


X = torch.tensor([-1.0, 0.5, 2.0, 4.0]).double()


def _sigmas(log_weights, exact):
    ratio = (log_weights - exact).exp()
    return ((ratio.mean(0) - 1) / ratio.std(0) * math.sqrt(len(ratio))).abs().max()


LAWS = {
    "the guide": FlatLaw(),
    "some anew": FlatLaw((0.3,)),
    "all anew": FlatLaw((1.0,)),
    "turned": FlatLaw((0.5,), (1, -1)),
    "as they are used": FlatLaw.of(5),
}


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("at_once", [True, False])
def test_flatter_draws_are_unbiased(name, at_once):
    program = replace(inspect_program(chain, guide_of_chain, X), vectorised=at_once)
    sites = discrete_latents(program).sites
    assert sites == ("a", "b", "c", "d")
    k = 4000 if at_once else 300
    law = LAWS[name]
    draws = flat_draws(program, sites, torch.arange(4), k, law, 0)
    assert draws.log_weights.shape == draws.log_ratio.shape == draws.log_mass.shape == (k, 4)
    if law != FlatLaw() or at_once:  # the guide's own weights are uneven
        assert _sigmas(draws.log_weights, _exact_of_chain(X)) < 4.5
    # The mean of q / q' is 1 too: q gives all values any probability.
    if law == FlatLaw():
        assert bool((draws.log_ratio == 0).all())
    else:
        assert _sigmas(draws.log_ratio, torch.zeros(4).double()) < 4.5
    assert len(draws.log_mass.unique()) > 20


@pytest.mark.parametrize("at_once", [True, False])
def test_few_joint_values_are_summed(at_once):
    program = replace(inspect_program(chain, guide_of_chain, X), vectorised=at_once)
    latents = discrete_latents(program)
    assert latents.num_joint == 48
    terms = [joint_terms(program, latents.sites, torch.arange(4), first, 12) for first in range(0, 48, 12)]
    torch.testing.assert_close(torch.cat(terms).logsumexp(0), _exact_of_chain(X), rtol=0, atol=1e-7)


def test_masked_elements_and_counts_without_end_are_drawn_flatter_too():
    mask = torch.tensor([[True, False], [True, True], [False, False], [False, True]])

    def model(x, mask):
        with pyro.plate("data", len(x)):
            with pyro.poutine.mask(mask=mask[..., 0]):
                a = pyro.sample("a", dist.Bernoulli(HALF))
            n = pyro.sample("n", dist.Poisson(2 * HALF).mask(mask[..., 1]))
            mean = torch.where(mask[..., 0], a, 0.0) + torch.where(mask[..., 1], n, 0.0)
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    def guide(x, mask):
        with pyro.plate("data", len(x)):
            with pyro.poutine.mask(mask=mask[..., 0]):
                pyro.sample("a", dist.Bernoulli(torch.sigmoid(x)))
            pyro.sample("n", dist.Poisson(1 + x.exp()).mask(mask[..., 1]))

    program = inspect_program(model, guide, X, pv.per_datum(mask))
    draws = flat_draws(program, ["a", "n"], torch.arange(4), 8000, FlatLaw((0.3, 1.0), (1,)), 0)
    counts, bits = torch.arange(40).double(), torch.arange(2).double()
    log_n = torch.where(mask[:, 1:], dist.Poisson(2 * HALF).log_prob(counts), torch.zeros(()))
    log_n = torch.where(~mask[:, 1:] & (counts > 0), -math.inf, log_n)  # masked: one value stands for all
    log_a = torch.where(mask[:, :1] | (bits == 0), 0.0, -math.inf) + torch.where(
        mask[:, :1], math.log(0.5), 0.0
    )
    means = bits[:, None] + counts
    joint = log_a[:, :, None] + log_n[:, None] + dist.Normal(means, 1.0).log_prob(X[:, None, None])
    assert _sigmas(draws.log_weights, joint.logsumexp((1, 2))) < 4.5


@pytest.mark.parametrize("at_once", [True, False])
def test_draws_of_the_prior_are_unbiased_with_what_is_enumerated_summed_out(at_once):
    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.ones(3).double()), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(0 * HALF, 1.0))
            pyro.sample("x", dist.Normal(z + 2 * c, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 1.0))

    exact = dist.Normal(2 * torch.arange(3).double(), math.sqrt(2)).log_prob(X[:, None]).logsumexp(
        1
    ) - math.log(3)
    program = replace(inspect_program(model, guide, X), vectorised=at_once)
    log_weights = prior_weights(program, torch.arange(4), 4000 if at_once else 300, 0)
    assert _sigmas(log_weights, exact) < 4.5


# -- what they find ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("q", [1e-4, 1e-6])
def test_values_that_count_only_together_leave_a_lower_bound(q):
    """Half of p(x) is at both bits set; one of them alone is worth nothing. An interval of width 0 was stated."""
    model, guide, x, exact = two_bits([[0.98, 1e-9], [1e-9, 0.98]], q)
    ev = pv.evidence(model, guide, x, estimators=[pv.IS(1000), pv.Jackknife(1000)])
    e = ev["IS"]
    assert not e.reliable.any() and e.interval().isnan().all() and ev["Jackknife"].refused
    assert any("hardly ever draws" in w for w in ev.warnings)
    corrected = e.per_datum + e.details["unreached"].log1p()
    assert float((corrected - exact).abs().median()) < 0.1
    with pytest.warns(UserWarning, match="hardly ever draws"):
        pv.log_weights(model, guide, x, num_samples=1000)


def test_a_path_of_states_that_no_draw_takes_is_found_by_the_prior():
    """States are known but for their names; the guide has one name of three: ln 3 too low, with even weights."""
    stay = (0.005 * torch.ones(3, 3) + 0.985 * torch.eye(3)).double()

    def model(x):
        with pyro.plate("data", len(x)):
            z = None
            for t in pyro.markov(range(20)):
                law = torch.ones(3).double() / 3 if z is None else stay[z.long()]
                z = pyro.sample(f"z{t}", dist.Categorical(law))
            pyro.sample("x", dist.Normal(0 * z.double(), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z = None
            for t in pyro.markov(range(20)):
                law = torch.tensor([1.0, 1e-7, 1e-7]).double() if z is None else stay[z.long()]
                z = pyro.sample(f"z{t}", dist.Categorical(law.expand(len(x), 3) if z is None else law))

    x = torch.linspace(-1, 1, 20).double()
    e = pv.evidence(model, guide, x, estimators=[pv.IS(1000)])["IS"]
    assert not e.reliable.any()
    found = e.details[keys_of("prior")[0]]
    torch.testing.assert_close(found, torch.full_like(found, 2.0), rtol=0, atol=0.5)


def test_spins_that_are_all_turned_are_found():
    """Ising spins without a field: the guide has one of two like states, ln 2 too low with even weights."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(HALF.expand(20)).to_event(1))
            spins = 2 * z - 1
            neighbours = (spins[..., 1:] * spins[..., :-1]).sum(-1)
            pyro.sample("x", dist.Normal(neighbours, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(torch.full((*x.shape, 20), 1 - 1e-6).double()).to_event(1))

    x = torch.full((5,), 19.0).double()
    ev = pv.evidence(model, guide, x, estimators=[pv.IS(1000)])
    assert not ev["IS"].reliable.any()
    assert any("flatter discrete latents" in w or "hardly ever draws" in w for w in ev.warnings)


@pytest.mark.parametrize("num_data", [1, 20])
def test_a_mode_in_another_corner_of_few_classes_is_found(num_data):
    """Four classes of five, two like modes, and the guide has one: 69 of 74 intervals did not cover."""
    mode, other = torch.tensor([0, 2, 4, 1]), torch.tensor([4, 2, 0, 3])
    q = (torch.full((4, 5), 0.02) + 0.9 * torch.eye(5)[mode]).double()

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.ones(4, 5).double() / 5).to_event(1))
            changed = torch.minimum((z != mode).sum(-1), (z != other).sum(-1)).double()
            pyro.sample("x", dist.Bernoulli((-4 * changed).exp()), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(q).to_event(1))

    e = pv.evidence(model, guide, torch.ones(num_data).double(), estimators=[pv.IS(1000)])["IS"]
    assert not e.reliable.any()


def two_modes(sharp, x):
    """x ~ N(z^2, sharp): -z is as good as z, and the guide has the positive one."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0 * HALF, 1.0))
            pyro.sample("x", dist.Normal(z.square(), sharp), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            root = x.clamp(min=0.5).sqrt()
            pyro.sample("z", dist.Normal(root, 0.6 * sharp / root))

    grid = torch.linspace(-6, 6, 24001).double()
    joint = dist.Normal(0 * HALF, 1.0).log_prob(grid) + dist.Normal(grid.square(), sharp).log_prob(x[:, None])
    return model, guide, joint.logsumexp(1) + math.log(12 / 24000)


@pytest.mark.parametrize("num_data", [1, 100])
def test_a_mode_that_the_guide_leaves_out_is_found_by_the_prior(num_data):
    """One of two like modes: IS gave an interval of width .05, ln 2 below the truth, for every datum."""
    x = torch.linspace(1.2, 2.0, num_data).double()
    model, guide, exact = two_modes(0.3, x)
    estimators = [pv.IS(2000), pv.IS(10_000, defensive=0.5), pv.AIS(4, 8)]
    ev = pv.evidence(model, guide, x, estimators=estimators)
    narrow, wide, _ = ev.values()
    assert float((narrow.per_datum - exact + math.log(2)).abs().max()) < 0.1
    assert not narrow.reliable.any() and narrow.interval().isnan().all()
    assert any("draws of the prior" in w and "defensive" in w for w in ev.warnings)
    assert any_beyond(wide.details) is None
    low, high = wide.interval(0.9999).unbind(-1)
    assert wide.reliable.any() and bool(((low < exact) & (exact < high))[wide.reliable].all())


def test_data_with_one_mode_keep_their_intervals_beside_data_with_two():
    def model(x, two):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0 * HALF, 1.0))
            pyro.sample("x", dist.Normal(torch.where(two, z.abs(), z), 0.3), obs=x)

    def guide(x, two):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 1.09, 0.3))

    two = torch.arange(60) % 2 == 0
    e = pv.evidence(
        model, guide, torch.linspace(0.8, 1.2, 60).double(), pv.per_datum(two), estimators=[pv.IS(4000)]
    )["IS"]
    assert e.reliable.tolist() == (~two).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_a_guide_that_leaves_nothing_out_is_left_alone(seed):
    """400 data each of bits, classes and reals under guides near the posterior: no datum is said to have more."""
    generator = torch.Generator().manual_seed(seed)
    x = 1.5 * torch.randn(400, generator=generator).double()
    values = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).double()
    weights = torch.randn(4, generator=generator).double()
    joint = dist.Normal(values @ weights, 1.0).log_prob(x[:, None]) - 4 * math.log(2)
    exact = joint.logsumexp(1)
    marginals = (joint - exact[:, None]).exp() @ values

    def model(x, q):
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Bernoulli(HALF.expand(4)).to_event(1))
            pyro.sample("x", dist.Normal(b @ weights, 1.0), obs=x)

    def guide(x, q):
        with pyro.plate("data", len(x)):
            pyro.sample("b", dist.Bernoulli(q).to_event(1))

    e = pv.evidence(model, guide, x, pv.per_datum(marginals), estimators=[pv.IS(1000)], seed=seed)["IS"]
    for law in ("prior", "flatter"):
        found = found_beyond(e.details, law)
        assert found is not None and not found.any()
        share, error = (e.details[key] for key in keys_of(law))
        assert float((share / error).abs().max()) < 5 and abs(float(share.mean())) < 0.02
    low, high = e.interval()[e.reliable].unbind(-1)
    assert len(low) > 300
    assert float(((exact[e.reliable] < low) | (exact[e.reliable] > high)).double().mean()) < 0.09
    # What is allowed for is small beside the sampling error.
    assert float((e.details["unreached_error"] / e.variance.sqrt()).median()) < 0.3


def test_shards_have_what_the_whole_has():
    model, guide, x, _ = two_bits([[0.98, 1e-9], [1e-9, 0.98]], 0.3)
    options = {"estimators": [pv.IS(300)], "chunk": pv.Chunk(10, 100)}
    whole = pv.evidence(model, guide, x, **options)["IS"].details
    merged = pv.merge_evidence([pv.evidence(model, guide, x, shard=(i, 2), **options) for i in range(2)])
    assert {k for k in whole if "beyond" in k} == {
        key for law in ("prior", "flatter") for key in keys_of(law)
    }
    for key, value in whole.items():
        torch.testing.assert_close(merged["IS"].details[key], value, rtol=0, atol=0)


@pytest.mark.parametrize("error", [RuntimeError, ValueError, IndexError, OverflowError])
def test_a_prior_at_which_the_model_fails_is_told(error):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0 * x, 1.0))
            if z.abs().max() > 3:
                raise error("no Cholesky factor")
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.clamp(-0.5, 0.5), 0.3))

    ev = pv.evidence(model, guide, X, estimators=[pv.IS(1000)])
    assert any_beyond(ev["IS"].details) is None and bool(ev["IS"].per_datum.isfinite().all())
    assert any("fails at draws of the prior" in w and "Cholesky" in w for w in ev.warnings)


@pytest.mark.parametrize("estimator", [pv.IS(50), pv.Jackknife(100), pv.MLMC(10)])
def test_few_weights_that_are_equal_are_looked_at_too(estimator):
    """x = |z| + noise, and the guide is one of two like modes to the digit: equal weights need no ESS of 200."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0 * x, 1.0))
            pyro.sample("x", dist.Normal(z.abs(), 0.3), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 1.09, 0.3 / math.sqrt(1.09)))

    x = torch.full((4,), 1.5).double()
    e = next(iter(pv.evidence(model, guide, x, estimators=[estimator]).values()))
    assert bool((e.khat == -math.inf).all()) and not e.reliable.any()


def of_shares(share, error):
    return dict(zip(keys_of("prior"), (torch.tensor(share), torch.tensor(error)), strict=True))


def test_one_datum_that_misses_a_mode_says_nothing_of_the_others():
    found = found_beyond(of_shares([800.0] + 299 * [0.0], [10.0] + 299 * [0.05]), "prior")
    assert found.tolist() == [True] + 299 * [False]


def test_a_mode_that_no_datum_is_sure_of_is_one_of_all():
    """Each of 200 data has one draw in five at it, which is no proof; those that were not hit have no errors."""
    share = [4.0 if n % 5 == 0 else -0.01 for n in range(200)]
    error = [4.0 if n % 5 == 0 else 0.01 for n in range(200)]
    assert found_beyond(of_shares(share, error), "prior").all()
    assert not found_beyond(of_shares(share[:10], error[:10]), "prior").any()


def test_weights_of_few_values_have_no_tail():
    """Two classes: a weight that is drawn hundreds of times is the largest but for one of fewer than five draws."""
    means = torch.tensor([0.0, 2.0]).double()
    x = torch.linspace(-1.5, 3.5, 200).double()
    joint = dist.Normal(means, 1.0).log_prob(x[:, None]) - math.log(2)
    exact = joint.logsumexp(1)
    log_q = (0.7 * (joint - exact[:, None])).log_softmax(1)

    def model(x, log_q):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(2).double()))
            pyro.sample("x", dist.Normal(means[k.long()], 1.0), obs=x)

    def guide(x, log_q):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(logits=log_q))

    given, missed, tied = 0, 0, 0
    for seed in range(5):
        e = pv.evidence(model, guide, x, pv.per_datum(log_q), estimators=[pv.IS(1000)], seed=seed)["IS"]
        low, high = e.interval().unbind(-1)
        given += int(e.reliable.sum())
        missed += int(((exact < low) | (exact > high)).sum())
        tied += int(((e.khat == math.inf) & e.reliable).sum())
    assert tied > 50 and given > 0.95 * 1000
    assert missed / given < 0.05 + 4 * math.sqrt(0.05 * 0.95 / given)


@pytest.mark.parametrize("num_data", [9, 10, 11, 12])
def test_few_joint_values_of_a_plate_that_is_filled_up(num_data):
    """The last subsample of four holds one to four data."""
    weights = torch.tensor([0.2, 0.5, 0.3]).double()
    locs = torch.tensor([-1.0, 0.0, 2.0]).double()

    def model(x):
        with pyro.plate("data", len(x), subsample_size=4) as i:
            k = pyro.sample("k", dist.Categorical(weights))
            pyro.sample("x", dist.Normal(locs[k], 1.0), obs=x[i])

    def guide(x):
        with pyro.plate("data", len(x), subsample_size=4) as i:
            pyro.sample("k", dist.Categorical(logits=-((x[i][:, None] - locs) ** 2) / 4))

    x = torch.linspace(-2.0, 3.0, num_data).double()
    exact = (weights.log() + dist.Normal(locs, 1.0).log_prob(x[:, None])).logsumexp(-1)
    program = inspect_program(model, guide, x)
    rows = torch.arange(num_data)
    for indices in rows.split(4):
        found = joint_terms(program, ["k"], indices, 0, 3).logsumexp(0)
        torch.testing.assert_close(found, exact[indices], rtol=0, atol=1e-7)
    pv.evidence(model, guide, x, estimators=[pv.IS(1000)], progress=False)
