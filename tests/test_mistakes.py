"""Mistakes that Pyro's users make: refused with the true reason, and the remedy works as it is written."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.infer.autoguide import AutoDelta, AutoLaplaceApproximation, AutoNormal, AutoStructured
from pyro.infer.reparam import LocScaleReparam, TransformReparam
from pyro.nn import PyroModule, PyroSample
from torch import nn

import pyrovae as pv

N = 6
X = torch.randn(N, 2, generator=torch.Generator().manual_seed(0))
HALF = 0.5**0.5


def pair(
    plates=("data", "data"), dim=None, events=(1, 1, 1), name="z", net=None, extra=None, sizes=(None, None)
):
    """z ~ N(0, 1), x ~ N(z, 1) in two dims, with the exact posterior as its guide: all weights are p(x)."""

    def law(law, event):
        return law.to_event(event) if event else law

    def inside(fn, x, plate, size):
        if plate is None:
            return fn(x)
        with pyro.plate(plate, len(x), subsample_size=size, dim=dim) as i:
            return fn(x if size is None else x[i])

    def model(x, *context):
        def run(x):
            z = pyro.sample("z", law(dist.Normal(x.new_zeros(x.shape), 1.0), events[0]))
            if extra is not None:
                extra()
            pyro.sample("x", law(dist.Normal(z, 1.0), events[2]), obs=x)

        inside(run, x, plates[0], sizes[0])

    def guide(x, *context):
        if net is not None:
            x = net(x)
        shift = pyro.param("shift", torch.tensor(0.0))

        def run(x):
            pyro.sample(name, law(dist.Normal(x / 2 + shift, HALF), events[1]))

        inside(run, x, plates[1], sizes[1])

    return model, guide


def double():
    """The identity, as a network of float64."""
    net = nn.Linear(2, 2, bias=False)
    net.weight.data = torch.eye(2)
    return net.double()


def shared(values=None):
    """A mean that all data share; known, it is 0.5."""

    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(w - 0.5, 1.0).expand([len(x), 2]).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    return (model if values is None else pyro.condition(model, values)), pair()[1]


def lifted():
    """A parameter that is made a latent of all data."""

    def model(x):
        scale = pyro.param("scale", torch.tensor(1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), scale).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    return poutine.lift(model, prior={"scale": dist.Gamma(2.0, 2.0)}), pair()[1]


def sequential():
    def model(x):
        for i in pyro.plate("data", len(x)):
            z = pyro.sample(f"z{i}", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample(f"x{i}", dist.Normal(z, 1.0).to_event(1), obs=x[i])

    return model, lambda x: [pyro.sample(f"z{i}", dist.Normal(0.0, 1.0)) for i in pyro.plate("data", len(x))]


def observes_all(x_of_plate=False):
    def model(x):
        with pyro.plate("data", len(x), subsample_size=3) as i:
            z = pyro.sample("z", dist.Normal(x.new_zeros(3, 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x[i] if x_of_plate else x)

    return model, pair(sizes=(3, 3))[1]


def given_indices(rows):
    """Indices that the program gives its plate: as many as x has rows."""

    def run(fn):
        def program(x, ind):
            with pyro.plate("data", 100, subsample=ind):
                fn(x if rows else x[ind])

        return program

    def model(x):
        z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(x / 2 + pyro.param("shift", torch.tensor(0.0)), HALF).to_event(1))

    return run(model), run(guide)


def bits(kind):
    """Bits of a latent's sign, observed as some kind of number."""

    def model(x, y):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)
            pyro.sample("y", dist.Bernoulli(x.new_zeros(len(x)) + 0.5), obs=y.to(kind))

    return model, pair()[1]


def penalised():
    """A term of a parameter, as one adds it to a loss."""

    def model(x):
        pyro.factor("penalty", -(pyro.param("b", torch.tensor(1.0)) ** 2))
        pair()[0](x)

    return model, pair()[1]


def random_weights():
    """A Bayesian layer: its weights are latents of all data."""

    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.scale = PyroSample(dist.LogNormal(0.0, 1.0))

        def forward(self, x):
            scale = self.scale
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape), scale).to_event(1))
                pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    return Model(), pair()[1]


def of_fixed_size(size):
    def model(x):
        with pyro.plate("data", size):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    return model, pair()[1]


def known(guide):
    """The latent observed by `pyro.condition`: what is left is p(x, z)."""
    return pyro.condition(pair()[0], {"z": torch.zeros(2)}), guide


def frame():
    return pytest.importorskip("pandas").DataFrame(X.numpy())


def column():
    return pytest.importorskip("pandas").Series(range(N))


SHARED = r"\['w'\] outside: with global variables .*given="
# Name to: the pair and its arguments, the reason, the pair and its arguments after the remedy, with options.
MISTAKES = {
    "to_event missing in the model": (lambda: pair(events=(0, 1, 1)), (X,), r"'z'.*\.to_event\(1\)", pair),
    "to_event missing in the guide": (lambda: pair(events=(1, 0, 1)), (X,), r"'z'.*\.to_event\(1\)", pair),
    "to_event missing of the likelihood": (
        lambda: pair(events=(1, 1, 0)),
        (X,),
        r"'x'.*\.to_event\(1\)",
        pair,
    ),
    "an event too many": (lambda: pair(events=(1, 2, 1)), (X,), r"'z'", pair),
    "a plate of another dim": (lambda: pair(dim=-2), (X,), "'z'.*try a plate without dim=", pair),
    "a plate of another name": (
        lambda: pair(("rows", "rows")),
        (X,),
        r"in the model; got plates: 'rows' \(size \d\); try plate='rows'",
        lambda: (*pair(("rows", "rows")), {"plate": "rows"}),
    ),
    "two names of the plate": (
        lambda: pair(("data", "rows")),
        (X,),
        r"in the guide; got plates: 'rows'.*in model and guide alike",
        pair,
    ),
    "no plate in the guide": (
        lambda: pair(("data", None)),
        (X,),
        r"in the guide; got plates: none; try `with pyro.plate\('data', len\(x\)\):` around the sites of the guide",
        pair,
    ),
    "no plate in the model": (lambda: pair((None, "data")), (X,), "in the model; got plates: none", pair),
    "a plate of another size": (
        lambda: of_fixed_size(100),
        (X,),
        r"hold the len\(x\) = 6 data.*got one of 100 at 'z'; try pyro.plate\('data', len\(x\)\)",
        pair,
    ),
    "bools under a Bernoulli": (
        lambda: bits(torch.bool),
        (X, torch.ones(N)),
        r"'y' of which Bernoulli has a density, got torch.bool .*try \.to\(torch\.float32\)",
        lambda: (*bits(torch.float32), {"context": (torch.ones(N),), "more": math.log(0.5)}),
    ),
    "whole numbers under a Bernoulli": (
        lambda: bits(torch.long),
        (X, torch.ones(N)),
        r"got torch.int64 .*try \.to\(torch\.float32\)",
        lambda: (*bits(torch.float32), {"context": (torch.ones(N),), "more": math.log(0.5)}),
    ),
    "a penalty of all data": (
        penalised,
        (X,),
        r"pyro\.factor at \['penalty'\], a term of all data.*block\(model, hide=\['penalty'\]\)",
        lambda: (poutine.block(penalised()[0], hide=["penalty"]), penalised()[1]),
    ),
    "weights that are drawn": (
        random_weights,
        (X,),
        r"\['scale'\] outside.*given=",
        lambda: (*random_weights(), {"given": {"scale": 1.0}}),
    ),
    "a sequential plate": (sequential, (X,), "got a sequential one", pair),
    "a latent of the model alone": (
        lambda: pair(extra=lambda: pyro.sample("s", dist.Normal(0.0, 1.0))),
        (X,),
        r"a guide without \['s'\];",
        pair,
    ),
    "a name misspelled": (
        lambda: pair(name="Z"),
        (X,),
        r"a guide without \['z'\], which draws \['Z'\] .*try the model's names",
        pair,
    ),
    "integer data": (
        lambda: pair(net=double().float()),
        (X.mul(3).long(),),
        r"try one dtype .*x\.float\(\)",
        lambda: (*pair(net=double().float()), {"x": X.mul(3).long().float()}),
    ),
    "a network of another dtype": (
        lambda: pair(net=double()),
        (X,),
        r"try one dtype .*module\.float\(\)",
        lambda: pair(net=double().float()),
    ),
    "a subsample in the model alone": (
        lambda: pair(sizes=(3, None)),
        (X,),
        "3 in the model and 6 in the guide; subsample both",
        lambda: (*pair(sizes=(3, 3)), {"drawn": True}),
    ),
    "all of x under a subsample": (
        observes_all,
        (X,),
        r"obs=x\[indices\]",
        lambda: (*observes_all(True), {"drawn": True}),
    ),
    "given indices into x": (
        lambda: given_indices(False),
        (X, torch.tensor([1, 3])),
        r"one for each row of x|6 rows of context, as of x, got \(2,\)",
        lambda: (*given_indices(True), {"x": X[[1, 3]], "context": (torch.tensor([1, 3]),)}),
    ),
    "a latent of all data": (shared, (X,), SHARED, lambda: (*shared(), {"given": {"w": 0.5}})),
    "a latent of all data, conditioned": (shared, (X,), SHARED, lambda: shared({"w": 0.5})),
    "a latent of all data under pyro.do": (
        lambda: (pyro.do(shared()[0], {"w": torch.tensor(0.5)}), shared()[1]),
        (X,),
        SHARED,
        lambda: (pyro.do(shared()[0], {"w": torch.tensor(0.5)}), shared()[1], {"given": {"w": 0.5}}),
    ),
    "a parameter that is lifted": (
        lifted,
        (X,),
        r"\['scale'\] outside: with global",
        lambda: (*lifted(), {"given": {"scale": 1.0}}),
    ),
    "a latent hidden in the guide": (
        lambda: (pair()[0], poutine.block(pair()[1], hide=["z"])),
        (X,),
        r"a guide without \['z'\]",
        pair,
    ),
    "a latent hidden in the model": (
        lambda: (poutine.block(pair()[0], hide=["z"]), pair()[1]),
        (X,),
        r"guide sites that the model has too, got \['z'\]",
        pair,
    ),
    "data hidden": (lambda: (poutine.block(pair()[0], hide=["x"]), pair()[1]), (X,), "observed site", pair),
    "a point estimate": (
        lambda: (pair()[0], AutoDelta(pair()[0])),
        (X,),
        r"point estimate \(Delta\) at \['z'\]; try .*AutoNormal\(model\)",
        lambda: (pair()[0], AutoNormal(pair()[0], init_scale=HALF), {"sure": False}),
    ),
    "a guide of all data's latents at once": (
        lambda: (pair()[0], AutoStructured(pair()[0], conditionals="normal")),
        (X,),
        r"\['z_aux'\] outside.*AutoNormal",
        lambda: (pair()[0], AutoNormal(pair()[0], init_scale=HALF), {"sure": False}),
    ),
    "a Laplace approximation": (
        lambda: (pair()[0], AutoLaplaceApproximation(pair()[0])),
        (X,),
        r"_latent'\] outside.*AutoNormal",
        lambda: (pair()[0], AutoNormal(pair()[0], init_scale=HALF), {"sure": False}),
    ),
    "a guide of the names before a reparametrisation": (
        lambda: (poutine.reparam(pair()[0], config={"z": LocScaleReparam(0.0)}), pair()[1]),
        (X,),
        r"a guide without \['z_decentered'\], which draws \['z'\]",
        lambda: (
            poutine.reparam(pair()[0], config={"z": LocScaleReparam(0.0)}),
            pair(name="z_decentered")[1],
        ),
    ),
    "a data frame": (pair, (frame,), r"got DataFrame; try .*\.to_numpy\(\)", pair),
    "a column of a data frame": (pair, (X, column), r"got a Series; try \.to_numpy\(\)", pair),
    "too many arguments": (
        lambda: (lambda x: pair()[0](x), lambda x: pair()[1](x)),
        (X, X),
        "positional argument",
        lambda: (lambda x: pair()[0](x), lambda x: pair()[1](x)),
    ),
}


def calls(model, guide, x, *context, **options):
    data = (x, *context) if context else x
    some = {"num_samples": 3} | options
    return {
        "log_weights": lambda: pv.log_weights(model, guide, x, *context, **some),
        "evidence": lambda: pv.evidence(model, guide, x, *context, estimators=[pv.IS(3)], **options),
        "posterior": lambda: pv.posterior(model, guide, x, *context, **some),
        "fit": lambda: pv.fit(model, guide, data, epochs=1, batch_size=3, lr=1e-9, compile=False, **options),
    }


def truth(x, more=0.0):
    return dist.Normal(0.0, 2**0.5).log_prob(x).sum(-1) + more


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_and_its_remedy_works(name):
    wrong, args, reason, right = MISTAKES[name]
    args = tuple(a() if callable(a) else a for a in args)
    for call in calls(*wrong(), *args).values():
        pyro.clear_param_store()
        with pytest.raises((ValueError, TypeError), match=reason) as refused:
            call()
        assert str(refused.value).startswith("expected ")
    model, guide, *more = right()
    options = dict(more[0]) if more else {}
    x, context, sure = options.pop("x", X), options.pop("context", ()), options.pop("sure", True)
    more = options.pop("more", 0.0)
    drawn, found = options.pop("drawn", False), {}  # of a program that draws which data a step is of
    for what, call in calls(model, guide, x, *context, **options).items():
        pyro.clear_param_store()
        found[what] = call()
    if sure:
        assert (found["log_weights"] - truth(x, more)).abs().max() < 1e-4
        assert (found["evidence"]["IS"].per_datum - truth(x, more)).abs().max() < 1e-4
        assert (found["posterior"].log_weights - truth(x, more)).abs().max() < 1e-4
        if not drawn:
            assert found["fit"].history[0]["loss"] == pytest.approx(-float(truth(x, more).mean()), abs=1e-3)
    else:
        weights = pv.log_weights(model, guide, x, num_samples=20_000)
        assert (weights.logsumexp(0) - torch.tensor(20_000.0).log() - truth(x, more)).abs().max() < 0.2


def reparametrised():
    def model(x):
        with pyro.plate("data", len(x)):
            base = dist.Normal(x.new_zeros(x.shape), 1.0)
            z = pyro.sample(
                "z",
                dist.TransformedDistribution(base, [dist.transforms.AffineTransform(0.0, 2.0)]).to_event(1),
            )
            pyro.sample("x", dist.Normal(z / 2, 1.0).to_event(1), obs=x)

    return poutine.reparam(model, config={"z": TransformReparam()}), pair(name="z_base")[1]


def computed(event_dim):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape), 1.0).to_event(1))
            loc = pyro.deterministic("loc", z.clone(), event_dim=event_dim)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    return model, pair()[1]


def returns(value):
    model, guide = pair()

    def run(x):
        guide(x)
        return value

    return model, run


IDIOMS = {
    "reparametrised by TransformReparam": reparametrised,
    "deterministic, with an event": lambda: computed(1),
    "deterministic, without": lambda: computed(None),
    "a guide that returns a dict": lambda: returns({"z": torch.zeros(2)}),
    "a scale around both": lambda: tuple(poutine.scale(fn, 0.1) for fn in pair()),
    "infer_config": lambda: (poutine.infer_config(pair()[0], config_fn=lambda site: {"mine": 1}), pair()[1]),
    "a network that is not registered": lambda: pair(net=double().float()),
}


@pytest.mark.parametrize("name", IDIOMS)
def test_what_is_no_mistake(name):
    model, guide = IDIOMS[name]()
    for call in ("log_weights", "posterior"):
        found = getattr(pv, call)(model, guide, X, num_samples=3)
        assert (getattr(found, "log_weights", found) - truth(X)).abs().max() < 1e-4
    fit = pv.fit(model, guide, X, epochs=1, batch_size=3, lr=1e-9, compile=False)
    factor = 0.1 if "scale" in name else 1.0
    assert fit.history[0]["loss"] == pytest.approx(-factor * float(truth(X).mean()), abs=1e-3)


def test_a_latent_that_is_conditioned_on_leaves_the_guide():
    """Its density counts: ln p(x, z) is what is asked for."""
    model, guide = known(pair()[1])
    with pytest.raises(ValueError, match=r"got \['z'\], which the model observes .*hide=\['z'\]"):
        pv.log_weights(model, guide, X, num_samples=2)
    found = pv.log_weights(model, poutine.block(guide, hide=["z"]), X, num_samples=2)
    expected = dist.Normal(0.0, 1.0).log_prob(torch.zeros(2)).sum() + dist.Normal(0.0, 1.0).log_prob(X).sum(
        -1
    )
    assert (found - expected).abs().max() < 1e-5


@pytest.mark.parametrize("side", ["model", "guide"])
def test_validation_is_named_where_it_stops_a_compiled_step(side):
    """The program has no branch: torch has one, where a law checks its parameters and values."""

    def model(x):
        with pyro.plate("data", len(x)):
            law = dist.Normal(x.new_zeros(x.shape), 1.0, validate_args=side == "model" or None)
            z = pyro.sample("z", law.to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        shift = pyro.param("shift", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            law = dist.Normal(x / 2 + shift, HALF, validate_args=side == "guide" or None)
            pyro.sample("z", law.to_event(1))

    with pytest.warns(UserWarning, match="validates its numbers"):
        fit = pv.fit(model, guide, X, epochs=1, batch_size=3, compile=True)
    assert "validate_args=True" in fit.refused and "test_mistakes.py" in fit.refused


def test_latents_of_which_no_draw_is_left_are_refused():
    """Each has one value a class: draws were returned that had no latents."""

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(x.new_zeros(len(x)) + 0.3))
            z = pyro.sample("z", dist.Normal(c, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    def guide(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(x.new_zeros(len(x)) + 0.5))
            pyro.sample("z", dist.Normal((x[:, 0] + c) / 2, HALF))

    with pytest.raises(ValueError, match=r"draws of its own, got \['c', 'z'\]"):
        pv.posterior(model, config_enumerate(guide, "parallel"), X, num_samples=3)
    assert set(pv.posterior(model, guide, X, num_samples=3).draws) == {"c", "z"}
