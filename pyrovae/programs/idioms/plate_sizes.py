"""Data plates without a size: `with pyro.plate("data"):`, which takes what is inside of it as it comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.poutine.broadcast_messenger import BroadcastMessenger
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..layers import around


class SizedPlate(Messenger):
    """Gives the plate `name` the size `size` where it has none.

    Pyro expands nothing in such a plate: a latent whose law has no row per datum is one draw for all data. It is
    refused, since in a plate with a size it would be another model.
    """

    def __init__(self, name: str, size: int) -> None:
        super().__init__()
        self.name, self.size = name, size

    def _pyro_sample(self, msg: Any) -> None:
        frames = msg["cond_indep_stack"]
        mine = [f for f in frames if f.name == self.name and f.size == -1]
        if not mine:
            return
        shape = getattr(msg["fn"], "batch_shape", ())
        rows = shape[mine[0].dim] if len(shape) >= -mine[0].dim else 1
        if rows != self.size and not msg["is_observed"]:
            raise ValueError(
                f"expected a law of {msg['name']!r} with one row per datum ({self.size}) in the plate {self.name!r}, "
                f"which has no size, got one of batch shape {tuple(shape)}: all data would share one draw; try "
                f"pyro.plate({self.name!r}, len(x))"
            )
        msg["cond_indep_stack"] = tuple(
            f._replace(size=self.size, full_size=self.size) if f in mine else f for f in frames
        )
        BroadcastMessenger._pyro_sample(msg)


def is_sizeless(trace: Any, plate: str) -> bool:
    """Whether the plate has no size."""
    return any(
        f.name == plate and f.size == -1
        for site in trace.nodes.values()
        if site["type"] == "sample"
        for f in site["cond_indep_stack"]
    )


def sized(fn: Callable[..., Any], plate: str) -> Callable[..., Any]:
    """`fn` with its plate of the size of its first argument."""

    def run(*args: Any, **kwargs: Any) -> Any:
        if not args or not isinstance(args[0], Tensor):
            return fn(*args, **kwargs)
        with SizedPlate(plate, len(args[0])):
            return fn(*args, **kwargs)

    return around(fn, run)
