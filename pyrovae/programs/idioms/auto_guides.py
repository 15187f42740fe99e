"""Pyro's guides that are made of a model: set up on all data, and read as plain guides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.contrib.easyguide import EasyGuide
from pyro.infer.autoguide import AutoGuide, AutoGuideList
from pyro.infer.autoguide.effect import AutoMessenger
from pyro.poutine.guide import GuideMessenger

from ..layers import around, layers
from ..parameters import store_of
from .joint_guides import JOINT, per_datum_guide


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
    if isinstance(own, AutoMessenger) and not own.amortized_plates and next(own.parameters(), None) is None:
        _set_up(guide, args)  # its parameters are made to the size of the plate
    if isinstance(own, GuideMessenger):
        return around(
            guide, poutine.block(guide, hide_fn=lambda m: bool(m["type"] == "sample" and m["is_observed"]))
        )
    if not all(layer is own or store_of(layer) is not None for layer in layers(guide)):
        return guide  # with handlers around it, it cannot be read from inside
    if isinstance(own, JOINT):
        return per_datum_guide(guide, own, plate)
    if isinstance(own, AutoGuideList) and any(isinstance(part, JOINT) for part in own):
        return _list_of_parts(guide, own, plate)
    return guide


def _set_up(guide: Callable[..., Any], args: tuple[Any, ...]) -> None:
    with torch.no_grad(), poutine.block(), pyro.validation_enabled(False):
        guide(*args)


def _list_of_parts(guide: Callable[..., Any], own: AutoGuideList, plate: str) -> Callable[..., Any]:
    parts = [per_datum_guide(p, p, plate) if isinstance(p, JOINT) else p for p in own]

    def run(*args: Any, **kwargs: Any) -> None:
        own._create_plates(*args, **kwargs)  # the parts take their plates from the list
        for part in parts:
            part(*args, **kwargs)

    store = store_of(guide)
    return around(guide, run if store is None else store.bind(run))


def _fresh_plates(guide: Callable[..., Any], own: EasyGuide) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        own.plates.clear()  # a run that failed leaves its plates, which the next run would take
        return guide(*args, **kwargs)

    return around(guide, run)
