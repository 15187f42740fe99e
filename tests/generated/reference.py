"""Exact ln p(x_n) in numpy, and log-weights of one datum and one draw by Pyro's own handlers. Plain loops."""

from itertools import product

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.poutine.subsample_messenger import _Subsample
from scipy import special

from .scope import GUIDE_CLASSES, MODEL_CLASSES, N, run


class Datum:
    """One datum, with values of the classes, as the rows' `log_marginal` sees it."""

    def __init__(self, case, n, c=0, g=0):
        self.case, self.n, self.c, self.g, self.p = case, n, c, g, case.p
        self.args = {name: value[n] for name, value in case.per_datum.items()}

    def get(self, name, default):
        return self.args.get(name, default)

    def column(self, name):
        return self.case.columns[name][self.n]

    def of_class(self, name):
        return self.p[name][self.c, self.g]

    def z_columns(self):
        """What is seen of z, and its loadings."""
        names = [n for n, seen in self.case.z_columns.items() if seen is None or self.args[seen]]
        x = np.concatenate([np.atleast_1d(self.column(n)) for n in names])
        return x, np.concatenate([np.atleast_1d(self.case.loadings(n)) for n in names])


def log_evidence(case):
    """ln p(x_n), `[N]`; the classes are summed out by brute force."""
    return np.array([special.logsumexp(_joint(case, n)) for n in range(N)])


def log_posterior_of_g(case):
    """ln p(g | x_n), `[N, G]`."""
    joint = np.array([special.logsumexp(_joint(case, n), axis=0) for n in range(N)])
    return joint - special.logsumexp(joint, axis=1, keepdims=True)


def _joint(case, n):
    """ln p(x_n, c, g), `[C, G]`; 1 x 1 without classes."""
    out = np.zeros(
        (MODEL_CLASSES if "c" in case.enumerated else 1, GUIDE_CLASSES if "g" in case.enumerated else 1)
    )
    hidden = any(r.hides(Datum(case, n)) for r in case.rows)
    for c, g in np.ndindex(out.shape):
        datum = Datum(case, n, c, g)
        if hidden:  # a class keeps its probabilities
            priors = (case.p[name] for name in ("c", "g") if name in case.enumerated)
            out[c, g] = sum(
                (v - special.logsumexp(v))[i] for v, i in zip(priors, _present(case, c, g), strict=True)
            )
        else:
            out[c, g] = sum(r.log_marginal(datum) for r in case.rows)
    return out


def _present(case, c, g):
    return [i for name, i in (("c", c), ("g", g)) if name in case.enumerated]


def log_weight(case, n, draw):
    """ln w of datum n: sum over all values of the enumerated sites of p(all) / q(what the guide draws).

    Args:
        case: the program.
        n: number of the datum.
        draw: value of each site that the guide draws, `[G or 1, dims of plates]`, the data plate's of size 1.
    """
    sites = list(case.enumerated.items())
    choices = [range(size) for _, (size, places) in sites for _ in range(places)]
    assignments = list(product(*choices))
    values, at = {}, 0
    for name, (_, places) in sites:
        values[name] = torch.tensor([a[at : at + places] for a in assignments])
        at += places
        shape = [len(assignments), *[1] * case.nesting]
        shape[_inner_dim(case) if places > 1 else -1] = places
        values[name] = values[name].reshape(shape)
    g = values["g"].reshape(-1) if "g" in values else torch.zeros(len(assignments), dtype=torch.long)
    for name, value in draw.items():
        values[name] = value[g if len(value) > 1 else 0 * g]
    args = _arguments_of(case, n)

    def trace(side):
        def program():
            with pyro.plate("assignments", len(assignments), dim=-1 - case.nesting):
                run(case, side, args, plain=True, place=n)

        return poutine.trace(poutine.condition(program, data=values)).get_trace()

    total = torch.zeros(len(assignments), dtype=case.dtype)
    for name, site in _densities(trace("model")):
        total += _log_prob(site, name in case.enumerated, len(assignments))
    for name, site in _densities(trace("guide")):
        if name not in case.enumerated:
            total -= _log_prob(site, False, len(assignments))
    return float(total.double().logsumexp(0))


def _inner_dim(case):
    return -1 if case.dim == -2 else -2


def _arguments_of(case, n):
    rows = [case.tensor(v[n : n + 1]) for v in case.per_datum.values()]
    return (case.x[n : n + 1], *rows, *(case.tensor(v) for v in case.shared.values()))


def _densities(trace):
    for name, site in trace.nodes.items():
        if site["type"] != "sample" or isinstance(site["fn"], _Subsample):
            continue
        if not site["infer"].get("_deterministic"):
            yield name, site


def _log_prob(site, enumerated, size):
    """`[assignments]`; no scale, and no mask where the site is summed out."""
    fn = site["fn"]
    if enumerated:
        while hasattr(fn, "_mask"):
            fn = fn.base_dist
        return fn.log_prob(site["value"]).reshape(size, -1).sum(1)
    value = fn.log_prob(site["value"])
    if site["mask"] is not None:
        value = torch.where(torch.as_tensor(site["mask"]), value, 0.0)
    return value.reshape(size, -1).sum(1)
