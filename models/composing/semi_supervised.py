"""A semi-supervised VAE composed for a data set."""

from __future__ import annotations

from torch import Tensor, nn

from pyrovae import guides, networks, priors
from pyrovae.data import Dataset, prepared
from pyrovae.data.given.conditioned import num_classes
from pyrovae.data.given.labelled import KNOWN

from ..semi_supervised import SemiSupervisedVAE
from .architectures import Networks
from .tables import as_given
from .vae import MakeGuide, MakeLikelihood, MakePrior, start_at_mean, suited


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
    given, data = data, prepared(data)
    classes = num_classes(data)
    q = (guide or guides.DiagonalGaussian)(architecture.encoder(data, classes), latent_dim)

    def make_net(outputs: int) -> nn.Module:
        return architecture.decoder(data, latent_dim + classes, outputs)

    p_x = (likelihood or suited)(make_net, data)
    start_at_mean(p_x, data)
    if prior is None:
        p_z: nn.Module = priors.StandardNormal(latent_dim)
    else:
        p_z = prior if isinstance(prior, nn.Module) else prior(q)
    classifier: nn.Module = Classifier(architecture.encoder(data), classes)
    if given.spec.standardization is not None:
        classifier = guides.Standardized(classifier, given.spec.standardization)
    p_x, q = as_given(p_x, q, given)
    return SemiSupervisedVAE(
        prior=p_z,
        likelihood=p_x,
        classifier=classifier,
        guide=q,
        num_classes=classes,
    )
