"""The diffusion process that all programs of `pyrovae.models.diffusion` share: its formulas, and sampling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pyrovae.programs import seeded


class Process(nn.Module):
    r"""A variance-preserving diffusion (Kingma et al. 2021, https://arxiv.org/abs/2107.00630).

    :math:`q(z_t|x) = N(\alpha_t y(x), \sigma_t^2)`, :math:`\alpha_t^2 = \mathrm{sigm}(-\gamma_t)`,
    :math:`\sigma_t^2 = \mathrm{sigm}(\gamma_t)`, :math:`\gamma_t = -\ln \mathrm{SNR}(t)`; and backwards
    :math:`p(z_s|z_t) = N(\frac{\alpha_s}{\alpha_t}(z_t - \sigma_t c\,\hat\epsilon), \sigma_s^2 c)`,
    :math:`c = -\mathrm{expm1}(\gamma_s - \gamma_t)`.

    Args:
        event_shape: of one datum.
        schedule: t to (gamma, its derivative), with ends `gamma_0`, `gamma_1`: of `noise_schedules`.
        denoiser: `(z [..., D], gamma [...]) -> epsilon [..., D]`, for flattened data.
        emission: `GreyLevels` or `Continuous`.

    Raises:
        ValueError: an event of no elements.
    """

    zero: Tensor

    def __init__(
        self, event_shape: tuple[int, ...], schedule: nn.Module, denoiser: nn.Module, emission: nn.Module
    ) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        self.dim = math.prod(event_shape)
        if self.dim < 1:
            raise ValueError(f"expected data of at least one element, got event shape {self.event_shape}")
        self.schedule, self.denoiser, self.emission = schedule, denoiser, emission
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    @property
    def ends(self) -> tuple[float, float]:
        """gamma_0 and gamma_1."""
        return float(self.schedule.gamma_0), float(self.schedule.gamma_1)  # type: ignore[arg-type]  # tensors

    def encode(self, x: Tensor) -> Tensor:
        """y(x), flat: `[..., *event_shape] -> [..., D]`."""
        flat = x if not self.event_shape else x.flatten(-len(self.event_shape))
        return self.emission.encode(flat)  # type: ignore[operator]  # a method

    def likelihood(self, scaled: Tensor) -> Any:
        """p(x | z_0) for `scaled` = z_0 / alpha_0, `[..., D]`; event shape that of one datum."""
        fn = self.emission(scaled.unflatten(-1, self.event_shape), self.ends[0])
        return fn.to_event(len(self.event_shape))

    def gammas(self, steps: int) -> Tensor:
        """-ln SNR at t = 0, 1/T, ..., 1; `[steps + 1]`."""
        return self.schedule(torch.arange(steps + 1, device=self.zero.device, dtype=self.zero.dtype) / steps)[
            0
        ]

    def prior_matching(self, y: Tensor) -> Tensor:
        r"""KL(q(z_1 | x) || N(0, I)), :math:`\frac12\sum[\alpha_1^2 y^2 + \sigma_1^2 - 1 - \ln \sigma_1^2]`, nats."""
        alpha2, var = _alpha2_var(self.ends[1])
        return 0.5 * (alpha2 * y.square() + (var - 1 - math.log(var))).sum(-1)

    def backward(self, z: Tensor, noise: Tensor, g_s: Tensor, g_t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and scale of z_s given z_t and the noise in it; the q of the guide has the true noise."""
        c = -torch.expm1(g_s - g_t)
        ratio = (torch.sigmoid(-g_s) / torch.sigmoid(-g_t)).sqrt()
        mean = ratio * (z - torch.sigmoid(g_t).sqrt() * c * noise)
        return mean, (torch.sigmoid(g_s) * c).sqrt()

    @torch.no_grad()
    def chain(self, num: int, steps: int, *, seed: int = 0) -> Iterator[Tensor]:
        """Ancestral draws z_1, ..., z_0: `steps + 1` tensors `[num, *event_shape]`.

        Raises:
            ValueError: num or steps < 1.
        """
        if num < 1 or steps < 1:
            raise ValueError(f"expected num and steps >= 1, got {num} and {steps}")
        gammas = self.gammas(steps)
        with seeded(seed, "ancestral", device=self.zero.device):
            z = torch.randn(num, self.dim, device=self.zero.device, dtype=self.zero.dtype)
            noises = [torch.randn_like(z) for _ in range(steps)]
        yield z.unflatten(-1, self.event_shape)
        for i in range(steps, 0, -1):
            g_s, g_t = gammas[i - 1], gammas[i]
            mean, scale = self.backward(z, self.denoiser(z, g_t.expand(num)), g_s, g_t)
            z = mean + scale * noises[i - 1]
            yield z.unflatten(-1, self.event_shape)

    @torch.no_grad()
    def noising(self, x: Tensor, steps: int, *, seed: int = 0) -> Iterator[Tensor]:
        r"""The way forward, z_0, ..., z_1 of data `[n, *event_shape]`: `steps + 1` tensors of that shape.

        :math:`q(z_t|z_s) = N(\frac{\alpha_t}{\alpha_s} z_s, \sigma_t^2 c)` with :math:`c = -\mathrm{expm1}(\gamma_s -
        \gamma_t)`: a Markov chain whose states have the law :math:`q(z_t|x)` at every t.

        Raises:
            ValueError: steps < 1.
        """
        if steps < 1:
            raise ValueError(f"expected steps >= 1, got {steps}")
        gammas = self.gammas(steps)
        y = self.encode(x).to(self.zero)
        with seeded(seed, "noising", device=self.zero.device):
            z = torch.sigmoid(-gammas[0]).sqrt() * y + torch.sigmoid(gammas[0]).sqrt() * torch.randn_like(y)
            noises = [torch.randn_like(y) for _ in range(steps)]
        yield z.unflatten(-1, self.event_shape)
        for i in range(steps):
            g_s, g_t = gammas[i], gammas[i + 1]
            ratio = (torch.sigmoid(-g_t) / torch.sigmoid(-g_s)).sqrt()
            z = ratio * z + (-torch.sigmoid(g_t) * torch.expm1(g_s - g_t)).sqrt() * noises[i]
            yield z.unflatten(-1, self.event_shape)

    @torch.no_grad()
    def sample(self, num: int, steps: int, *, seed: int = 0) -> Tensor:
        """Draws of x, `[num, *event_shape]`: ancestral, then from p(x | z_0) (a draw, not its mode)."""
        z = torch.zeros(())
        for z in self.chain(num, steps, seed=seed):  # noqa: B007 - the last is wanted
            pass
        alpha2, _ = _alpha2_var(self.ends[0])
        with seeded(seed, "emission", device=self.zero.device):
            return self.likelihood((z / math.sqrt(alpha2)).flatten(-len(self.event_shape))).sample()


def _alpha2_var(gamma: float) -> tuple[float, float]:
    """alpha^2 and sigma^2 of a number."""
    return 1 / (1 + math.exp(gamma)), 1 / (1 + math.exp(-gamma))


def bits_per_dim(nats: float, dim: int) -> float:
    """-ln p of a datum of `dim` elements, in nats, as bits for each of them."""
    if dim < 1:
        raise ValueError(f"expected dim >= 1, got {dim}")
    return nats / (dim * math.log(2))
