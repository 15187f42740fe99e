"""A program of some features: its parameters and data, its model and guide, and what its statements see."""

from contextlib import ExitStack

import numpy as np
import pyro
import torch

import pyrovae as pv

torch.set_num_threads(1)  # tensors are tiny: threads only get in each others way

N = 5  # data; no parameter has so many rows, unless a feature is about that
MODEL_CLASSES, GUIDE_CLASSES = 2, 3  # values of the classes c (of the model) and g (of the guide)


class Case:
    """One program: a set of rows and a seed.

    Attributes:
        p: parameters, numpy; tables `[c, g, ...]` of what depends on the classes.
        columns: data by name, `[N]` or `[N, width]`; x has them side by side.
        per_datum: arguments of the program with a row per datum, in order; `shared`: others.
        z_columns: names of the columns that depend on z; their loadings are `p["loadings"]`, in order.
    """

    def __init__(self, rows, seed=0, exact=False):
        self.rows, self.exact = tuple(rows), exact
        self.names = {r.name for r in rows}
        # Data do not depend on whether the guide is exact.
        self.random = np.random.default_rng([seed, *sorted(map(ord, "".join(sorted(self.names))))])
        self.law = next(r.law for r in rows if r.law is not None)
        self.dtype = torch.float64 if any(r.double for r in rows) else torch.float32
        self.dim = -2 if any(r.outer for r in rows) else -1
        self.nesting = 2 if self.dim == -2 or any(r.inner for r in rows) else 1
        self.p, self.columns, self.per_datum, self.shared = {}, {}, {}, {}
        self.z_columns, self.enumerated, self.calls = {}, {}, []
        self.continuous = 0  # numbers that Exact has to integrate over
        for row in rows:
            row.draw(self)
        for row in rows:
            row.finish(self)
        self.declares = {k: v for r in rows for k, v in r.declares.items()}
        self.plate = self.declares.get("plate", "data")

        def model(*args):
            return run(self, "model", args)

        def guide(*args):
            return run(self, "guide", args)

        self.model = pv.program(**self.declares)(model)
        self.guide = guide

    def __repr__(self):
        return " + ".join(r.name for r in self.rows)

    # For the rows, while they draw their numbers ------------------------------------------------------

    def table(self, name, make, *shape, guided=False):
        """A parameter for each class. Where the guide must know it and is to be exact, it knows c not."""
        value = make((MODEL_CLASSES, GUIDE_CLASSES, *shape))
        if guided and self.exact:
            value = np.broadcast_to(value[:1], value.shape)
        self.p[name] = value

    def column(self, name, values):
        self.columns[name] = np.asarray(values, dtype=float)

    def z_column(self, name, width=None, seen=None):
        """Data that depend on z; `seen`: the name of an argument that says of which data they count."""
        w = self.random.choice([1.0, 2.0], 1 if width is None else width)
        values = self.law.values(self.random, (N, len(w)), w)
        self.column(name, values[:, 0] if width is None else values)
        self.z_columns[name] = seen
        self.p["loadings"] = np.concatenate([self.p.get("loadings", np.zeros(0)), w])

    def mask(self, name):
        """An argument that is true for some of the data."""
        self.per_datum[name] = self.random.permutation([True, False, True, False, True])

    def where(self, name):
        """The place of a column in x (or among the loadings, if it depends on z)."""
        return _where(self.columns, name)

    def loadings(self, name):
        return self.p["loadings"][_where({k: self.columns[k] for k in self.z_columns}, name)]

    # The arguments of the programs ------------------------------------------------------------------------

    @property
    def x(self):
        return torch.tensor(np.column_stack(list(self.columns.values())), dtype=self.dtype)

    @property
    def context(self):
        return tuple(self.tensor(v) for v in (*self.per_datum.values(), *self.shared.values()))

    def tensor(self, value):
        value = torch.as_tensor(np.array(value))
        return value.to(self.dtype) if value.is_floating_point() else value

    @property
    def marked(self):
        """The context as it is given to the library: told apart where it has markers for that."""
        mark_rows = getattr(pv, "per_datum", lambda v: v)
        mark_shared = getattr(pv, "shared", lambda v: v)
        rows = [mark_rows(self.tensor(v)) for v in self.per_datum.values()]
        return (*rows, *(mark_shared(self.tensor(v)) for v in self.shared.values()))


class Scope:
    """One run of one side of a program.

    Attributes:
        c, g: the classes, or 0 where there are none (yet).
        index: which data the plate holds, or None if all that were passed.
        places: theirs among all data.
        plain: a run for the reference, without scales and subsampling.
    """

    def __init__(self, case, side, args, plain):
        self.case, self.side, self.plain, self.law = case, side, plain, case.law
        self.wrong = 0.0 if case.exact else 1.0
        self.x, *context = args
        self.args = dict(zip((*case.per_datum, *case.shared), context, strict=True))
        self.c = self.g = 0
        self.index, self.places, self.draws, self.z = None, None, {}, None
        self._inner, self.idle = None, 0.0

    def rows(self, value):
        """The data that the plate holds."""
        return value if self.index is None else value[self.index]

    def place(self, value):
        """A value per datum where its plate's dim is."""
        return value if self.case.dim == -1 else value.unsqueeze(1)

    def arg(self, name):
        return self.place(self.rows(self.args[name]))

    def column(self, name):
        """`[n]`, or `[n, width]` for an event."""
        return self.place(self.rows(self.x[:, self.case.where(name)]))

    def inner_column(self, name):
        """A column of some width, whose width is the inner plate's."""
        value = self.rows(self.x[:, self.case.where(name)])
        return value if self.case.dim == -2 else value.mT

    def inner_plate(self, size):
        """One for all rows: Pyro takes a name once, and the plate as often as it is entered."""
        if self._inner is None:
            self._inner = pyro.plate("inner", size, dim=-1 if self.case.dim == -2 else -2)
        return self._inner

    def over_inner(self, value):
        """A vector over the inner plate where its dim is."""
        return value if self.case.dim == -2 else value.unsqueeze(-1)

    def p(self, name):
        return self.case.tensor(self.case.p[name])

    def of_class(self, name):
        return self.p(name)[self.c, self.g]

    def loadings(self, name):
        whole = self.args["loadings"] if "loadings" in self.args else self.p("loadings")
        return whole[..., _where({k: self.case.columns[k] for k in self.case.z_columns}, name)]

    @property
    def exposure(self):
        """The per-datum context; 0 without one."""
        return self.arg("context") if "context" in self.args else self.x.new_zeros(())

    def z_data(self):
        """What the posterior of z looks at: `(x, seen, w, context)`, columns last."""
        case = self.case
        n = len(self.rows(self.x))
        x, seen, w = [], [], []
        for name, argument in case.z_columns.items():
            value = self.rows(self.x[:, case.where(name)]).reshape(n, -1)
            x.append(value)
            counts = self.rows(self.args[argument]) if argument else torch.ones(n)
            seen.append(counts.to(value.dtype).unsqueeze(-1).expand_as(value))
            w.append(self.loadings(name).reshape(-1))
        x, seen = (self.place(torch.cat(v, -1)) for v in (x, seen))
        return x + self.idle, seen, torch.cat(w), self.exposure.unsqueeze(-1)

    def sample(self, name, fn, **options):
        """A latent of the guide; its draw is kept for the reference."""
        value = pyro.sample(name, fn, **options)
        self.draws[name] = value
        return value


def _where(columns, name):
    """An int, or a slice, of a column among others side by side."""
    at = 0
    for key, value in columns.items():
        width = 1 if value.ndim == 1 else value.shape[1]
        if key == name:
            return at if value.ndim == 1 else slice(at, at + width)
        at += width
    raise KeyError(name)


def run(case, side, args, plain=False, place=None):
    """One side of a program; `place`: that of the one datum it is given, for the reference."""
    s = Scope(case, side, args, plain)
    options = {"name": case.plate, "size": len(s.x), "dim": case.dim}
    with ExitStack() as stack:
        if not plain:
            for row in case.rows:
                options |= row.plate(s)
                stack.enter_context(row.around(s))
        if side == "guide":
            # A parameter to train, which moves nothing.
            s.idle = 0 * pyro.param("idle", torch.zeros((), dtype=case.dtype))
        picks = options.pop("picks", False)
        index = stack.enter_context(pyro.plate(**options))
        s.index = index if picks else None
        s.places = index if place is None else torch.tensor([place])
        for row in case.rows:
            stack.enter_context(row.inside(s))
        for row in case.rows:
            getattr(row, side)(s)
    if side == "guide":
        case.calls.append((s.index, s.draws))
