"""KL weight and free bits around an objective."""

from __future__ import annotations

from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO
from pyro.infer.elbo import ELBO as PyroELBO

from .beta import BetaELBO
from .dreg import DReG
from .free_bits import FreeBits
from .iwae import IWAE
from .stl import STL


def with_terms(
    objective: PyroELBO, *, beta: float = 1.0, free_bits: float = 0.0, beta_varies: bool = False
) -> PyroELBO:
    """`objective` with KL weight and free bits around it, where they are asked for.

    Raises:
        ValueError: for a KL weight on an objective in which there is no KL term to weigh.
    """
    if beta < 0:
        raise ValueError(f"expected beta >= 0, got {beta}")
    if free_bits < 0:
        raise ValueError(f"expected free_bits >= 0 nats per latent site, got {free_bits}")
    if free_bits:
        if not isinstance(objective, Trace_ELBO):
            raise ValueError(
                f"expected Trace_ELBO or TraceMeanField_ELBO for free bits, got {type(objective)}"
            )
        objective = FreeBits(objective, free_bits)
    if beta != 1.0 or beta_varies:
        inner = objective.base if isinstance(objective, FreeBits) else objective
        if not isinstance(inner, Trace_ELBO | TraceGraph_ELBO | TraceEnum_ELBO | IWAE | STL | DReG):
            raise ValueError(
                f"expected an ELBO with a KL term to weigh by beta, got {type(inner).__name__}; train it at beta = 1"
            )
        objective = BetaELBO(objective, beta)
    return objective
