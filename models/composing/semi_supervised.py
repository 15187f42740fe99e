"""A semi-supervised VAE composed for a data set."""

from __future__ import annotations

from torch import Tensor, nn

from pyrovae import guides, networks, priors
from pyrovae.data import Dataset, prepared
from pyrovae.data.given.classes import num_classes
from pyrovae.data.spec import KNOWN

from ..semi_supervised import SemiSupervisedVAE
from .architectures import Networks
from .vae import MakeGuide, MakeLikelihood, MakePrior, parts_for


class Classifier(nn.Module):
    """Logits of q(y | x): a linear layer on a network's features."""

    def __init__(self, net: nn.Module, classes: int) -> None:
        super().__init__()
        self.net = net
        self.head = nn.Linear(networks.out_features_of(net), classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[..., C]`."""
        logits: Tensor = self.head(self.net(x))
        return logits


def compose_semi_supervised(
    data: Dataset,
    architecture: Networks,
    latent_dim: int,
    *,
    prior: nn.Module | MakePrior | None = None,
    guide: MakeGuide | None = None,
    likelihood: MakeLikelihood | None = None,
) -> SemiSupervisedVAE:
    """A semi-supervised VAE for `data` of `pv.data.partly_labelled`; each part may be swapped, as in `compose`.

    Raises:
        ValueError: data whose labels are not given, or parts that do not fit each other or the data.
    """
    if KNOWN not in data.spec.given:
        raise ValueError(
            f"expected data of which labels are known, got {data.spec.name} without; try --labelled 100 (in Python "
            "pv.data.partly_labelled(data, 100))"
        )
    seen = prepared(data)
    classes = num_classes(seen)
    encoder = architecture.encoder(seen, classes)

    def make_net(outputs: int) -> nn.Module:
        return architecture.decoder(seen, latent_dim + classes, outputs)

    prior = priors.StandardNormal(latent_dim) if prior is None else prior
    p_z, p_x, q = parts_for(data, encoder, make_net, latent_dim, prior, guide, likelihood)
    classifier: nn.Module = Classifier(architecture.encoder(seen), classes)
    if data.spec.standardization is not None:
        classifier = guides.Standardized(classifier, data.spec.standardization)
    return SemiSupervisedVAE(p_z, p_x, classifier, q, classes)
