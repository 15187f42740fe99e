"""The features: one class each, and one line each in `ROWS`.

A row says what it adds to the data, to the model, to the guide, and to ln p(x_n) given the classes. Units are
independent of each other given the classes c (enumerated in the model) and g (in the guide).
"""

from contextlib import nullcontext

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from scipy import special, stats

from .laws import BetaBinomial, Discrete, GammaPoisson, Gaussian
from .scope import GUIDE_CLASSES, MODEL_CLASSES, N


class Row:
    """A feature that adds nothing.

    Attributes:
        law: of z, where the row chooses it.
        double, inner, outer: float64; an inner plate; the data plate at dim -2.
        discrete: it has a latent without a density, which HMC cannot move.
        auxiliary: the guide has sites that are the model's only by a Delta.
        wrong_in_pyro: TraceEnum_ELBO's own value is wrong.
        excludes: names of rows it does not go with, and why.
        declares: for `pv.program`.
    """

    name = ""
    law = None
    double = inner = outer = discrete = auxiliary = wrong_in_pyro = False
    excludes: dict = {}  # noqa: RUF012
    declares: dict = {}  # noqa: RUF012

    def draw(self, d):
        """Draws parameters and data into the case."""

    def finish(self, d):
        """The same, where it depends on the other rows."""

    def plate(self, s):
        return {}

    def around(self, s):
        return nullcontext()

    def inside(self, s):
        return nullcontext()

    def model(self, s):
        pass

    def guide(self, s):
        pass

    def log_marginal(self, t):
        return 0.0

    def hides(self, t):
        """Whether all of the datum is masked."""
        return False


def normal(x, loc, variance=1.0):
    return stats.norm.logpdf(x, loc, np.sqrt(variance))


def levels(d, shape):
    return d.random.uniform(-1.5, 1.5, shape)


def logits(d, shape):
    return d.random.uniform(-1, 1, shape)


def log_softmax(v):
    return v - special.logsumexp(v)


# The latent z and what is observed of it ----------------------------------------------------------


class Latent(Row):
    """z, and two columns of it as one event."""

    def __init__(self, name, law):
        self.name, self.law, self.discrete = name, law, law.discrete

    def draw(self, d):
        d.table("z", lambda shape: self.law.parameter(d.random, shape), guided=not self.law.discrete)
        d.z_column("x", 2)
        if self.law.discrete:
            d.enumerated["z"] = (len(self.law.levels), 1)
        d.continuous += not self.law.discrete

    def model(self, s):
        infer = {"enumerate": "parallel"} if self.law.discrete else {}
        s.z = pyro.sample("z", self.law.prior(s.of_class("z")), infer=infer)
        fn = self.law.likelihood(s.z.unsqueeze(-1), s.loadings("x"), s.exposure.unsqueeze(-1))
        pyro.sample("x", fn.to_event(1), obs=s.column("x"))

    def guide(self, s):
        if self.law.discrete or any(r.auxiliary for r in s.case.rows):
            return
        x, seen, w, c = s.z_data()
        s.sample("z", self.law.guide(s.wrong, x, seen, w, c, s.of_class("z")))

    def log_marginal(self, t):
        x, w = t.z_columns()
        return self.law.log_marginal(x, w, t.get("context", 0.0), t.of_class("z"))


class InnerPlate(Row):
    """Two more columns of z, in a plate of their own."""

    name, inner = "inner plate", True

    def draw(self, d):
        d.z_column("inner_x", 2)

    def model(self, s):
        with s.inner_plate(2):
            fn = s.law.likelihood(s.z, s.over_inner(s.loadings("inner_x")), s.exposure)
            pyro.sample("inner_x", fn, obs=s.inner_column("inner_x"))


class SecondSite(Row):
    """Another column of z, at a site of its own."""

    name = "two observed sites"

    def draw(self, d):
        d.z_column("y")

    def model(self, s):
        pyro.sample("y", s.law.likelihood(s.z, s.loadings("y"), s.exposure), obs=s.column("y"))


class Factor(Row):
    """Another column of z, whose density comes by a factor."""

    name, declares = "pyro.factor declared", {"density": "exact"}

    def draw(self, d):
        d.z_column("f")

    def model(self, s):
        fn = s.law.likelihood(s.z, s.loadings("f"), s.exposure)
        pyro.factor("f", fn.log_prob(s.column("f")))


class MaskedSite(Row):
    """Another column of z, missing in some data."""

    name = "observed site masked"

    def draw(self, d):
        d.mask("site_seen")
        d.z_column("m", seen="site_seen")

    def model(self, s):
        fn = s.law.likelihood(s.z, s.loadings("m"), s.exposure)
        pyro.sample("m", fn.mask(s.arg("site_seen")), obs=s.column("m"))


class Auxiliary(Row):
    """z as a function of noise that the guide draws."""

    name, auxiliary = "auxiliary guide site", True
    excludes = {"z enumerated": "a Delta maps noise to a continuous latent"}  # noqa: RUF012

    def guide(self, s):
        x, seen, w, c = s.z_data()
        one = torch.ones((), dtype=x.dtype)
        noise = dist.Normal(0 * one, one) if s.case.exact else dist.StudentT(4 * one)
        noise = s.sample("noise", noise, infer={"is_auxiliary": True})
        z, log_slope = s.law.from_noise(s.wrong, noise, x, seen, w, c, s.of_class("z"))
        s.sample("z", dist.Delta(z, log_density=-log_slope.expand(z.shape)))


# Classes ------------------------------------------------------------------------------------------


class ModelClass(Row):
    """c, summed out in the model, and a column that depends on it."""

    name, discrete = "model enumeration", True

    def draw(self, d):
        d.p["c"] = logits(d, MODEL_CLASSES)
        d.p["c_level"] = levels(d, MODEL_CLASSES)
        d.column("c_x", d.random.normal(size=N))
        d.enumerated["c"] = (MODEL_CLASSES, 1)

    def model(self, s):
        s.c = pyro.sample("c", dist.Categorical(logits=s.p("c")), infer={"enumerate": "parallel"})
        pyro.sample("c_x", dist.Normal(s.p("c_level")[s.c], 1.0), obs=s.column("c_x"))

    def log_marginal(self, t):
        return log_softmax(t.p["c"])[t.c] + normal(t.column("c_x"), t.p["c_level"][t.c])


class GuideClass(Row):
    """g, summed out in the guide, whose other latents depend on it."""

    name, discrete = "guide enumeration", True

    def draw(self, d):
        d.p["g"] = logits(d, GUIDE_CLASSES)
        d.p["g_level"] = levels(d, GUIDE_CLASSES)
        d.column("g_x", d.random.normal(size=N))
        d.enumerated["g"] = (GUIDE_CLASSES, 1)
        if d.exact:  # the guide is told p(g | x), which the reference knows
            d.per_datum["g_posterior"] = np.zeros((N, GUIDE_CLASSES))

    def model(self, s):
        s.g = pyro.sample("g", dist.Categorical(logits=s.p("g")))
        pyro.sample("g_x", dist.Normal(s.p("g_level")[s.g], 1.0), obs=s.column("g_x"))

    def guide(self, s):
        q = s.arg("g_posterior") if s.case.exact else -s.p("g")
        s.g = pyro.sample("g", dist.Categorical(logits=q), infer={"enumerate": "parallel"})

    def log_marginal(self, t):
        return log_softmax(t.p["g"])[t.g] + normal(t.column("g_x"), t.p["g_level"][t.g])


class DrawnClass(Row):
    """A discrete latent that the guide draws."""

    name, discrete = "discrete latent drawn", True

    def draw(self, d):
        d.table("d", lambda shape: logits(d, shape), 2, guided=True)
        d.p["d_level"] = levels(d, 2)
        d.column("d_x", d.random.normal(size=N))

    def model(self, s):
        k = pyro.sample("d", dist.Categorical(logits=s.of_class("d")))
        pyro.sample("d_x", dist.Normal(s.p("d_level")[k.long()], 1.0), obs=s.column("d_x"))

    def guide(self, s):
        q = s.of_class("d").log_softmax(-1)
        if s.case.exact:
            q = q + dist.Normal(s.p("d_level"), 1.0).log_prob(s.column("d_x").unsqueeze(-1))
        s.sample("d", dist.Categorical(logits=q))

    def log_marginal(self, t):
        return special.logsumexp(log_softmax(t.of_class("d")) + normal(t.column("d_x"), t.p["d_level"]))


class Chain(Row):
    """Two hidden states, each chain with a length of its own, summed out in the model."""

    name, discrete, length = "pyro.markov with lengths", True, 3

    def draw(self, d):
        d.table("h0", lambda shape: logits(d, shape), 2)
        d.p["h"] = logits(d, (2, 2))
        d.p["h_level"] = levels(d, 2)
        d.per_datum["lengths"] = d.random.permutation([0, 1, 2, 3, 2])
        for t in range(self.length):
            d.column(f"h{t}_x", d.random.normal(size=N))
            d.enumerated[f"h{t}"] = (2, 1)

    def model(self, s):
        state, lengths = None, s.arg("lengths")
        for t in pyro.markov(range(self.length)):
            logits = s.of_class("h0") if state is None else s.p("h")[state]
            with poutine.mask(mask=t < lengths):
                state = pyro.sample(f"h{t}", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})
                pyro.sample(f"h{t}_x", dist.Normal(s.p("h_level")[state], 1.0), obs=s.column(f"h{t}_x"))

    def log_marginal(self, t):
        paths = np.ndindex(*[2] * int(t.args["lengths"]))
        return special.logsumexp([self._path(t, path) for path in paths])

    def _path(self, t, path):
        total, at = 0.0, t.of_class("h0")
        for step, state in enumerate(path):
            total += log_softmax(at)[state] + normal(t.column(f"h{step}_x"), t.p["h_level"][state])
            at = t.p["h"][state]
        return total


class InnerClass(Row):
    """A class for each place of an inner plate, summed out in the model."""

    name, discrete, inner = "enumeration in an inner plate", True, True

    def draw(self, d):
        d.table("e", lambda shape: logits(d, shape), 2)
        d.p["e_level"] = levels(d, 2)
        d.column("e_x", d.random.normal(size=(N, 2)))
        d.enumerated["e"] = (2, 2)

    def model(self, s):
        with s.inner_plate(2):
            fn = dist.Categorical(logits=s.of_class("e"))
            e = pyro.sample("e", fn, infer={"enumerate": "parallel"})
            pyro.sample("e_x", dist.Normal(s.p("e_level")[e], 1.0), obs=s.inner_column("e_x"))

    def log_marginal(self, t):
        prior = log_softmax(t.of_class("e"))
        return sum(special.logsumexp(prior + normal(x, t.p["e_level"])) for x in t.column("e_x"))


# Masks --------------------------------------------------------------------------------------------


class MaskedPlate(Row):
    """Some data are masked in all their sites, in model and guide."""

    name = "poutine.mask over the plate"

    def draw(self, d):
        d.mask("seen")

    def inside(self, s):
        return poutine.mask(mask=s.arg("seen"))

    def hides(self, t):
        return not t.args["seen"]


class MaskedLatent(Row):
    """u, masked on both sides where nothing depends on it."""

    name = "latent masked on both sides"

    def __init__(self, by_method=False):
        self.by_method = by_method
        if by_method:
            self.name += " by .mask()"
            self.excludes = {MaskedLatent.name: "one latent u a program"}

    def draw(self, d):
        d.mask("u_seen")
        d.table("u", lambda shape: d.random.uniform(-0.6, 0.6, shape), guided=True)
        d.column("u_x", d.random.normal(size=N))
        d.continuous += 1

    def _sample(self, s, sample, fn):
        seen = s.arg("u_seen")
        if self.by_method:
            return sample("u", fn.mask(seen))
        with poutine.mask(mask=seen):
            return sample("u", fn)

    def model(self, s):
        u = self._sample(s, pyro.sample, dist.Normal(s.of_class("u"), 1.0))
        pyro.sample("u_x", dist.Normal(u * s.arg("u_seen"), 1.0), obs=s.column("u_x"))

    def guide(self, s):
        loc = (s.of_class("u") + s.column("u_x")) / 2
        scale = loc.new_tensor(0.5).sqrt()
        self._sample(s, s.sample, dist.Normal(loc + 0.3 * s.wrong, scale * (1 + s.wrong)))

    def log_marginal(self, t):
        seen = t.args["u_seen"]
        return normal(t.column("u_x"), t.of_class("u"), 2) if seen else normal(t.column("u_x"), 0)


class MaskedClass(Row):
    """An enumerated class, masked in the model where nothing depends on it.

    `TraceEnum_ELBO` keeps the law of an enumerated site under a handler's mask, but sums one masked by `.mask()`.
    """

    name, discrete, wrong_in_pyro = "enumerated latent masked by .mask()", True, True

    def draw(self, d):
        d.mask("k_seen")
        d.table("k", lambda shape: logits(d, shape), 3)
        d.p["k_level"] = levels(d, 3)
        d.column("k_x", d.random.normal(size=N))
        d.enumerated["k"] = (3, 1)

    def model(self, s):
        seen = s.arg("k_seen")
        fn = dist.Categorical(logits=s.of_class("k")).mask(seen)
        k = pyro.sample("k", fn, infer={"enumerate": "parallel"})
        pyro.sample("k_x", dist.Normal(s.p("k_level")[k] * seen, 1.0), obs=s.column("k_x"))

    def log_marginal(self, t):
        x = t.column("k_x")
        if not t.args["k_seen"]:
            return normal(x, 0)
        return special.logsumexp(log_softmax(t.of_class("k")) + normal(x, t.p["k_level"]))


class ObservedMaskEnumerated(Row):
    """A label known for some of the data, summed out for the others."""

    name, discrete = "obs_mask, enumerated", True

    def draw(self, d):
        d.mask("known")
        d.table("label", lambda shape: logits(d, shape), 3)
        d.p["label_level"] = levels(d, 3)
        d.column("label", d.random.integers(0, 3, N))
        d.column("label_x", d.random.normal(size=N))
        d.enumerated["label_unobserved"] = (3, 1)

    def model(self, s):
        fn = dist.Categorical(logits=s.of_class("label"))
        # Pyro does not hand `infer` on to the two sites that it makes of one.
        parallel = {"enumerate": "parallel"}
        with poutine.infer_config(config_fn=lambda site: {} if site["is_observed"] else parallel):
            label = pyro.sample("label", fn, obs=s.column("label").long(), obs_mask=s.arg("known"))
        pyro.sample("label_x", dist.Normal(s.p("label_level")[label], 1.0), obs=s.column("label_x"))

    def log_marginal(self, t):
        terms = log_softmax(t.of_class("label")) + normal(t.column("label_x"), t.p["label_level"])
        return terms[int(t.column("label"))] if t.args["known"] else special.logsumexp(terms)


class ObservedMaskDrawn(Row):
    """A number known for some of the data, drawn by the guide for the others."""

    name = "obs_mask, drawn"

    def draw(self, d):
        d.mask("given")
        d.table("t", lambda shape: d.random.uniform(-0.6, 0.6, shape), guided=True)
        d.column("t", d.random.normal(size=N))
        d.column("t_x", d.random.normal(size=N))
        d.continuous += 1

    def model(self, s):
        fn = dist.Normal(s.of_class("t"), 1.0)
        value = pyro.sample("t", fn, obs=s.column("t"), obs_mask=s.arg("given"))
        pyro.sample("t_x", dist.Normal(value, 1.0), obs=s.column("t_x"))

    def guide(self, s):
        loc = (s.of_class("t") + s.column("t_x")) / 2
        scale = loc.new_tensor(0.5).sqrt()
        with poutine.mask(mask=~s.arg("given")):
            s.sample("t_unobserved", dist.Normal(loc + 0.3 * s.wrong, scale * (1 + s.wrong)))

    def log_marginal(self, t):
        mean, x, value = t.of_class("t"), t.column("t_x"), t.column("t")
        return normal(value, mean) + normal(x, value) if t.args["given"] else normal(x, mean, 2)


# Plates, scales, arguments ------------------------------------------------------------------------


class InnerLatent(Row):
    """A latent for each place of an inner plate, which only the guide's class moves."""

    name, inner = "latent in an inner plate", True

    def draw(self, d):
        d.table("v", lambda shape: d.random.uniform(-0.6, 0.6, shape), guided=True)
        d.column("v_x", d.random.normal(size=(N, 2)))
        d.continuous += 2

    def model(self, s):
        with s.inner_plate(2):
            v = pyro.sample("v", dist.Normal(s.of_class("v"), 1.0))
            pyro.sample("v_x", dist.Normal(v, 1.0), obs=s.inner_column("v_x"))

    def guide(self, s):
        with s.inner_plate(2):
            loc = (s.of_class("v") + s.inner_column("v_x")) / 2
            scale = loc.new_tensor(0.5).sqrt()
            s.sample("v", dist.Normal(loc + 0.3 * s.wrong, scale * (1 + s.wrong)))

    def log_marginal(self, t):
        return sum(normal(x, t.of_class("v"), 2) for x in t.column("v_x"))


class Scale(Row):
    name = "poutine.scale"

    def around(self, s):
        return poutine.scale(scale=0.37)


class Indexed(Row):
    name = "subsampled plate, x[ind]"

    def plate(self, s):
        return {"size": len(s.x), "subsample_size": 2, "picks": True}


class ScaledPlate(Row):
    name = "subsample_size=len(x)"
    excludes = {Indexed.name: "a plate subsamples in one way"}  # noqa: RUF012

    def plate(self, s):
        return {"size": 1000, "subsample_size": len(s.x)}


class FixedPlate(Row):
    name = "plate of a fixed size"
    excludes = {r.name: "a plate of a fixed size has all the data" for r in (Indexed, ScaledPlate)}  # noqa: RUF012

    def plate(self, s):
        return {"size": N}


class OuterPlate(Row):
    name, outer = "data plate at dim -2", True


class NamedPlate(Row):
    name, declares = "plate of another name", {"plate": "rows"}


class Context(Row):
    """A number of each datum's own, which enters all that is observed of z."""

    name = "per-datum context"

    def draw(self, d):
        d.per_datum["context"] = d.random.choice([0.0, 1.0, 2.0], N)


class Shared(Row):
    """The loadings of z, given as an argument: of some other length, or with as many rows as there are data."""

    def __init__(self, length):
        self.name = "shared context of N rows" if length == N else "shared context"
        self.length = length
        self.excludes = {} if length == N else {Shared(N).name: "one way to give the loadings"}

    def finish(self, d):
        if len(d.p["loadings"]) > self.length:
            raise ValueError(f"expected at most {self.length} columns of z, got {d.p['loadings']}")
        extra = np.ones(self.length - len(d.p["loadings"]))
        d.shared["loadings"] = np.concatenate([d.p["loadings"], extra])


class Double(Row):
    name, double = "float64", True


class Deterministic(Row):
    name = "deterministic sites"

    def around(self, s):
        pyro.deterministic(f"outside_{s.side}", s.x.new_ones(3))
        return nullcontext()

    def model(self, s):
        pyro.deterministic("inside", s.z * 2)


ROWS = (
    GuideClass(),
    ModelClass(),
    Latent("z Gaussian", Gaussian()),
    Latent("z Gamma-Poisson", GammaPoisson()),
    Latent("z Beta-Binomial", BetaBinomial()),
    Latent("z enumerated", Discrete()),
    InnerPlate(),
    SecondSite(),
    Factor(),
    MaskedSite(),
    Auxiliary(),
    DrawnClass(),
    Chain(),
    InnerClass(),
    InnerLatent(),
    MaskedPlate(),
    MaskedLatent(),
    MaskedLatent(by_method=True),
    MaskedClass(),
    ObservedMaskEnumerated(),
    ObservedMaskDrawn(),
    Scale(),
    Indexed(),
    ScaledPlate(),
    FixedPlate(),
    OuterPlate(),
    NamedPlate(),
    Context(),
    Shared(N + 3),
    Shared(N),
    Double(),
    Deterministic(),
)
