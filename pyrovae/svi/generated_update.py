"""Adam and AdamW as generated code: one elementwise kernel over all parameters of a dtype."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from ..programs.compile.codegen import compile_module

Settings = tuple[float, float, float, float]


def adam(
    loss: Tensor,
    rate: Tensor,
    counts: Tensor,
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    first: Sequence[Tensor],
    second: Sequence[Tensor],
    settings: Settings,
    decoupled: bool,
) -> None:
    """One update in place; none where the loss is no finite number.

    Of a gradient g, with t the steps of its parameter and wd the weight decay (Kingma & Ba 2015,
    https://arxiv.org/abs/1412.6980; Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101)::

        Adam: g <- g + wd p        AdamW: p <- p - rate wd p
        m <- b1 m + (1 - b1) g;    v <- b2 v + (1 - b2) g^2
        p <- p - rate / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps)

    Args:
        loss: 0-dim.
        rate: 0-dim, the learning rate.
        counts: steps so far of each parameter, `[P]`.
        params, grads, first, second: parameters, their gradients and moments m and v, P of each.
        settings: b1, b2, wd, eps.
        decoupled: AdamW's weight decay.
    """
    beta1, beta2, decay, eps = settings
    good = loss.isfinite()
    steps = counts + good
    for i, (p, g, m, v) in enumerate(zip(params, grads, first, second, strict=True)):
        # 1 - b^t loses its digits for small t where b^t is rounded first.
        t, lr = steps[i].to(p.dtype), rate.to(p.dtype)
        bias1, bias2 = (-torch.expm1(t * (math.log(b) if b else -math.inf)) for b in (beta1, beta2))
        start = p
        if decay and decoupled:
            start = p - lr * decay * p
        elif decay:
            g = g + decay * p
        new_m = m + (1 - beta1) * (g - m)
        new_v = beta2 * v + (1 - beta2) * g * g
        new = start - lr / bias1 * new_m / ((new_v / bias2).sqrt() + eps)
        for place, value in ((p, new), (m, new_m), (v, new_v)):
            place.copy_(torch.where(good, value, place))
    counts.copy_(steps)


def generated_adam(
    number: int, example: Sequence[Tensor], settings: Settings, decoupled: bool
) -> Callable[..., Any]:
    """Code for `adam`, called with the loss, rate, counts, and `number` each of params, grads, m and v.

    Raises:
        UntraceableError: where no compiler works on this machine.
    """

    def update(*flat: Tensor) -> tuple[()]:
        loss, rate, counts, *tensors = flat
        params, grads, first, second = (tensors[i : i + number] for i in range(0, 4 * number, number))
        adam(loss, rate, counts, params, grads, first, second, settings, decoupled)
        return ()

    with torch.no_grad():
        module = make_fx(update, tracing_mode="fake")(*example)
        return compile_module(module, example, one_kernel=True)
