"""The ELBO of partly labelled data, with a classification term on those whose label is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from pyro.infer import TraceEnum_ELBO
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..programs import Program, store_of
from ..programs.modes import owners
from .differentiable import surrogate_and_value


class Classified(TraceEnum_ELBO):
    """ELBO(x, y) of labelled data + ELBO(x) of the others, y summed out, + weight · ln q(y | x) of the labelled ones.

    Without the last term labelled data would not train q(y | x), which has no part in their bound (Kingma et al. 2014,
    eq. 9, https://arxiv.org/abs/1406.5298; their alpha = 0.1 N is a weight of 0.1 N / N_labelled here, where the
    objective is a sum over data). It belongs to training: evidence is reported without it.

    Args:
        classifier: `classifier(x)` gives logits `[N, C]` of q(y | x), with the weights that the guide has; None: the
            `classifier` of the module whose guide is trained, as `pv.compare` builds one for each cell.
        weight: of each labelled datum, >= 0.

    Raises:
        ValueError: a weight below 0 or not finite.

    Example:
        >>> Classified(lambda x: x, 1.5)
        Classified(weight=1.5)
    """

    def __init__(self, classifier: Callable[[Tensor], Tensor] | None, weight: float) -> None:
        if not 0 <= weight < math.inf:
            raise ValueError(f"expected a finite weight >= 0 of the classification term, got {weight}")
        super().__init__(max_plate_nesting=1)
        self.classifier = classifier
        self.weight = float(weight)

    def __repr__(self) -> str:
        return f"Classified(weight={self.weight:g})"

    def check(self, program: Program) -> None:
        """Refuses a classifier that is not the guide's: its term would train what nothing uses.

        Raises:
            ValueError: naming its first weight that is no parameter of the program, or where there is no classifier.
        """
        classifier = self._classifier(program.guide)
        store = store_of(program.guide)
        if store is None:
            return
        trained = {p.data_ptr() for p in store.unconstrained().values()}
        for module in owners(classifier):
            for name, weight in module.named_parameters():
                if weight.numel() and weight.data_ptr() not in trained:
                    raise ValueError(
                        f"expected the classifier of the guide that is trained for {self!r}, got one whose weights "
                        f"{name!r} are no parameters of the program; try Classified(None, {self.weight:g}), which "
                        "takes that of each program"
                    )

    def term(self, guide: Any, x: Tensor, y: Tensor) -> Tensor:
        """-weight · sum of ln q(y | x) over data with a known label, nats."""
        # All data, not x[y >= 0]: a graph has to know its shapes.
        each = cross_entropy(self._classifier(guide)(x), y.clamp(min=0), reduction="none")
        return self.weight * torch.where(y >= 0, each, torch.zeros_like(each)).sum()

    def surrogate_and_value(self, model: Any, guide: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(what is differentiated, what is reported): the negative objective of both, summed over the batch, nats."""
        bound = TraceEnum_ELBO(max_plate_nesting=self.max_plate_nesting)
        loss, value = surrogate_and_value(bound, model, guide, (x, y))
        term = self.term(guide, x, y)
        return loss + term, value + term

    def differentiable_loss(self, model: Any, guide: Any, x: Tensor, y: Tensor) -> Any:
        """The negative objective, summed over the batch, differentiable."""
        return super().differentiable_loss(model, guide, x, y) + self.term(guide, x, y)

    @torch.no_grad()
    def loss(self, model: Any, guide: Any, x: Tensor, y: Tensor) -> float:
        """The negative objective, summed over the batch, in nats."""
        return float(super().loss(model, guide, x, y)) + float(self.term(guide, x, y))

    def loss_and_grads(self, model: Any, guide: Any, x: Tensor, y: Tensor) -> float:
        """Loss as `loss` gives it, and gradients into the parameters."""
        value = float(super().loss_and_grads(model, guide, x, y))
        term = self.term(guide, x, y)
        if term.requires_grad:
            term.backward()
        return value + float(term.detach())

    def _classifier(self, guide: Any) -> Callable[[Tensor], Tensor]:
        if self.classifier is not None:
            return self.classifier
        found = (getattr(owner, "classifier", None) for owner in owners(guide))
        own = next((classifier for classifier in found if callable(classifier)), None)
        if own is None:
            raise ValueError(
                f"expected a guide of a module with a classifier for {self!r}, got none; try "
                "Classified(classifier, weight)"
            )
        classifier: Callable[[Tensor], Tensor] = own
        return classifier
