"""Features of plates, scales and arguments."""

from contextlib import nullcontext

import numpy as np
import pyro
import pyro.distributions as dist
from pyro import poutine

from .row import Row, normal
from .scope import N


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


class ByPlace(Row):
    """A table of the model with a row for each datum, read at the indices that the plate gives."""

    name = "table read by place"
    excludes = {ScaledPlate.name: "its indices are places among 1,000"}  # noqa: RUF012

    def draw(self, d):
        d.p["of_place"] = d.random.normal(size=N)
        d.column("place_x", d.random.normal(size=N))

    def model(self, s):
        level = s.place(s.p("of_place")[s.places])
        pyro.sample("place_x", dist.Normal(level, 1.0), obs=s.column("place_x"))

    def log_marginal(self, t):
        return normal(t.column("place_x"), t.p["of_place"][t.n])


class Double(Row):
    name, double = "float64", True


class Deterministic(Row):
    name = "deterministic sites"

    def around(self, s):
        pyro.deterministic(f"outside_{s.side}", s.x.new_ones(3))
        return nullcontext()

    def model(self, s):
        pyro.deterministic("inside", s.z * 2)
