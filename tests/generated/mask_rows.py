"""Features that leave out some data, latents or observations."""

import pyro
import pyro.distributions as dist
from pyro import poutine
from scipy import special

from .row import Row, levels, log_softmax, logits, normal
from .scope import N


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
