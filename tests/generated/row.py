"""What a feature is: its parts of data, model, guide and ln p(x), each of which may add nothing."""

from contextlib import nullcontext

import numpy as np
from scipy import special, stats


class Row:
    """A feature that adds nothing.

    Attributes:
        law: of z, where the row chooses it.
        double, inner, outer: float64; an inner plate; the data plate at dim -2.
        discrete: it has a latent without a density, which is summed out; `drawn`: which the guide draws, or sums out.
        auxiliary: the guide has sites that are the model's only by a Delta.
        wrong_in_pyro: TraceEnum_ELBO's own value is wrong.
        excludes: names of rows it does not go with, and why.
        declares: for `pv.program`.
    """

    name = ""
    law = None
    double = inner = outer = discrete = drawn = auxiliary = wrong_in_pyro = False
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
