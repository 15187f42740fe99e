"""Draws of flows without an inverse: their density is known where they were drawn, from the way they came."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.distributions import TransformedDistribution
from torch.distributions import transforms as t


@dataclass(frozen=True)
class BaseDraw:
    """A draw as the number that a flow's base law drew.

    A law at hand pushes it through its own transforms, which then know the inverse at this draw (and at no other).
    """

    u: Tensor

    def pushed(self, fn: Any) -> Tensor:
        """The draw under the law `fn`, whose transforms keep the way it came."""
        value = self.u
        for part in _flow(fn).transforms:
            value = part(value)
        return value


Held = Tensor | BaseDraw


def held(site: Any, change: Callable[[Tensor], Tensor] = lambda v: v) -> Held:
    """A site's draw, changed, in the form in which it can be put into another run: its base's, where no inverse is."""
    value: Tensor = site["value"]
    if not without_inverse(site["fn"], value):
        return change(value)
    for part in reversed(_flow(site["fn"]).transforms):
        value = part.inv(value)  # of the very tensor that was drawn: kept
    return BaseDraw(change(value))


def without_inverse(fn: Any, value: Tensor) -> str | None:
    """The first transform of a law that has no inverse beyond its last draw, by name."""
    flow = _flow(fn)
    if flow is None:
        return None
    at = value.detach().clone()
    for part in reversed(flow.transforms):
        for single in reversed(part.parts) if isinstance(part, t.ComposeTransform) else (part,):
            try:
                at = single.inv(at)
            except (KeyError, NotImplementedError):
                return type(single).__name__
            except Exception:  # an inverse that fails on this value is one
                return None
    return None


def refuse_missing_inverse(fn: Any, value: Tensor, name: str, error: Exception) -> None:
    """Says which inverse is missing, where that is why a density could not be had.

    Raises:
        ValueError: naming site and transform.
    """
    missing = without_inverse(fn, value)
    if missing is not None:
        raise ValueError(
            f"expected a law of {name!r} with a density at any value, got the transform {missing}, which has no "
            "inverse: its density is known where it was drawn last, and nowhere else; try a flow with an inverse "
            "(affine_autoregressive, spline_coupling, affine_coupling), one transform a site, or an estimator that "
            'draws from the guide alone (pv.IS, or start="prior")'
        ) from error


def modes_of_transforms(trace: Any) -> list[nn.Module]:
    """Modules among the transforms of a trace that may behave otherwise in training, such as `BatchNorm`."""
    flows = (_flow(site["fn"]) for site in trace.nodes.values() if site["type"] == "sample")
    parts = [p for flow in flows if flow is not None for p in flow.transforms]
    parts += [p for part in parts if isinstance(part, t.ComposeTransform) for p in part.parts]
    return [p for p in parts if isinstance(p, nn.Module) and any(True for _ in p.buffers())]


def _flow(fn: Any) -> Any:
    """The TransformedDistribution in wrappers, or None."""
    while fn is not None and not isinstance(fn, TransformedDistribution):
        fn = getattr(fn, "base_dist", None)
    return fn
