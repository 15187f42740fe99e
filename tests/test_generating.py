"""`pv.simulate`, `pv.reconstruct` and `pv.embed` of pairs of every shape, against laws that are known."""

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.reparam import DiscreteCosineReparam, HaarReparam, LocScaleReparam

import pyrovae as pv
from pyrovae.models import ground_truths as gt

from . import handwritten as hw

F64 = torch.float64
CASES = [
    "two_latents",
    "scaled_plate",
    "masked_dims",
    "inner_plate",
    "enumerated_in_guide",
    "auxiliary",
    "images",
    "with_context",
    "per_datum_parameters",
    "fixed_shape",
    "python_loop",
    "auto_normal",
]


def discrete(x):
    """A class, then a place that depends on it."""
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
        z = pyro.sample("z", dist.Normal(2.0 * k, 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def discrete_guide(x):
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(logits=torch.stack([-x, 0 * x, x], -1)))
        pyro.sample("z", dist.Normal(0.5 * x + k, 0.1))


X = torch.linspace(-1.0, 3.0, 7)


def test_simulated_data_have_the_law_of_the_model():
    made = pv.simulate(discrete, 5000, X[:1], seed=1)
    k, z = made.latents["k"], made.latents["z"]
    assert k.shape == z.shape == made.x.shape == (5000,)
    assert torch.equal(made.mean, z)  # of p(x | z)
    share = (k == 2).double().mean()
    assert abs(share - 0.5) < 4 * math.sqrt(0.25 / 5000)
    spread = (made.x - 2.0 * k).double()
    assert abs(spread.mean()) < 4 * math.sqrt(1.25 / 5000)
    assert abs(spread.var() - 1.25) < 4 * 1.25 * math.sqrt(2 / 5000)
    # Blocks have noise of their own.
    assert len(torch.unique(made.x)) > 4990


def test_simulated_data_follow_contexts_in_turn():
    def model(x, shift):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(shift, 1e-3), obs=x)

    made = pv.simulate(model, 2500, torch.zeros(3), torch.tensor([0.0, 10.0, 20.0]))
    expected = 10.0 * (torch.arange(2500) % 3)
    assert (made.x - expected).abs().max() < 0.1


def fixed(x):
    with pyro.plate("data", 5):
        pyro.sample("x", dist.Normal(torch.zeros(5), 1.0), obs=x)


def with_factor(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("energy", -(z**4))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: pv.simulate(discrete, 3), r"try pv\.simulate\(model, 3, x\[:1\]\)"),
        (lambda: pv.simulate(discrete, 0, X), "num_data to be a whole number >= 1, got 0"),
        (lambda: pv.simulate(discrete, X), r"whole number >= 1, got a tensor \(7,\)"),
        (lambda: pv.simulate(fixed, 8, torch.zeros(5)), r"try pyro\.plate\(name, len\(x\)\)"),
        (lambda: pv.simulate(with_factor, 8, X), r"pyro\.factor at \['energy'\]"),
        (lambda: pv.embed(discrete, discrete_guide, X, resampled=3), "resampled to be True or False"),
        (lambda: pv.reconstruct(discrete, X), "the guide"),
        (lambda: pv.embed((discrete, discrete_guide), X), "two arguments"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, words):
    with pytest.raises((TypeError, ValueError), match=words):
        call()


def test_reconstructions_keep_the_order_of_the_data():
    """A plate that draws its own subsample gave rows in a random order."""

    def model(x):
        with pyro.plate("data", len(x), subsample_size=4) as ind:
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 10.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[ind])

    def guide(x):
        with pyro.plate("data", len(x), subsample_size=4) as ind:
            pyro.sample("z", dist.Normal(x[ind], 1e-3))

    x = 10.0 * torch.arange(10)
    made = pv.reconstruct(model, guide, x)
    assert (made.mean - x).abs().max() < 0.1 and made.x.shape == x.shape
    assert (pv.embed(model, guide, x) - x).abs().max() < 1e-6


def test_many_data_are_reconstructed_in_their_order():
    x = torch.linspace(0, 50, 2500)
    made = pv.reconstruct(discrete, discrete_guide, x)
    assert (made.latents["z"] - 0.5 * x - made.latents["k"]).abs().max() < 0.6


def test_means_by_site_and_probabilities_of_classes():
    found = pv.embed(discrete, discrete_guide, X, num_samples=4000)
    assert list(found) == ["k", "z"]
    q = torch.stack([-X, 0 * X, X], -1).softmax(-1)
    torch.testing.assert_close(found["k"], q)
    classes = torch.arange(3.0)
    mean, var = q @ classes, q @ classes**2 - (q @ classes) ** 2
    assert ((found["z"] - 0.5 * X - mean).abs() <= 4.5 * (var / 4000).sqrt() + 1e-5).all()


def exact_discrete(x):
    prior = torch.tensor([0.2, 0.3, 0.5]).log()
    post = (prior + dist.Normal(2.0 * torch.arange(3.0), 1.25**0.5).log_prob(x.unsqueeze(-1))).softmax(-1)
    given_k = (2.0 * torch.arange(3.0) + 4.0 * x.unsqueeze(-1)) / 5.0
    return post, (post * given_k).sum(-1)


def test_resampled_means_are_those_of_the_posterior():
    def wide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(torch.ones(3)))
            pyro.sample("z", dist.Normal(x, 1.0))

    k = 20_000
    found = pv.embed(discrete, wide, X, resampled=True, num_samples=k)
    probs, mean = exact_discrete(X)
    draws = pv.posterior(discrete, wide, X, num_samples=k)
    assert draws.ess.min() > 1000
    se = 1 / draws.ess.sqrt()
    assert ((found["k"] - probs).abs() < 4.5 * (se * 0.5).unsqueeze(-1)).all()
    assert ((found["z"] - mean).abs() < 4.5 * se).all()
    plain = pv.embed(discrete, wide, X)
    assert (plain["z"] - mean).abs().max() > 0.1, "the guide's own means are not"


def test_means_that_are_no_posterior_means_are_told():
    truth = gt.linear_gaussian(4, latent_dim=2)

    def narrow(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.full((2,), 3.0, dtype=F64), 0.05).to_event(1))

    with pytest.warns(UserWarning, match="no posterior means"):
        pv.embed(truth.model, narrow, truth.x, resampled=True)


def test_a_plate_of_fixed_size_and_one_of_another_name():
    fixed, other = hw.fixed_plate(), hw.other_plate(declared=False)
    for case in (fixed, other):
        options = {"plate": case.options["plate"]} if case.options else {}
        made = pv.reconstruct(case.model, case.exact, *case.args, **options)
        assert len(made.x) == hw.N
        found = pv.embed(case.model, case.exact, *case.args, **options)
        torch.testing.assert_close(found, hw.posterior(hw.X).mean)


def test_the_named_one_of_several_observed_sites_is_drawn():
    case = hw.sequential_plate()
    with pytest.raises(ValueError, match=r"one observed site to draw, got \['x0', 'x1', 'x2'\]"):
        pv.reconstruct(case.model, case.exact, *case.args)
    made = pv.reconstruct(case.model, case.exact, *case.args, observed="x1")
    assert len(made.x) == hw.N


@pytest.mark.parametrize("name", CASES)
def test_pairs_of_every_shape(name):
    case = getattr(hw, name)()
    made = pv.reconstruct(case.model, case.exact, *case.args)
    assert len(made.x) == hw.N and made.x.isfinite().all()
    found = pv.embed(case.model, case.exact, *case.args, num_samples=3)
    for mean in [found] if isinstance(found, torch.Tensor) else found.values():
        assert len(mean) == hw.N and mean.isfinite().all()
    drawn = pv.simulate(case.model, 12, *case.args)
    assert len(drawn.x) == 12 and all(len(z) == 12 for z in drawn.latents.values())


def test_a_flow_has_the_mean_of_its_draws():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def skewed(x):
        base = dist.Normal(0.1 * x, 0.1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.TransformedDistribution(base, [dist.transforms.ExpTransform()]))

    found = pv.embed(model, skewed, X, num_samples=2000)
    exact = (0.1 * X + 0.005).exp()
    assert ((found - exact).abs() < 4.5 * 0.1 * exact / math.sqrt(2000) * 1.1).all()


def located(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


@pytest.mark.parametrize(
    ("law", "words"),
    [
        (lambda x: dist.Cauchy(x, 1.0), "a Cauchy at 'z', whose mean is nan"),
        (lambda x: dist.HalfCauchy(x.exp()), "a HalfCauchy at 'z', whose mean is inf"),
        (lambda x: dist.StudentT(0.9, x, 1.0), "a StudentT at 'z', whose mean is nan"),
    ],
)
def test_means_that_do_not_exist_are_refused(law, words):
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", law(x))

    with pytest.raises(ValueError, match=words):
        pv.embed(located, guide, X)


def test_a_guide_without_a_mean_proposes_for_that_of_the_posterior():
    def heavy(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Cauchy(0.5 * x, 1.0))

    found = pv.embed(located, heavy, X, resampled=True, num_samples=10_000)
    ess = pv.posterior(located, heavy, X, num_samples=10_000).ess
    assert ess.min() > 1000
    assert ((found - 0.5 * X).abs() < 4.5 * (0.5 / ess).sqrt()).all()


def test_means_of_angles_are_those_of_their_draws():
    """The mean that a von Mises law tells is on the circle: pi - 0.1 where E[z] over (-pi, pi) is far from it."""
    place, k = math.pi - 0.1, 4000

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.VonMises(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.VonMises(place + 0 * x, 4.0))

    grid = torch.linspace(-math.pi, math.pi, 20_001, dtype=F64)
    p = dist.VonMises(torch.tensor(place, dtype=F64), 4.0).log_prob(grid).exp()
    exact = torch.trapezoid(grid * p, grid)
    sd = (torch.trapezoid(grid**2 * p, grid) - exact**2).sqrt()
    found = pv.embed(model, guide, X, num_samples=k)
    assert ((found - exact).abs() < 4.5 * sd / math.sqrt(k)).all() and exact < 2


def test_means_of_directions_are_within_the_sphere():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.ProjectedNormal(torch.zeros(3)))
            pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.ProjectedNormal(torch.zeros(len(x), 3)))

    found = pv.embed(model, guide, X, num_samples=2000)
    assert (found.abs() < 4.5 / math.sqrt(3 * 2000)).all()


def test_parts_of_draws_of_other_seeds_are_others():
    """Draws are made 1,024 at a time: none of those of seed 0 are in those of seed 1."""
    rows = torch.zeros(2048)
    model, guide = discrete, discrete_guide
    for draw in (
        lambda seed: pv.simulate(model, 2048, rows[:1], seed=seed),
        lambda seed: pv.reconstruct(model, guide, rows, seed=seed),
    ):
        first, other = draw(0).x, draw(1).x
        assert torch.isin(first, other).float().mean() < 0.01  # of float32, some agree by chance
        assert first.unique().numel() > 2000


def test_models_under_reparam_are_drawn_from():
    """Observations are x alone, and no latents that reparam computes."""

    def plain(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.full_like(x, 3.0), 2.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z_decentered", dist.Normal((x - 3) / 2.1, 0.3))

    model = poutine.reparam(plain, config={"z": LocScaleReparam(0.0)})
    drawn = pv.simulate(model, 1000, torch.zeros(1))
    assert torch.equal(drawn.latents["z"], 3 + 2 * drawn.latents["z_decentered"])
    assert (drawn.x.mean() - 3).abs() < 4.5 * (4.25 / 1000) ** 0.5
    bounds = pv.sandwich(model, guide, torch.zeros(1), simulate=20, ais=pv.AIS(20, 4, start="guide"))
    truth = dist.Normal(3.0, 4.25**0.5).log_prob(bounds.x.double())
    assert (bounds.lower - truth).abs().mean() < 0.1 and (bounds.upper - truth).abs().mean() < 0.1


@pytest.mark.parametrize("reparam", [HaarReparam, DiscreteCosineReparam])
def test_models_under_a_rotation_are_drawn_from(reparam):
    """Draws are of what the latent is computed from; the point mass that is left is no observed site."""

    def plain(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.full_like(x, 3.0), 2.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z_" + name, dist.Normal(torch.zeros_like(x), 3.0).to_event(1))

    name = "haar" if reparam is HaarReparam else "dct"
    model = poutine.reparam(plain, config={"z": reparam(dim=-1)})
    drawn = pv.simulate(model, 1000, torch.zeros(1, 4))
    assert (drawn.x.mean(0) - 3).abs().max() < 4.5 * (4.25 / 1000) ** 0.5
    assert (drawn.x.var(0) - 4.25).abs().max() < 4.5 * 4.25 * (2 / 1000) ** 0.5
    x = drawn.x[:3, :2]
    truth = dist.Normal(3.0, 4.25**0.5).log_prob(x.double()).sum(1)
    found = pv.evidence(model, guide, x, estimators=[pv.IS(40_000)])
    assert found.measure.kinds == {"x": "density"}
    assert ((found["IS"].per_datum - truth) / found["IS"].variance.sqrt()).abs().max() < 4.5


def _observing(change, law=lambda z: dist.Normal(z, 0.5)):
    """A pair whose model observes numbers that it makes of x `[N, 3]`."""

    def model(x, *context):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", law(z).to_event(1), obs=change(x, *context))

    def guide(x, *context):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    return model, guide


_BITS = {"law": lambda z: dist.Bernoulli(logits=z)}


@pytest.mark.parametrize(
    ("change", "options", "like"),
    [
        (lambda x: (x - 5) / 0.5, {}, torch.zeros(1, 3)),
        (lambda x: 2 * x, {}, torch.zeros(1, 3)),
        (lambda x: x.log(), {}, torch.ones(4, 3)),
        (lambda x: torch.cat([x[:, :2], x[:, 2:].log()], 1), {}, torch.ones(4, 3)),
        (lambda x: 1 - x, _BITS, torch.eye(3)),
        (lambda x: x - 1, {"law": lambda z: dist.Poisson(z.exp())}, torch.ones(4, 3)),
        (lambda x: (x + torch.rand_like(x)) / 256, {}, torch.tensor([[0.0, 17.0, 255.0]])),
    ],
)
def test_draws_of_numbers_made_of_the_data_are_no_new_data(change, options, like):
    model, guide = _observing(change, **options)
    with pytest.raises(ValueError, match=r"numbers that it makes of x.*try observed='x'"):
        pv.simulate(model, 200, like)
    with pytest.warns(UserWarning, match="values of the site 'x', which holds numbers that the model makes"):
        pv.reconstruct(model, guide, like)
    with warnings.catch_warnings():  # whoever names the site asks for its values
        warnings.filterwarnings("error", message="x and mean are values")
        assert pv.simulate(model, 10, like, observed="x").x.shape == (10, 3)
        pv.reconstruct(model, guide, like, observed="x")


_GREY = torch.linspace(0, 1, 30).reshape(10, 3)
_HOLES = torch.where(torch.arange(30).reshape(10, 3) % 4 > 0, torch.nan, _GREY + 5)


@pytest.mark.parametrize(
    ("change", "options", "given"),
    [
        (torch.bernoulli, _BITS, (_GREY,)),
        (lambda x: (x > 0.5).float(), _BITS, (_GREY,)),
        (lambda x: (255 * x + torch.rand_like(x)) / 256, {}, (_GREY,)),
        (lambda x: x.nan_to_num(), {}, (_HOLES,)),
        (lambda x: torch.where(x.isnan(), 5.5, x), {}, (_HOLES,)),
        (lambda x, mask: torch.where(mask, x, 0.0), {}, (_GREY, _GREY > 0.4)),
        (lambda x: x.float(), {}, (torch.arange(30).reshape(10, 3),)),
        (lambda x, y: y, {}, (_GREY, 3 * _GREY)),
    ],
)
def test_data_filled_in_or_made_bits_are_data_still(change, options, given):
    model, guide = _observing(change, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="x and mean are values")
        assert pv.simulate(model, 50, *given).x.shape == (50, 3)
        assert pv.reconstruct(model, guide, *given).x.shape == (10, 3)


@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_batches_that_a_plate_draws_are_data_still(shift):
    x = torch.randn(50)

    def model(x):
        with pyro.plate("data", 50, subsample_size=10):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=pyro.subsample(x, event_dim=0) - shift)

    def guide(x):
        with pyro.plate("data", 50, subsample_size=10):
            pyro.sample("z", dist.Normal(0.5 * pyro.subsample(x, event_dim=0), 1.0))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pv.reconstruct(model, guide, x)
    assert any("x and mean are values" in str(w.message) for w in caught) == (shift != 0)


def test_numbers_made_of_the_data_are_not_filled_in():
    model, guide = _observing(lambda x: torch.where(x.isnan(), 0.0, (x - 5) / 0.5))
    with pytest.raises(ValueError, match="not in the units of the data"):
        pv.impute(model, guide, _HOLES, num_samples=30)


def _chains(law):
    def model(x):
        mean = pyro.param("mean", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mean, 1.0))
            pyro.sample("x", law(z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0 * x.flatten(1)[:, 0], 1.0))

    return model, guide


def _discrete(z, **options):
    step = torch.tensor([[0.9, 0.1], [0.2, 0.8]]).log()
    seen = dist.Normal(torch.stack([z - 1, z + 1], -1).unsqueeze(-2), 1.0)
    return dist.DiscreteHMM(torch.zeros(2), step, seen, **options)


def _gaussian(z, **options):
    noise = dist.Normal(torch.zeros(1), 0.5).to_event(1)
    one = torch.ones(1, 1)
    return dist.GaussianHMM(
        dist.Normal(z.unsqueeze(-1), 1.0).to_event(1), 0.9 * one, noise, one, noise, **options
    )


@pytest.mark.parametrize(("law", "event"), [(_discrete, (4,)), (_gaussian, (4, 1))])
def test_chains_of_any_length_are_scored_and_not_drawn(law, event):
    x = torch.randn(6, *event, generator=torch.Generator().manual_seed(0))
    fixed = _chains(lambda z: law(z, duration=4))
    model, guide = _chains(law)
    found, wanted = (pv.log_weights(*pair, x, num_samples=5) for pair in ((model, guide), fixed))
    assert torch.allclose(found, wanted, atol=1e-5)
    fits = [
        pv.fit(*pair, x, epochs=2, lr=0.1, progress=False, compile=False) for pair in ((model, guide), fixed)
    ]
    assert fits[0].history[-1]["elbo"] == pytest.approx(fits[1].history[-1]["elbo"])
    assert pv.simulate(fixed[0], 3, x).x.shape == (3, *event)
    for call in (lambda: pv.simulate(model, 3, x), lambda: pv.reconstruct(model, guide, x)):
        with pytest.raises(ValueError, match="HMM at 'x' without a number of steps; try duration="):
            call()


def test_chains_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"site 'x', \(6, 4, 1\) of the data it was run on, got \(6, 4, 3\)"):
        pv.log_weights(*_chains(_gaussian), torch.zeros(6, 4, 3), num_samples=2)


def test_laws_without_draws_are_named():
    eye = torch.eye(1)
    normal = dist.MultivariateNormal(torch.zeros(1), eye)
    model, guide = _chains(
        lambda z: dist.GammaGaussianHMM(
            dist.Gamma(z.exp(), 1.0), normal, eye, normal, eye, normal, duration=4
        )
    )
    with pytest.raises(ValueError, match="GammaGaussianHMM at 'x', which has no draws"):
        pv.simulate(model, 3, torch.zeros(2, 4, 1))
    hidden, _ = _chains(lambda z: dist.Normal(z.unsqueeze(-1), 1.0).to_event(1))
    with pytest.raises(ValueError, match="at 'h' without a number of steps"):
        pv.log_weights(_with_chain(hidden), _with_chain(guide), torch.zeros(2, 4), num_samples=2)


def _with_chain(program):
    def chained(x):
        with pyro.plate("data", len(x)):
            pyro.sample("h", _discrete(torch.zeros(len(x))))
        program(x)

    return chained


def test_a_plate_that_picks_rows_which_x_has_not_is_named():
    case = hw.CASES["x[ind], size of the training data"]()
    with pytest.raises(ValueError, match=r"expected a model and a guide that run on x of shape.*IndexError"):
        pv.simulate(case.model, 6, *case.args)
