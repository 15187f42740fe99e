"""The hierarchical (Markovian) VAE: a chain of latents, composed."""

from __future__ import annotations

from typing import Any

import pyro
from torch import Tensor, nn

from pyrovae.programs import program

from .levels.guides import BottomUp, TopDown
from .levels.paths import Markov, Stream


class HierarchicalVAE(nn.Module):
    """p(x, z_{1:T}) = p(z_T) prod_t p(z_{t-1} | z_t) p(x | z_1), T levels of any widths.

    Sites are `z1` (next to x) ... `zT` (top) and `x`. Each part may be swapped.

    Args:
        prior: `prior()` is p(z_T).
        path: p(z_{t-1} | z_t): `Markov`, or `Stream`, which lets every level see all those above.
        likelihood: `likelihood(state, *context)` is p(x | z_1) (of a stream: p(x | h_1)).
        guide: `BottomUp`, or `TopDown` (the ladder), which shares the path.

    Raises:
        ValueError: path and guide of different numbers of levels, a prior of another width than the top level.

    Source:
        Ladder Variational Autoencoders (Sonderby et al., 2016), https://arxiv.org/abs/1602.02282;
        Importance Weighted Autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519

    Example:
        >>> from pyrovae import guides, likelihoods, networks, priors
        >>> from pyrovae.models.levels.paths import GaussianConditional
        >>> up = [networks.MLP(64, (32,)), networks.MLP(32, (16,))]
        >>> heads = [guides.DiagonalGaussian(nn.Identity(), 8, 32), guides.DiagonalGaussian(nn.Identity(), 4, 16)]
        >>> vae = HierarchicalVAE(
        ...     prior=priors.StandardNormal(4),
        ...     path=Markov([GaussianConditional(networks.MLP(4, (16,)), 4, 8)]),
        ...     likelihood=likelihoods.Bernoulli(networks.MLP(8, (32,), 64)),
        ...     guide=TopDown(up, heads),
        ... )
        >>> vae.sites
        ('z1', 'z2')
    """

    def __init__(
        self, prior: nn.Module, path: Markov | Stream, likelihood: nn.Module, guide: BottomUp | TopDown | Any
    ) -> None:
        super().__init__()
        if path.num_levels != guide.num_levels:
            raise ValueError(
                f"expected path and guide of one number of levels, got {path.num_levels} and {guide.num_levels}"
            )
        top, own = guide.top.latent_dim, getattr(prior, "latent_dim", None)
        if own is not None and own != top:
            raise ValueError(f"expected a prior of the top level's width {top}, got {own}")
        self.prior = prior
        self.path = path
        self.likelihood = likelihood
        self.q = guide
        self.num_levels = path.num_levels

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the latents, from the bottom."""
        return tuple(f"z{t}" for t in range(1, self.num_levels + 1))

    @program(density="exact", plate="data", observed="x")
    def model(self, x: Tensor, *context: Tensor) -> None:
        """z_T ~ p(z_T), z_{t-1} ~ p(z_{t-1} | z_t), x ~ p(x | z_1), for `x` `[N, *event]`."""
        pyro.module("prior", self.prior)
        pyro.module("path", self.path)
        pyro.module("likelihood", self.likelihood)
        with pyro.plate("data", len(x)):
            state = self.path.start(_draw(self.num_levels, self.prior()))
            for t in range(self.num_levels - 1, 0, -1):
                state = self.path.join(t, state, _draw(t, self.path.below(t, state)))
            pyro.sample("x", self.likelihood(state, *context), obs=x)

    def guide(self, x: Tensor, *context: Tensor) -> None:
        """z_1 ... z_T bottom-up, or z_T ... z_1 top-down."""
        pyro.module("guide", self.q)
        if self.q.shares_path:  # under the model's name: they are the same parameters
            pyro.module("path", self.path)
        with pyro.plate("data", len(x)):
            self.q(self.path, _draw, x, *context)


def _draw(t: int, distribution: Any) -> Tensor:
    return pyro.sample(f"z{t}", distribution)
