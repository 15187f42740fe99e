"""Runs of a model for what it draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from ..arguments.marks import unmarked
from ..modes import module_mode
from ..parameters import scratch
from ..plates import ChooseSubsample
from ..seeds import refuse_seeding, seeded


def trace_of(
    program: Callable[..., Any], model: Callable[..., Any], args: tuple[Any, ...], seed: int, stream: str
) -> Any:
    """A run of `program`, in which `model` is, in eval mode and without Pyro's checks.

    Raises:
        ValueError: where it seeds torch.
    """
    with (
        seeded(seed, stream, device=args[0].device),
        torch.no_grad(),
        module_mode(model, training=False),
        pyro.validation_enabled(False),
    ):
        trace = poutine.trace(program).get_trace(*unmarked(args))
        refuse_seeding(seed, stream)
        return trace


def trace_on_any_rows(model: Callable[..., Any], args: tuple[Any, ...], stream: str) -> Any:
    """A run of the model that leaves nothing behind, on as many data as there are, whatever its plate draws of them."""
    # A random subsample may not fit data of another size.
    with scratch(model), poutine.block(), ChooseSubsample(None, None):
        return trace_of(model, model, args, 0, stream)


def rows_first(site: Any, value: Tensor, plate: str) -> Tensor:
    """Data first, where an inner plate lies left of theirs."""
    dims = [f.dim for f in site["cond_indep_stack"] if f.name == plate and f.vectorized]
    return value.movedim(dims[0] - site["fn"].event_dim, 0) if dims else value
