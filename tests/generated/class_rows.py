"""Features of discrete latents: summed out in model or guide, drawn, in chains and inner plates."""

import numpy as np
import pyro
import pyro.distributions as dist
from pyro import poutine
from scipy import special

from .row import Row, levels, log_softmax, logits, normal
from .scope import GUIDE_CLASSES, MODEL_CLASSES, N


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

    name, discrete, drawn = "guide enumeration", True, True

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

    name, discrete, drawn = "discrete latent drawn", True, True

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
