"""Hand-written model/guide pairs with known evidence, in every shape a user may write one.

All are views of x = W z + b + noise, so that ln p(x) and the posterior are known; each pair comes
with its exact guide (all log-weights equal ln p(x)) and with a wrong one.
"""

import math
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import pyro.infer.autoguide
import torch
from pyro import poutine

import pyrovae as pv

torch.set_num_threads(1)  # tensors are tiny: threads only get in each others way

D, L, N = 3, 2, 5  # widths of x and z, number of data
F64 = torch.float64
_random = torch.Generator().manual_seed(7)


def normal(*shape):
    return torch.randn(*shape, generator=_random, dtype=F64)


W, B, S2 = normal(D, L), normal(D), 0.5
X = normal(N, D) * 1.5
CONTEXT = normal(N, D)
SEEN = torch.tensor([True, False, True, True, False])
SEEN_DIMS = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 0]]).bool()
PI, CENTRES = torch.tensor([0.2, 0.5, 0.3], dtype=F64), 2 * normal(3, L)
WRONG = 1.6  # factor on the posterior's standard deviation, with a shift: a guide that is wrong


class Case(NamedTuple):
    model: Any
    exact: Any  # guide, or None where no exact one is feasible
    wrong: Any
    log_evidence: torch.Tensor
    args: tuple = (X,)
    calling: str = "sliced"
    vectorised: bool = True
    options: dict = {}  # noqa: RUF012


def prior():
    return dist.Normal(torch.zeros(L, dtype=F64), 1.0).to_event(1)


def likelihood(z, shift=0.0):
    return dist.Normal(z @ W.T + B + shift, math.sqrt(S2)).to_event(1)


def posterior(x, seen=None, centre=0.0, wrong=False):
    """p(z | x) for prior N(centre, I), dims of x seen; widened and shifted if wrong."""
    x, seen = torch.broadcast_tensors(x, torch.ones_like(x) if seen is None else seen.to(F64))
    scaled = W * seen.unsqueeze(-1) / S2
    covariance = torch.linalg.inv(torch.eye(L, dtype=F64) + scaled.mT @ W)
    centre = torch.as_tensor(centre, dtype=F64).expand(L) if not torch.is_tensor(centre) else centre
    u = ((x - B).unsqueeze(-2) @ scaled).squeeze(-2) + centre
    mean = (covariance @ u.unsqueeze(-1)).squeeze(-1)
    if wrong:
        mean, covariance = mean + 0.3, covariance * WRONG**2
    return dist.MultivariateNormal(mean, covariance)


def marginal(x, seen=None, centre=0.0):
    """ln p(x), dims unseen integrated out."""
    out = []
    for i, row in enumerate(x):
        keep = torch.ones(D).bool() if seen is None else seen[i].expand(D)
        w = W[keep]
        mean = (w @ torch.as_tensor(centre, dtype=F64).expand(L)) + B[keep]
        if not keep.any():
            out.append(torch.zeros((), dtype=F64))
            continue
        cov = w @ w.T + S2 * torch.eye(len(w), dtype=F64)
        out.append(dist.MultivariateNormal(mean, cov).log_prob(row[keep]))
    return torch.stack(out)


def both(make):
    """(exact, wrong) guides from a function of `wrong`."""
    return make(False), make(True)


def plain_model(x, name="data"):
    with pyro.plate(name, len(x)):
        z = pyro.sample("z", prior())
        pyro.sample("x", likelihood(z), obs=x)


def plain_guide(wrong, name="data"):
    def guide(x):
        with pyro.plate(name, len(x)):
            pyro.sample("z", posterior(x, wrong=wrong))

    return guide


def two_latents():
    def model(x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(torch.zeros((), dtype=F64), 1.0))
            z2 = pyro.sample("z2", dist.Normal(torch.zeros((), dtype=F64), 1.0))
            pyro.sample("x", likelihood(torch.stack([z1, z2], -1)), obs=x)

    def make(wrong):
        def guide(x):
            q = posterior(x, wrong=wrong)
            m, c = q.loc, q.covariance_matrix
            with pyro.plate("data", len(x)):
                z1 = pyro.sample("z1", dist.Normal(m[..., 0], c[..., 0, 0].sqrt()))
                slope = c[..., 1, 0] / c[..., 0, 0]
                rest = c[..., 1, 1] - slope * c[..., 1, 0]
                pyro.sample("z2", dist.Normal(m[..., 1] + slope * (z1 - m[..., 0]), rest.sqrt()))

        return guide

    return Case(model, *both(make), marginal(X))


def subsampled(size, subsample_size, calling="indexed"):
    """Idiom 1: x[ind] inside a subsampled plate."""

    def model(x):
        with pyro.plate("data", size(x), subsample_size=subsample_size(x)) as ind:
            z = pyro.sample("z", prior())
            pyro.sample("x", likelihood(z), obs=x[ind])

    def make(wrong):
        def guide(x):
            with pyro.plate("data", size(x), subsample_size=subsample_size(x)) as ind:
                pyro.sample("z", posterior(x[ind], wrong=wrong))

        return guide

    return Case(model, *both(make), marginal(X), calling=calling)


def scaled_plate():
    """Idiom 2: the plate stands for more data than are passed."""

    def model(x):
        with pyro.plate("data", 1000, subsample_size=len(x)):
            z = pyro.sample("z", prior())
            pyro.sample("x", likelihood(z), obs=x)

    def make(wrong):
        def guide(x):
            with pyro.plate("data", 1000, subsample_size=len(x)):
                pyro.sample("z", posterior(x, wrong=wrong))

        return guide

    return Case(model, *both(make), marginal(X))


def scaled():
    scale = poutine.scale(scale=0.37)
    exact, wrong = both(plain_guide)
    return Case(scale(plain_model), scale(exact), scale(wrong), marginal(X))


def masked(how):
    """Whole data missing."""

    def model(x, seen):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            if how == "handler":
                with poutine.mask(mask=seen):
                    pyro.sample("x", likelihood(z), obs=x)
            else:
                pyro.sample("x", likelihood(z).mask(seen), obs=x)

    def make(wrong):
        def guide(x, seen):
            with pyro.plate("data", len(x)):
                pyro.sample("z", posterior(x, seen.unsqueeze(-1), wrong=wrong))

        return guide

    return Case(model, *both(make), marginal(X, SEEN.unsqueeze(-1)), args=(X, SEEN))


def masked_dims():
    """Dims missing, in an inner plate at -1 (so the data plate is at -2)."""

    def model(x, seen):
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", prior())
            with pyro.plate("dims", D, dim=-1), poutine.mask(mask=seen):
                pyro.sample("x", dist.Normal((z @ W.T + B).squeeze(-2), math.sqrt(S2)), obs=x)

    def make(wrong):
        def guide(x, seen):
            with pyro.plate("data", len(x), dim=-2):
                pyro.sample("z", posterior(x.unsqueeze(-2), seen.unsqueeze(-2), wrong=wrong))

        return guide

    return Case(model, *both(make), marginal(X, SEEN_DIMS), args=(X, SEEN_DIMS))


def inner_plate():
    case = masked_dims()
    every = torch.ones(N, D).bool()
    return case._replace(log_evidence=marginal(X), args=(X, every))


def sequential_plate():
    """A Python loop over an inner plate, and a deterministic site outside of all plates."""

    def model(x):
        shift = pyro.deterministic("shift", B)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            for d in pyro.plate("dims", D):
                pyro.sample(f"x{d}", dist.Normal(z @ W[d] + shift[d], math.sqrt(S2)), obs=x[..., d])

    return Case(model, *both(plain_guide), marginal(X))


def mixture_evidence():
    parts = torch.stack([marginal(X, centre=c) for c in CENTRES], -1) + PI.log()
    return parts.logsumexp(-1), parts.softmax(-1)


def enumerated_in_model():
    """The class is summed out in the model; the guide knows nothing of it."""

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(PI), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(CENTRES[c], 1.0).to_event(1))
            pyro.sample("x", likelihood(z), obs=x)

    def make(wrong):
        def guide(x):
            parts = torch.stack([posterior_marginal(x, c) for c in CENTRES], -1) + PI.log()
            components = [posterior(x, centre=c, wrong=wrong) for c in CENTRES]
            locs = torch.stack([q.loc for q in components], -2)
            covariances = torch.stack([q.covariance_matrix for q in components], -3)
            with pyro.plate("data", len(x)):
                q = dist.MultivariateNormal(locs, covariances)
                pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(logits=parts), q))

        return guide

    def posterior_marginal(x, centre):
        cov = W @ W.T + S2 * torch.eye(D, dtype=F64)
        return dist.MultivariateNormal(W @ centre + B, cov).log_prob(x)

    return Case(model, *both(make), mixture_evidence()[0])


def enumerated_in_guide():
    """The class is summed out in the guide, whose z depends on it."""
    case = enumerated_in_model()

    def make(wrong):
        def guide(x):
            with pyro.plate("data", len(x)):
                weights = torch.tensor([0.6, 0.3, 0.1], dtype=F64)  # any will do: they drop out
                c = pyro.sample("c", dist.Categorical(weights), infer={"enumerate": "parallel"})
                pyro.sample("z", posterior(x, centre=CENTRES[c], wrong=wrong))

        return guide

    return case._replace(exact=make(False), wrong=make(True))


def enumerated_inner(side):
    """A class per dim, inside an inner plate: ln p(x) = sum_d ln sum_c p(c) p(x_d | c) at z given.

    With a scalar z in front of it, integrated on a grid.
    """
    levels = torch.tensor([-1.0, 2.0], dtype=F64)

    def conditional(x, z):  # z: [..., 1] against the dims
        terms = [
            math.log(p) + dist.Normal(level + z, math.sqrt(S2)).log_prob(x)
            for p, level in zip((0.3, 0.7), levels, strict=True)
        ]
        return torch.logaddexp(*terms).sum(-1)

    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=F64), 1.0))
            with pyro.plate("dims", D, dim=-1):
                probs = torch.tensor([0.3, 0.7], dtype=F64)
                c = pyro.sample("c", dist.Categorical(probs), infer={"enumerate": "parallel"})
                pyro.sample("x", dist.Normal(levels[c] + z, math.sqrt(S2)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 1, dtype=F64) + 0.2, 1.2))
            if side == "guide":
                with pyro.plate("dims", D, dim=-1):
                    probs = torch.tensor([0.5, 0.5], dtype=F64)
                    pyro.sample("c", dist.Categorical(probs), infer={"enumerate": "parallel"})

    grid = torch.linspace(-9, 9, 4001, dtype=F64)
    joint = conditional(X[:, None], grid[:, None]) + dist.Normal(0.0, 1.0).log_prob(grid)
    return Case(model, None, guide, joint.logsumexp(-1) + math.log(grid[1] - grid[0]))


def auxiliary():
    """As an AutoGuide: a draw of noise, and a Delta that carries its Jacobian."""

    def make(wrong):
        def guide(x):
            q = posterior(x, wrong=wrong)
            factor = torch.linalg.cholesky(q.covariance_matrix)
            log_det = torch.diagonal(factor, dim1=-2, dim2=-1).log().sum(-1)
            with pyro.plate("data", len(x)):
                noise = pyro.sample("noise", prior(), infer={"is_auxiliary": True})
                z = q.loc + (factor @ noise.unsqueeze(-1)).squeeze(-1)
                pyro.sample("z", dist.Delta(z, log_density=-log_det.expand(z.shape[:-1]), event_dim=1))

        return guide

    return Case(plain_model, *both(make), marginal(X))


def guide_factor():
    """The same with the Jacobian in a `pyro.factor` of the guide: part of ln q, declared exact."""

    @pv.program(density="exact")
    def model(x):
        plain_model(x)

    def make(wrong):
        def guide(x):
            q = posterior(x, wrong=wrong)
            factor = torch.linalg.cholesky(q.covariance_matrix)
            log_det = torch.diagonal(factor, dim1=-2, dim2=-1).log().sum(-1)
            with pyro.plate("data", len(x)):
                noise = pyro.sample("noise", prior(), infer={"is_auxiliary": True})
                z = q.loc + (factor @ noise.unsqueeze(-1)).squeeze(-1)
                pyro.sample("z", dist.Delta(z, event_dim=1))
                pyro.factor("jacobian", -log_det, has_rsample=True)

        return guide

    return Case(model, *both(make), marginal(X))


def images():
    """As in Pyro's VAE example: the site is called "obs", and images are flattened."""

    def model(x):
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", prior())
            pyro.sample("obs", likelihood(z), obs=x.reshape(-1, D))

    def make(wrong):
        def guide(x):
            with pyro.plate("data", x.shape[0]):
                pyro.sample("z", posterior(x.reshape(-1, D), wrong=wrong))

        return guide

    return Case(model, *both(make), marginal(X), args=(X.reshape(N, 1, 1, D),))


def with_context():
    """A context tensor per datum, and one that is no tensor."""

    def model(x, c, sign):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            pyro.sample("x", likelihood(z, sign[0] * c), obs=x)

    def make(wrong):
        def guide(x, c, sign):
            with pyro.plate("data", len(x)):
                pyro.sample("z", posterior(x - sign[0] * c, wrong=wrong))

        return guide

    return Case(model, *both(make), marginal(X + CONTEXT), args=(X, CONTEXT, (-1.0, "any")))


def per_datum_parameters():
    """Guide parameters of each datum's own, looked up by an index in the context."""

    def model(x, index):
        plain_model(x)

    def make(wrong):
        q = posterior(X, wrong=wrong)

        def guide(x, index):
            loc = pyro.param(f"loc_{wrong}", q.loc)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.MultivariateNormal(loc[index], q.covariance_matrix[index]))

        return guide

    return Case(model, *both(make), marginal(X), args=(X, torch.arange(N)))


def sized_parameters():
    """Guide parameters made to the size of the data at the first call: only all data will do."""

    def make(wrong):
        def guide(x):
            q = posterior(x, wrong=wrong)
            loc = pyro.param(f"loc_{wrong}", lambda: q.loc.clone())
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.MultivariateNormal(loc, q.covariance_matrix))

        return guide

    return Case(plain_model, *both(make), marginal(X), calling="whole")


def fixed_shape():
    """`.view(len(x), -1)`: no room for particles."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            pyro.sample("x", likelihood(z.view(len(x), -1)), obs=x)

    return Case(model, *both(plain_guide), marginal(X), vectorised=False)


def python_loop():
    """A loop over data in Python."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            loc = torch.stack([W @ z[i] + B for i in range(len(x))])
            pyro.sample("x", dist.Normal(loc, math.sqrt(S2)).to_event(1), obs=x)

    return Case(model, *both(plain_guide), marginal(X), vectorised=False)


def mixes_particles():
    """Broadcasts without an error, and takes the latents of other particles and data."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            mixed = z.reshape(len(x), -1, L).transpose(0, 1)
            pyro.sample("x", likelihood(mixed if z.dim() > 2 else z), obs=x)

    return Case(model, *both(plain_guide), marginal(X), vectorised=False)


def fixed_plate():
    """The plate's size is a number in the code."""

    def model(x):
        with pyro.plate("data", N):
            z = pyro.sample("z", prior())
            pyro.sample("x", likelihood(z), obs=x)

    def make(wrong):
        def guide(x):
            with pyro.plate("data", N):
                pyro.sample("z", posterior(x, wrong=wrong))

        return guide

    return Case(model, *both(make), marginal(X), calling="whole")


def other_plate(declared):
    def model(x):
        plain_model(x, "images")

    exact, wrong = (plain_guide(w, "images") for w in (False, True))
    if declared:
        return Case(pv.program(plate="images")(model), exact, wrong, marginal(X))
    return Case(model, exact, wrong, marginal(X), options={"plate": "images"})


def auto_normal():
    """Pyro's AutoNormal, set up on all data; exact where the posterior is diagonal."""
    w = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]], dtype=F64)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            pyro.sample("x", dist.Normal(z @ w.T + B, math.sqrt(S2)).to_event(1), obs=x)

    precision = 1 + w.square().sum(0) / S2

    def make(wrong):
        guide = pyro.infer.autoguide.AutoNormal(model)
        store = pv.ParameterStore()  # all AutoGuides use the same parameter names
        with store.active(), torch.no_grad():
            guide(X)
            guide.locs.z.copy_((X - B) @ w / S2 / precision + 0.3 * wrong)
            guide.scales.z = (WRONG if wrong else 1.0) * precision.rsqrt().expand(N, L).clone()
        guide = store.bind(guide)
        return guide

    evidence = dist.MultivariateNormal(B, w @ w.T + S2 * torch.eye(D, dtype=F64)).log_prob(X)
    return Case(model, *both(make), evidence, calling="whole")


CASES = {
    "plain": lambda: Case(plain_model, *both(plain_guide), marginal(X)),
    "two latents": two_latents,
    "x[ind], size of x": lambda: subsampled(len, lambda x: 2),
    "x[ind], size fixed": lambda: subsampled(lambda x: N, lambda x: 2),
    "x[ind], size of the training data": lambda: subsampled(lambda x: 400, lambda x: 2),
    "x[ind], at most": lambda: subsampled(len, lambda x: min(3, len(x))),
    "x[ind], all": lambda: subsampled(lambda x: N, lambda x: N, calling="whole"),
    "subsample_size=len(x)": scaled_plate,
    "poutine.scale": scaled,
    "poutine.mask": lambda: masked("handler"),
    ".mask()": lambda: masked("method"),
    "mask of dims": masked_dims,
    "inner plate": inner_plate,
    "sequential plate": sequential_plate,
    "enumerated in the model": enumerated_in_model,
    "enumerated in the guide": enumerated_in_guide,
    "enumerated in an inner plate of the model": lambda: enumerated_inner("model"),
    "enumerated in an inner plate of the guide": lambda: enumerated_inner("guide"),
    "auxiliary guide site": auxiliary,
    "factor in the guide": guide_factor,
    "images": images,
    "context": with_context,
    "per-datum parameters": per_datum_parameters,
    "parameters sized by the data": sized_parameters,
    "fixed shape": fixed_shape,
    "loop over data": python_loop,
    "mixes particles": mixes_particles,
    "fixed plate": fixed_plate,
    "plate=": lambda: other_plate(False),
    "declared plate": lambda: other_plate(True),
    "AutoNormal": auto_normal,
}
