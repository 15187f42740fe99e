"""The mode (train or eval) of the torch modules that a program runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from .layers import around, layers

Hook = TypeVar("Hook", bound=Callable[..., Any])


@contextmanager
def module_mode(*programs: Callable[..., Any], training: bool | None) -> Iterator[list[nn.Module]]:
    """Every module that runs in the body runs in the given mode, and gets its own back after.

    With `training=None` modules are only met, and stay in their mode.

    A program is any callable: its networks may sit in closures, globals, partials or
    attributes, so they are met as they run instead of being searched for. Yields the list of
    modules met, which grows as the body runs.
    """
    before: dict[int, tuple[nn.Module, bool]] = {}
    met: list[nn.Module] = []

    def switch(module: nn.Module, _inputs: Any = None) -> None:
        if id(module) not in before:
            before[id(module)] = (module, module.training)
            met.append(module)
            if training is not None:
                module.training = training

    for fn in programs:
        for module in owners(fn):
            for part in module.modules():
                switch(part)
    handle = register_module_forward_pre_hook(untraced(switch))
    try:
        yield met
    finally:
        handle.remove()
        for module, mode in before.values():
            module.training = mode


def untraced(hook: Hook) -> Hook:
    """`hook`, which torch.compile runs as it is where a net of a user's was compiled, in place of tracing it."""
    compiling = "torch._dynamo" in sys.modules  # whose import takes a second
    return torch.compiler.disable(hook) if compiling else hook


def buffers_of(modules: Iterable[nn.Module]) -> dict[str, Tensor]:
    """Persistent buffers (running statistics) by "order of first use.name": a program's modules have no names."""
    return {
        f"{i}.{name}": value
        for i, module in enumerate(modules)
        for name, value in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set
    }


def owners(fn: Callable[..., Any]) -> list[nn.Module]:
    """The modules that a program is, is a bound method of, or was found to use beside calls of them."""
    every = layers(fn)
    found = [m for m in (every[-1], getattr(every[-1], "__self__", None)) if isinstance(m, nn.Module)]
    return [*found, *(m for layer in every for m in getattr(layer, "pyrovae_modules", ()))]


def with_modules(fn: Callable[..., Any], modules: Iterable[nn.Module]) -> Callable[..., Any]:
    """`fn`, which uses these modules without calling them: transforms, whose inverse is no `forward`."""

    def run(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    named = around(fn, run)
    named.pyrovae_modules = tuple(modules)  # type: ignore[attr-defined]  # a note on the function
    return named
