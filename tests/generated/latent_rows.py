"""Features of the latent z, and of what is observed of it."""

import pyro
import pyro.distributions as dist
import torch

from .row import Row


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
