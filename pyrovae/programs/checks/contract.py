"""Does a model/guide pair keep the contract? Each breach has one clear error."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from ..arguments.marks import tensors_in
from ..latents.supports import base_of
from ..sites import sample_sites

_DRAWS = {how: getattr(torch.distributions.Distribution, how) for how in ("sample", "rsample")}  # that raise


def check_arguments(x: Any, context: tuple[Any, ...] = (), missing: bool = False) -> None:
    """Refuses data that no program can be judged on.

    Args:
        x: the data.
        context: what else the program takes.
        missing: let NaN pass, which a program may mask (`check_missing`).

    Raises:
        TypeError: x is not a tensor.
        ValueError: x is empty, has no data dim, or holds NaN or inf; context lies on another device.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"expected x to be a torch.Tensor [N, *event], got {type(x).__name__}")
    elsewhere = [t for t in tensors_in(context) if t.dim() and t.device != x.device]
    if elsewhere:
        raise ValueError(
            f"expected x and its context on one device, {x.device}, got a tensor of shape "
            f"{tuple(elsewhere[0].shape)} on {elsewhere[0].device}; try .to({str(x.device)!r})"
        )
    if x.device.type == "meta":
        raise ValueError(
            "expected x to hold values, got a tensor on the device meta; try x on the CPU or a GPU"
        )
    if x.is_complex():
        raise ValueError(f"expected x of real numbers, got {x.dtype}; try torch.view_as_real(x)")
    if x.dim() == 0 or x.numel() == 0:
        raise ValueError(
            f"expected x of shape [N, *event] with N >= 1 and no dim of size 0, got shape {tuple(x.shape)}"
        )
    if x.is_floating_point() and not torch.isfinite(x).all():
        if missing and not x.isinf().any():
            return
        raise not_finite_data(x, "")


def not_finite_data(x: Tensor, where: str) -> ValueError:
    """The error of data with NaN or inf; `where` they are not masked."""
    bad = (~torch.isfinite(x)).reshape(len(x), -1).any(1)
    return ValueError(
        f"expected finite data, got NaN or inf in {int(bad.sum())} of {len(x)} data (first: {int(bad.nonzero()[0])})"
        f"{where}; try x.nan_to_num(0.0), and a mask over what is missing (the gradient of a masked NaN is NaN)"
    )


def data_frame(trace: Any, plate: str, source: str = "model") -> Any:
    """The frame of the data plate.

    Args:
        trace: of model or guide.
        plate: its name.
        source: whose trace it is, in words.

    Raises:
        ValueError: where no site is in a plate of that name; lists the plates there are.
    """
    names: dict[str, int] = {}
    for name, site in sample_sites(trace):
        for frame in site["cond_indep_stack"]:
            if frame.name == plate and frame.vectorized:
                return frame
            if frame.name == plate:
                raise ValueError(
                    f"expected a vectorised plate {plate!r} over data, got a sequential one (a for loop over it, at "
                    f"{name!r}), in which each datum has sites of its own; try `with pyro.plate({plate!r}, ...)`, and "
                    "a mask for data of different lengths"
                )
            names[frame.name] = frame.size
    # A plate that no site of a density is in (all of them conditioned, or deterministic) is still one.
    names |= {
        n: s["fn"].size
        for n, s in trace.nodes.items()
        if s["type"] == "sample" and type(s["fn"]).__name__ == "_Subsample" and n not in names
    }
    found = ", ".join(f"{n!r} (size {s})" for n, s in names.items()) or "none"
    hint = f"`with pyro.plate({plate!r}, len(x)):` around the sites of the {source}"
    if names:
        hint = (
            f"plate={next(iter(names))!r}, @pyrovae.program(plate=...), or this name in model and guide alike"
        )
    raise ValueError(
        f"expected a pyro.plate named {plate!r} over data, with every latent inside, in the {source}; got plates: "
        f"{found}; try {hint}"
    )


def event_shape_of(fn: Any, event: torch.Size) -> torch.Size:
    """Event shape of a law for values of shape `event`: of chains of any length that of the values counts."""
    if not has_any_length(fn) or len(event) != fn.event_dim:
        return torch.Size(fn.event_shape)
    time = fn.event_dim - base_of(fn).event_dim
    return torch.Size([*fn.event_shape[:time], event[time], *fn.event_shape[time + 1 :]])


def has_any_length(fn: Any) -> bool:
    """Whether a law is of chains of any length: `dist.DiscreteHMM` and the like without `duration`.

    These say 1 where their event shape has the number of steps, score chains of any, and draw none.
    """
    base = base_of(fn)
    if isinstance(base, dist.hmm.HiddenMarkovModel):
        return base.duration is None
    return isinstance(base, dist.GaussianMRF) and base.event_shape[0] == 1


def refuse_undrawable(fn: Any, name: str) -> None:
    """Refuses to draw from a law that has no draws.

    Raises:
        ValueError: naming the site.
    """
    law = type(base_of(fn))
    if has_any_length(fn):
        raise ValueError(
            f"expected laws that can be drawn from, got {law.__name__} at {name!r} without a number of steps; try "
            "duration=, as duration=x.shape[1]"
        )
    own = [getattr(law, how, base) for how, base in _DRAWS.items()]
    if own == list(_DRAWS.values()):
        raise ValueError(
            f"expected laws that can be drawn from, got {law.__name__} at {name!r}, which has no draws; try a law that "
            "has, or @pyrovae.program(simulate=...) for data"
        )
