"""The ELBO of partly labelled data, with a classification term on those whose label is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from pyro.infer import TraceEnum_ELBO
from torch import Tensor
from torch.nn.functional import cross_entropy


class Classified(TraceEnum_ELBO):
    """ELBO(x, y) of labelled data + ELBO(x) of the others, y summed out, + weight · ln q(y | x) of the labelled ones.

    Without the last term labelled data would not train q(y | x), which has no part in their bound (Kingma et al. 2014,
    eq. 9, https://arxiv.org/abs/1406.5298; their alpha = 0.1 N is a weight of 0.1 N / N_labelled here, where the
    objective is a sum over data). It belongs to training: evidence is reported without it.

    Args:
        classifier: `classifier(x)` gives logits `[N, C]` of q(y | x).
        weight: of each labelled datum, >= 0.

    Raises:
        ValueError: a weight below 0 or not finite.

    Example:
        >>> Classified(lambda x: x, 1.5)
        Classified(weight=1.5)
    """

    compiles = False  # a graph of the traces would leave the term out

    def __init__(self, classifier: Callable[[Tensor], Tensor], weight: float) -> None:
        if not 0 <= weight < math.inf:
            raise ValueError(f"expected a finite weight >= 0 of the classification term, got {weight}")
        super().__init__(max_plate_nesting=1)
        self.classifier = classifier
        self.weight = float(weight)

    def __repr__(self) -> str:
        return f"Classified(weight={self.weight:g})"

    def term(self, x: Tensor, y: Tensor) -> Tensor:
        """-weight · sum of ln q(y | x) over data with a known label, nats."""
        known = y >= 0
        logits = self.classifier(x[known])
        return self.weight * cross_entropy(logits, y[known], reduction="sum") if len(logits) else logits.sum()

    def differentiable_loss(self, model: Any, guide: Any, x: Tensor, y: Tensor) -> Any:
        """The negative objective, summed over the batch, differentiable."""
        return super().differentiable_loss(model, guide, x, y) + self.term(x, y)

    @torch.no_grad()
    def loss(self, model: Any, guide: Any, x: Tensor, y: Tensor) -> float:
        """The negative objective, summed over the batch, in nats."""
        return float(super().loss(model, guide, x, y)) + float(self.term(x, y))

    def loss_and_grads(self, model: Any, guide: Any, x: Tensor, y: Tensor) -> float:
        """Loss as `loss` gives it, and gradients into the parameters."""
        value = float(super().loss_and_grads(model, guide, x, y))
        term = self.term(x, y)
        if term.requires_grad:
            term.backward()
        return value + float(term.detach())
