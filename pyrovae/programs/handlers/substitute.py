"""One handler that puts given values in place of latents and parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyro
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import transform_to

from ..idioms.cached_draws import BaseDraw
from ..latents.supports import bijection


class Substitute(Messenger):
    """Runs a program with `values` in place of its latent draws and its parameters.

    Latent sites keep their distribution (so a trace around this handler scores the value) and
    are not marked observed. Parameters are replaced under every name they have: `pyro.param`
    by its name, a module's parameters wherever in `modules` the same tensor is used.

    Args:
        values: name of a latent site or of a parameter, to its tensor (or a latent's `BaseDraw`).
        unconstrained: if true, values live in unconstrained space and are mapped through
            the bijection onto the site's support as it is at that moment (hierarchies have supports
            that depend on parents), or through `transform_to(constraint)` of the parameter.
        modules: modules whose parameters are registered by `pyro.module` and used directly.

    Attributes:
        log_jacobian: for latents given unconstrained, ln|det dz/du| per batch element
            (the site's batch shape).
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        *,
        unconstrained: bool = False,
        modules: Iterable[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.values = dict(values)
        self.unconstrained = unconstrained
        self.log_jacobian: dict[str, Tensor] = {}
        self.used: set[str] = set()
        self._slots: dict[int, list[tuple[nn.Module, str]]] = {}
        for root in modules:
            for module in root.modules():
                for key, tensor in module._parameters.items():
                    if tensor is not None and (module, key) not in self._slots.get(id(tensor), []):
                        self._slots.setdefault(id(tensor), []).append((module, key))
        self._restore: list[tuple[nn.Module, str, Any]] = []
        self._placed: set[int] = set()
        self._constraints: dict[str, Any] = {}

    def __enter__(self) -> Substitute:
        self.log_jacobian = {}
        self.used = set()
        self._constraints = {}
        # Before the program runs: a PyroModule reads its parameter before it tells pyro.param.
        stored = pyro.get_param_store()._params
        for name, value in self.values.items():
            if name in stored:
                self._place(stored[name], value)
        super().__enter__()
        return self

    def _place(self, tensor: Any, value: Tensor) -> None:
        for module, key in self._slots.get(id(tensor), ()):
            self._restore.append((module, key, module._parameters[key]))
            module._parameters[key] = value  # type: ignore[assignment]  # a tensor in a parameter's place
            self._placed.add(id(value))

    def __exit__(self, *exc: Any) -> None:
        for module, key, tensor in reversed(self._restore):
            module._parameters[key] = tensor
        self._restore = []
        self._placed = set()
        super().__exit__(*exc)

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name not in self.values or msg["is_observed"]:
            return
        value = self.values[name]
        self.used.add(name)
        if isinstance(value, BaseDraw):
            value = value.pushed(msg["fn"])
        elif self.unconstrained:
            transform = bijection(msg["fn"])
            u, value = value, transform(value)
            try:
                jacobian = transform.log_abs_det_jacobian(u, value)
            except RuntimeError:
                # More dims than u: one map for each value of an enumerated latent, whose scales differ.
                if value.dim() <= u.dim():
                    raise
                raise ValueError(
                    f"expected a support of {name!r} that is as wide for all values of the discrete latents, got one "
                    "for each: no one density of real numbers is theirs; try pv.IS (command line: is in place of exact)"
                ) from None
            # The transform may act on fewer event dims than the site has.
            surplus = msg["fn"].event_dim - transform.codomain.event_dim
            self.log_jacobian[name] = jacobian.sum(tuple(range(-surplus, 0))) if surplus else jacobian
        msg["value"] = value
        msg["done"] = True

    def _pyro_param(self, msg: Any) -> None:
        name = msg["name"]
        initial = msg["args"][1] if len(msg["args"]) > 1 else None
        # The first mention of a parameter carries its constraint, later ones need not.
        stored = pyro.get_param_store()
        constraint = stored._constraints.get(name) or msg["kwargs"].get("constraint")
        constraint = self._constraints.setdefault(name, constraint)
        if name not in self.values and initial is not None and id(initial) not in self._placed:
            # The same tensor may be given under another of its names.
            same = [n for n, p in stored._params.items() if p is initial and n in self.values]
            name = same[0] if same else name
        if name not in self.values:
            if id(initial) in self._placed:  # shared, and already replaced under another name
                msg["value"] = initial
                msg["done"] = True
            return
        value = self.values[name]
        self.used.add(name)
        if self.unconstrained and constraint is not None:
            value = transform_to(constraint)(value)
        # pyro.module passes the module's own tensor as the initial value: that is the tensor
        # the module will use in its forward, whatever pyro.param returns. A second module of the
        # same name keeps its own.
        if stored._params.get(name, initial) is initial:
            self._place(initial, value)
        msg["value"] = value
        msg["done"] = True
