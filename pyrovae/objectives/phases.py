"""Base of training by a positive and a negative phase, whatever chains the negative one comes from."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from pyro.infer.elbo import ELBO as PyroELBO
from pyro.infer.util import torch_item
from torch import Tensor

from ..programs import AnnealedFamily, Program, annealed_family, module_mode, seeded, store_of

# In the estimate of the pseudo-likelihood: dims of each datum, and data.
DIMS, PSEUDO = 4, 2048
ROWS = 1024


class PhaseObjective(PyroELBO):
    r"""ln p(x) = -F(x) - ln Z is climbed along E_data[-∇F] - E_model[-∇F]. Subclasses say how p is drawn from.

    The loss is the surrogate mean F(x_data) - mean F(x_model), whose gradient at fixed x_model that is (its value
    bounds nothing). Logged each epoch, in nats per datum:

    - `positive_phase` = mean F(x_data), `negative_phase` = mean F(x_model): apart, over the epoch's steps.
    - `free_energy` of fixed data. Training data whose F sinks below that of validation data are learned by heart.
    - `pseudo_log_likelihood` = Σ_i ln p(x_i | x_rest) of binary data, estimated on 4 dims of at most 2048 data.
    - `log_likelihood`, with `exact`: by it alone epochs are compared, for `restore_best` and `patience`.

    Args:
        steps: k, transitions between one negative phase and the next.
        exact: evaluate the declared `log_evidence` on training and validation data after each epoch.

    Raises:
        ValueError: steps < 1; on `check`, a program without `annealed=`, or without log_evidence for `exact`.
    """

    compiles = False  # chains are state, which no graph holds

    def __init__(self, steps: int = 1, *, exact: bool = False) -> None:
        name = type(self).__name__
        _whole(name, "steps", steps)
        super().__init__()
        self.steps, self.exact = steps, exact
        self.reset()

    def reset(self) -> None:
        """Forgets chains and sums: a new fit starts new ones."""
        self._chains: Tensor | None = None
        self._sums: dict[str, float] = {}

    @property
    def score(self) -> str | None:
        """The figure by which epochs are compared; None: the last one is kept."""
        return "log_likelihood" if self.exact else None

    @abstractmethod
    def negative(self, family: AnnealedFamily, x: Tensor) -> Tensor:
        """Draws of the model `[M, *event]`, as good as they are; x is the data batch."""

    def check(self, program: Program) -> None:
        """Refuses programs without an energy; and forgets the chains of a former fit.

        Raises:
            ValueError: saying what is missing.
        """
        name = type(self).__name__
        if program.declaration.density != "unnormalised":
            raise ValueError(
                f"expected a program declared density='unnormalised' for {name}, got "
                f"{program.declaration.density or 'exact'!r}; try an ELBO"
            )
        if program.full_size is not None:
            raise ValueError(
                f"expected a plate of the batch's size for {name}, got one of {program.full_size}"
            )
        with annealed_family(program.model):
            pass
        if self.exact:
            self._log_likelihood(program, program.arguments.chunks(1)[0])
        self.reset()

    def loss_and_grads(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> float:
        """The surrogate summed over the batch, in nats, and gradients into the parameters."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()
        return torch_item(loss)

    def loss(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """The surrogate, without gradients; chains move."""
        with torch.no_grad():
            return torch_item(self.differentiable_loss(model, guide, *args, **kwargs))

    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """N (mean F(x_data) - mean F(x_model)) of a batch of N; one step of the chains."""
        x = args[0]
        with annealed_family(model) as family:
            with torch.no_grad():
                drawn = self.negative(family, x)
            positive, negative = family.free_energy(x).mean(), family.free_energy(drawn).mean()
        self.note(positive_phase=torch_item(positive), negative_phase=torch_item(negative))
        return len(x) * (positive - negative)

    def note(self, **figures: float) -> None:
        """Adds to the means of this epoch."""
        self._sums["count"] = self._sums.get("count", 0.0) + 1
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def report(self) -> dict[str, float]:
        """Means over the steps since the last report."""
        count = self._sums.pop("count", math.nan)
        out = {name: total / count for name, total in self._sums.items()}
        self._sums = {}
        return out

    def measure(self, program: Program, *, seed: int, max_data: int | None = None) -> dict[str, float]:
        """Figures of the program on its data, logged after each epoch; the noise is the same every time."""
        x = program.arguments.x[:max_data]
        with (
            torch.no_grad(),
            annealed_family(program.model) as family,
            module_mode(program.model, training=False),
            seeded(seed, "phases", device=x.device),
        ):
            free = torch.cat([family.free_energy(rows) for rows in x.split(ROWS)])
            out = {"free_energy": float(free.double().mean())}
            some = x[:PSEUDO]
            if bool(((some == 0) | (some == 1)).all()):
                pseudo = [
                    _pseudo(family, *rows)
                    for rows in zip(some.split(ROWS), free[:PSEUDO].split(ROWS), strict=True)
                ]
                out["pseudo_log_likelihood"] = float(torch.cat(pseudo).double().mean())
        if self.exact:
            out["log_likelihood"] = self._log_likelihood(program, torch.arange(len(x), device=x.device))
        return out

    def state_dict(self) -> dict[str, Any]:
        """Chains, and the sums of an epoch that is under way."""
        return {"chains": self._chains, "sums": dict(self._sums)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from `state_dict()`."""
        self._chains, self._sums = state["chains"], dict(state["sums"])

    def __repr__(self) -> str:
        plain = {k: v for k, v in vars(self).items() if k[0] != "_" and k != "max_plate_nesting"}
        shown = ("steps", "num_chains", "temperatures")
        return f"{type(self).__name__}({', '.join(f'{k}={plain[k]}' for k in shown if k in plain)})"

    @staticmethod
    def _log_likelihood(program: Program, indices: Tensor) -> float:
        exact: Any = program.declaration.log_evidence
        if exact is None:
            raise ValueError("expected a program that declares log_evidence for exact=True, got one without")
        store = store_of(program.model)
        with torch.no_grad():
            value = (store.bind(exact) if store is not None else exact)(*program.arguments.slice(indices))
        return float(value.mean())

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} uses no traces")


def _whole(name: str, what: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"expected a whole {what} >= 1 for {name}, got {value!r}")


def _pseudo(family: AnnealedFamily, x: Tensor, free: Tensor) -> Tensor:
    """D times the mean of ln p(x_i | x_rest) = ln sigmoid(F(x with x_i turned) - F(x)) over some dims i."""
    flat = x.flatten(1)
    total, n = torch.zeros_like(free), min(DIMS, flat.shape[1])
    for _ in range(n):
        i = torch.randint(flat.shape[1], (len(flat), 1), device=x.device)
        turned = flat.scatter(1, i, 1 - flat.gather(1, i)).reshape(x.shape)
        total = total + torch.nn.functional.logsigmoid(family.free_energy(turned) - free)
    return flat.shape[1] * total / n
