"""Gradients of per-datum distributions, compiled once for all chunks of data where that is asked for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...programs import Program
from ...programs.compile.compiled_gradients import ChunkLoss, CompiledGradients
from ...programs.compile.tracing import UntraceableError
from ...programs.latents.densities import Densities
from ...programs.latents.local_guides import LocalGuide
from ..core.compile_when import Compile
from .local_flow import LocalFlow

Gradients = Callable[[], Sequence[Tensor | None]]


class LocalSteps:
    """Makes the gradient functions of chunk after chunk.

    A compiled one draws the noise of an eager one.

    Args:
        num_particles: draws per datum and step.
        compile: whether to try.
        rows: data of a full chunk. Others run eagerly, whichever comes first: their numbers must not depend on
            which of the chunks this process got.
    """

    def __init__(self, num_particles: int, compile: Compile, rows: int) -> None:
        self.num_particles, self.compile, self.rows = num_particles, compile, rows
        self._compiled: dict[str, CompiledGradients | None] = {}

    def own(self, local: LocalGuide) -> Gradients:
        """Gradient of -E ln w by the parameters of each datum's own guide."""
        program, leaves = local.program, local.leaves

        def loss(leaves: Sequence[Tensor], own: Sequence[Tensor], given: tuple[Any, ...]) -> Tensor:
            return -local.log_weights(leaves, given, self.num_particles).mean(0).sum()

        def eager() -> Sequence[Tensor | None]:
            with torch.enable_grad():
                lw = program.run(local.indices, self.num_particles).log_weights()
                return torch.autograd.grad(-lw.mean(0).sum(), leaves, allow_unused=True)

        return self._compile("own", local.given, local.indices, leaves, [], loss) or eager

    def flow(self, flow: LocalFlow, program: Program, indices: Tensor) -> Gradients:
        """Gradient of -E ln w by the parameters of each datum's flow."""
        densities, n = Densities(program, indices, self.num_particles), len(indices)

        def loss(leaves: Sequence[Tensor], own: Sequence[Tensor], given: tuple[Any, ...]) -> Tensor:
            u, log_q = LocalFlow.draw_given(leaves, own, self.num_particles)
            terms = densities.terms_given(u, given, guide=False)
            return -(terms.prior + terms.likelihood - log_q).mean(0).sum()

        def eager() -> Sequence[Tensor | None]:
            with torch.enable_grad():
                u, log_q = flow.draw(self.num_particles)
                terms = densities.terms(u)
                lw = (terms.prior + terms.likelihood - log_q)[:, :n]
                return torch.autograd.grad(-lw.mean(0).sum(), flow.leaves, allow_unused=True)

        return self._compile("flow", program, indices, flow.leaves, flow.own, loss) or eager

    def landing(self, flow: LocalFlow, program: Program, indices: Tensor) -> Gradients:
        """Gradient of -E ln w by the flow's parameters, with the density of q held fixed.

        Its expectation is that of `flow`, and its variance falls to zero where q comes to the posterior (Roeder et al.
        2017, https://arxiv.org/abs/1703.09194): of a Gaussian posterior of 50 dims the weights' ESS was ten times
        higher after as many steps.
        """
        return self._weighed("landing", flow, program, indices, lambda log_w: 1 / len(log_w))

    def even(self, flow: LocalFlow, program: Program, indices: Tensor) -> Gradients:
        """Gradient of -L_K, the importance-weighted bound of all draws of a step, by the flow's parameters.

        Doubly reparameterised: sum_k w_k^2 (d ln w_k / du) du, w normalised over draws, with the density of q held
        fixed (Tucker et al. 2019, https://arxiv.org/abs/1810.04152). L_K falls short of ln p(x) by the weights'
        relative variance over 2 K: raising it evens the weights, where the ELBO makes q narrow.
        """
        return self._weighed("even", flow, program, indices, _squared_shares)

    def _weighed(
        self,
        kind: str,
        flow: LocalFlow,
        program: Program,
        indices: Tensor,
        factor: Callable[[Tensor], Tensor | float],
    ) -> Gradients:
        """Gradient of -sum_k factor_k ln w_k through the draws alone; factors are held fixed as well."""
        densities = Densities(program, indices, self.num_particles)

        def loss(leaves: Sequence[Tensor], own: Sequence[Tensor], given: tuple[Any, ...]) -> Tensor:
            u, _ = LocalFlow.draw_given(leaves, own, self.num_particles, antithetic=False)
            log_q = LocalFlow.log_prob_given(u, [leaf.detach() for leaf in leaves], own)
            terms = densities.terms_given(u, given, guide=False)
            log_w = terms.prior + terms.likelihood - log_q
            return -(factor(log_w.detach()) * log_w).sum()

        def eager() -> Sequence[Tensor | None]:
            with program.quiet(grad=True), program.on(indices) as given:
                return torch.autograd.grad(loss(flow.leaves, flow.own, given), flow.leaves, allow_unused=True)

        return self._compile(kind, program, indices, flow.leaves, flow.own, loss) or eager

    def _compile(
        self,
        kind: str,
        program: Program,
        indices: Tensor,
        leaves: Sequence[Tensor],
        own: Sequence[Tensor],
        loss: ChunkLoss,
    ) -> Gradients | None:
        if not self.compile or not leaves or len(indices) != self.rows:
            return None
        if kind not in self._compiled:
            try:
                self._compiled[kind] = CompiledGradients(program, indices, leaves, own, loss)
            except UntraceableError as error:
                self._compiled[kind] = None
                warnings.warn(f"this program is not compiled and runs eagerly: {error}", stacklevel=4)
        compiled = self._compiled[kind]
        return None if compiled is None else compiled.bind(indices, leaves, own)


def _squared_shares(log_weights: Tensor) -> Tensor:
    """Squares of the weights' shares of their sum, `[K, n]`; 0 where a weight is no number."""
    share = torch.nan_to_num(log_weights, nan=-torch.inf, posinf=-torch.inf).softmax(0)
    return share.nan_to_num(0.0).square()
