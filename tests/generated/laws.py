"""Laws of the latent z, each with its marginal in closed form (numpy) and its posterior (Pyro).

A column of data given z has a loading w and a per-datum context c. `parameter` is what depends on the classes.
"""

import numpy as np
import pyro.distributions as dist
import torch
from scipy import special, stats

NOISE = 0.7


class Gaussian:
    """z ~ N(m, 1), column ~ N(w z + .3 c, .7^2)."""

    discrete = False

    def values(self, random, shape, w):
        return random.normal(size=shape) * 1.5

    def parameter(self, random, shape):
        return random.uniform(-0.6, 0.6, shape)

    def prior(self, m):
        return dist.Normal(m, 1.0)

    def likelihood(self, z, w, c):
        return dist.Normal(w * z + 0.3 * c, NOISE)

    def _posterior(self, x, seen, w, c, m):
        precision = 1 + (seen * w**2).sum(-1) / NOISE**2
        loc = (m + (seen * w * (x - 0.3 * c)).sum(-1) / NOISE**2) / precision
        return loc, precision.rsqrt()

    def guide(self, wrong, *given):
        loc, scale = self._posterior(*given)
        return dist.Normal(loc + 0.3 * wrong, scale * (1 + wrong))

    def from_noise(self, wrong, noise, *given):
        """z of standard noise, and ln |dz/dnoise|."""
        loc, scale = self._posterior(*given)
        scale = scale * (1 + 0.5 * wrong)
        return loc + 0.3 * wrong + scale * noise, scale.log()

    def log_marginal(self, x, w, c, m):
        if not len(x):
            return 0.0
        covariance = np.outer(w, w) + NOISE**2 * np.eye(len(x))
        return stats.multivariate_normal.logpdf(x, w * m + 0.3 * c, covariance)


class GammaPoisson:
    """z ~ Gamma(3, b), column ~ Poisson(w (1 + c) z)."""

    discrete = False

    def values(self, random, shape, w):
        return random.poisson(2.0, shape)

    def parameter(self, random, shape):
        return random.uniform(1.0, 1.3, shape)

    def prior(self, b):
        return dist.Gamma(torch.as_tensor(3.0, dtype=b.dtype), b)

    def likelihood(self, z, w, c):
        return dist.Poisson(w * (1 + c) * z)

    def _posterior(self, x, seen, w, c, b):
        return 3 + (seen * x).sum(-1), b + (seen * w * (1 + c)).sum(-1)

    def guide(self, wrong, *given):
        a, b = self._posterior(*given)
        return dist.Gamma(a * (1 - 0.3 * wrong), b * (1 - 0.4 * wrong))

    def from_noise(self, wrong, noise, *given):
        a, b = self._posterior(*given)
        z = ((a / b).log() + noise / a.sqrt()).exp()
        return z, z.log() - 0.5 * a.log()

    def log_marginal(self, x, w, c, b):
        rate = w * (1 + c)
        a, total = 3 + x.sum(), b + rate.sum()
        terms = 3 * np.log(b) - special.gammaln(3) + special.gammaln(a) - a * np.log(total)
        return terms + (x * np.log(rate) - special.gammaln(x + 1)).sum()


class BetaBinomial:
    """z ~ Beta(a, 2), column ~ Binomial(2 w + c, z)."""

    discrete = False

    def values(self, random, shape, w):
        return random.binomial(2 * w.astype(int), 0.4, shape)

    def parameter(self, random, shape):
        return random.uniform(1.7, 2.3, shape)

    def prior(self, a):
        return dist.Beta(a, torch.full_like(a, 2.0))

    def likelihood(self, z, w, c):
        return dist.Binomial(2 * w + c, z)

    def _posterior(self, x, seen, w, c, a):
        return a + (seen * x).sum(-1), 2 + (seen * (2 * w + c - x)).sum(-1)

    def guide(self, wrong, *given):
        a, b = self._posterior(*given)
        return dist.Beta(a * (1 - 0.35 * wrong), b * (1 - 0.35 * wrong))

    def from_noise(self, wrong, noise, *given):
        a, b = self._posterior(*given)
        u = (a / b).log() + noise * (1 / a + 1 / b).sqrt()
        return u.sigmoid(), -torch.nn.functional.softplus(u) - torch.nn.functional.softplus(-u) + (
            0.5 * (1 / a + 1 / b).log()
        )

    def log_marginal(self, x, w, c, a):
        total = 2 * w + c
        choose = np.log(special.binom(total, x)).sum()
        return choose + special.betaln(a + x.sum(), 2 + (total - x).sum()) - special.betaln(a, 2)


class Discrete:
    """z ~ Categorical(softmax(0, m, 2 m)), enumerated in the model; column ~ N(w level_z + .3 c, .7^2)."""

    discrete = True
    levels = (-1.0, 0.3, 1.4)

    def values(self, random, shape, w):
        return random.normal(size=shape) * 1.5

    def parameter(self, random, shape):
        return random.uniform(-1.0, 1.0, shape)

    def prior(self, m):
        return dist.Categorical(logits=torch.stack([0 * m, m, 2 * m], -1))

    def likelihood(self, z, w, c):
        return dist.Normal(w * torch.tensor(self.levels, dtype=w.dtype)[z.long()] + 0.3 * c, NOISE)

    def log_marginal(self, x, w, c, m):
        log_prior = np.array([0, m, 2 * m]) - special.logsumexp([0, m, 2 * m])
        terms = [
            p + stats.norm.logpdf(x, w * level + 0.3 * c, NOISE).sum()
            for p, level in zip(log_prior, self.levels, strict=True)
        ]
        return special.logsumexp(terms)
