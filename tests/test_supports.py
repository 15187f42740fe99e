"""Guides and priors of unlike supports: a lower bound where draws are missing, never an estimate."""

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv

from .every_way import F64, X

# -- supports ---------------------------------------------------------------------------------------------------------

ZERO, ONE = torch.zeros(()).double(), torch.ones(()).double()
NARROWER = {
    "Uniform for Normal": (lambda x: dist.Normal(ZERO, 1.0), lambda x: dist.Uniform(-ONE / 2, 0.5)),
    "HalfNormal for Normal": (lambda x: dist.Normal(ZERO, 1.0), lambda x: dist.HalfNormal(ONE)),
    "Beta for Normal": (lambda x: dist.Normal(ZERO, 1.0), lambda x: dist.Beta(2 * ONE, 2.0)),
    "Uniform(0, 1) for Uniform(0, 2)": (lambda x: dist.Uniform(ZERO, 2.0), lambda x: dist.Uniform(ZERO, 1.0)),
    "bounds of the third datum alone": (
        lambda x: dist.Uniform(-3 * ONE, 3.0),
        lambda x: dist.Uniform(-3 * ONE, torch.where(x == X[2], 1.0, 3.0)),
    ),
    "an affine map of a bounded law": (
        lambda x: dist.Normal(ZERO, 1.0),
        lambda x: dist.TransformedDistribution(
            dist.Normal(ZERO, 1.0),
            [dist.transforms.SigmoidTransform(), dist.transforms.AffineTransform(-1.0, 2.0)],
        ),
    ),
    "masked Uniform": (lambda x: dist.Normal(ZERO, 1.0), lambda x: dist.Uniform(-ONE / 2, 0.5).mask(True)),
    "mixture of Uniforms": (
        lambda x: dist.Uniform(-2 * ONE, 2.0),
        lambda x: dist.MixtureSameFamily(
            dist.Categorical(torch.ones(2).double()), dist.Uniform(torch.tensor([-1.0, 0.0]).double(), 1.0)
        ),
    ),
}
AS_WIDE = {
    "Normal for Normal": (lambda x: dist.Normal(ZERO, 1.0), lambda x: dist.Normal(x / 2, 1.0)),
    "Uniform for Uniform": (lambda x: dist.Uniform(-2 * ONE, 2.0), lambda x: dist.Uniform(-2 * ONE, 2.0)),
    "StudentT for Cauchy": (lambda x: dist.Cauchy(ZERO, 1.0), lambda x: dist.StudentT(3 * ONE)),
    "sigmoid of a Normal for Beta": (
        lambda x: dist.Beta(2 * ONE, 2.0),
        lambda x: dist.TransformedDistribution(dist.Normal(ZERO, 1.0), [dist.transforms.SigmoidTransform()]),
    ),
    "Gamma for HalfNormal": (lambda x: dist.HalfNormal(ONE), lambda x: dist.Gamma(ONE, 1.0)),
}


def pair_of_laws(prior, guide):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(x))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def own(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", guide(x).expand([len(x)]))

    return model, own


@pytest.mark.filterwarnings("ignore:the guide's support is smaller")
@pytest.mark.parametrize("name", NARROWER)
def test_a_guide_with_a_smaller_support_gives_lower_bounds_only(name):
    model, guide = pair_of_laws(*NARROWER[name])
    estimators = [
        pv.ELBO(),
        pv.IS(500),
        pv.Jackknife(500),
        pv.MLMC(8),
        pv.AIS(4, 8),
        pv.AIS(4, 8, start="prior"),
    ]
    ev = pv.evidence(model, guide, X, estimators=[*estimators, pv.Exact()])
    assert any("'z'" in w and "prior" in w for w in ev.warnings)
    for bound in ("ELBO", "IS", "AIS"):
        assert ev[bound].direction == "<="
        assert not ev[bound].reliable.any()
        assert ev[bound].interval().isnan().all() if bound != "ELBO" else True
        assert math.isnan(ev[bound].bias_indicator)
    for refused in ("Jackknife", "MLMC"):
        assert ev[refused].per_datum.isnan().all()
        assert "smaller" in ev[refused].details["refused"]
    assert ev["AIS (prior)"].lower_only is None
    assert ev["Exact"].per_datum.isfinite().all()
    assert ev["IS"].certificate < ev["Exact"].log_evidence
    alone = pv.evidence(model, guide, X, estimators=[pv.IS(500)])
    assert "well behaved" not in alone.verdict
    assert "lower bound only" in alone.verdict
    with pytest.warns(UserWarning, match="smaller than the prior's"):
        pv.log_weights(model, guide, X, num_samples=2)


@pytest.mark.filterwarnings("error:the guide's support is smaller")
@pytest.mark.parametrize("name", AS_WIDE)
def test_a_guide_as_wide_as_the_prior_is_left_alone(name):
    model, guide = pair_of_laws(*AS_WIDE[name])
    ev = pv.evidence(model, guide, X, estimators=[pv.IS(500), pv.Jackknife(500)])
    assert ev["IS"].lower_only is None
    assert ev["Jackknife"].per_datum.isfinite().all()
    assert not any("smaller" in w for w in ev.warnings)


DISCRETE = {
    "Bernoulli for Poisson": (lambda: dist.Poisson(1.5), lambda: dist.Bernoulli(0.5), True),
    "three classes for four": (
        lambda: dist.Categorical(torch.ones(4)),
        lambda: dist.Categorical(torch.ones(3)),
        True,
    ),
    "Poisson for Poisson": (lambda: dist.Poisson(1.5), lambda: dist.Poisson(2.0), False),
    "Bernoulli for Bernoulli": (lambda: dist.Bernoulli(0.3), lambda: dist.Bernoulli(0.5), False),
    "Geometric for Bernoulli": (lambda: dist.Bernoulli(0.3), lambda: dist.Binomial(1, 0.5), False),
}


@pytest.mark.filterwarnings("ignore:the guide's support is smaller")
@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_supports_are_compared(name):
    prior, law, narrower = DISCRETE[name]

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            pyro.sample("x", dist.Normal(z.to(x.dtype), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", law())

    ev = pv.evidence(model, guide, X, estimators=[pv.IS(100)])
    assert (ev["IS"].lower_only is not None) == narrower


CLASSES = torch.tensor([[0.0, 0.5, 0.5], [0.5, 0.5, 0.0]])
ZERO_PROBABILITY = {
    "a class": (lambda x: dist.Categorical(CLASSES[0]), True),
    "a class by its logit": (lambda x: dist.Categorical(logits=CLASSES[0].log()), True),
    "a class of some data": (
        lambda x: dist.Categorical(
            torch.where((x < x.new_tensor(2.0))[..., None], CLASSES.mean(0), CLASSES[1])
        ),
        True,
    ),
    "one hot": (lambda x: dist.OneHotCategorical(CLASSES[0]), True),
    "a bit": (lambda x: dist.Bernoulli(torch.tensor(1.0)), True),
    "rounding": (lambda x: dist.Bernoulli(logits=torch.tensor(40.0)), False),
    "none": (lambda x: dist.Categorical(CLASSES.mean(0)), False),
}


@pytest.mark.filterwarnings("ignore:the guide's support is smaller")
@pytest.mark.parametrize("name", ZERO_PROBABILITY)
def test_values_that_a_guide_never_draws_leave_a_lower_bound(name):
    law, narrower = ZERO_PROBABILITY[name]

    def pair(x, prior=False):
        own = law(x)
        if prior:
            own = type(own)(torch.full(own._param.shape, 0.5))
        return pyro.sample("z", own)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pair(x, prior=True)
            z = z[..., 1] if name == "one hot" else z
            pyro.sample("x", dist.Normal(z.to(x.dtype), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pair(x)

    x = torch.tensor([0.5, -0.3, 0.1, 3.0])
    ev = pv.evidence(model, guide, x, estimators=[pv.IS(300)])
    assert (ev["IS"].lower_only is not None) == narrower
    assert bool(ev["IS"].interval().isnan().all()) == (narrower or name == "rounding")


def test_a_guide_that_draws_numbers_of_another_kind_is_refused():
    model, guide = pair_of_laws(lambda x: dist.Normal(ZERO, 1.0), lambda x: dist.Bernoulli(0.5 * ONE))
    with pytest.raises(ValueError, match=r"'z'.*continuous values in the model and discrete"):
        pv.log_weights(model, guide, X, num_samples=5)


@pytest.mark.filterwarnings("ignore:the guide's support is smaller")
def test_sandwich_and_gaps_say_that_a_guide_is_too_narrow():
    model, guide = pair_of_laws(*NARROWER["Uniform for Normal"])
    sandwich = pv.sandwich(model, guide, X, simulate=4, ais=pv.AIS(4, 4, start="prior"), num_samples=20)
    assert any("smaller than the prior's" in w for w in sandwich.warnings)
    model, guide = pair_of_laws(*NARROWER["Beta for Normal"])
    gaps = pv.gaps(model, guide, X, estimators=[pv.IS(50)], fit=pv.LocalFit(5), num_samples=20, flow=False)
    assert any("smaller than the prior's" in w for w in gaps.warnings)


def test_shards_of_a_too_narrow_guide_merge_to_lower_bounds():
    model, guide = pair_of_laws(*NARROWER["Uniform for Normal"])
    parts = [
        pv.evidence(model, guide, X, estimators=[pv.IS(50)], chunk=pv.Chunk(2, 50), shard=(i, 2))
        for i in (0, 1)
    ]
    assert pv.merge_evidence(parts)["IS"].lower_only is not None


def test_an_observation_bounds_its_latent():
    """z ~ Gamma(2, 1), x ~ Uniform(0, z): ln p(x) = -x. A draw z < x has weight zero, and refuses nothing."""
    x = torch.tensor([0.3, 1.0, 2.5], dtype=F64)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(torch.tensor(2.0, dtype=F64), 1.0))
            pyro.sample("x", dist.Uniform(0.0, z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Gamma(torch.full_like(x, 2.0), 0.7))

    e = pv.evidence(model, guide, x, estimators=[pv.IS(4000), pv.Exact()])
    assert bool(((e["IS"].per_datum + x).abs() < 4 * e["IS"].variance.sqrt()).all())
    assert bool(((e["Exact"].per_datum + x).abs() <= e["Exact"].details["numerical_error"]).all())
    # 16 draws that all leave the datum out are no reason to refuse it.
    few = pv.log_weights(model, guide, x + 9, num_samples=16)
    assert bool((few == -torch.inf).all(0).any())


def test_trials_that_are_drawn_bound_their_count():
    """n ~ Poisson(4), x ~ Binomial(n, 1/2): x ~ Poisson(2); the density at x > n is no number without validation."""
    x = torch.tensor([0.0, 2.0, 5.0], dtype=F64)

    def model(x):
        with pyro.plate("data", len(x)):
            n = pyro.sample("n", dist.Poisson(torch.tensor(4.0, dtype=F64)))
            pyro.sample("x", dist.Binomial(n, torch.tensor(0.5, dtype=F64)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("n", dist.Poisson(x + 2.5))

    e = pv.evidence(model, guide, x, estimators=[pv.IS(4000)])["IS"]
    exact = dist.Poisson(torch.tensor(2.0, dtype=F64)).log_prob(x)
    assert bool(((e.per_datum - exact).abs() < 4 * e.variance.sqrt()).all())
    with pytest.raises(ValueError, match="support of Binomial"):
        pv.evidence(model, guide, x + 0.5, estimators=[pv.IS(100)])


def test_a_mixture_with_a_hole_leaves_a_lower_bound():
    x = torch.tensor([0.4, 0.5], dtype=F64)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(torch.zeros((), dtype=F64), 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        ends = torch.tensor([[0.0, 0.6], [0.3, 1.0]], dtype=F64)
        parts = dist.Categorical(torch.full((len(x), 2), 0.5, dtype=F64))
        with pyro.plate("data", len(x)):
            pyro.sample(
                "z", dist.MixtureSameFamily(parts, dist.Uniform(*ends.unsqueeze(1).expand(2, len(x), 2)))
            )

    e = pv.evidence(model, guide, x, estimators=[pv.IS(1000)])
    assert e["IS"].lower_only is not None and e["IS"].interval().isnan().all()


# Values that the guide hardly ever draws -----------------------------------------------------------


def drawn_bits(prior, guide, x=None):
    """x_n ~ N(z_n, 1) of a latent z_n on a list of values; ln p(x_n) is a sum."""
    x = torch.tensor([0.4, -0.3, 0.6]) if x is None else x

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            pyro.sample("x", dist.Normal(_number(z, prior()), 1.0), obs=x)

    def own(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", guide(x))

    values = prior().enumerate_support()
    terms = prior().log_prob(values).double() + dist.Normal(_number(values, prior()).double(), 1.0).log_prob(
        x.double().unsqueeze(-1)
    )
    return model, own, x, terms.logsumexp(-1)


def _number(z, fn):
    return z.argmax(-1).float() if fn.event_shape else z.float()


def _logits(v):
    return torch.tensor(v).expand(3, len(v))


HALF, THIRDS = lambda: dist.Bernoulli(0.5), torch.ones(3) / 3
HARDLY = {
    "bits of logit 30, of probability 1 in float32": (HALF, lambda x: dist.Bernoulli(logits=x * 0 + 30)),
    "bits of logit 200": (HALF, lambda x: dist.Bernoulli(logits=x * 0 + 200)),
    "bits of probability 1e-6": (HALF, lambda x: dist.Bernoulli(x * 0 + 1e-6)),
    "categories": (
        lambda: dist.Categorical(THIRDS),
        lambda x: dist.Categorical(logits=_logits([0.0, 0.0, -60])),
    ),
    "one category of two": (
        lambda: dist.Categorical(torch.ones(2) / 2),
        lambda x: dist.Categorical(logits=_logits([-200.0, 0.0])),
    ),
    "one-hot": (
        lambda: dist.OneHotCategorical(THIRDS),
        lambda x: dist.OneHotCategorical(logits=_logits([0.0, 0.0, -60])),
    ),
    "counts": (
        lambda: dist.Binomial(3, torch.tensor(0.5)),
        lambda x: dist.Binomial(3, probs=x * 0 + 1e-5),
    ),
}


@pytest.mark.parametrize("name", HARDLY)
def test_values_that_are_hardly_ever_drawn_leave_a_lower_bound(name):
    model, guide, x, exact = drawn_bits(*HARDLY[name])
    ev = pv.evidence(model, guide, x, estimators=[pv.IS(1000), pv.Jackknife(1000), pv.MLMC(8)], compile=False)
    e = ev["IS"]
    assert (e.per_datum < exact - 0.03).all() and not e.reliable.any() and e.interval().isnan().all()
    assert any("hardly ever draws" in w for w in ev.warnings) and "hardly ever draws" in ev.verdict
    assert ev["Jackknife"].refused and ev["MLMC"].refused
    # What is missed is known: the sum over all values less those that were drawn.
    torch.testing.assert_close(e.per_datum + e.details["unreached"].log1p(), exact, rtol=0, atol=0.15)


def of_likelihoods(q, first, second):
    """x = 1 under z ~ Bernoulli(1/2), p(x | z) `first` and `second`, q(z = 1) = q; and ln p(x)."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Bernoulli(torch.where(z > 0, second, first)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(q))

    return model, guide, math.log(first / 2 + second / 2)


@pytest.mark.parametrize("q", [1e-3, 1e-4])
@pytest.mark.parametrize("second", [1e-6, 5e-5])
def test_a_value_that_no_draw_meets_and_that_holds_little_is_allowed_for_below(q, second):
    """Weights are all equal where none has met it, and p̂ is too high by up to q: 41 % of the intervals missed."""
    model, guide, exact = of_likelihoods(q, 0.5, second)
    ev = pv.evidence(model, guide, torch.ones(400), estimators=[pv.IS(1000), pv.Jackknife(1000), pv.MLMC()])
    for e in ev.values():
        low, high = e.interval().unbind(-1)
        assert (
            e.reliable.all() and float(((low > exact + 1e-6) | (high < exact - 1e-6)).double().mean()) < 0.05
        )
        low, high = e.mean_interval()
        assert low < exact < high and high - low < 4 * q
    for seed in range(10):
        e = pv.evidence(model, guide, torch.ones(1), estimators=[pv.IS(300)], seed=seed)["IS"]
        assert e.mean_interval() == pytest.approx(e.interval()[0].tolist(), rel=1e-9)
        assert e.mean_interval()[0] < exact + 1e-6


def test_the_room_for_rare_values_counts_its_own_error():
    """Nine categories under a guide that is too sure of itself: truth lay above 138 of 368 intervals, now 10."""
    random = torch.Generator().manual_seed(0)
    means = torch.linspace(-8.0, 8.0, 9)

    def model(x, log_q):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(logits=torch.zeros(9)))
            pyro.sample("x", dist.Normal(means[z.long()], 0.5), obs=x)

    def guide(x, log_q):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(logits=log_q))

    x = means[torch.randint(9, (500,), generator=random)] + 0.5 * torch.randn(500, generator=random)
    joint = dist.Normal(means.double(), 0.5).log_prob(x.double()[:, None]) - math.log(9)
    exact = joint.logsumexp(1)
    log_q = (1.5 * (joint - exact[:, None])).float().log_softmax(-1)
    e = pv.evidence(model, guide, x, pv.per_datum(log_q), estimators=[pv.IS(1000)])["IS"]
    low, high = e.interval()[e.reliable].unbind(-1)
    missed = (exact[e.reliable] > high) | (exact[e.reliable] < low)
    assert len(low) > 300 and float(missed.double().mean()) < 0.09  # 4 sigma above .05


def test_what_all_data_miss_does_not_average_out():
    """Each p̂ is .5 % too low, by a value that is never drawn: so is their mean, of however many data."""
    model, guide, exact = of_likelihoods(1e-6, 0.5, 0.0025)
    e = pv.evidence(model, guide, torch.ones(400), estimators=[pv.IS(1000)])["IS"]
    low, high = e.mean_interval()
    assert e.reliable.all() and e.log_evidence < exact - 0.004 and low < exact < high


OF_DRAWS = {
    "log_weights": lambda *pair: pv.log_weights(*pair, num_samples=1000),
    "posterior": pv.posterior,
    "free_energy": lambda *pair: pv.thermodynamics.free_energy(*pair, temperatures=[1.0, 2.0]),
}


@pytest.mark.parametrize("name", OF_DRAWS)
def test_every_result_made_of_such_draws_warns(name):
    model, guide, x, _ = drawn_bits(*HARDLY["categories"])
    with pytest.warns(UserWarning, match="hardly ever draws"):
        OF_DRAWS[name](model, guide, x)
    model, guide, x, _ = drawn_bits(HALF, lambda x: dist.Bernoulli(torch.sigmoid(x)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OF_DRAWS[name](model, guide, x)


def test_a_refused_estimate_gives_no_kl():
    model, guide, x, exact = drawn_bits(*HARDLY["categories"])
    kl = pv.divergences.forward_kl(x, model, guide, log_density=lambda x: exact, estimator=pv.Jackknife(1000))
    assert math.isnan(kl.value) and "KL(p_data ‖ p) ? nan" in repr(kl)


def test_data_whose_classifier_has_not_saturated_keep_their_interval():
    model, guide, x, exact = drawn_bits(HALF, lambda x: dist.Bernoulli(logits=torch.tensor([0.0, 30.0, 0.3])))
    e = pv.evidence(model, guide, x, estimators=[pv.IS(1000)], compile=False)["IS"]
    assert e.reliable.tolist() == [True, False, True]
    low, high = e.interval(0.9999).unbind(-1)
    assert ((low < exact) & (exact < high))[e.reliable].all()


def test_a_guide_that_rules_a_value_out_as_the_posterior_does_is_left_alone():
    """q = p(z | x) with probabilities down to e^-50: nothing is missed, bit by bit or in a row of 20."""
    x = torch.tensor([10.0, -10.0, 50.0, 0.5])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.full((20,), 0.5)).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x.unsqueeze(-1).expand(*x.shape, 20))

    def guide(x):
        with pyro.plate("data", len(x)):
            logits = (x - 0.5).unsqueeze(-1).expand(*x.shape, 20)
            pyro.sample("z", dist.Bernoulli(logits=logits).to_event(1))

    e = pv.evidence(model, guide, x, estimators=[pv.IS(1000)], compile=False)["IS"]
    one = dist.Normal(torch.tensor([0.0, 1.0]), 1.0).log_prob(x.unsqueeze(-1)).double()
    exact = 20 * (one.logsumexp(-1) - math.log(2))
    assert e.reliable.all()
    torch.testing.assert_close(e.per_datum, exact, rtol=1e-5, atol=1e-3)
    assert float(e.details.get("unreached", torch.zeros(1)).max()) < 1e-3


def test_what_is_missed_is_the_joint_mass_through_a_chain_of_sites():
    """b depends on a in the guide: forced values go on to what is drawn after them; one sample at a time as well."""
    table = torch.tensor([[-40.0, 0.0], [0.0, 0.0]])

    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Bernoulli(0.5))
            b = pyro.sample("b", dist.Categorical(torch.ones(2) / 2))
            pyro.sample("x", dist.Normal(a + 2 * b, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Bernoulli(0.5))
            pyro.sample("b", dist.Categorical(logits=table[a.long()]))

    x = torch.tensor([0.0, 4.0])
    e = pv.evidence(model, guide, x, estimators=[pv.IS(1000)], compile=False)["IS"]
    sums = torch.tensor([0.0, 1.0, 2.0, 3.0]).double()
    terms = dist.Normal(sums, 1.0).log_prob(x.double().unsqueeze(-1)) - math.log(4)
    missed = terms[:, 0].exp() / terms[:, 1:].exp().sum(-1)  # a = 0, b = 0
    torch.testing.assert_close(e.details["unreached"], missed, rtol=0.25, atol=1e-6)
    assert e.reliable.tolist() == [False, True]


def test_counts_of_different_totals_and_masked_latents_are_looked_at_as_far_as_they_can_be():
    totals = torch.tensor([2.0, 5.0, 3.0])

    def model(x, totals, mask):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Binomial(totals, torch.tensor(0.5)))
            with pyro.poutine.mask(mask=mask):
                y = pyro.sample("y", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(z + torch.where(mask, y, torch.zeros(())), 1.0), obs=x)

    def guide(x, totals, mask):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Binomial(totals, torch.tensor(0.5)))
            with pyro.poutine.mask(mask=mask):
                pyro.sample("y", dist.Bernoulli(logits=x * 0 + 30))

    x, mask = torch.tensor([1.0, 2.5, 1.5]), torch.tensor([True, False, True])
    given = (pv.per_datum(totals), pv.per_datum(mask))
    e = pv.evidence(model, guide, x, *given, estimators=[pv.IS(1000)], compile=False)["IS"]
    assert e.reliable.tolist() == [False, True, False]


COUNTS = {
    "poisson": (dist.Poisson(torch.tensor(1.0)), lambda x: dist.Poisson(x * 0 + 1e-6)),
    "geometric": (dist.Poisson(torch.tensor(1.0)), lambda x: dist.Geometric(x * 0 + 1 - 1e-6)),
    "beta-binomial": (
        dist.Binomial(5, torch.tensor(0.5)),
        lambda x: dist.BetaBinomial(x * 0 + 1e-4, 100.0, 5),
    ),
    "negative binomial": (
        dist.NegativeBinomial(2.0, torch.tensor(0.5)),
        lambda x: dist.NegativeBinomial(2.0, x * 0 + 1e-6),
    ),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_that_are_hardly_ever_drawn_leave_a_lower_bound(name):
    """x does not depend on z: ln p(x) is that of x alone, and the guide's draws see p(z = 0) of it."""
    prior, law = COUNTS[name]

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(0 * z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", law(x))

    x = torch.tensor([-1.0, 0.0, 2.0])
    e = pv.evidence(model, guide, x, estimators=[pv.IS(1000)], compile=False)["IS"]
    exact = dist.Normal(0.0, 1.0).log_prob(x).double()
    assert (e.per_datum < exact - 0.5).all() and not e.reliable.any()
    torch.testing.assert_close(e.per_datum + e.details["unreached"].log1p(), exact, rtol=0, atol=0.3)


def test_a_guide_of_counts_that_is_the_posterior_keeps_its_interval():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Poisson(torch.tensor(3.0)))
            pyro.sample("x", dist.Binomial(z, 0.5, validate_args=False), obs=x)

    def guide(x):  # z - x ~ Poisson(1.5) given x: here a law as wide
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Poisson(x + 1.5))

    x = torch.tensor([0.0, 1.0, 2.0])
    e = pv.evidence(model, guide, x, estimators=[pv.IS(4000)], compile=False)["IS"]
    exact = dist.Poisson(1.5).log_prob(x).double()
    assert float(e.details.get("unreached", torch.zeros(1)).max()) < 1e-2
    assert ((e.per_datum - exact) / e.variance.sqrt()).abs().max() < 4.5
