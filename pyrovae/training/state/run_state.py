"""The whole state of a run: taken as copies, put back, put back at a lower learning rate."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from pyro.infer.elbo import ELBO as PyroELBO
from torch import Tensor, nn

from ...programs import ParameterStore, Program, buffers_of
from ...svi.svi import SVI
from .averaging import MovingAverage

Weights = dict[str, dict[str, Tensor]]


class RunState:
    """Base of a trainer: what it trains (see `Prepared`), and all that changes on the way."""

    model: Callable[..., Any]
    guide: Callable[..., Any]
    program: Program
    modules: list[nn.Module]
    store: ParameterStore
    svi: SVI
    objective: PyroELBO
    average: MovingAverage | None
    device: torch.device
    seed: int
    epoch: int
    batch: int  # of this epoch
    global_step: int
    losses: list[float]  # of this epoch, nats per datum
    peak: float | None  # the largest size of a loss in the epoch before
    lr_factor: float  # after bad steps
    compiled_steps: int  # of this epoch
    compiled: bool

    def collect(self, stop: int | None = None) -> None:
        """Reads what still waits on the device."""

    def forget_compiled(self) -> None:
        """Goes on with eager steps."""
        self.compiled = False

    def parameters(self) -> list[Tensor]:
        """Unconstrained leaves, in order of registration."""
        return list(dict.fromkeys(self.store.unconstrained().values()))

    def weights(self, averaged: bool = False) -> Weights:
        """Copies of all that makes the program what it is: parameters, and buffers of its modules.

        With `averaged`, the averaged parameters in their place, where weights are averaged.
        """
        with self.average.in_place() if averaged and self.average is not None else nullcontext():
            return {
                "parameters": {k: v.clone() for k, v in self.store.state_dict().items()},
                "buffers": {k: v.clone() for k, v in buffers_of(self.modules).items()},
            }

    def load_weights(self, weights: Weights) -> None:
        """Puts `weights()` back.

        Raises:
            ValueError: for another architecture; the program is then as it was.
        """
        own, given = buffers_of(self.modules), weights["buffers"]
        if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in given.items()}:
            raise ValueError(f"expected the {len(own)} buffers of this architecture, got {len(given)} others")
        self.store.load_state_dict(weights["parameters"])
        with torch.no_grad():
            for name, value in given.items():
                own[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """All that a continued run needs, as copies: tensors and plain numbers."""
        self.collect()
        optimizer, average = self.svi.optimizer, self.average
        with self.store.active():
            state = self.svi.optim.get_state() if optimizer is None else optimizer.state_dict()
        return {
            **self.weights(),
            "optimizer": _copied(state),
            "average": None if average is None else {k: v.clone() for k, v in average.values.items()},
            "objective": [copy.deepcopy(o.state_dict()) for o in _with_state(self.objective)],
            "epoch": self.epoch,
            "batch": self.batch,
            "global_step": self.global_step,
            "seed": self.seed,
            "losses": list(self.losses),
            "peak": self.peak,
            "lr_factor": self.lr_factor,
            "compiled_steps": self.compiled_steps,
            "discarded": self.svi.refused if self.svi.discarded else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from `state_dict()`, for a trainer built with the same arguments.

        Raises:
            ValueError: for another seed, architecture, optimizer or objective.
        """
        if state["seed"] != self.seed:
            raise ValueError(f"expected the state of a run with seed {self.seed}, got seed {state['seed']}")
        if (state["average"] is None) != (self.average is None):
            raise ValueError(
                "expected a state with averaged weights (ema) where this run has them, and only there"
            )
        stateful = _with_state(self.objective)
        if len(state["objective"]) != len(stateful):
            raise ValueError(
                f"expected the state of {len(stateful)} objectives that have one, got {len(state['objective'])}"
            )
        given, optimizer = copy.deepcopy(state["optimizer"]), self.svi.optimizer
        if (optimizer is None) == ("param_groups" in given):
            raise ValueError(
                "expected an optimizer's state of this run's kind (torch or Pyro), got the other"
            )
        own, names = list(self.store.state_dict()), list(state["parameters"])
        if own != names and sorted(own) == sorted(names):
            raise ValueError(
                f"expected parameters in the order {own}, got {names}: the optimizer's state is by order"
            )
        self.load_weights(state)
        if optimizer is not None:
            optimizer.load_state_dict(given)
        else:  # Pyro's optimizers take a state up where they meet its parameter first
            self.svi.optim.optim_objs.clear()
            self.svi.optim.set_state(given)
        if self.average is not None:
            self.average.load(state["average"])
        for objective, values in zip(stateful, state["objective"], strict=True):
            objective.load_state_dict(copy.deepcopy(values))
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.global_step = state["global_step"]
        self.losses, self.peak = list(state["losses"]), state["peak"]
        self.lr_factor = state["lr_factor"]
        self.compiled_steps = state.get("compiled_steps", 0)
        if state.get("discarded") is not None and not self.svi.discarded:  # as the run before this one found
            self.svi.discard(state["discarded"], say=False)
            self.forget_compiled()

    def roll_back(self, state: dict[str, Any], share: float) -> None:
        """Goes back to `state` (of this run), at a share of the learning rate of now.

        Raises:
            ValueError: for one of Pyro's optimizers before its first step, whose rate is out of reach.
        """
        factor = self.lr_factor * share
        former = state["lr_factor"]
        state = {**state, "lr_factor": factor, "optimizer": copy.deepcopy(state["optimizer"])}
        if self.svi.optimizer is None:
            if not state["optimizer"]:
                raise ValueError("expected a Pyro optimizer that has made a step, got a new one")
            for own in state["optimizer"].values():
                for group in own.get("optimizer", own)["param_groups"]:
                    group["lr"] *= factor / former
        self.load_state_dict(state)


def _copied(value: Any) -> Any:
    """A copy whose tensors share no memory, as those of the optimizer may."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(v) for v in value)
    return copy.deepcopy(value)


def _with_state(objective: Any) -> list[Any]:
    """The objective, and those it is built around, as far as they have a state."""
    found: list[Any] = []
    while objective is not None:
        if hasattr(objective, "state_dict") and hasattr(objective, "load_state_dict"):
            found.append(objective)
        objective = getattr(objective, "base", None)
    return found
