"""Base of objectives made of K scored draws."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from pyro.infer.elbo import ELBO as PyroELBO
from pyro.infer.util import torch_item
from pyro.util import warn_if_nan
from torch import Tensor

from ..programs import Program
from ..programs.particles.gradients import PathWeights
from ..programs.particles.particles import Particles, Scores, pair_of_traces


class ParticleObjective(PyroELBO):
    """A loss made of K draws a datum. Subclasses say how: `surrogate_and_value`.

    Args:
        num_particles: K.
        at_least: the smallest K that makes sense.
        instead: what to use below it.
        plate: name of the data plate; default: as the model declares, else "data".
        vectorize_particles: run all K in a particle plate; False for programs that do not broadcast.
        fixed: score the guide at fixed draws too.
    """

    def __init__(
        self,
        num_particles: int,
        *,
        at_least: int = 1,
        instead: str = "",
        plate: str | None = None,
        vectorize_particles: bool = True,
        fixed: bool = False,
    ) -> None:
        name = type(self).__name__
        whole = isinstance(num_particles, int) and not isinstance(num_particles, bool)
        if not whole or num_particles < at_least:
            hint = f"; try {instead}" if instead else ""
            raise ValueError(
                f"expected a whole num_particles >= {at_least} for {name}, got {num_particles!r}{hint}"
            )
        super().__init__(num_particles=num_particles)
        self.vectorize_particles = vectorize_particles
        self.particles = Particles(num_particles, plate, vectorize_particles, fixed, name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_particles={self.num_particles})"

    @abstractmethod
    def surrogate_and_value(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """(what is differentiated, what is reported): scalars, summed over the batch, in nats."""

    def scores(
        self, model: Any, guide: Any, args: Any, kwargs: Any, path: PathWeights | None = None
    ) -> Scores:
        """Scores of K fresh draws."""
        return self.particles.run(model, guide, args, kwargs, path)

    def check(self, program: Program) -> None:
        """Refuses programs on which this objective would be silently wrong.

        Raises:
            ValueError: saying what is wrong and what to try.
        """
        name = type(self).__name__
        if self.vectorize_particles and (not program.vectorised or program.is_folded):
            raise ValueError(
                f"expected a program that broadcasts over a particle plate for {name}, got one that does not; try "
                f"{name}(..., vectorize_particles=False), or `...` indexing and negative dims in the program"
            )
        args = program.arguments
        if (self.particles.plate or program.declaration.plate or "data") != args.plate:
            raise ValueError(
                f"expected {name} to know the data plate {args.plate!r}, got "
                f"{self.particles.plate!r}; try {name}(..., plate={args.plate!r})"
            )
        with program.on(args.chunks(2)[0]) as given:
            self.particles.look(program.model, program.guide, given, {})

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """The loss; its gradient is the one to train with."""
        surrogate, value = self.surrogate_and_value(model, guide, *args, **kwargs)
        return value if surrogate is value else value.detach() + (surrogate - surrogate.detach())

    @torch.no_grad()
    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """The negative objective, summed over the batch, in nats."""
        _, value = self.surrogate_and_value(model, guide, *args, **kwargs)
        warn_if_nan(value, "loss")
        return torch_item(value)

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Loss as `loss` gives it, and gradients into the parameters."""
        surrogate, value = self.surrogate_and_value(model, guide, *args, **kwargs)
        if surrogate.requires_grad:
            surrogate.backward()
        warn_if_nan(value, "loss")
        return torch_item(value)

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        return pair_of_traces(model, guide, args, kwargs)
