"""The whole state of a trainer: taken as copies, put back, put back at a lower learning rate."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from ..trainer import Trainer


def state_of(trainer: Trainer) -> dict[str, Any]:
    """See `Trainer.state_dict`."""
    trainer.collect()
    optimizer, average = trainer.svi.optimizer, trainer.average
    with trainer.store.active():
        state = trainer.svi.optim.get_state() if optimizer is None else optimizer.state_dict()
    return {
        **trainer.weights(),
        "optimizer": _copied(state),
        "average": None if average is None else {k: v.clone() for k, v in average.values.items()},
        "objective": [copy.deepcopy(o.state_dict()) for o in _with_state(trainer.objective)],
        "epoch": trainer.epoch,
        "batch": trainer.batch,
        "global_step": trainer.global_step,
        "seed": trainer.seed,
        "losses": list(trainer.losses),
        "peak": trainer.peak,
        "lr_factor": trainer.lr_factor,
        "compiled_steps": trainer.compiled_steps,
        "discarded": trainer.svi.refused if trainer.svi.discarded else None,
    }


def _copied(value: Any) -> Any:
    """A copy whose tensors share no memory, as those of the optimizer may."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(v) for v in value)
    return copy.deepcopy(value)


def restore(trainer: Trainer, state: dict[str, Any]) -> None:
    """See `Trainer.load_state_dict`."""
    if state["seed"] != trainer.seed:
        raise ValueError(f"expected the state of a run with seed {trainer.seed}, got seed {state['seed']}")
    if (state["average"] is None) != (trainer.average is None):
        raise ValueError(
            "expected a state with averaged weights (ema) where this run has them, and only there"
        )
    stateful = _with_state(trainer.objective)
    if len(state["objective"]) != len(stateful):
        raise ValueError(
            f"expected the state of {len(stateful)} objectives that have one, got {len(state['objective'])}"
        )
    given, optimizer = copy.deepcopy(state["optimizer"]), trainer.svi.optimizer
    if (optimizer is None) == ("param_groups" in given):
        raise ValueError("expected an optimizer's state of this run's kind (torch or Pyro), got the other")
    own, names = list(trainer.store.state_dict()), list(state["parameters"])
    if own != names and sorted(own) == sorted(names):
        raise ValueError(
            f"expected parameters in the order {own}, got {names}: the optimizer's state is by order"
        )
    trainer.load_weights(state)
    if optimizer is not None:
        optimizer.load_state_dict(given)
    else:  # Pyro's optimizers take a state up where they meet its parameter first
        trainer.svi.optim.optim_objs.clear()
        trainer.svi.optim.set_state(given)
    if trainer.average is not None:
        trainer.average.load(state["average"])
    for objective, values in zip(stateful, state["objective"], strict=True):
        objective.load_state_dict(copy.deepcopy(values))
    trainer.epoch, trainer.batch = state["epoch"], state["batch"]
    trainer.global_step = state["global_step"]
    trainer.losses, trainer.peak = list(state["losses"]), state["peak"]
    trainer.lr_factor = state["lr_factor"]
    trainer.compiled_steps = state.get("compiled_steps", 0)
    if state.get("discarded") is not None and not trainer.svi.discarded:  # as the run before this one found
        trainer.svi.discard(state["discarded"], say=False)
        trainer.static, trainer.compiled = None, False


def slowed(trainer: Trainer, state: dict[str, Any], share: float) -> dict[str, Any]:
    """`state` at a share of the trainer's learning rate of now; see `Trainer.roll_back`."""
    factor = trainer.lr_factor * share
    former = state["lr_factor"]
    state = {**state, "lr_factor": factor, "optimizer": copy.deepcopy(state["optimizer"])}
    if trainer.svi.optimizer is None:
        if not state["optimizer"]:
            raise ValueError("expected a Pyro optimizer that has made a step, got a new one")
        for own in state["optimizer"].values():
            for group in own.get("optimizer", own)["param_groups"]:
                group["lr"] *= factor / former
    return state


def _with_state(objective: Any) -> list[Any]:
    """The objective, and those it is built around, as far as they have a state."""
    found: list[Any] = []
    while objective is not None:
        if hasattr(objective, "state_dict") and hasattr(objective, "load_state_dict"):
            found.append(objective)
        objective = getattr(objective, "base", None)
    return found
