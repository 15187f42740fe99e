"""Restricted Boltzmann machines as Pyro programs: the energy by `pyro.factor`, the posterior exact."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrovae.data import IsingTorus
from pyrovae.evidence import LogPartition
from pyrovae.programs import program, seeded
from pyrovae.programs.handlers.annealed import Beta

from .gibbs_sampling import gibbs_sampling
from .ising_machine import ising_parameters
from .partition import exact_log_partition
from .visible_units import BinaryUnits, GaussianUnits

WEIGHT_SCALE = 0.01  # standard deviation of the weights at the start (Hinton 2012)


class RBM(nn.Module):
    r"""p(v, h) = exp(-E(v, h)) / Z, E = e(v; b) - c·h - drive(v)·W h, with h in {0, 1}^H.

    :math:`\ln p(v) = -F(v) - \ln Z`, :math:`F(v) = e(v; b) - \sum_j \mathrm{softplus}(c_j + (W^T drive(v))_j)`.
    Binary visible units have e = -b·v. As a program: h from its counting measure, the factor `energy`, and the
    observed site `v` with p(v | h), whose product is exp(-E(v, h)); the guide is the exact p(h | v). So log-weights
    are -F(v) to rounding, whatever h is drawn, and `declared unnormalised`: `pv.Exact()` is ln p(v) itself where
    the smaller layer can be enumerated, `pv.Normalised` is it by an estimate of ln Z.

    Annealing (for tempering and AIS) goes from a machine without weights, biases `base_bias` and 0, to this one:
    E_beta = (1 - beta) e(v; b_0) + beta E(v, h) (Salakhutdinov & Murray 2008). With b_0 = 0 and binary units
    beta is the inverse temperature. Trained by `pv.fit` with `objectives.ContrastiveDivergence`, `PersistentCD` or
    `ParallelTempering`.

    Args:
        event_shape: shape of one datum, or its size D.
        num_hidden: H.
        visible: `BinaryUnits()` (default) or `GaussianUnits(scale)`.

    Attributes:
        weight: W, `[D, H]`; drawn from N(0, 0.01²).
        visible_bias, hidden_bias: b `[D]` and c `[H]`.
        base_bias: b_0, `[D]`, not trained.

    Raises:
        ValueError: sizes < 1.

    Source:
        A Practical Guide to Training Restricted Boltzmann Machines (Hinton, 2012),
        https://doi.org/10.1007/978-3-642-35289-8_32
    """

    base_bias: Tensor

    def __init__(
        self,
        event_shape: int | Sequence[int],
        num_hidden: int,
        visible: BinaryUnits | GaussianUnits | None = None,
    ) -> None:
        super().__init__()
        self.event_shape = (event_shape,) if isinstance(event_shape, int) else tuple(event_shape)
        size = math.prod(self.event_shape)
        if size < 1 or num_hidden < 1:
            raise ValueError(
                f"expected at least one visible and one hidden unit, got {size} and {num_hidden}"
            )
        self.visible = BinaryUnits() if visible is None else visible
        self.weight = nn.Parameter(WEIGHT_SCALE * torch.randn(size, num_hidden))
        self.visible_bias = nn.Parameter(torch.zeros(size))
        self.hidden_bias = nn.Parameter(torch.zeros(num_hidden))
        self.register_buffer("base_bias", torch.zeros(size))

    @classmethod
    def initialised_to(
        cls, data: Tensor, num_hidden: int, visible: BinaryUnits | GaussianUnits | None = None
    ) -> RBM:
        """b and b_0 at the base rates of data `[N, *event]`: annealing and training start from their means.

        Raises:
            ValueError: data that are not binary for binary units.
        """
        machine = cls(tuple(data.shape[1:]), num_hidden, visible)
        machine.base_bias.copy_(machine.visible.base_rate(data.flatten(1)))
        with torch.no_grad():
            machine.visible_bias.copy_(machine.base_bias)
        return machine

    @classmethod
    def from_ising(cls, law: IsingTorus) -> RBM:
        """The Ising torus itself: L² visible units, one hidden unit for each of the 2 L² bonds.

        exp(-F(v)) = exp(-E(v)/T + ln C) with the constant of `ising_machine.ising_log_constant`, so
        ln Z of the machine is ln Z of the torus + ln C. float64.
        """
        weight, visible_bias, hidden_bias = ising_parameters(law)
        machine = cls(len(visible_bias), len(hidden_bias)).double()
        with torch.no_grad():
            machine.weight.copy_(weight)
            machine.visible_bias.copy_(visible_bias)
            machine.hidden_bias.copy_(hidden_bias)
        return machine

    # The program ---------------------------------------------------------------------------------

    def log_evidence(self, v: Tensor) -> Tensor:
        """Exact ln p(v_n), `[N]`, nats, float64, with ln Z by enumeration of the smaller layer.

        Raises:
            ValueError: a machine too large to enumerate.
        """
        log_z = self.exact_log_partition().value
        return -self.free_energy(v).double() - log_z

    def _family(self) -> RBM:
        pyro.module("rbm", self)  # registers the parameters, as the model does
        return self

    @program(density="unnormalised", plate="data", observed="v", log_evidence=log_evidence, annealed=_family)
    def model(self, v: Tensor) -> None:
        """h, the factor that makes its density exp(-F(h)), and v | h: together exp(-E(v, h))."""
        pyro.module("rbm", self)
        bias = self.hidden_bias
        with pyro.plate("data", len(v)):
            h = pyro.sample("h", dist.Bernoulli(torch.full_like(bias, 0.5)).to_event(1))
            field = h @ self.weight.mT
            counting = len(bias) * math.log(2)  # takes the 1/2 of each unit out again
            pyro.factor("energy", h @ bias + self.visible.log_integral(self.visible_bias, field) + counting)
            pyro.sample("v", self.visible.conditional(self.visible_bias, field), obs=self._flat(v))

    def guide(self, v: Tensor) -> None:
        """The exact p(h | v)."""
        pyro.module("rbm", self)
        with pyro.plate("data", len(v)):
            pyro.sample("h", self.posterior(v))

    def posterior(self, v: Tensor) -> dist.TorchDistribution:
        """p(h | v): independent, h_j = 1 with probability sigmoid(c_j + (W^T drive(v))_j)."""
        return dist.Bernoulli(logits=self._activation(self._flat(v))).to_event(1)

    def likelihood(self, h: Tensor) -> dist.TorchDistribution:
        """p(v | h), of flat v `[..., D]`."""
        return self.visible.conditional(self.visible_bias, h @ self.weight.mT)

    # Energies ------------------------------------------------------------------------------------

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h), `[...]`."""
        flat = self._flat(v)
        coupling = ((self.visible.drive(flat) @ self.weight) * h).sum(-1)
        return self.visible.energy(flat, self.visible_bias) - h @ self.hidden_bias - coupling

    def free_energy(self, v: Tensor) -> Tensor:
        """F(v) = -ln Σ_h exp(-E(v, h)), nats, `[..., *event]` to `[...]`."""
        flat = self._flat(v)
        return self.visible.energy(flat, self.visible_bias) - F.softplus(self._activation(flat)).sum(-1)

    def free_energy_change(self, v: Tensor, old: Beta, new: Beta) -> Tensor:
        """F_new(v) - F_old(v) along the annealing, nats, float64."""
        flat = self._flat(v)
        old, new = (torch.as_tensor(b, dtype=flat.dtype, device=flat.device) for b in (old, new))
        own = self.visible.energy(flat, self.visible_bias) - self.visible.energy(flat, self.base_bias)
        a = self._activation(flat)
        # Unit by unit, before anything large is summed: the steps of AIS are small.
        hidden = F.softplus(new.unsqueeze(-1) * a) - F.softplus(old.unsqueeze(-1) * a)
        return (new - old).double() * own.double() - hidden.sum(-1, dtype=torch.float64)

    # Chains --------------------------------------------------------------------------------------

    def gibbs(self, v: Tensor, steps: int, beta: Beta = 1.0) -> Tensor:
        """Runs sweeps v -> h -> v of block Gibbs sampling at inverse temperature beta, `[...]` or one."""
        biases = self.base_bias, self.visible_bias, self.hidden_bias
        return gibbs_sampling(self._flat(v), self.visible, self.weight, biases, steps, beta).reshape(v.shape)

    def transition(self, x: Tensor, steps: int, beta: Beta = 1.0) -> Tensor:
        """`gibbs`, under the name that training and annealing call it by; reversible."""
        return self.gibbs(x, steps, beta)

    @torch.no_grad()
    def start(self, num: int) -> Tensor:
        """Independent draws from the machine without weights, `[num, *event]`."""
        bias = self.base_bias.expand(num, -1)
        return self.visible.draw(bias, torch.zeros_like(bias)).reshape(num, *self.event_shape)

    @torch.no_grad()
    def start_log_partition(self) -> Tensor:
        """Its ln Z, nats, float64."""
        bias = self.base_bias.double()
        return self.visible.log_integral(bias, torch.zeros_like(bias)) + len(self.hidden_bias) * math.log(2)

    @torch.no_grad()
    def sample(self, num: int, sweeps: int = 1000, *, seed: int = 0, temperatures: int = 100) -> Tensor:
        """`num` independent chains, annealed from the base rates to beta = 1 and then run for `sweeps`.

        Draws of p(v) only so far as the chains forget where they started.

        Args:
            num: of draws.
            sweeps: at beta = 1.
            seed: of the noise.
            temperatures: of the annealing, one sweep each; 0 for none.
        """
        with seeded(seed, "fantasy", device=self.weight.device):
            v = self.start(num)
            for i in range(1, temperatures):
                v = self.gibbs(v, 1, i / temperatures)
            return self.gibbs(v, sweeps)

    def exact_log_partition(self) -> LogPartition:
        """ln Z by enumeration of the smaller layer.

        Raises:
            ValueError: more than 25 units in it.
        """
        return exact_log_partition(self.weight, self.visible_bias, self.hidden_bias, self.visible)

    def _activation(self, flat: Tensor) -> Tensor:
        return self.visible.drive(flat) @ self.weight + self.hidden_bias

    def _flat(self, v: Tensor) -> Tensor:
        if tuple(v.shape[v.dim() - len(self.event_shape) :]) != self.event_shape:
            raise ValueError(
                f"expected data [..., {self.event_shape}] for this machine, got {tuple(v.shape)}"
            )
        v = v.to(self.weight.dtype)
        return v.flatten(v.dim() - len(self.event_shape)) if len(self.event_shape) > 1 else v

    def extra_repr(self) -> str:
        """The sizes."""
        return f"visible={len(self.visible_bias)}, hidden={len(self.hidden_bias)}"
