"""Masks on enumerated sites and on latents: each against plain NumPy, or refused by name."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import pyrovae as pv

from .every_way import CALLS, X, check_all, figures, normal, nothing

ENUMERATE = {"enumerate": "parallel"}
PI, MU = np.array([0.6, 0.4]), np.array([-1.0, 1.5])


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


@pytest.mark.parametrize("seen", [[True, True, False], [False, True, True], [True, True, True]])
def test_a_mask_inside_an_enumerated_law_is_refused_whichever_data_it_leaves_out(seen):
    """It was looked for at the first datum: Pyro's loss of the others was off by ln 2, and trained on."""
    model, _ = mixture("law")
    x, seen = torch.tensor([0.3, 0.3, -2.0], dtype=torch.float64), torch.tensor(seen)
    elbo = pyro.infer.TraceEnum_ELBO(max_plate_nesting=1)

    def own(x, seen):
        pyro.param("unused", torch.zeros(()))

    with pytest.raises(ValueError, match=r"enumerated latents without .mask\(\) for TraceEnum_ELBO"):
        pv.fit(model, own, (x, seen), objective=elbo, epochs=1)
    with pytest.raises(ValueError, match=r"enumerated latents without .mask\(\) for TraceEnum_ELBO"):
        pv.SVI(model, own, pyro.optim.Adam({"lr": 0.1}), elbo).step(x, seen)


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


@pytest.mark.parametrize("padding", [0, 6])
def test_bits_per_dim_are_of_what_is_not_masked(padding):
    """Paddings of sequences counted as dims: with more of them the same evidence had fewer bits/dim."""
    lengths = torch.tensor([1, 2, 4, 4, 3])
    steps = 4 + padding
    x = torch.randn(5, steps, generator=torch.Generator().manual_seed(0)) * (
        torch.arange(steps) < lengths[:, None]
    )

    def model(x, lengths):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            for t in range(x.shape[-1]):
                with poutine.mask(mask=t < lengths):
                    pyro.sample(f"x{t}", dist.Normal(z, 1.0), obs=x[..., t])

    def guide(x, lengths):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.sum(-1) / (1 + lengths), (1 / (1.0 + lengths)).sqrt()))

    ev = pv.evidence(model, guide, x, lengths, estimators=[pv.IS(100)])
    assert ev.attributes["counted"] == pytest.approx(14 / (5 * steps))
    bits = -ev["IS"].log_evidence / (14 / 5 * math.log(2))
    assert f"{bits:.4f}" in ev.table() and "not masked" in ev.table()
