"""A deep Markov model composed for sequences."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from pyrovae.data import Dataset
from pyrovae.data.given.conditioned import LENGTHS
from pyrovae.networks import MLP

from ..markov import DeepMarkov, Smoother, Transition
from .vae import MakeLikelihood, start_at_mean, suited


def compose_markov(
    data: Dataset, latent_dim: int, hidden: int, *, likelihood: MakeLikelihood | None = None
) -> DeepMarkov:
    """A deep Markov model for sequences `[N, T, D]` with their lengths.

    Args:
        data: of `pv.data.load({"x": x, "lengths": lengths})`.
        latent_dim: of each step.
        hidden: width of all networks.
        likelihood: of one step, as in `compose`; default: what suits the values.

    Raises:
        ValueError: data without lengths, or steps that are no vectors.
    """
    if data.spec.given != (LENGTHS,) or data.context is None:
        raise ValueError(
            f"expected sequences with their lengths, got {data.spec.name} without; try an .npz file with x [N, T, D] "
            'and lengths [N] (in Python pv.data.load({"x": x, "lengths": lengths}))'
        )
    if len(data.spec.event_shape) != 2:
        raise ValueError(f"expected steps that are vectors, x [N, T, D], got x [N, {data.spec.event_shape}]")
    steps = single_steps(data)

    def make_net(outputs: int) -> nn.Module:
        return MLP(latent_dim, (hidden,), outputs * math.prod(steps.spec.event_shape))

    p_x = (likelihood or suited)(make_net, steps)
    start_at_mean(p_x, steps)
    factor = 1.0 if data.top_count is None else 1 / max(1, data.top_count)
    smoother = Smoother(data.spec.event_shape[1], latent_dim, hidden, factor)
    return DeepMarkov(Transition(latent_dim, hidden), p_x, smoother)


def single_steps(data: Dataset) -> Dataset:
    """All steps that are there as data of their own: what a likelihood of one step has to know."""
    assert data.context is not None
    found: dict[str, Tensor] = {}
    for split in ("train", "valid", "test"):
        x, (lengths,) = data.split(split), data.context[split]
        found[split] = x[torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(-1)]
    spec = replace(data.spec, event_shape=data.spec.event_shape[1:], given=())
    return replace(
        data,
        train=found["train"],
        valid=found["valid"],
        test=found["test"],
        spec=spec,
        context=None,
        labels=None,
        rows=None,
    )
