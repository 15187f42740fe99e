"""Programs whose numbers would not mean p(x): shapes that broadcast, improper priors, noise that is no site."""

import functools
import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.reparam import LocScaleReparam

import pyrovae as pv
from pyrovae.programs.checks.observed import transformed_sites

X = torch.tensor([0.3, -1.0, 2.0, 0.7])


def pair(law=dist.Normal, likelihood=lambda z: dist.Normal(z, 1.0), guide=lambda x: dist.Normal(x / 2, 0.8)):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", law(0.0, 1.0))
            pyro.sample("x", likelihood(z), obs=x)

    def own_guide(x):
        shift = pyro.param("shift", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", guide(x.reshape(len(x), -1).mean(-1) + shift))

    return model, own_guide


WAYS = {
    "log_weights": lambda p, x: pv.log_weights(*p, x, num_samples=3),
    "evidence": lambda p, x: pv.evidence(*p, x, estimators=[pv.ELBO(4), pv.IS(4)]),
    "Exact": lambda p, x: pv.evidence(*p, x, estimators=[pv.Exact()]),
    "fit": lambda p, x: pv.fit(*p, x, epochs=1, batch_size=2),
}
# What is observed, under which law: densities [N, N], or one number counted three times.
SHAPES = {
    "x [N, 1], law [N]": (pair(), X[:, None], "one density for each place"),
    "x [N, N], law [N, 1]": (
        pair(likelihood=lambda z: dist.Normal(z[..., None], 1.0)),
        X.expand(4, 4),
        "place",
    ),
    "x [N, 1], law of three": (
        pair(likelihood=lambda z: dist.Normal(z[..., None] + torch.zeros(3), 1.0).to_event(1)),
        X[:, None],
        "the shape of the model's site 'x'",
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", SHAPES)
def test_densities_that_broadcast_beyond_the_plates_are_refused(shape, way):
    programs, x, words = SHAPES[shape]
    with pytest.raises(ValueError, match=words) as error:
        WAYS[way](programs, x)
    assert "'x'" in str(error.value)


@pytest.mark.parametrize("way", WAYS)
def test_an_improper_prior_is_named(way):
    programs = pair(law=lambda *_: dist.ImproperUniform(dist.constraints.real, (), ()))
    with pytest.raises(
        ValueError, match=r"^expected a prior with a density, got ImproperUniform at 'z'.*try"
    ) as error:
        WAYS[way](programs, X)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(), (1,), None])
def test_random_numbers_that_are_no_sites_leave_no_density(shape):
    """In the model there is no one p(x); training, which averages over them, is left alone."""
    programs = pair(
        likelihood=lambda z: dist.Normal(z + torch.randn(z.shape if shape is None else shape), 1.0)
    )
    for way in ("log_weights", "evidence", "Exact"):
        with (
            pytest.warns(UserWarning, match="outside of pyro.sample"),
            pytest.raises(ValueError, match="no one p"),
        ):
            WAYS[way](programs, X)
    with pytest.warns(UserWarning, match="outside of pyro.sample"):
        WAYS["fit"](programs, X)


def test_random_numbers_of_the_guide_are_told_in_true_words():
    """E_e E_q(z|e) w = p(x): right, and no fault of rounding or of the particle plate."""
    programs = pair(guide=lambda x: dist.Normal(x / 2 + 0.3 * torch.randn(()), 1.0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ev = pv.evidence(*programs, X, estimators=[pv.IS(2000)])
    said = [str(w.message) for w in caught if w.category is UserWarning]
    assert any("guide of this program draws random numbers outside" in s for s in said)
    assert not any("rounding" in s or "vectorised over" in s for s in [*said, *ev.warnings])
    exact = dist.Normal(0.0, math.sqrt(2)).log_prob(X)
    assert bool(((ev["IS"].per_datum - exact).abs() < 4 * ev["IS"].variance.sqrt()).all())


COUNTS = {
    "Binomial, p = 1": (lambda x: dist.Binomial(5, probs=torch.ones_like(x)), True),
    "Binomial, p = 0 of some data": (lambda x: dist.Binomial(5, probs=(x > 0).to(x) * 0.4), True),
    "Binomial": (lambda x: dist.Binomial(5, probs=torch.full_like(x, 0.4)), False),
    "Poisson, rate 0": (lambda x: dist.Poisson(torch.zeros_like(x)), True),
    "Geometric, p = 1": (lambda x: dist.Geometric(probs=torch.ones_like(x)), True),
    "NegativeBinomial, p = 0": (lambda x: dist.NegativeBinomial(3, probs=torch.zeros_like(x)), True),
}


@pytest.mark.filterwarnings("ignore:the guide's support is smaller")
@pytest.mark.parametrize("name", COUNTS)
def test_a_guide_that_draws_one_count_alone_leaves_a_lower_bound(name):
    """torch clamps such a p, so that the density of the other counts is not zero."""
    law, narrower = COUNTS[name]

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Binomial(5, torch.tensor(0.4)))
            pyro.sample("x", dist.Normal(k, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", law(x))

    with pyro.validation_enabled(False):
        e = pv.evidence(model, guide, X, estimators=[pv.IS(300)])["IS"]
    assert (e.lower_only is not None) == narrower


@pytest.mark.parametrize("what", ["x", "context"])
def test_a_program_that_writes_to_its_arguments_in_place(what):
    """Each run would find other data than the one before."""

    def model(x, scale):
        if what == "x":
            x /= 2
        else:
            scale *= 1.5
        with pyro.plate("data", 4):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, scale), obs=x)

    def guide(x, scale):
        with pyro.plate("data", 4):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="writes to them in place"):
        pv.evidence(model, guide, X.clone(), torch.tensor(1.0), estimators=[pv.IS(10)])


# Programs that go by all draws at once ---------------------------------------------------------------
def of_all_draws(condition):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0 if condition(z) else 2.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.7))

    return model, guide, 0.3 * torch.randn(6, generator=torch.Generator().manual_seed(0)).double()


ESTIMATORS = [pv.IS(50), pv.IS(50, defensive=0.1), pv.Exact(), pv.AIS(5, 4), pv.Jackknife(50), pv.MLMC()]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.name)
def test_a_branch_on_all_draws_at_once_is_refused(estimator):
    """No three draws show it: among thousands the law of x was twice as wide, and IS .3 nats too high."""
    with pytest.raises(ValueError, match=r"log-density of one sample is its own|factorise over the data"):
        pv.evidence(*of_all_draws(lambda z: z.abs().max() < 2.5), estimators=[estimator])


def test_a_branch_that_all_draws_take_is_served():
    model, guide, x = of_all_draws(lambda z: bool(torch.isfinite(z).all()))
    e = pv.evidence(model, guide, x, estimators=[pv.IS(2000)])["IS"]
    truth = dist.Normal(0.0, 2**0.5).log_prob(x)
    assert ((e.per_datum - truth).abs() < 5 * e.variance.sqrt()).all()


def test_many_draws_show_what_a_few_do_not():
    """Without a number taken into Python: of a threshold on all draws, by the runs that are compared."""

    def widened(z):
        return torch.where(z.abs().max() < 2.5, 1.0, 2.0)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
            pyro.sample("x", dist.Normal(z, widened(z)), obs=x)

    _, guide, x = of_all_draws(torch.isfinite)
    with pytest.raises(ValueError, match=r"log-density of one sample is its own|factorise over the data"):
        pv.log_weights(model, guide, x, num_samples=4000, chunk=pv.Chunk(6, 4000))


WAYS_OF_A_MODEL = WAYS | {"simulate": lambda p, x: pv.simulate(p[0], 5, x)}


@pytest.mark.parametrize("way", WAYS_OF_A_MODEL)
def test_a_program_that_seeds_torch_is_refused(way):
    """Its draws of other chunks, and the momenta of chains, would be the same numbers again."""
    model, guide = pair()

    def seeding(x):
        pyro.set_rng_seed(2)
        return model(x)

    with pytest.raises(ValueError, match=r"leaves torch's random state to its caller.*; try"):
        WAYS_OF_A_MODEL[way]((seeding, guide), X)


def test_fixed_numbers_that_leave_the_random_state_alone_are_served():
    _, guide = pair()

    def fixed(x):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            scale = torch.rand(())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, scale), obs=x)

    torch.manual_seed(2)
    right = dist.Normal(0.0, (1 + torch.rand(()) ** 2).sqrt()).log_prob(X)
    found = pv.evidence(fixed, guide, X, estimators=[pv.Exact()])["Exact"].per_datum
    torch.testing.assert_close(found.float(), right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("law", [dist.Normal(0.0, 1.0), dist.Categorical(torch.ones(4))])
def test_sums_over_draws_are_named(law):
    """Pyro's `num_samples` of an enumerated site: a Monte-Carlo sum in place of the sum over values."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", law, infer={"enumerate": "parallel", "num_samples": 5})
            pyro.sample("x", dist.Normal(z.float(), 1.0), obs=x)

    with pytest.raises(ValueError, match=r"got num_samples at 'z', a sum over draws; try it without"):
        pv.log_weights(model, lambda x: None, X, num_samples=3)


def test_a_law_without_shapes_is_named():
    class Bare(dist.Distribution):
        def __init__(self, loc):
            self.loc = loc

        def sample(self, *args, **kwargs):
            return self.loc

        def log_prob(self, value, *args, **kwargs):
            return -0.5 * (value - self.loc) ** 2

    with pytest.raises(ValueError, match=r"got Bare at 'x', which has none; try .*TorchDistribution"):
        pv.log_weights(*pair(likelihood=Bare), X, num_samples=3)


def test_data_in_a_second_plate_are_named():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ValueError, match=r"got 'x' in 'rows', another plate of as many data.*try one plate"):
        pv.log_weights(model, pair()[1], X, num_samples=3)


@pytest.mark.parametrize("how", ["drawn", "enumerated"])
def test_classes_that_the_prior_lacks_are_counted(how):
    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(2)))
            pyro.sample("x", dist.Normal(k.float(), 1.0), obs=x)

    def guide(x):
        infer = {"enumerate": "parallel"} if how == "enumerated" else {}
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(torch.ones(len(x), 3)), infer=infer)

    with pytest.raises(ValueError, match="a guide of 'k' with the model's 2 classes, got one of 3; try"):
        pv.log_weights(model, guide, X, num_samples=3)


def test_a_guide_under_reparam_is_named():
    model, guide = pair()
    moved = poutine.reparam(guide, config={"z": LocScaleReparam(0.0)})
    with pytest.raises(
        ValueError, match=r"got \['z'\] computed from others.*try the same reparam around the model"
    ):
        pv.log_weights(model, moved, X, num_samples=3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x.log(), True),
        (lambda x: (x - x.new_tensor(1.3)) / 2, True),
        (lambda x: x.double(), False),
        (lambda x: x.clamp(min=0.1), False),
    ],
)
def test_a_density_of_other_numbers_than_those_of_x_is_said_to_be(change, said):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=change(x))

    found = pv.evidence(model, pair()[1], X.abs())
    assert any("['x'] observe numbers" in w and "Jacobian" in w for w in found.warnings) == said


def test_data_most_of_which_are_missing_are_numbers_of_x():
    x = torch.where(torch.arange(60) % 4 > 0, torch.nan, torch.linspace(-1, 1, 60))

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0, validate_args=False), obs=x)

    assert not transformed_sites(poutine.trace(model).get_trace(x), x, ())


def test_a_density_that_follows_a_counter_is_told_of_both_causes():
    runs = []
    programs = pair(likelihood=lambda z: dist.Normal(z, 1.0 + 0.01 * (runs.append(0) or len(runs))))
    with (
        pytest.warns(UserWarning, match="outside of pyro.sample .*, or follows what its runs change"),
        pytest.raises(
            ValueError, match=r"outside of pyro.sample .*, or follows what its runs change \(as a counter"
        ),
    ):
        pv.evidence(*programs, X)


def test_what_do_sets_is_called_so():
    """The remedy that is named gives ln p(x | do(z))."""
    model, _ = pair()
    done = poutine.do(model, data={"z": torch.tensor(2.0)})
    with pytest.raises(
        ValueError, match=r"without \['z'\], which pyro.do still draws.*try pyro.condition.*hide="
    ):
        pv.evidence(done, lambda x: None, X)
    blocked = poutine.block(done, hide=["z"])
    found = pv.log_weights(blocked, lambda x: None, X, num_samples=2)
    torch.testing.assert_close(found, dist.Normal(2.0, 1.0).log_prob(X).expand(2, -1).to(found.dtype))


@pytest.mark.parametrize(
    ("plate", "said"),
    [
        (lambda x: pyro.plate("data", len(x), subsample_size=2), False),
        (lambda x: pyro.plate("data", 8, subsample=torch.arange(len(x))), True),
    ],
)
def test_a_plate_that_draws_of_the_data_passed_stands_for_no_more(plate, said):
    def model(x):
        with plate(x) as rows:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows])

    def guide(x):
        with plate(x) as rows:
            pyro.sample("z", dist.Normal(x[rows] / 2, 0.8))

    notes = pv.evidence(model, guide, X, estimators=[pv.IS(10)]).warnings
    assert any("the plate stands for" in w for w in notes) == said


@pytest.mark.parametrize(
    ("change", "missing", "said"),
    [
        (lambda x: torch.cat([x[:, :5], x[:, 5:].log()], 1), 0, True),
        (lambda x: x.nan_to_num(nan=0.7), 20, False),
        (lambda x: x / torch.tensor([1.0] * 5 + [2.0]), 0, True),
        (lambda x: x[:, torch.tensor([5, 4, 3, 2, 1, 0])], 0, False),
    ],
)
def test_one_column_of_other_numbers_is_said_to_be(change, missing, said):
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(0)).exp()
    x[:missing, 2] = torch.nan

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(torch.zeros(6), 1.0).to_event(1), obs=change(x))

    found = transformed_sites(poutine.trace(model).get_trace(x), x, ())
    assert found == (("x",) if said else ())


# Maps of auxiliary draws ---------------------------------------------------------------------------

SCALE = torch.tensor([[0.85, 0.0], [0.2, 0.8]])
LOG_DET = float(SCALE.diagonal().log().sum())
MAPS = {
    "right": (lambda x, e: (e @ SCALE.T.to(e) + 0.2 * x, -LOG_DET), True),
    "forgotten": (lambda x, e: (e @ SCALE.T.to(e) + 0.2 * x, 0.0), False),
    "of the other sign": (lambda x, e: (e @ SCALE.T.to(e) + 0.2 * x, LOG_DET), False),
    "curved": (lambda x, e: (e.sinh() / 2, (math.log(2) - e.cosh().log()).sum(-1)), True),
    "curved, of one of two": (lambda x, e: (e.sinh() / 2, (math.log(2) - e.cosh().log())[..., 0]), False),
    "handed on": (lambda x, e: (e, 0.0), True),
    "turned": (lambda x, e: (e.flip(-1) + x, 0.0), True),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MAPS)
def test_a_delta_without_its_jacobian_is_refused(name, dtype):
    """z ~ N(0, 1), x ~ N(z, 1): ln p(x) is known; a Jacobian left out raised it, certified."""
    to, right = MAPS[name]

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            law = dist.Normal(torch.zeros_like(x), 1.0).to_event(1)
            z, told = to(x, pyro.sample("e", law, infer={"is_auxiliary": True}).to(x.dtype))
            pyro.sample("z", dist.Delta(z, log_density=told, event_dim=1))

    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)).to(dtype)
    if not right:
        with pytest.raises(ValueError, match=r"Deltas at \['z'\] whose log_density is -ln\|dz/de\|.*; try"):
            pv.log_weights(model, guide, x, num_samples=2)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weights = pv.log_weights(model, guide, x, num_samples=20000).double()
    ratio = (weights - dist.Normal(0.0, 2**0.5).log_prob(x.double()).sum(-1)).exp()
    assert ((ratio.mean(0) - 1).abs() < 5 * ratio.std(0) / 20000**0.5 + 1e-5).all()


def test_a_map_that_autograd_does_not_see_is_told_of():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x, told=0.0):
        with pyro.plate("data", len(x)):
            e = pyro.sample("e", dist.Normal(torch.zeros(len(x)), 1.0), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Delta(0.5 * e.detach(), log_density=told))

    with pytest.warns(UserWarning, match="log_density of 0, which is right only if the map keeps volumes"):
        pv.log_weights(model, guide, torch.zeros(5), num_samples=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pv.log_weights(model, functools.partial(guide, told=math.log(2.0)), torch.zeros(5), num_samples=2)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ask", [pv.log_weights, pv.posterior])
def test_runs_with_other_sites_are_refused(ask, seed):
    """Of a loop as long as its draws say, the sites of the first run alone would count."""

    def steps(p):
        for t in range(20):
            if not pyro.sample(f"go{t}", dist.Bernoulli(torch.tensor([p]))).item():
                return float(t)
        return 20.0

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(torch.full((1,), steps(0.6)), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            steps(0.5)

    with pytest.raises(ValueError, match=r"same sites in every run, got \['go1'.*a fixed number of steps"):
        ask(model, guide, torch.tensor([1.2]), num_samples=50, seed=seed)
