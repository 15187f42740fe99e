"""Lower limits: the matrix products (or convolutions) of a network, and nothing else."""

from __future__ import annotations

from typing import Any

import torch
from timing import Run
from torch import Tensor, nn


def products(net: nn.Module, x: Tensor) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """`(layer, its input, its output)` of every linear or convolutional layer of `net(x)`, in order."""
    seen: list[tuple[nn.Module, Tensor, Tensor]] = []

    def note(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        seen.append((layer, given[0].detach().clone(), torch.randn_like(out)))

    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    handles = [m.register_forward_hook(note) for m in net.modules() if isinstance(m, kinds)]
    with torch.no_grad():
        net(x)
    for handle in handles:
        handle.remove()
    return seen


def training_floor(encoder: nn.Module, decoder: nn.Module, x: Tensor, z: Tensor) -> Run:
    """Forward and backward products of a step and one fused Adam update of the weights."""
    layers = products(encoder, x) + products(decoder, z)
    weights = [nn.Parameter(layer.weight.detach().clone()) for layer, _, _ in layers]  # type: ignore[union-attr, operator]
    for w in weights:
        w.grad = torch.randn_like(w)
    optimizer = torch.optim.Adam(weights, fused=True)
    work = [
        _training_products(i > 0, *layer, w.detach())
        for i, (layer, w) in enumerate(zip(layers, weights, strict=True))
    ]

    def run() -> None:
        for products_of_layer in work:
            products_of_layer()
        optimizer.step()

    return run


def decoding_floor(decoder: nn.Module, z: Tensor) -> Run:
    """Forward products alone."""
    layers = [(given, layer.weight.detach().T.contiguous()) for layer, given, _ in products(decoder, z)]  # type: ignore[union-attr, operator]

    def run() -> None:
        for given, weight in layers:
            given @ weight

    return run


def _training_products(by_input: bool, layer: nn.Module, x: Tensor, g: Tensor, w: Tensor) -> Run:
    """Forward, gradient by the weight and, but for the data, gradient by the input."""
    if isinstance(layer, nn.Linear):

        def linear() -> None:
            x @ w.T
            g.T @ x
            if by_input:
                g @ w

        return linear
    transposed = isinstance(layer, nn.ConvTranspose2d)
    conv: Any = layer
    padding = conv.output_padding if transposed else [0, 0]
    how = (conv.stride, conv.padding, conv.dilation, transposed, padding, conv.groups)

    def convolution() -> None:
        torch.ops.aten.convolution(x, w, None, *how)
        torch.ops.aten.convolution_backward(g, x, w, None, *how, [by_input, True, False])

    return convolution
