"""The semi-supervised variational autoencoder (M2): labels of some data are known, those of the others summed out."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from pyrovae.objectives import Classified
from pyrovae.programs import program

from .vae import check_latent_dims

# Nats between the label that is known and others: finite, since 0 times an infinite one is no number.
CERTAIN = 1e8


def check_classes(owner: SemiSupervisedVAE, x: Tensor, y: Tensor | None = None) -> None:
    """Refuses labels that are not of the model's classes.

    Raises:
        ValueError: not one whole number below C for each datum.
    """
    if y is None:
        return
    if y.shape != x.shape[:1] or y.is_floating_point() or bool((y >= owner.num_classes).any()):
        raise ValueError(
            f"expected a class 0 ... {owner.num_classes - 1} of each of {len(x)} data, below 0 where it is not known, "
            f"got {y.dtype} {list(y.shape)} up to {y.max().item():g}"
        )


class SemiSupervisedVAE(nn.Module):
    """p(x, y, z) = p(y) p(z) p(x | z, y) with guide q(y | x) q(z | x, y) (Kingma et al. 2014).

    Its evidence is ln p(x) = ln sum_y p(y) p(x | y) of a datum without a label, ln p(x, y) of one with: both at once in
    one batch. Labels are summed out by Pyro's parallel enumeration. The site `y` of a datum whose label is given is
    that label for certain. https://arxiv.org/abs/1406.5298

    It is trained by the bound of the paper, sum_y q(y | x) [ELBO(x, y) - ln q(y | x)] where there is no label. The ELBO
    of `pv.evidence`, and that logged in training, is the tighter E ln sum_y p(x, y, z_y) / q(z_y | x, y): y is summed
    out within the logarithm, so that q(y | x) has no part in it, nor in importance sampling.

    Args:
        prior: `prior()` is p(z).
        likelihood: `likelihood(z, y)` is p(x | z, y), y in 0/1 columns `[..., C]`.
        classifier: `classifier(x)` gives logits `[..., C]` of q(y | x).
        guide: `guide(x, y)` is q(z | x, y).
        num_classes: C.
        label_prior: p(y) `[C]`; default: each class alike.

    Raises:
        ValueError: fewer than two classes, prior and guide of different latent dims, or a label prior of another size
            or with a class of probability 0.

    Example:
        >>> from pyrovae import guides, likelihoods, networks, priors
        >>> m2 = SemiSupervisedVAE(
        ...     prior=priors.StandardNormal(2),
        ...     likelihood=likelihoods.Bernoulli(networks.MLP(2 + 10, (32,), 64)),
        ...     classifier=networks.MLP(64, (32,), 10),
        ...     guide=guides.DiagonalGaussian(networks.MLP(64 + 10, (32,)), latent_dim=2),
        ...     num_classes=10,
        ... )
        >>> m2.classify(torch.zeros(3, 64)).shape
        torch.Size([3, 10])
    """

    log_label_prior: Tensor

    def __init__(
        self,
        prior: nn.Module,
        likelihood: nn.Module,
        classifier: nn.Module,
        guide: nn.Module,
        num_classes: int,
        label_prior: Tensor | None = None,
    ) -> None:
        super().__init__()
        check_latent_dims(prior, guide)
        if num_classes < 2:
            raise ValueError(f"expected num_classes >= 2, got {num_classes}")
        p = torch.full((num_classes,), 1 / num_classes) if label_prior is None else label_prior
        if p.shape != (num_classes,) or not bool((p > 0).all()):
            raise ValueError(
                f"expected a probability > 0 of each of {num_classes} classes as label_prior, got {p.tolist()}"
            )
        self.prior = prior
        self.likelihood = likelihood
        self.classifier = classifier
        self.q = guide
        self.num_classes = num_classes
        self.register_buffer("log_label_prior", (p / p.sum()).log())

    @program(density="exact", plate="data", observed="x", check=check_classes)
    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        """y ~ p(y), z ~ p(z), x ~ p(x | z, y), for `x` `[N, *event]` and classes `y` `[N]`, -1 where not known."""
        pyro.module("prior", self.prior)
        pyro.module("likelihood", self.likelihood)
        log_prior = self.log_label_prior
        with pyro.plate("data", len(x)):
            guess = pyro.sample("y", dist.Categorical(logits=self._unless_known(log_prior, y)))
            label = self._label(guess, y)
            z = pyro.sample("z", self.prior())
            pyro.sample("x", self.likelihood(z, label), obs=x)
            if y is not None:
                law = dist.Categorical(logits=log_prior.expand(len(x), -1)).mask(y >= 0)
                pyro.sample("label", law, obs=y.clamp(min=0))

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        """y ~ q(y | x), z ~ q(z | x, y)."""
        pyro.module("classifier", self.classifier)
        pyro.module("guide", self.q)
        with pyro.plate("data", len(x)):
            law = dist.Categorical(logits=self._unless_known(self.classifier(x), y))
            guess = pyro.sample("y", law, infer={"enumerate": "parallel"})
            pyro.sample("z", self.q(x, self._label(guess, y)))

    def classify(self, x: Tensor) -> Tensor:
        """Probabilities q(y | x) `[N, C]`."""
        with torch.no_grad():
            return self.classifier(x).softmax(-1)

    def objective(self, weight: float) -> Classified:
        """The objective of the paper; `weight` of each labelled datum, 0.1 N / N_labelled there."""
        return Classified(self.classifier, weight)

    def _label(self, guess: Tensor, y: Tensor | None) -> Tensor:
        """Classes as 0/1 columns: the known label, else the value that is drawn or summed over."""
        label = guess if y is None else torch.where(y >= 0, y, guess)
        return one_hot(label, self.num_classes).to(self.log_label_prior.dtype)

    def _unless_known(self, logits: Tensor, y: Tensor | None) -> Tensor:
        """These logits; for data with a label those of that label for certain, alike in model and guide.

        Both then have the same term, which cancels, and the other classes have no part in sums over y.
        """
        if y is None:
            return logits
        known = one_hot(y.clamp(min=0), self.num_classes).to(logits.dtype)
        return torch.where((y >= 0).unsqueeze(-1), (known - 1) * CERTAIN, logits)
