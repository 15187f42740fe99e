"""Programs whose evidence was wrong in silence: each against plain NumPy, or refused by name."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import pyrovae as pv

F64 = torch.float64
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


# -- masks on latents -------------------------------------------------------------------------------------------------


def sides(how, mask):
    """u ~ Normal(0, 1), x ~ Normal(z, 1) beside it; `how` says where u and z are masked."""
    wide = mask.reshape(-1, 1) if isinstance(mask, torch.Tensor) else mask

    def draw(name, law, masked):
        if masked == "poutine.mask":
            with poutine.mask(mask=mask):
                return pyro.sample(name, law.to_event(1))
        if masked == ".mask()":
            return pyro.sample(name, law.to_event(1).mask(mask))
        if masked == "of dims":
            return pyro.sample(name, law.mask(wide).to_event(1))
        return pyro.sample(name, law.to_event(1))

    def model(x):
        with pyro.plate("data", len(x)):
            draw("u", dist.Normal(x.new_zeros(len(x), 2), 1.0), how[0])
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            draw("u", dist.Normal(x.new_zeros(len(x), 2), 10.0), how[1])
            pyro.sample("z", dist.Normal(x / 2, math.sqrt(0.5)))

    return model, guide


WAYS = ["poutine.mask", ".mask()", "of dims"]
X = torch.tensor([0.3, -0.5, 1.0], dtype=torch.float64)
CALLS = {
    "log_weights": lambda m, g, x=X: pv.log_weights(m, g, x, num_samples=5),
    "evidence": lambda m, g, x=X: pv.evidence(m, g, x),
    "AIS": lambda m, g, x=X: pv.evidence(m, g, x, estimators=[pv.AIS(4, 2)]),
    "posterior": lambda m, g, x=X: pv.posterior(m, g, x, num_samples=5),
    "sandwich": lambda m, g, x=X: pv.sandwich(m, g, x, simulate=3),
    "free_energy": lambda m, g, x=X: pv.thermodynamics.free_energy(m, g, x, temperatures=[1.0, 2.0]),
    "gaps": lambda m, g, x=X: pv.gaps(m, g, x, num_samples=5),
    "fit": lambda m, g, x=X: pv.fit(m, g, x, epochs=1),
}


@pytest.mark.parametrize("how", [(w, None) for w in WAYS] + [(None, w) for w in WAYS])
@pytest.mark.parametrize("mask", [False, torch.tensor([True, True, False])], ids=["all", "the third"])
def test_a_latent_masked_on_one_side_is_refused(how, mask):
    if how.index(None) == 0 and mask is not False:
        how = (
            "poutine.mask" if how[1] == "of dims" else None,
            how[1],
        )  # both: the same mask, said in two ways
    model, guide = sides(how, mask)
    if None not in how:
        pv.log_weights(model, guide, X, num_samples=5)
        return
    with pytest.raises(ValueError, match=r"same mask of latent 'u'.*poutine\.mask"):
        pv.log_weights(model, guide, X, num_samples=5)


@pytest.mark.parametrize("call", CALLS)
def test_every_function_refuses_a_mask_on_one_side(call):
    model, guide = sides(("poutine.mask", None), torch.tensor([True, True, False]))
    with pytest.raises(ValueError, match="same mask of latent 'u'"):
        CALLS[call](model, guide)


@pytest.mark.parametrize("there", WAYS)
@pytest.mark.parametrize("here", WAYS)
def test_the_same_mask_on_both_sides_is_right_however_it_is_said(here, there):
    model, guide = sides((here, there), torch.tensor([False, False, False]))
    check_all(normal(X.numpy(), 0.0, math.sqrt(2)), figures(model, guide, X, exact=False))


def test_exact_integrates_what_is_masked_on_both_sides():
    def model(x):
        with pyro.plate("data", len(x)):
            with poutine.mask(mask=x > 0):
                pyro.sample("u", dist.Normal(0.0, 1.0))
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            with poutine.mask(mask=x > 0):
                pyro.sample("u", dist.Normal(0.0, 1.0))
            pyro.sample("z", dist.Normal(x / 2, math.sqrt(0.5)))

    check_all(normal(X.numpy(), 0.0, math.sqrt(2)), figures(model, guide, X))


def test_what_counts_must_not_depend_on_a_masked_latent():
    def model(x):
        with pyro.plate("data", len(x)):
            with poutine.mask(mask=x > 0.5):  # of the third datum alone
                z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)), poutine.mask(mask=x > 0.5):
            pyro.sample("z", dist.Normal(x, 0.1))

    with pytest.raises(ValueError, match=r"depend on masked latents.*'z'"):
        pv.log_weights(model, guide, X, num_samples=5)


def imputing(masked):
    """x of two numbers given z, the second one not always seen, as `obs_mask` has it."""

    def model(x, seen):
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            with pyro.plate("numbers", 2, dim=-1):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x, obs_mask=seen)

    def guide(x, seen):
        count = 1 + seen.sum(-1, keepdim=True)
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal((x * seen).sum(-1, keepdim=True) / count, count**-0.5))
            with pyro.plate("numbers", 2, dim=-1), poutine.mask(mask=~seen if masked else torch.tensor(True)):
                pyro.sample("x_unobserved", dist.Normal(x.new_zeros(()), 3.0))

    return model, guide


def test_numbers_that_obs_mask_imputes():
    x = torch.tensor([[0.3, 9.0], [-0.5, 0.7]], dtype=torch.float64)
    seen = torch.tensor([[True, False], [True, True]])
    with pytest.raises(ValueError, match=r"'x_unobserved'.*mask=~obs_mask"):
        pv.log_weights(*imputing(False), x, seen, num_samples=5)
    joint = np.linalg.slogdet(2 * np.pi * (np.eye(2) + 1))[1]
    both = -0.5 * (joint + x[1].numpy() @ np.linalg.solve(np.eye(2) + 1, x[1].numpy()))
    lw = pv.log_weights(*imputing(True), x, seen, num_samples=4000).double()
    got = lw.logsumexp(0).numpy() - math.log(4000)
    np.testing.assert_allclose(got, [normal(0.3, 0.0, math.sqrt(2)), both], rtol=0, atol=0.15)


@pytest.mark.parametrize("auxiliary", [True, False])
def test_the_mask_of_a_mapped_latent_is_that_of_what_it_is_computed_from(auxiliary):
    seen = torch.tensor([True, False, True])

    def model(x):
        with pyro.plate("data", len(x)), poutine.mask(mask=seen):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            with poutine.mask(mask=seen if auxiliary else torch.tensor(True)):
                a = pyro.sample("a", dist.Normal(x.new_zeros(()), 1.0), infer={"is_auxiliary": True})
            jacobian = torch.full_like(a, -math.log(0.5) / 2)
            pyro.sample("z", dist.Delta(x / 2 + a * math.sqrt(0.5), log_density=jacobian * seen))

    if auxiliary:
        right = np.where(seen.numpy(), normal(X.numpy(), 0.0, math.sqrt(2)), 0.0)
        check_all(right, figures(model, guide, X, exact=False))
    else:
        with pytest.raises(ValueError, match=r"same mask of latent 'z'.*auxiliary"):
            pv.log_weights(model, guide, X, num_samples=5)


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
    assert bool(ev["IS"].interval().isnan().all()) == narrower


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


# -- plates and context -----------------------------------------------------------------------------------------------


def series(size, **options):
    """x `[T, N]`: series in columns, and a plate over the columns."""

    def plate(x):
        return pyro.plate("data", size(x), **{k: v(x) for k, v in options.items()})

    def model(x):
        with plate(x):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            with pyro.plate("time", x.shape[0], dim=-2):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with plate(x):
            pyro.sample("z", dist.Normal(x.sum(0) / (1 + len(x)), (1 + len(x)) ** -0.5))

    return model, guide


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (12, 1), (2, 1), (1, 5), (3, 2)])
@pytest.mark.parametrize("idiom", ["columns", "subsample_size"])
def test_a_plate_that_is_not_of_the_rows_of_x_is_refused(shape, idiom):
    torch.manual_seed(0)
    size, options = (lambda x: x.shape[1]), {}
    if idiom == "subsample_size":
        size, options = (lambda x: 100), {"subsample_size": lambda x: x.shape[1]}
    model, guide = series(size, **options)
    with pytest.raises(ValueError, match=rf"len\(x\) = {shape[0]} data.*x\.T"):
        pv.evidence(model, guide, torch.randn(*shape))


@pytest.mark.parametrize("n", [2, 5])
def test_square_data_whose_columns_are_the_data_are_refused(n):
    """The plate has len(x) rows, but a datum in it is no row of x: one row more changes all of them."""
    x = torch.randn(n, n, generator=torch.Generator().manual_seed(0)).double()
    model, guide = series(lambda x: x.shape[1])
    with pytest.raises(ValueError, match="density of each datum that is its own"):
        pv.evidence(model, guide, x)


def test_subsampling_within_a_datum_is_refused():
    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            with pyro.plate("numbers", x.shape[1], subsample_size=2, dim=-1) as i:
                pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, i])

    def guide(x):
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal(x.mean(-1, keepdim=True), 0.4))

    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).double()
    for call in (c for c in CALLS if c != "sandwich"):  # which refuses another breach first
        with pytest.raises(ValueError, match=r"got it in 'numbers' at 'x'.*subsample_size"):
            CALLS[call](model, guide, x)


def test_plates_of_a_latent_that_differ_are_refused():
    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            with pyro.plate("numbers", 2, dim=-1):
                z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0), obs=x.unsqueeze(-1))

    def guide(x):
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal(x.unsqueeze(-1) / 2, 1.0))

    with pytest.raises(ValueError, match=r"same plates.*'z'"):
        pv.log_weights(model, guide, X, num_samples=5)


def book_of(n, rows=None):
    """x from a mixture around the rows of a codebook (all data share it), moved by context of each datum."""
    torch.manual_seed(0)
    x, book, own = torch.randn(n, 3).double(), torch.randn(rows or n, 3).double(), torch.randn(n, 3).double()
    weights = np.full(len(book), 1 / len(book))

    def right(i, x=x, book=book, own=own):
        parts = normal(x[i].numpy(), book.numpy() + own[i].numpy(), math.sqrt(2)).sum(-1)
        return np.log((weights * np.exp(parts)).sum())

    def model(x, book, own):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            law = dist.Normal(book + (z + own).unsqueeze(-2), 1.0).to_event(1)
            pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(x.new_ones(len(book))), law), obs=x)

    def guide(x, book, own):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0).to_event(1))

    return model, guide, (x, book, own), np.array([right(i) for i in range(n)])


@pytest.mark.parametrize("n", [1, 2, 3, 6])
@pytest.mark.parametrize("how", ["unmarked", "marked", "half marked"])
def test_a_shared_tensor_with_as_many_rows_as_data_is_not_cut(n, how):
    model, guide, (x, book, own), right = book_of(n)
    if how != "unmarked":
        book = pv.shared(book)
    if how == "marked":
        own = pv.per_datum(own)
    for chunk in (pv.Chunk(2, 1000), None, pv.Chunk(n, 4000)):
        lw = pv.log_weights(model, guide, x, book, own, num_samples=4000, chunk=chunk)
        w = lw.exp().numpy()
        error = w.std(0) / np.sqrt(len(w)) / w.mean(0)
        assert (np.abs(np.log(w.mean(0)) - right) < 4.5 * error).all()


def nested(kind):
    """The same with its context in a container."""
    model, guide, (x, book, own), _ = book_of(6)
    pack = {
        "tuple": (lambda b, o: (b, o), lambda c: c),
        "list": (lambda b, o: [b, [o]], lambda c: (c[0], c[1][0])),
        "dict": (lambda b, o: {"book": b, "own": o}, lambda c: (c["book"], c["own"])),
    }[kind]
    return (
        lambda x, c: model(x, *pack[1](c)),
        lambda x, c: guide(x, *pack[1](c)),
        x,
        pack[0](book, own),
        pack[0](pv.shared(book), pv.per_datum(own)),
        (model, guide, book, own),
    )


@pytest.mark.filterwarnings("ignore:this program is not compiled")
@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("kind", ["tuple", "list", "dict"])
def test_context_in_containers_is_told_apart_too(kind, compile):
    model, guide, x, plain, marked, (bare, own_guide, book, own) = nested(kind)
    options = {"num_samples": 5, "chunk": pv.Chunk(2, 5)}
    expected = pv.log_weights(bare, own_guide, x, pv.shared(book), pv.per_datum(own), **options)
    for context in (plain, marked):
        got = pv.log_weights(model, guide, x, context, compile=compile, **options)
        torch.testing.assert_close(got, expected)
        ev = pv.evidence(model, guide, x, context, estimators=[pv.IS(5)], chunk=pv.Chunk(2, 5))
        torch.testing.assert_close(ev["IS"].per_datum, expected.logsumexp(0) - math.log(5))


def test_marks_reach_every_function():
    model, guide, (x, book, own), _ = book_of(6)
    marked = (pv.shared(book), pv.per_datum(own))
    assert pv.posterior(model, guide, x, *marked, num_samples=5).log_weights.shape == (5, 6)
    assert pv.sandwich(model, guide, x, *marked, simulate=9, ais=pv.AIS(3, 2), num_samples=4).gap.shape == (
        9,
    )
    assert pv.sandwich(model, guide, x, book, own, simulate=9, ais=pv.AIS(3, 2), num_samples=4).gap.shape == (
        9,
    )
    assert pv.gaps(model, guide, x, *marked, num_samples=5, fit=pv.LocalFit(2), flow=False).total.mean > -100
    hashes = [pv.evidence(model, guide, x, *c).attributes["data_hash"] for c in (marked, (book, own))]
    assert hashes[0] == hashes[1]


def test_marks_that_do_not_fit_are_refused():
    model, guide, (x, book, own), _ = book_of(6, rows=4)
    with pytest.raises(ValueError, match=r"pv\.per_datum to have len\(x\) = 6 rows, got shape \(4, 3\)"):
        pv.log_weights(model, guide, x, pv.per_datum(book), own, num_samples=5)
    with pytest.raises(TypeError, match="tensor"):
        pv.per_datum("rows")
    with pytest.raises(ValueError, match="parameters to train"):  # and not of the mark, which fits
        pv.fit(model, guide, (x, pv.shared(book), own), epochs=1)


def test_context_that_cannot_be_told_names_the_marks():
    model, guide, (x, book, own), _ = book_of(6)

    def fickle(x, book, own):  # no run of a part of the data agrees with that of all
        model(x * (1 + 0.1 * len(x)), book, own)

    with pytest.raises(ValueError, match=r"pv\.per_datum\(tensor\) or pv\.shared\(tensor\)"):
        pv.log_weights(fickle, guide, x, book, own, num_samples=5)


def test_rows_taken_from_the_front_are_rows_of_the_data():
    """own[:len(x)] runs with the whole context as well, on the wrong rows."""
    torch.manual_seed(0)
    own = torch.randn(3).double()

    def model(x, own):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(own[: len(x)], 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x, own):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x + own[: len(x)]) / 2, math.sqrt(0.5)))

    right = normal(X.numpy(), own.numpy(), math.sqrt(2))
    check_all(right, figures(model, guide, X, own, chunk=pv.Chunk(1, 3), exact=False))


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
