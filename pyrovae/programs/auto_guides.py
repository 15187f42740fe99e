"""Pyro's guides that are made of a model: set up on all data, and read as plain guides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.contrib.easyguide import EasyGuide
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.guide import GuideMessenger

from .joint_guides import JOINT, per_datum_guide
from .layers import around, layers
from .parameters import store_of


def plain_guide(guide: Callable[..., Any], args: tuple[Any, ...], plate: str) -> Callable[..., Any]:
    """A guide whose sites are its own, whatever Pyro's class it is of.

    A fresh AutoGuide or EasyGuide is set up on all data, as Pyro does at its first call. Of a GuideMessenger, which
    runs the model, the observed sites are left out. A guide with one joint law for all latents is read datum by
    datum (`joint_guides`).
    """
    own = layers(guide)[-1]
    if isinstance(own, AutoGuide | EasyGuide) and own.prototype_trace is None:
        _set_up(guide, args)
    if isinstance(own, EasyGuide):
        return _fresh_plates(guide, own)
    if isinstance(own, GuideMessenger):
        return around(guide, poutine.block(guide, hide_fn=_is_observed))
    if isinstance(own, JOINT) and guide_is_whole(guide, own):
        return per_datum_guide(guide, own, plate)
    return guide


def guide_is_whole(guide: Any, own: Any) -> bool:
    """Whether nothing but a parameter store is around the guide, so that it can be read from inside."""
    return all(layer is own or store_of(layer) is not None for layer in layers(guide))


def _set_up(guide: Callable[..., Any], args: tuple[Any, ...]) -> None:
    with torch.no_grad(), poutine.block(), pyro.validation_enabled(False):
        guide(*args)


def _fresh_plates(guide: Callable[..., Any], own: EasyGuide) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        own.plates.clear()  # a run that failed leaves its plates, which the next run would take
        return guide(*args, **kwargs)

    return around(guide, run)


def _is_observed(msg: Any) -> bool:
    return bool(msg["type"] == "sample" and msg["is_observed"])
