"""A VAE composed for a data set: networks, likelihood, guide and prior that fit each other."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from pyrovae import guides, likelihoods, networks, priors
from pyrovae.data import Dataset

from .architectures import Networks
from .vae import VAE

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
    q = (guide or guides.DiagonalGaussian)(architecture.encoder(data), latent_dim)

    def make_net(outputs: int) -> nn.Module:
        return architecture.decoder(data, latent_dim, outputs)

    p_x = (likelihood or suited)(make_net, data)
    start_at_mean(p_x, data)
    if prior is None:
        p_z: nn.Module = priors.StandardNormal(latent_dim)
    else:
        p_z = prior if isinstance(prior, nn.Module) else prior(q)
    return VAE(prior=p_z, likelihood=p_x, guide=q)


def suited(make_net: MakeNet, data: Dataset) -> nn.Module:
    """The honest default: Bernoulli for bits, binomial for grey levels, else a Gaussian of one learned scale."""
    shape, levels = data.spec.event_shape, data.spec.levels
    if data.spec.support == "binary":
        return likelihoods.Bernoulli(make_net(1), shape)
    if levels is not None:
        return likelihoods.Binomial(make_net(1), levels - 1, shape)
    return likelihoods.Gaussian(make_net(1), learn_scale=True, event_shape=shape)


def start_at_mean(likelihood: nn.Module, data: Dataset) -> None:
    """Sets a decoder of logits, in place, to the mean of the training split; leaves other likelihoods alone.

    Burda et al. 2016, https://arxiv.org/abs/1509.00519.
    """
    logits = (likelihoods.Bernoulli, likelihoods.Binomial, likelihoods.ContinuousBernoulli)
    spec = data.spec
    if isinstance(likelihood, logits) and spec.support in ("binary", "levels", "unit_interval"):
        high = float(spec.levels - 1) if spec.levels else 1.0
        if isinstance(getattr(likelihood.net, "output_bias", None), Tensor):
            networks.set_output_bias(likelihood.net, networks.logit_of_mean(data.train.cpu(), high))


def vamp(data: Dataset, components: int, learn_weights: bool = False) -> MakePrior:
    """A function `guide -> VampPrior` whose pseudo-inputs start at the first training data.

    They stay within the range of bits, grey levels and the unit interval.

    Raises:
        ValueError: no component, or more than there are training data.
    """
    if not 1 <= components <= len(data.train):
        raise ValueError(f"expected 1 to {len(data.train)} components (training data), got {components}")
    high = {"binary": 1.0, "unit_interval": 1.0, "levels": float((data.spec.levels or 2) - 1)}.get(
        data.spec.support
    )
    low = None if high is None else 0.0
    start = data.train[:components].cpu()
    return lambda guide: priors.VampPrior(guide, start, low, high, learn_weights)
