"""Guides as Pyro makes them: AutoGuides, messengers, EasyGuide, flows. Each figure against a loop by hand."""

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as T
import pytest
import torch
from pyro import poutine
from pyro.contrib.easyguide import EasyGuide
from pyro.infer import SVI, Trace_ELBO, autoguide
from torch import nn

import pyrovae as pv
from pyrovae.programs import inspect_program, module_mode, seeded
from pyrovae.programs.latents.densities import Densities

from .by_hand import log_joint

N, D, L, K = 5, 3, 2, 3
X = torch.randn(N, D, generator=torch.Generator().manual_seed(0))


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(L), 1.0).to_event(1))
        s = pyro.sample("s", dist.LogNormal(0.0, 1.0))
        loc = z.sum(-1, keepdim=True).expand(*z.shape[:-1], D)
        pyro.sample("x", dist.Normal(loc, s.unsqueeze(-1)).to_event(1), obs=x)


def run(guide, model=model, x=X, seed=0):
    program = inspect_program(model, guide, x)
    with (
        torch.no_grad(),
        pyro.validation_enabled(False),
        module_mode(program.model, program.guide, training=False),
        seeded(seed, "by hand", device="cpu"),
    ):
        return program, program.run(torch.arange(len(x)), K)


def pairs(*names):
    guide = autoguide.AutoGuideList(model)
    for make, name in zip(names, ("z", "s"), strict=True):
        guide.append(make(poutine.block(model, expose=[name])))
    return guide


class Easy(EasyGuide):
    def guide(self, x):
        group = self.group(match=".*")
        loc = pyro.param("easy_loc", torch.linspace(-1.0, 1.0, N * 3).reshape(N, 3))
        with self.plate("data", len(x)) as i:
            group.sample("latents", dist.Normal(loc[i], 0.7).to_event(1))


GUIDES = {
    "AutoNormal": lambda: autoguide.AutoNormal(model),
    "AutoDiagonalNormal": lambda: autoguide.AutoDiagonalNormal(model),
    "AutoMultivariateNormal": lambda: autoguide.AutoMultivariateNormal(model),
    "AutoLowRankMultivariateNormal": lambda: autoguide.AutoLowRankMultivariateNormal(model),
    "AutoGuideList": lambda: pairs(autoguide.AutoNormal, autoguide.AutoNormal),
    "AutoGuideList of joint laws": lambda: pairs(
        autoguide.AutoMultivariateNormal, autoguide.AutoDiagonalNormal
    ),
    "AutoNormalMessenger": lambda: autoguide.AutoNormalMessenger(model),
    "AutoNormalMessenger, amortised": lambda: autoguide.AutoNormalMessenger(
        model, amortized_plates=("data",)
    ),
    "AutoHierarchicalNormalMessenger": lambda: autoguide.AutoHierarchicalNormalMessenger(model),
    "EasyGuide": lambda: Easy(model),
}


def moved(guide):
    """Its parameters away from their symmetric start."""
    with torch.no_grad():
        for p in guide.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    return guide


def law_by_hand(name, guide, n):
    """q of (z_n, ln s_n): mean [3] and covariance [3, 3]."""
    if name == "EasyGuide":
        loc = torch.linspace(-1.0, 1.0, N * 3).reshape(N, 3)[n]
        return loc, 0.49 * torch.eye(3)
    joint = [guide] if "List" not in name else list(guide)
    if isinstance(joint[0], autoguide.AutoNormal):
        parts = [g._get_loc_and_scale(s) for g, s in zip(joint * 2, ("z", "s"), strict=False)]
        loc = torch.cat([parts[0][0][n], parts[1][0][n : n + 1]])
        scale = torch.cat([parts[0][1][n], parts[1][1][n : n + 1]])
        return loc, torch.diag(scale**2)
    places = [2 * n, 2 * n + 1, 2 * N + n]  # z [N, 2] first, then s [N]
    if len(joint) == 1:
        q = joint[0].get_posterior()
        loc, cov = _moments(q)
        return loc[places], cov[places][:, places]
    (a, c), (b, d) = (_moments(g.get_posterior()) for g in joint)
    cov = torch.zeros(3, 3)
    cov[:2, :2] = c[2 * n : 2 * n + 2, 2 * n : 2 * n + 2]
    cov[2, 2] = d[n, n]
    return torch.cat([a[2 * n : 2 * n + 2], b[n : n + 1]]), cov


def _moments(q):
    while isinstance(q, dist.Independent):
        q = q.base_dist
    cov = torch.diag(q.scale**2) if isinstance(q, dist.Normal) else q.covariance_matrix
    return q.loc, cov


@pytest.mark.parametrize("name", [n for n in GUIDES if "Messenger" not in n])
def test_guides_made_of_a_model(name):
    guide = GUIDES[name]()
    inspect_program(model, guide, X)  # fresh: set up on all data
    moved(guide)
    program, sites = run(guide)
    assert program.vectorised
    draws = sites.traces[0].nodes
    for k in range(K):
        for n in range(N):
            z, s = draws["z"]["value"][k, n], draws["s"]["value"][k, n]
            with torch.no_grad():
                loc, cov = law_by_hand(name, guide, n)
                log_q = dist.MultivariateNormal(loc, cov).log_prob(torch.cat([z, s.log()[None]])) - s.log()
            log_p = log_joint(model, {"z": z[None], "s": s[None]}, (X[n : n + 1],))
            assert sites.log_weights()[k, n] == pytest.approx(log_p - float(log_q), abs=2e-3)


def rows_and_columns(x):
    """A latent of each row, and one of each of its cells: x_n ~ N(0, 1 1' + 2 I)."""
    with pyro.plate("data", len(x), dim=-2):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("columns", D, dim=-1):
            w = pyro.sample("w", dist.Normal(z, 1.0))
            pyro.sample("x", dist.Normal(w, 1.0), obs=x)


JOINT_LAWS = {
    "full": lambda: autoguide.AutoMultivariateNormal(rows_and_columns),
    "diagonal": lambda: autoguide.AutoDiagonalNormal(rows_and_columns),
    "low rank": lambda: autoguide.AutoLowRankMultivariateNormal(rows_and_columns, rank=2),
}


@pytest.mark.parametrize("name", JOINT_LAWS)
def test_a_joint_law_stands_at_the_dim_of_the_data_plate(name):
    """Data at dim -2, with latents outside and inside of a plate at -1: by the closed form, p̂ within 5 SE."""
    guide = JOINT_LAWS[name]()
    guide(X)
    # p(z, w | x) of a datum: precision of (z, w) under z ~ N(0, 1), w ~ N(z, 1), x ~ N(w, 1).
    precision = 2 * torch.eye(1 + D)
    precision[0, 0], precision[0, 1:], precision[1:, 0] = 1 + D, -1.0, -1.0
    cov = precision.inverse()
    mean = torch.cat([torch.zeros(N, 1), X], 1) @ cov
    places = [torch.tensor([n, *range(N + n * D, N + (n + 1) * D)]) for n in range(N)]
    whole = torch.zeros(N * (1 + D), N * (1 + D))
    with torch.no_grad():
        for n, at in enumerate(places):
            guide.loc[at] = mean[n]
            whole[at.unsqueeze(1), at] = cov
        guide.scale = whole.diagonal().sqrt()
        if name == "full":
            root = torch.linalg.cholesky(whole)
            guide.scale = root.diagonal().clone()
            guide.scale_tril = root / root.diagonal().unsqueeze(-1)
    exact = dist.MultivariateNormal(torch.zeros(D), torch.ones(D, D) + 2 * torch.eye(D)).log_prob(X).double()
    e = pv.evidence(rows_and_columns, guide, X, estimators=[pv.IS(2000)], compile=False)["IS"]
    tolerance = 1e-4 if name == "full" else 5 * e.variance.sqrt() + 0.01
    assert ((e.per_datum - exact).abs() < tolerance).all()


@pytest.mark.parametrize("name", [n for n in GUIDES if "Messenger" in n])
def test_messengers_are_guides(name):
    """Their observed sites are the model's; the law of each latent is read from Pyro's own two traces."""
    guide = GUIDES[name]()
    inspect_program(model, guide, X)
    moved(guide)
    program, sites = run(guide)
    assert program.vectorised
    draws = sites.traces[0].nodes
    for k in range(K):
        values = {n: draws[n]["value"][k] for n in ("z", "s")}
        with torch.no_grad():
            guide(X)
            _, q = guide.get_traces()
            laws = {n: q.nodes[n]["fn"] for n in values}
        for n in range(N):
            log_p = log_joint(model, {name: v[n : n + 1] for name, v in values.items()}, (X[n : n + 1],))
            log_q = sum(float(laws[name].log_prob(v)[n].detach()) for name, v in values.items())
            assert sites.log_weights()[k, n] == pytest.approx(log_p - log_q, abs=1e-3)


@pytest.mark.parametrize("name", GUIDES)
def test_a_fresh_guide_is_set_up_as_pyro_does(name):
    ours, theirs = GUIDES[name](), GUIDES[name]()
    pv.log_weights(model, ours, X, num_samples=2)
    theirs(X)
    assert {n: p.shape for n, p in ours.named_parameters()} == {
        n: p.shape for n, p in theirs.named_parameters()
    }
    loss = SVI(model, ours, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(X)
    assert loss == loss


@pytest.mark.parametrize("name", GUIDES)
def test_a_fresh_guide_trains(name):
    guide = GUIDES[name]()
    guide(X)
    before = {n: p.detach().clone() for n, p in guide.named_parameters()}
    fit = pv.fit(model, guide, X, epochs=20, lr=0.1, compile=False)
    still = [n for n, p in guide.named_parameters() if (p - before[n]).abs().max() < 0.01]
    assert all("weight" in n for n in still), still  # of a prior mean that is zero
    first, last = (sum(r["loss"] for r in rows) for rows in (fit.history[:6], fit.history[-6:]))
    assert last < first
    assert f"model · {type(guide).__qualname__}\n" in repr(fit)
    weights = pv.log_weights(fit.model, fit.guide, X, num_samples=5)
    assert torch.isfinite(weights).all()
    assert set(pyro.infer.Predictive(fit.model, guide=fit.guide, num_samples=2)(X)) >= {"z", "s"}


def test_a_point_estimate_beside_latents_with_a_density_is_refused():
    """No auxiliary draw of AutoNormal moves the other part's Delta: exp(log w) would be p(x, s) at a point."""
    guide = autoguide.AutoGuideList(model)
    guide.append(autoguide.AutoNormal(poutine.block(model, expose=["z"])))
    guide.append(autoguide.AutoDelta(poutine.block(model, expose=["s"])))
    for call in (pv.evidence, pv.fit):
        with pytest.raises(
            ValueError, match=r"point estimate \(Delta\) at \['s'\], which no auxiliary draw moves.*try"
        ):
            call(model, guide, X)


@pytest.mark.parametrize(("noise", "got"), [(1, "1 for 2"), (3, "3 for 2")])
def test_auxiliary_numbers_are_as_many_as_the_numbers_they_are_mapped_to(noise, got):
    """A map from one number to two, or from three, has no Jacobian."""

    def two(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def own(x):
        with pyro.plate("data", len(x)):
            e = pyro.sample(
                "e", dist.Normal(torch.zeros(noise), 1.0).to_event(1), infer={"is_auxiliary": True}
            )
            pyro.sample("z", dist.Delta(torch.stack([e.sum(-1), e[..., 0]], -1)).to_event(1))

    with pytest.raises(ValueError, match=f"got {got} per datum: the map has no Jacobian.*try one"):
        pv.log_weights(two, own, X[:, :2], num_samples=2)


def simplex(x):
    """Latents with fewer unconstrained numbers than numbers."""
    with pyro.plate("data", len(x)):
        share = pyro.sample("share", dist.Dirichlet(torch.ones(3)))
        factor = pyro.sample("factor", dist.LKJCholesky(3, 1.0))
        pyro.sample("x", dist.Normal(share[..., 0] + factor[..., 2, 1], 1.0), obs=x)


def test_numbers_are_counted_in_unconstrained_coordinates():
    assert pv.log_weights(simplex, autoguide.AutoNormal(simplex), X[:, 0], num_samples=2).isfinite().all()


def test_a_joint_law_that_is_no_gaussian_is_refused_by_name():
    with pytest.raises(ValueError, match=r"site of the guide .*_AutoIAFNormal_latent.*draws in the plate"):
        pv.log_weights(model, autoguide.AutoIAFNormal(model), X, num_samples=2)


# Flows ---------------------------------------------------------------------------------------------

FLOWS = {
    "affine_autoregressive": lambda: T.affine_autoregressive(L, [8]),
    "affine_coupling": lambda: T.affine_coupling(L, [8]),
    "batchnorm": lambda: T.batchnorm(L),
    "block_autoregressive": lambda: T.block_autoregressive(L),
    "elu": T.elu,
    "householder": lambda: T.householder(L),
    "leaky_relu": T.leaky_relu,
    "matrix_exponential": lambda: T.matrix_exponential(L),
    "neural_autoregressive": lambda: T.neural_autoregressive(L, [8]),
    "permute": lambda: T.permute(L),
    "planar": lambda: T.planar(L),
    "polynomial": lambda: T.polynomial(L, [8]),
    "radial": lambda: T.radial(L),
    "spline": lambda: T.spline(L),
    "spline_autoregressive": lambda: T.spline_autoregressive(L, [8]),
    "spline_coupling": lambda: T.spline_coupling(L),
    "sylvester": lambda: T.sylvester(L),
}
NO_INVERSE = {
    "block_autoregressive": "BlockAutoregressive",
    "neural_autoregressive": "NeuralAutoregressive",
    "planar": "Planar",
    "polynomial": "Polynomial",
    "radial": "Radial",
    "sylvester": "Sylvester",
}


def simple(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(L), 1.0).to_event(1))
        pyro.sample(
            "x", dist.Normal(z.sum(-1, keepdim=True).expand(*z.shape[:-1], D), 1.0).to_event(1), obs=x
        )


def flow_guide(name, copies=1):
    flows = [FLOWS[name]() for _ in range(copies)]
    encoder = nn.Linear(D, 2 * L)

    def guide(x):
        for i, flow in enumerate(flows):
            if isinstance(flow, nn.Module):
                pyro.module(f"flow{i}", flow)
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            loc, scale = encoder(x).chunk(2, -1)
            base = dist.Normal(loc, (0.3 * scale).exp())
            events = 1 if flows[0].domain.event_dim else 0
            law = dist.TransformedDistribution(base.to_event(events), flows)
            pyro.sample("z", law if events else law.to_event(1))

    return guide, flows


@pytest.mark.parametrize("name", FLOWS)
def test_flows(name):
    """ln q = ln of the base at u, less the log-determinants on the way from u to z; with K samples at once."""
    guide, flows = flow_guide(name, copies=2 if name in ("planar", "affine_coupling") else 1)
    program, sites = run(guide, simple)
    assert program.vectorised
    site = sites.traces[0].nodes["z"]
    z = u = site["value"]
    steps = []
    for flow in reversed(flows):
        with module_mode(*(f for f in flows if isinstance(f, nn.Module)), training=False), torch.no_grad():
            u, after = flow.inv(u), u
            steps.append((u, after, flow))
    law = site["fn"]
    while not isinstance(law, torch.distributions.TransformedDistribution):
        law = law.base_dist
    with torch.no_grad(), module_mode(*(f for f in flows if isinstance(f, nn.Module)), training=False):
        log_q = law.base_dist.log_prob(u)
        log_q = log_q if log_q.dim() == 2 else log_q.sum(-1)
        for before, after, flow in steps:
            jacobian = flow.log_abs_det_jacobian(before, after)
            log_q = log_q - (jacobian if jacobian.dim() == 2 else jacobian.sum(-1))
    for k in range(K):
        for n in range(N):
            log_p = log_joint(simple, {"z": z[k, n][None]}, (X[n : n + 1],))
            assert sites.log_weights()[k, n] == pytest.approx(log_p - float(log_q[k, n]), abs=1e-3)


@pytest.mark.parametrize("name", NO_INVERSE)
def test_chains_name_the_inverse_that_is_missing(name):
    guide, _ = flow_guide(name)
    with pytest.raises(ValueError, match=rf"transform {NO_INVERSE[name]} at 'z', which has no inverse"):
        pv.evidence(simple, guide, X, estimators=[pv.AIS(2)])


@pytest.mark.parametrize("name", [n for n in FLOWS if n not in NO_INVERSE])
def test_what_chains_move_has_its_density_by_hand(name):
    """ln q at any value, through the inverse: each sample of each datum alone."""
    guide, flows = flow_guide(name)
    densities = Densities(inspect_program(simple, guide, X), torch.arange(N), 2)
    u = densities.initial("guide")
    with torch.no_grad():
        found = densities.terms(u, guide=True)
    z = densities.latents(u)["z"].detach()
    for k in range(2):
        for n in range(N):
            with module_mode(*(f for f in flows if isinstance(f, nn.Module)), training=False):
                by_hand = log_joint(guide, {"z": z[k, n][None].clone()}, (X[n : n + 1],))
            assert float(found.guide[k, n]) == pytest.approx(by_hand, abs=2e-3)


def test_chains_run_where_there_is_an_inverse():
    guide, _ = flow_guide("householder")
    found = pv.evidence(simple, guide, X[:2], estimators=[pv.AIS(2)])
    exact = dist.MultivariateNormal(torch.zeros(D), torch.eye(D) + L * torch.ones(D, D)).log_prob(X[:2])
    assert abs(found["AIS"].log_evidence - float(exact.mean())) < 0.5


def test_one_flow_at_two_sites_is_refused_by_name():
    """It remembers its last draw alone: the first has no density any more."""
    flow = T.planar(L)

    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros(L), 1.0).to_event(1))
            b = pyro.sample("b", dist.Normal(a, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(b.sum(-1), 1.0), obs=x[:, 0])

    def guide(x):
        with pyro.plate("data", len(x)):
            for name in "ab":
                base = dist.Normal(x[:, :L], 1.0).to_event(1)
                pyro.sample(name, dist.TransformedDistribution(base, [flow]))

    with pytest.raises(ValueError, match=r"law of 'a' .* Planar.*one transform a site"):
        pv.log_weights(model, guide, X, num_samples=2)


def test_an_evaluation_leaves_the_statistics_of_a_flow_alone():
    """Its inverse is no call of the module: in train mode it would move them, and mix the data."""
    guide, (flow,) = flow_guide("batchnorm")
    before = [b.clone() for b in flow.buffers()]
    pv.log_weights(simple, guide, X, num_samples=5)
    assert all(torch.equal(a, b) for a, b in zip(before, flow.buffers(), strict=True))
    assert flow.training
