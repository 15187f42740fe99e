"""The contract of a program: what is refused, and the handlers everything stands on."""

import functools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import constraints
from torch import nn

import pyrovae as pv
from pyrovae.programs import ParameterStore, Substitute, declaration_of, derive_seed, inspect_program, seeded
from pyrovae.programs.sites import unscaled_log_prob

from . import handwritten as hw

F64 = torch.float64
EXACT = hw.plain_guide(False)


def refused(match, model=hw.plain_model, guide=EXACT, x=hw.X, error=ValueError, **options):
    """The program is refused by the weights, by the evidence and by training alike."""
    with pytest.raises(error, match=match):
        pv.log_weights(model, guide, x, num_samples=3, **options)
    with pytest.raises(error, match=match):
        pv.evidence(model, guide, x, estimators=[pv.IS(3)], **options)
    with pytest.raises(error, match=match):
        pv.fit(model, guide, x, epochs=1, **options)


# What is refused -----------------------------------------------------------------------------------


def test_no_plate():
    refused(r"pyro.plate named 'rows' .* got plates: 'data' \(size \d\)", plate="rows")
    refused("pyro.plate named 'data' .* got plates: none", lambda x: pyro.sample("x", hw.prior(), obs=x[0]))


def test_latent_missing_from_the_guide():
    case = hw.two_latents()

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z1", dist.Normal(torch.zeros(len(x), dtype=F64), 1.0))

    refused(r"every latent of the model in the guide, got a guide without \['z2'\]", case.model, guide)
    refused(r"got a guide without \['z'\]", guide=lambda x: None)


def test_guide_site_unknown_to_the_model():
    def guide(x, **infer):
        with pyro.plate("data", len(x)):
            pyro.sample("z", hw.posterior(x))
            pyro.sample("a", dist.Normal(torch.zeros(len(x), dtype=F64), 1.0), infer=infer)

    refused(r"guide sites that the model has too, got \['a'\]", guide=guide)
    refused("auxiliary guide sites to be mapped", guide=functools.partial(guide, is_auxiliary=True))


def test_delta_guide():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(torch.zeros(len(x), hw.L, dtype=F64), event_dim=1))

    refused(r"guide with a density, got a point estimate \(Delta\) at \['z'\]", guide=guide)


def test_observed_site_in_the_guide():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", hw.posterior(x))
            pyro.sample("y", hw.prior(), obs=torch.zeros(len(x), hw.L, dtype=F64))

    refused(r"guide without observed sites, got \['y'\]", guide=guide)


def test_global_latents():
    def model(x):
        pyro.sample("w", dist.Normal(torch.zeros((), dtype=F64), 1.0))
        hw.plain_model(x)

    def guide(x):
        pyro.sample("w", dist.Normal(torch.zeros((), dtype=F64), 1.0))
        EXACT(x)

    refused(r"inside the plate 'data', got \['w'\] outside", model, guide)


def test_event_shapes_that_differ():
    def guide(x):
        with pyro.plate("data", len(x), dim=-2), pyro.plate("dims", hw.L, dim=-1):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), hw.L, dtype=F64), 1.0))

    refused(r"event shape \(2,\), got \(\)", guide=guide)


def test_no_observed_site():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", hw.prior())

    refused("with an observed site", model)
    declared = pv.program(observed="y")(lambda x: hw.plain_model(x))
    refused("declared observed site 'y'", declared)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_data_that_are_not_finite(bad):
    x = hw.X.clone()
    x[3, 1] = bad
    refused(r"finite data, got NaN or inf in 1 of 5 data \(first: 3\)", x=x)


def test_data_of_other_kinds():
    refused("N >= 1", x=hw.X[:0])
    refused("shape", x=torch.tensor(1.0))
    for bad in ("data", None):
        with pytest.raises(TypeError, match="Tensor"):
            pv.log_weights(hw.plain_model, EXACT, bad, num_samples=3)
    own, given = (pv.log_weights(hw.plain_model, EXACT, x, num_samples=3) for x in (hw.X, hw.X.numpy()))
    torch.testing.assert_close(given, own, rtol=1e-5, atol=1e-5)


def test_factors_must_be_declared():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", hw.prior())
            pyro.sample("x", hw.likelihood(z), obs=x)
            pyro.factor("surrogate", torch.ones(len(x), dtype=F64))

    with pytest.raises(ValueError, match=r"pyro.factor at \['surrogate'\] undeclared"):
        pv.log_weights(model, EXACT, hw.X, num_samples=3)
    lw = pv.log_weights(pv.program(density="exact")(model), EXACT, hw.X, num_samples=3)
    torch.testing.assert_close(lw, hw.marginal(hw.X) + 1 + 0 * lw)
    bound_only = pv.program(density="bound_only")(lambda x: model(x))
    for run in (functools.partial(pv.log_weights, num_samples=3), pv.evidence):
        with pytest.raises(ValueError, match="density='bound_only'"):
            run(bound_only, EXACT, hw.X)
    # The expectation of the surrogate is the bound.
    e = pv.evidence(bound_only, EXACT, hw.X, estimators=[pv.ELBO(3)])["ELBO"]
    assert e.direction == "<=" and e.certificate is None
    torch.testing.assert_close(e.per_datum, (hw.marginal(hw.X) + 1).double())
    # In the guide too: it is part of ln q, and what it stands for is not known either.
    case = hw.guide_factor()
    with pytest.raises(ValueError, match=r"pyro.factor at \['jacobian'\] in the guide"):
        pv.log_weights(hw.plain_model, case.exact, hw.X, num_samples=3)


def test_declarations():
    with pytest.raises(ValueError, match="density to be one of"):
        pv.program(density="normalised")
    fn = pv.program(density="unnormalised", plate="images", simulate=len)(lambda x: None)
    for seen in (
        fn,
        functools.partial(fn),
        ParameterStore().bind(fn),
        ParameterStore().bind(functools.partial(fn)),
    ):
        assert declaration_of(seen).plate == "images" and declaration_of(seen).simulate is len
    assert declaration_of(len).density is None


def grey(shape, likelihood):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))
            pyro.sample("x", likelihood(shape(z)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 4), 1.0).to_event(1))

    return model, guide


@pytest.mark.parametrize(
    "shape", [lambda z: z, lambda z: z.view(-1, 4)], ids=["vectorised", "run one at a time"]
)
def test_values_outside_the_support(shape):
    x = torch.zeros(6, 4)
    x[5, 2] = 0.5  # not among the first data, which every look sees
    model, guide = grey(shape, lambda z: dist.Bernoulli(logits=z).to_event(1))
    refused(r"support of Bernoulli .* in \[0, 0.5\]; try: .*binarise=.*Binomial.*Gaussian", model, guide, x)
    x[5, 2] = 17.0
    model, guide = grey(shape, lambda z: dist.Binomial(16, logits=z).to_event(1))
    refused(r"support of Binomial \(IntegerInterval\), .* in \[0, 17\]; try: total_count", model, guide, x)
    x[5, 2] = -1.0
    model, guide = grey(shape, lambda z: dist.Poisson(z.exp()).to_event(1))
    refused(r"support of Poisson .* got values in \[-1, 0\]; try: whole numbers >= 0", model, guide, x)
    x[5, 2] = 1.0
    assert pv.log_weights(model, guide, x, num_samples=3).isfinite().all()


@pytest.mark.parametrize("how", ["handler", "method", "per dim"])
def test_values_outside_the_support_may_be_masked(how):
    x = torch.ones(6, 4)
    x[5] = -1.0
    seen = (x >= 0).all(1)

    def model(x):
        seen = x[..., 0] >= 0
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))
            d = dist.Bernoulli(logits=z, validate_args=False)
            if how == "handler":
                with poutine.mask(mask=seen):
                    pyro.sample("x", d.to_event(1), obs=x)
            else:
                d = d.to_event(1).mask(seen) if how == "method" else d.mask(x >= 0).to_event(1)
                pyro.sample("x", d, obs=x)

    _, guide = grey(lambda z: z, None)
    lw = pv.log_weights(model, guide, x, num_samples=3)
    assert (lw[:, ~seen] == 0).all() and (lw[:, seen] != 0).all()


def test_sizes_that_do_not_fit():
    def model(x):
        with pyro.plate("data", 9):
            z = pyro.sample("z", hw.prior())
            pyro.sample("x", hw.likelihood(z), obs=torch.zeros(9, hw.D, dtype=F64))

    def guide(x):
        with pyro.plate("data", 9):
            pyro.sample("z", hw.posterior(torch.zeros(9, hw.D, dtype=F64)))

    refused(r"len\(x\) = 5 data.*got a plate of 9", model, guide)


def test_parameters_are_made_to_the_size_of_the_data():
    case = hw.sized_parameters()
    store = ParameterStore()
    pv.log_weights(case.model, store.bind(case.exact), hw.X, num_samples=3)
    assert store.unconstrained()["loc_False"].shape == (hw.N, hw.L)


def test_context_of_any_kind():
    case = hw.with_context()
    arguments = inspect_program(case.model, case.exact, *case.args).arguments
    x, c, other = arguments.slice(torch.tensor([1, 3]))
    assert torch.equal(x, hw.X[[1, 3]]) and torch.equal(c, hw.CONTEXT[[1, 3]]) and other == (-1.0, "any")


# Seeds ---------------------------------------------------------------------------------------------


def test_derive_seed():
    assert derive_seed(1, "step", 2) == derive_seed(1, "step", 2)
    streams = [
        (s, name, *c) for s in (0, 1) for name in ("step", "order") for c in ((), (0,), (1,), (0, 1), (1, 0))
    ]
    seeds = [derive_seed(*s) for s in streams]
    assert len(set(seeds)) == len(streams)
    assert all(0 <= s < 2**63 for s in seeds)
    assert derive_seed(0, "weights", 3, 5) == 393560657843706547, (
        "seeds must never change: results hang on them"
    )
    for bad in ((-1, "a"), (0, "a", -2)):
        with pytest.raises(ValueError, match="counters >= 0"):
            derive_seed(*bad)


def test_seeded():
    state = torch.get_rng_state()
    with seeded(0, "a"):
        first = torch.randn(3)
        with seeded(0, "b"):
            torch.randn(1)
        after = torch.randn(1)
    assert torch.equal(state, torch.get_rng_state())
    with seeded(0, "a"):
        assert torch.equal(first, torch.randn(3)) and torch.equal(after, torch.randn(1))
    with seeded(0, "b"):
        assert not torch.equal(first, torch.randn(3))
    with pytest.raises(RuntimeError), seeded(0, "a"):
        raise RuntimeError
    assert torch.equal(state, torch.get_rng_state())


# Substitute ----------------------------------------------------------------------------------------


def hierarchy():
    """Supports of several kinds; that of `b` depends on `a`."""
    a = pyro.sample("a", dist.LogNormal(torch.zeros(3, dtype=F64), 1.0).to_event(1))
    with pyro.plate("p", 4):
        pyro.sample("b", dist.Uniform(0.0, a.sum()))
        pyro.sample("c", dist.Dirichlet(torch.ones(3, dtype=F64)))
        pyro.sample("d", dist.Normal(torch.zeros((), dtype=F64), 1.0))


def test_substitute_latents():
    values = {"a": torch.tensor([0.5, 1.0, 2.0], dtype=F64), "d": torch.arange(4.0, dtype=F64)}
    handler = Substitute(values)
    trace = poutine.trace(handler(hierarchy)).get_trace()
    for name, value in values.items():
        site = trace.nodes[name]
        assert torch.equal(site["value"], value) and not site["is_observed"]
    expected = dist.LogNormal(torch.zeros(3, dtype=F64), 1.0).log_prob(values["a"]).sum()
    torch.testing.assert_close(unscaled_log_prob(trace.nodes["a"]), expected)
    assert handler.used == {"a", "d"} and not handler.log_jacobian
    assert (trace.nodes["b"]["fn"].high == 3.5).all()


def test_substitute_unconstrained_latents():
    torch.manual_seed(0)
    u = {"a": torch.randn(3, dtype=F64), "b": torch.randn(4, dtype=F64), "c": torch.randn(4, 2, dtype=F64)}
    u["d"] = torch.randn(4, dtype=F64)

    def run(u):
        handler = Substitute(u, unconstrained=True)
        trace = poutine.trace(handler(hierarchy)).get_trace()
        return {n: trace.nodes[n]["value"] for n in u}, handler.log_jacobian

    values, jacobian = run(u)
    assert (values["b"] < values["a"].sum()).all() and (values["b"] > 0).all()
    torch.testing.assert_close(values["c"].sum(-1), torch.ones(4, dtype=F64))
    assert {n: tuple(j.shape) for n, j in jacobian.items()} == {"a": (), "b": (4,), "c": (4,), "d": (4,)}
    for name in u:
        # A simplex has one coordinate too many: its density is over the first ones.
        keep = 2 if name == "c" else None
        full = torch.autograd.functional.jacobian(lambda v, n=name: run({**u, n: v})[0][n], u[name])
        if name in ("a",):
            expected = torch.linalg.slogdet(full)[1]
        elif name == "c":
            blocks = [torch.linalg.slogdet(full[i, :keep, i, :])[1] for i in range(4)]
            expected = torch.stack(blocks)
        else:
            expected = torch.diagonal(full).abs().log()
        torch.testing.assert_close(jacobian[name], expected, rtol=1e-9, atol=1e-9)


def test_substitute_leaves_observed_sites():
    handler = Substitute({"x": torch.zeros(hw.N, hw.D, dtype=F64)})
    trace = poutine.trace(handler(hw.plain_model)).get_trace(hw.X)
    assert torch.equal(trace.nodes["x"]["value"], hw.X) and not handler.used


def test_substitute_parameters():
    def program():
        first = pyro.param("scale", torch.tensor(2.0), constraint=constraints.positive)
        return first, pyro.param("scale"), pyro.param("free", torch.zeros(2))

    program()
    value = torch.tensor(3.0, requires_grad=True)
    first, again, free = Substitute({"scale": value})(program)()
    assert first is value and again is value and torch.equal(free, torch.zeros(2))
    first, again, _ = Substitute({"scale": value}, unconstrained=True)(program)()
    # The second mention carries no constraint; it is the same parameter all the same.
    assert first is not value and first.item() == again.item() == pytest.approx(math.exp(3.0))
    (grad,) = torch.autograd.grad(again, value)
    assert grad == pytest.approx(math.exp(3.0))
    only = Substitute({"scale": value}, unconstrained=True)(lambda: pyro.param("scale"))()
    assert only.item() == pytest.approx(math.exp(3.0)), "the constraint of an earlier run"
    assert pyro.param("scale").item() == pytest.approx(2.0), "the store keeps its own"
    with ParameterStore().active():  # nor need it have run before
        assert Substitute({"scale": value}, unconstrained=True)(program)()[1].item() == pytest.approx(
            math.exp(3.0)
        )


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(2, 2)
        self.prior = nn.ModuleDict({"inner": self.encoder})

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        return self.encoder(x)

    def model(self, x):
        pyro.module("prior", self.prior)
        return self.prior["inner"](x)


def test_substitute_shared_modules():
    """A module registered under two names is one tensor, whichever name is given."""
    shared, x = Shared(), torch.ones(2)
    shared.guide(x), shared.model(x)
    own = dict(shared.encoder.named_parameters())
    weight, bias = torch.full((2, 2), 3.0, requires_grad=True), torch.zeros(2, requires_grad=True)
    for prefix in ("encoder$$$", "prior$$$inner."):
        values = {f"{prefix}weight": weight, f"{prefix}bias": bias}
        for order in (
            (shared.guide, shared.model),
            (shared.model, shared.guide),
            (shared.model,),
            (shared.guide,),
        ):
            handler = Substitute(values, modules=[shared])
            with handler:
                outs = [fn(x) for fn in order]
                assert shared.encoder.weight is weight
            for out in outs:
                assert torch.equal(out, torch.full((2,), 6.0)), (prefix, order)
                assert torch.autograd.grad(out.sum(), weight, retain_graph=True)[0].eq(1).all()
            assert all(p is own[n] for n, p in shared.encoder.named_parameters()), "restored"
    with pytest.raises(RuntimeError), Substitute(values, modules=[shared]):
        shared.model(x)
        raise RuntimeError
    assert shared.encoder.weight is own["weight"]


# ParameterStore ------------------------------------------------------------------------------------


def writes(name, value=0.0, size=2):
    return lambda: pyro.param(name, torch.full((size,), value))


def test_stores_are_apart():
    first, second = ParameterStore(), ParameterStore()
    one, two = first.bind(writes("w", 1.0)), second.bind(writes("w", 2.0))
    assert one()[0] == 1 and two()[0] == 2 and one()[0] == 1
    assert not list(pyro.get_param_store().keys())
    pyro.param("w", torch.zeros(1))
    assert one()[0] == 1 and pyro.param("w").shape == (1,)
    with first.active(), second.active(), first.active():
        assert pyro.param("w")[0] == 1
        pyro.param("inner", torch.ones(1))
    assert set(first.unconstrained()) == {"w", "inner"} and set(second.unconstrained()) == {"w"}
    with pytest.raises(RuntimeError), first.active():
        raise RuntimeError
    assert pyro.param("w").shape == (1,)
    with first.active():  # clearing inside clears this one
        pyro.clear_param_store()
    assert len(first) == 0 and len(second) == 1 and pyro.param("w").shape == (1,)
    assert repr(second) == "ParameterStore(1 tensors, 2 numbers)"


def test_unconstrained_leaf_survives_the_run():
    """Optimizers need it after the program is done."""
    store = ParameterStore()
    value = store.bind(lambda: pyro.param("s", torch.ones(2), constraint=constraints.positive))()
    assert value.unconstrained() is store.unconstrained()["s"]


def test_load_state_dict():
    store = ParameterStore()
    store.bind(lambda: (writes("a", 1.0)(), writes("b", 2.0)()))()
    good = {"a": torch.zeros(2), "b": torch.ones(2)}
    bad = {
        r"missing \['b'\]": {"a": torch.zeros(2)},
        r"not in this program \['c'\]": {**good, "c": torch.zeros(1)},
        r"b: expected \(2,\), got \(3,\)": {"a": torch.zeros(2), "b": torch.zeros(3)},
    }
    for match, values in bad.items():
        with pytest.raises(ValueError, match=match):
            store.load_state_dict(values)
        assert store.state_dict()["a"].eq(1).all(), "all of them or none"
    leaf = store.unconstrained()["a"]
    store.load_state_dict(good)
    assert store.unconstrained()["a"] is leaf and leaf.eq(0).all() and leaf.requires_grad


def test_state_dict_holds_a_shared_tensor_once():
    shared, store = Shared(), ParameterStore()
    store.bind(shared.guide)(torch.ones(2))
    store.bind(shared.model)(torch.ones(2))
    assert len(store) == 4 and set(store.state_dict()) == {"encoder$$$weight", "encoder$$$bias"}
    store.load_state_dict({k: v + 1 for k, v in store.state_dict().items()})
    assert torch.equal(shared.prior["inner"].weight, store.state_dict()["encoder$$$weight"])
