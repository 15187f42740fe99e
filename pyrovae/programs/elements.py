"""Log-probability of each number of an event, for laws under which they are independent given the parameters."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from .idioms.value_dtypes import in_dtype_of
from .latents.supports import INDEPENDENT
from .sites import Sites


def elements_of(law: Any, value: Tensor) -> Tensor:
    """ln p of each number of `value`, `[*batch, *event]` in nats; they sum to `law.log_prob(value)`.

    Raises:
        ValueError: a law whose numbers depend on each other.
    """
    own = getattr(law, "log_prob_of_elements", None)
    if own is not None:
        found: Tensor = own(value)
        return found
    if isinstance(law, dist.ExpandedDistribution):
        inner = elements_of(law.base_dist, value)
        return inner.expand(torch.broadcast_shapes(inner.shape, law.batch_shape + law.event_shape))
    check_elements(law)
    result: Tensor = law.base_dist.log_prob(value)
    return result


def check_elements(law: Any) -> None:
    """Refuses a law that is not one of independent numbers.

    Raises:
        ValueError: naming it.
    """
    while isinstance(law, dist.ExpandedDistribution):
        law = law.base_dist
    if hasattr(law, "log_prob_of_elements"):
        return
    if not isinstance(law, INDEPENDENT) or law.base_dist.event_dim:
        raise ValueError(
            "expected a likelihood of numbers that are independent given z, as those of pyrovae.likelihoods are, got "
            f"{type(law).__name__}; try .to_event(...) of a law of single numbers"
        )


def observed_law(sites: Sites, name: str) -> tuple[Any, Tensor]:
    """Law of an observed site given the latents that were drawn, and its value."""
    assert sites.traces is not None
    site = sites.traces[1].nodes[name]
    return site["fn"], in_dtype_of(site["fn"], site["value"])
