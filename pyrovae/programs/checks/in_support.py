"""Whether values and parameters lie where their law is one, as a tensor: what Pyro's validation asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Distribution, constraints

from ..outside import may_leave_out, outside
from ..sites import is_factor
from ..undefined import undefined

# In the place of False: what was switched off for a trace, and not by the program itself.
_SWITCHED_OFF = 0


@contextmanager
def values_known_later() -> Iterator[bool]:
    """Switches validation off, such that distributions made with `validate_args=False` can be told apart.

    Yields whether it was on.
    """
    former = Distribution._validate_args
    Distribution._validate_args = _SWITCHED_OFF  # type: ignore[assignment]  # as false as False
    try:
        yield bool(former)
    finally:
        Distribution._validate_args = former


class Support(Messenger):
    """Collects, of each site that validation would look at, whether all values lie in the support.

    Of latents, whether they lie within bounds: a guide may draw where the prior has no density. And whether the
    parameters of laws do.

    Attributes:
        inside: 0-dim tensors of bools.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[Tensor] = []

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["infer"].get("_deterministic") or _unchecked(msg["fn"]) or is_factor(msg):
            return
        wrong = undefined(msg["fn"])
        if wrong is not None:
            self.inside.append(~wrong.any())
        if not msg["is_observed"] or may_leave_out(msg["fn"]):
            beyond = outside(msg["fn"], msg["value"])
            if beyond is not None:
                self.inside.append(~beyond.any())
        if not msg["is_observed"]:
            return
        try:
            support = msg["fn"].support
        except NotImplementedError:
            return
        # A value that is no number shows in the loss, unless a mask hides it.
        if not _whole_line(support) or isinstance(msg["mask"], Tensor):
            self.inside.append(support.check(msg["value"]).all())

    def or_nan(self, loss: Tensor) -> Tensor:
        """The loss; nan where a value lies outside."""
        for inside in self.inside:
            loss = torch.where(inside, loss, torch.nan)
        return loss


def _unchecked(fn: Any) -> bool:
    while fn is not None:
        if getattr(fn, "_validate_args", None) is False:
            return True
        fn = getattr(fn, "base_dist", None)
    return False


def _whole_line(support: Any) -> bool:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support is constraints.real
