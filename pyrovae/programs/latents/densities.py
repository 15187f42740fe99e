"""The joint density of a program as a function of unconstrained latents, with gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.enum_messenger import EnumMessenger
from torch import Tensor

from ...devices import as_tensor
from ..checks.agreement import mask_of
from ..checks.contract import data_frame
from ..handlers.substitute import Substitute
from ..idioms.cached_draws import without_inverse
from ..inspection import PARTICLES, Program
from ..sites import is_factor, reduce_to, sample_sites, unscaled_log_prob
from .layout import Slot, latent_sites, refuse_discrete
from .summed import refuse_other_supports, summed_out
from .supports import base_of
from .terms import Start, Terms, differentiate
from .unequal_totals import UnequalTotals


class Densities:
    """ln p(z), ln p(x | z) and ln q(z | x) at K chains of unconstrained latents u `[K, n, D]`.

    z = T(u) by the bijection onto each model site's support AS IT IS THERE, given the values
    upstream; the log-Jacobian counts with the densities of z, so that all are densities of u.
    Discrete latents that are enumerated in the model are summed out of p(z) and of p(x, z).
    A datum that pads a plate of fixed size counts among the n.

    Args:
        program: any pair whose latents are continuous, or summed out in the model.
        indices: the data.
        num_chains: K.
        temperature: T of p(x, z)^{1/T}, where the path of `evaluate` ends.

    Raises:
        ValueError: for discrete latents that are drawn, or a program that does not broadcast.
    """

    def __init__(self, program: Program, indices: Tensor, num_chains: int, temperature: float = 1.0) -> None:
        if not program.vectorised:
            raise ValueError(
                "expected a program that broadcasts over a particle plate at dim "
                f"{-1 - program.max_plate_nesting}, as chains side by side need, got one that does not; "
                "try `...` indexing and negative dims in place of fixed shapes"
            )
        if program.enumerated and temperature != 1:
            raise ValueError(
                "expected continuous latents alone at a temperature other than 1, got enumerated ones: a power of "
                "a sum is no sum of powers; try to sample them in the guide"
            )
        self.program, self.indices, self.num_chains = program, indices, num_chains
        self.temperature = temperature
        self._inverts = False  # known of the guide
        with program.quiet(0, "densities"), program.on(indices) as given:
            trace = self._model_trace(given, None)
        enumerated = {n for n, s in latent_sites(trace) if s["infer"].get("enumerate") == "parallel"}
        self.summed = enumerated if program.enumerated else set()
        refuse_discrete(trace, self.summed)
        frame = data_frame(trace, program.plate)
        self.rows: int = frame.size
        self._dims = (-1 - program.max_plate_nesting, frame.dim)
        moved = {n: site for n, site in latent_sites(trace) if n not in self.summed}
        if not moved:
            raise ValueError("expected a continuous latent, got enumerated discrete ones alone; try pv.Exact")
        self.masked = sorted(n for n, site in moved.items() if not as_tensor(mask_of(site)).all())
        self.slots = {name: Slot.of(site, frame.dim) for name, site in moved.items()}
        if self.summed:
            with program.quiet(0, "densities"), program.on(indices) as given:
                trace = self._model_trace(given, None, summed=True)
            refuse_other_supports(trace, self.slots, self.summed, 1 + program.max_plate_nesting)
        self.width = sum(slot.size for slot in self.slots.values())

    def initial(self, from_: Start, density: bool = True) -> Tensor:
        """Draws u `[K, n, D]` from the prior or the guide (whose density is needed, or not).

        NaN in the coordinates of a draw of the guide that lies outside of the model's support.
        """
        with self.program.quiet(), self.program.on(self.indices) as given:
            if from_ == "prior":
                return self._read(self._model_trace(given, None))
            guide = poutine.trace(self._plated(self.program.guide)).get_trace(*given)
            if density:
                self.check_guide(guide)
            values: dict[str, Any] = {n: guide.nodes[n]["value"] for n in self.slots}
            return self._read(self._model_trace(given, Substitute(values)))

    def from_latents(self, latents: Mapping[str, Tensor]) -> Tensor:
        """u `[K, n, D]`, the same in all K chains, of constrained values of ALL data by site.

        Their shapes are those of a run without chains.
        """
        width = self.program.max_plate_nesting
        with self.program.quiet(0, "latents"), self.program.on(self.indices) as given:
            values = {}
            for name, slot in self.slots.items():
                value = latents[name]
                axis = value.dim() - slot.event_dim + self._dims[1]
                value = value.index_select(axis, self.indices)
                shape = ((1,) * (width + slot.event_dim - value.dim())) + tuple(value.shape)
                values[name] = value.reshape(shape).expand(self.num_chains, *shape)
            return self._read(self._model_trace(given, Substitute(values)))

    def latents(self, u: Tensor) -> dict[str, Tensor]:
        """Constrained values by site, `[K, *batch, *event]`."""
        with self.program.quiet(0, "latents"), self.program.on(self.indices) as given:
            trace = self._model_trace(given, Substitute(self._unpack(u), unconstrained=True))
        return {name: trace.nodes[name]["value"] for name in self.slots}

    def log_prior(self, u: Tensor) -> Tensor:
        """ln p(z(u)) + ln|dz/du|, `[K, n]`, nats."""
        return self.terms(u).prior

    def log_likelihood(self, u: Tensor) -> Tensor:
        """ln p(x | z(u)), `[K, n]`, nats."""
        return self.terms(u).likelihood

    def log_guide(self, u: Tensor) -> Tensor:
        """ln q(z(u) | x) + ln|dz/du|, `[K, n]`, nats."""
        guide = self.terms(u, guide=True).guide
        assert guide is not None
        return guide

    def terms(self, u: Tensor, guide: bool = False) -> Terms:
        """All densities at u; that of the guide if asked for. Differentiable by u."""
        with self.program.quiet(grad=torch.is_grad_enabled()), self.program.on(self.indices) as given:
            return self.terms_given(u, given, guide)

    def terms_given(self, u: Tensor, given: tuple[Any, ...], guide: bool) -> Terms:
        """`terms` for arguments at hand, in eval mode already."""
        handler = Substitute(self._unpack(u), unconstrained=True)
        model = self._model_trace(given, handler, summed=True)
        sizes = (u.shape[0], self.rows)
        prior = likelihood = jacobian = u.new_zeros(())
        for name, site in sample_sites(model):
            if name in self.slots:
                jacobian = jacobian + reduce_to(self._jacobian(handler, name, site), self._dims, sizes)
            if self.summed:
                continue
            value = reduce_to(unscaled_log_prob(site), self._dims, sizes)
            if site["is_observed"]:
                likelihood = likelihood + value
            else:
                prior = prior + value
        if self.summed:
            prior, likelihood = (v.to(u.dtype) for v in summed_out(model, self.program.plate))
        prior, likelihood, jacobian = (v.expand(sizes) for v in (prior + jacobian, likelihood, jacobian))
        if not guide:
            return Terms(prior, likelihood, jacobian)
        values = {n: model.nodes[n]["value"] for n in self.slots}
        trace = poutine.trace(Substitute(values)(self._plated(self.program.guide))).get_trace(*given)
        self.check_guide(trace)
        total = u.new_zeros(())
        for name, site in sample_sites(trace):
            value = unscaled_log_prob(site)
            if not is_factor(site):  # the transform is the model's, whatever the guide's own support is
                value = value + self._jacobian(handler, name, site)
            total = total + reduce_to(value, self._dims, sizes)
        return Terms(prior, likelihood, jacobian, total.expand(sizes))

    def evaluate(self, u: Tensor, start: Start) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(base, slope, d base/du, d slope/du) of ln pi_beta = base + beta slope; both parts, so beta is free.

        From the prior: base = ln p(z), slope = ln p(x|z). From the guide: base = ln q(z|x),
        slope = ln p(x,z) - ln q(z|x). At a temperature other than 1, ln p(x,z) / T takes the place of ln p(x,z).
        """
        with self.program.quiet(grad=True), self.program.on(self.indices) as given:
            return differentiate(lambda v: self.terms_given(v, given, start == "guide"), u, self.temperature)

    def guide_has_density(self) -> bool:
        """Whether ln q(z|x) can be had at any z: no auxiliary sites, no Delta, no transform without an inverse."""
        with self.program.quiet(0, "guide"), self.program.on(self.indices) as given:
            trace = poutine.trace(self._plated(self.program.guide)).get_trace(*given)
        drawn = [site for _, site in sample_sites(trace) if not site["is_observed"]]
        if any(isinstance(base_of(site["fn"]), dist.Delta) for site in drawn):
            return False
        try:
            self.check_guide(trace)
        except ValueError:
            return False
        return True

    def check_guide(self, trace: Any) -> None:
        """Refuses a guide whose density of z cannot be computed: auxiliary sites, no inverse."""
        extra = [n for n, s in sample_sites(trace) if not is_factor(s) and n not in self.slots]
        if extra:
            raise ValueError(
                f"expected a guide with a density of the latents alone, got the auxiliary or discrete sites {extra}; "
                'try start="prior"'
            )
        if self._inverts:
            return
        for name, site in sample_sites(trace):
            missing = None if is_factor(site) else without_inverse(site["fn"], site["value"])
            if missing is not None:
                raise ValueError(
                    f"expected a guide with a density at any value, got the transform {missing} at {name!r}, which has "
                    'no inverse: chains move away from its draws; try start="prior", or a flow with an inverse '
                    "(affine_autoregressive, spline_coupling)"
                )
        self._inverts = True

    def _plated(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        return pyro.plate(PARTICLES, self.num_chains, dim=-1 - self.program.max_plate_nesting)(fn)

    def _jacobian(self, handler: Substitute, name: str, site: Any) -> Tensor:
        """ln|dz/du| in the site's batch; a site that a mask leaves without a density has no Jacobian either."""
        # Dims further left are of what is summed out.
        batch = site["fn"].batch_shape[-1 - self.program.max_plate_nesting :]
        return scale_and_mask(handler.log_jacobian[name].expand(batch), 1.0, site["mask"])

    def _model_trace(self, given: tuple[Any, ...], handler: Substitute | None, summed: bool = False) -> Any:
        # The handler is outermost: plates have expanded the distribution when it asks for its support.
        model = self._plated(self.program.model)
        if summed and self.summed:
            model = EnumMessenger(-2 - self.program.max_plate_nesting)(UnequalTotals()(model))
        return poutine.trace(handler(model) if handler else model).get_trace(*given)

    def _read(self, trace: Any) -> Tensor:
        return torch.cat([slot.read(trace.nodes[name]) for name, slot in self.slots.items()], -1)

    def _unpack(self, u: Tensor) -> dict[str, Tensor]:
        sizes = [slot.size for slot in self.slots.values()]
        return {
            n: slot.unflat(part)
            for (n, slot), part in zip(self.slots.items(), u.split(sizes, -1), strict=True)
        }
