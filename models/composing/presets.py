"""The VAEs of well-known papers and lessons by name, for any data set, each part open to a swap.

    from pyrovae import data, guides, priors
    from pyrovae.models.composing import presets

    bits = data.load("mnist", binarise="dynamic")
    vae = presets.iwae(bits, guide=guides.FullGaussian, prior=lambda q: priors.VampPrior(q, bits.train[:200]))

All take what `pyrovae.models.composing.vae.compose` takes: `prior`, `guide` and `likelihood` make the parts in place of
the preset's, `latent_dim` and `networks` change its sizes. The likelihood suits the data: Bernoulli for bits (as
published), binomial for grey levels, so that the evidence is one. Decoders of logits start at the mean of the
training split.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from pyrovae.data import Dataset

from ..vae import VAE
from .architectures import Convolutional, Gated, Networks, Perceptrons
from .vae import MakeGuide, MakeLikelihood, MakePrior, compose, vamp

Prior = nn.Module | MakePrior | None


def lecture(
    data: Dataset,
    *,
    prior: Prior = None,
    guide: MakeGuide | None = None,
    likelihood: MakeLikelihood | None = None,
    latent_dim: int = 2,
    networks: Networks = Perceptrons((400,), nn.ReLU),  # noqa: B008 - frozen
) -> VAE:
    """The VAE of introductory lectures: 784-400-2 and back, ReLU (Kingma & Welling 2014).

    Source:
        The VAE example of PyTorch, with two latents, https://github.com/pytorch/examples/tree/main/vae;
        Auto-Encoding Variational Bayes, https://arxiv.org/abs/1312.6114
    """
    return compose(data, networks, latent_dim, prior=prior, guide=guide, likelihood=likelihood)


def keras(
    data: Dataset,
    *,
    prior: Prior = None,
    guide: MakeGuide | None = None,
    likelihood: MakeLikelihood | None = None,
    latent_dim: int = 2,
    networks: Networks = Convolutional((32, 64), 16, decoder_channels=(64, 64, 32), last_stride=1),  # noqa: B008
) -> VAE:
    """The convolutional VAE of the Keras example, two latents, its likelihood honest.

    3x3 convolutions of 32 and 64 filters, stride 2, a dense layer of 16; back through 7x7x64 and transposed
    convolutions of 64, 32 and 1 filters. The example scores grey values by a cross-entropy, which is no density,
    and trains on test images too; take `data.load("mnist", binarise="dynamic")`, of which the training split alone
    is trained on.

    Raises:
        ValueError: data that are no images.

    Source:
        Variational AutoEncoder (Chollet, 2020), https://keras.io/examples/generative/vae/
    """
    return compose(data, networks, latent_dim, prior=prior, guide=guide, likelihood=likelihood)


def iwae(
    data: Dataset,
    *,
    prior: Prior = None,
    guide: MakeGuide | None = None,
    likelihood: MakeLikelihood | None = None,
    latent_dim: int = 50,
    networks: Networks = Perceptrons((200, 200), nn.Tanh),  # noqa: B008 - frozen
) -> VAE:
    """The one-layer VAE of the IWAE paper: 784-200-200-50 and back, tanh, the output bias at the data's mean.

    Source:
        Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, 2016), https://arxiv.org/abs/1509.00519
    """
    return compose(data, networks, latent_dim, prior=prior, guide=guide, likelihood=likelihood)


def vampprior(
    data: Dataset,
    *,
    prior: Prior = None,
    guide: MakeGuide | None = None,
    likelihood: MakeLikelihood | None = None,
    latent_dim: int = 40,
    networks: Networks = Gated((300, 300)),  # noqa: B008 - frozen
    components: int = 500,
) -> VAE:
    """The one-layer VAE of the VampPrior paper: two gated layers of 300, 40 latents, 500 pseudo-inputs.

    The pseudo-inputs start at the first `components` training data.

    Raises:
        ValueError: more components than training data.

    Source:
        VAE with a VampPrior (Tomczak & Welling, 2018), https://arxiv.org/abs/1705.07120
    """
    make = prior if prior is not None else vamp(data, components)
    return compose(data, networks, latent_dim, prior=make, guide=guide, likelihood=likelihood)


PRESETS: dict[str, Callable[..., VAE]] = {
    "lecture": lecture,
    "keras": keras,
    "iwae": iwae,
    "vampprior": vampprior,
}
