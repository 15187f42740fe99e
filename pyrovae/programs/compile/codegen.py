"""Code generated for a flat graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ... import devices
from .cache_folder import ensure_compile_cache
from .kept_code import kept
from .tracing import UntraceableError


def compile_module(
    module: fx.GraphModule, example: Sequence[Tensor], padding: bool = True, one_kernel: bool = False
) -> Callable[..., Any]:
    """Generates code for a flat graph, for tensors as in `example`.

    Args:
        module: flat tensors in, a flat list of tensors out.
        example: inputs of the shapes, strides and devices to come.
        padding: let the compiler pad products to aligned sizes (on a GPU, where it finds that faster).
        one_kernel: put work that does not depend on each other into one kernel on a GPU.

    Raises:
        UntraceableError: where no compiler works on this machine.
    """
    others = sorted({t.device.type for t in example} - devices.COMPILES)
    if others:
        raise UntraceableError(f"no code is generated for the device {others[0]}; try a CPU or CUDA")
    ensure_compile_cache()
    import torch._inductor as inductor
    import torch._inductor.config as settings

    # Channels last pays for convolutions alone: with their gradients it costs 7 % of a step.
    trains = any(n.target is torch.ops.aten.convolution_backward.default for n in module.graph.nodes)
    changed: dict[str, Any] = {"layout_optimization": False} if trains else {}
    if not padding:
        changed |= {"shape_padding": False, "comprehensive_padding": False}
    if one_kernel and hasattr(settings, "combo_kernels"):
        changed["combo_kernels"] = True

    def generate() -> Callable[..., Any]:
        with warnings.catch_warnings(), torch.no_grad(), settings.patch(changed):
            warnings.simplefilter("ignore")
            made: Callable[..., Any] = inductor.compile(module, list(example))
            return made

    try:
        # Ahead of time and without guards: shapes are checked by `signature`, once a step.
        return kept(module, example, tuple(sorted(changed.items())), generate)
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise UntraceableError(f"no code could be generated ({type(error).__name__}: {text})") from error
