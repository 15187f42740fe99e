"""A VAE composed for a data set: networks, likelihood, guide and prior that fit each other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pyrovae import guides, likelihoods, networks, priors
from pyrovae.data import Dataset, prepared

from ..vae import VAE
from .architectures import Networks
from .tables import as_given, mixed

MOST_TRIALS = 2**24  # float32 holds whole numbers up to it

MakeNet = Callable[[int], nn.Module]
MakePrior = Callable[[nn.Module], nn.Module]
MakeGuide = Callable[[nn.Module, int], nn.Module]
MakeLikelihood = Callable[[MakeNet, Dataset], nn.Module]


def compose(
    data: Dataset,
    architecture: Networks,
    latent_dim: int,
    *,
    prior: nn.Module | MakePrior | None = None,
    guide: MakeGuide | None = None,
    likelihood: MakeLikelihood | None = None,
) -> VAE:
    """A VAE for `data`; each part may be swapped.

    Parts are built for `pyrovae.data.prepared(data)`, whose columns are standardised where that was asked for, and put
    together to take the data in their own units, missing values among them.

    Args:
        data: what it will be trained on: its shape, support, and the mean of its training split, at which a
            decoder of logits starts.
        architecture: makes the two networks.
        latent_dim: number of latents.
        prior: a prior, or a function `guide -> prior`, as a VampPrior needs it. Default: `StandardNormal`.
        guide: a function `(net, latent_dim) -> guide`, for example a class of `pyrovae.guides`. Default:
            `DiagonalGaussian`.
        likelihood: a function `(make_net, data) -> likelihood`, where `make_net(outputs)` is a decoder with so many
            outputs for each element of a datum. Default: `suited`.

    Raises:
        ValueError: parts that do not fit each other or the data.
    """
    seen = prepared(data)
    encoder = architecture.encoder(seen)

    def make_net(outputs: int) -> nn.Module:
        return architecture.decoder(seen, latent_dim, outputs)

    prior = priors.StandardNormal(latent_dim) if prior is None else prior
    return VAE(*parts_for(data, encoder, make_net, latent_dim, prior, guide, likelihood))


def parts_for(
    data: Dataset,
    encoder: nn.Module,
    make_net: MakeNet,
    latent_dim: int,
    prior: nn.Module | MakePrior,
    guide: MakeGuide | None,
    likelihood: MakeLikelihood | None,
) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Prior, likelihood and guide that take the data in their own units; arguments as in `compose`.

    Args:
        encoder, make_net: networks for `pyrovae.data.prepared(data)`.
    """
    seen = prepared(data)
    q = (guide or guides.DiagonalGaussian)(encoder, latent_dim)
    p_x = (likelihood or suited)(make_net, seen)
    start_at_mean(p_x, seen)
    p_z = prior if isinstance(prior, nn.Module) else prior(q)
    return p_z, *as_given(p_x, q, data)


def suited(make_net: MakeNet, data: Dataset) -> nn.Module:
    """The honest default: Bernoulli for bits, Binomial for grey levels and counts, else a Gaussian of learned scale.

    A table of several kinds of columns has `Mixed`, by the roles of its columns.

    Whole numbers get a probability mass, however large they are: a Gaussian is a density, which has no upper bound
    on them. The Binomial's number of trials is the largest value in all splits.

    Raises:
        ValueError: whole numbers that no Binomial holds, negative ones and those above 2^24.
    """
    shape = data.spec.event_shape
    if data.spec.support == "mixed":
        return mixed(make_net, data)
    if data.spec.support == "binary":
        return likelihoods.Bernoulli(make_net(1), shape)
    top = data.top_count
    if top is not None and top <= MOST_TRIALS:
        return likelihoods.Binomial(make_net(1), top, shape)
    if top is not None or data.whole:
        low = min(float(x.min()) for x in (data.train, data.valid, data.test))
        raise ValueError(
            "expected real numbers, or whole numbers in 0 ... 2^24, for which a likelihood is chosen, got whole "
            f"numbers in {low:.6g} ... {data.highest:.6g}; try to subtract the smallest, or a Gaussian (--likelihood "
            "gaussian; in Python likelihood=lambda net, data: pv.likelihoods.Gaussian(net(1), learn_scale=True, "
            "event_shape=data.spec.event_shape)), which is a density: its ln p(x) has no upper bound on whole numbers "
            "and is not comparable with a mass"
        )
    return likelihoods.Gaussian(make_net(1), learn_scale=True, event_shape=shape)


def start_at_mean(likelihood: nn.Module, data: Dataset) -> None:
    """Sets a decoder, in place, to the mean of the training split.

    Those of logits, and those whose likelihood knows its `raw_mean(x)`, the first outputs of the network; others
    are left alone. Burda et al. 2016, https://arxiv.org/abs/1509.00519.
    """
    own = getattr(getattr(likelihood, "net", None), "output_bias", None)
    if not isinstance(own, Tensor):
        return
    x, start = data.train.cpu(), None
    logits = (likelihoods.Bernoulli, likelihoods.Binomial, likelihoods.ContinuousBernoulli)
    if isinstance(likelihood, logits) and data.spec.support != "real":
        high = float(data.top_count or 1)
        start = networks.logit_of_mean(x, high, eps=min(1e-3, 0.5 / high))
    elif callable(raw_mean := getattr(likelihood, "raw_mean", None)):
        start = raw_mean(x)
    if start is not None:
        rest = own.detach().cpu().flatten()[start.numel() :]
        networks.set_output_bias(likelihood.net, torch.cat([start.flatten().to(rest), rest]))  # type: ignore[arg-type]  # a network


def vamp(data: Dataset, components: int, learn_weights: bool = False) -> MakePrior:
    """A function `guide -> VampPrior` whose pseudo-inputs start at the first training data.

    They stay within the range of bits, grey levels, counts and the unit interval.

    Raises:
        ValueError: no component, or more than there are training data.
    """
    data = prepared(data)
    if not 1 <= components <= len(data.train):
        raise ValueError(f"expected 1 to {len(data.train)} components (training data), got {components}")
    if data.spec.support == "mixed":
        raise ValueError(
            "expected a prior without pseudo-inputs for a table of several kinds of columns, which are not moved by "
            "gradients as categories, got vamp; try another --prior"
        )
    high = None if data.spec.support == "real" else float(data.top_count or 1)
    low = None if high is None else 0.0
    start = data.train[:components].cpu()
    return lambda guide: priors.VampPrior(guide, start, low, high, learn_weights)
