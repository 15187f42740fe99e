"""A hierarchical VAE composed for a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn

from pyrovae import networks, priors
from pyrovae.data import Dataset, prepared
from pyrovae.guides import DiagonalGaussian

from ..hierarchical import HierarchicalVAE
from ..levels.guides import BottomUp, TopDown
from ..levels.paths import GaussianConditional, Markov, Stream, check_widths
from .architectures import Networks
from .tables import LevelsOfStandardized, likelihood_as_given
from .vae import MakeLikelihood, MakePrior, start_at_mean, suited

MakeNetwork = Callable[[int], nn.Module]


def residual(width: int = 128, blocks: int = 1) -> MakeNetwork:
    """A function `in_features -> ResidualMLP`, for the networks between levels."""
    return lambda n: networks.ResidualMLP(n, width, blocks)


def compose_hierarchical(
    data: Dataset,
    architecture: Networks,
    widths: Sequence[int],
    *,
    top_down: bool = True,
    stream: int | None = None,
    between: MakeNetwork | None = None,
    prior: nn.Module | MakePrior | None = None,
    likelihood: MakeLikelihood | None = None,
) -> HierarchicalVAE:
    """A hierarchical VAE for `data`.

    Args:
        data: what it will be trained on.
        architecture: makes the networks next to x: perceptrons or convolutions.
        widths: of z_1 (next to x), ..., z_T.
        top_down: the ladder, or a bottom-up guide.
        stream: width of a deterministic stream beside the latents; None for a Markov chain.
        between: makes the networks between levels, `in_features -> network`. Default: `residual()`.
        prior: of the top level, or a function `guide -> prior`, where `guide(x)` is q(z_T | x). Default:
            `StandardNormal`.
        likelihood: as in `compose`.

    Raises:
        ValueError: no levels, widths below 1, or parts that do not fit each other or the data.
    """
    check_widths(widths)
    given, data = data, prepared(data)
    make = between or residual()
    path = (
        Markov([GaussianConditional(make(b), b, a) for a, b in pairwise(widths)])
        if stream is None
        else Stream(widths, stream, make)
    )
    seen = widths[0] if stream is None else stream
    p_x = (likelihood or suited)(lambda outputs: architecture.decoder(data, seen, outputs), data)
    start_at_mean(p_x, data)
    q = (
        _ladder(architecture.encoder(data), widths, make)
        if top_down
        else _upward(architecture.encoder(data), widths, make)
    )
    if prior is None:
        p_z: nn.Module = priors.StandardNormal(widths[-1])
    else:
        p_z = prior if isinstance(prior, nn.Module) else prior(q.top)
    units = None if given.is_prepared else given.spec.standardization
    return HierarchicalVAE(
        prior=p_z,
        path=path,
        likelihood=likelihood_as_given(p_x, given),
        guide=q if units is None else LevelsOfStandardized(q, units),
    )


def _upward(encoder: nn.Module, widths: Sequence[int], make: MakeNetwork) -> BottomUp:
    above = [DiagonalGaussian(make(a), b) for a, b in pairwise(widths)]
    return BottomUp([DiagonalGaussian(encoder, widths[0]), *above])


def _ladder(encoder: nn.Module, widths: Sequence[int], make: MakeNetwork) -> TopDown:
    encoders = [encoder]
    for _ in widths[1:]:
        encoders.append(make(networks.out_features_of(encoders[-1])))
    heads = [
        DiagonalGaussian(nn.Identity(), w, networks.out_features_of(e))
        for w, e in zip(widths, encoders, strict=True)
    ]
    return TopDown(encoders, heads)
