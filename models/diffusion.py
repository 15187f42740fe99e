"""Variational diffusion as Pyro programs: a chain whose evidence can be estimated, and the bound of any length."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyrovae.programs import program

from .diffusing.antithetic import AntitheticUniform
from .diffusing.diffusion_process import Process


class DiffusionChain(nn.Module):
    """p(z_T) prod p(z_s | z_t) p(x | z_0) in T steps, with the fixed guide q(z_T | x) prod q(z_s | z_t, x).

    A hierarchical VAE with T + 1 latent levels `z{T}` ... `z0` of the data's own size, whose guide has nothing to
    learn but the schedule. The guide is in posterior form, so it is valid under `TraceMeanField_ELBO`, where each KL
    has a closed form; IS and AIS apply. T evaluations of the denoiser a step: for moderate T.

    Args:
        process: schedule, denoiser and emission.
        steps: T.

    Raises:
        ValueError: steps < 1; on `sample`, more steps than T.

    Source:
        Variational Diffusion Models (Kingma et al., 2021), https://arxiv.org/abs/2107.00630
    """

    def __init__(self, process: Process, steps: int) -> None:
        super().__init__()
        _check_steps(steps)
        self.process, self.steps = process, steps

    @program(density="exact", plate="data", observed="x")
    def model(self, x: Tensor) -> None:
        """z_T ~ N(0, I), z_s ~ p(z_s | z_t), x ~ p(x | z_0)."""
        process = self.process
        pyro.module("diffusion", process)
        gammas = process.gammas(self.steps)
        with pyro.plate("data", len(x)):
            standard = process.zero.expand(process.dim)
            z = pyro.sample(f"z{self.steps}", dist.Normal(standard, 1.0).to_event(1))
            for i in range(self.steps, 0, -1):
                noise = process.denoiser(z, gammas[i].expand(z.shape[:-1]))
                mean, scale = process.backward(z, noise, gammas[i - 1], gammas[i])
                z = pyro.sample(f"z{i - 1}", dist.Normal(mean, scale).to_event(1))
            pyro.sample("x", process.likelihood(z / _alpha(process)), obs=x)

    def guide(self, x: Tensor) -> None:
        """z_T ~ q(z_T | x), z_s ~ q(z_s | z_t, x)."""
        process = self.process
        pyro.module("diffusion", process)
        gammas = process.gammas(self.steps)
        alphas, sigmas = torch.sigmoid(-gammas).sqrt(), torch.sigmoid(gammas).sqrt()
        y = process.encode(x)
        with pyro.plate("data", len(x)):
            z = pyro.sample(f"z{self.steps}", dist.Normal(alphas[-1] * y, sigmas[-1]).to_event(1))
            for i in range(self.steps, 0, -1):
                noise = (z - alphas[i] * y) / sigmas[i]
                mean, scale = process.backward(z, noise, gammas[i - 1], gammas[i])
                z = pyro.sample(f"z{i - 1}", dist.Normal(mean, scale).to_event(1))

    def sample(self, num: int, steps: int | None = None, *, seed: int = 0) -> Tensor:
        """Draws of x, `[num, *event]`, in `steps` steps (default: T).

        Raises:
            ValueError: more steps than T: the model was not made for times between its own.
        """
        if steps is not None and steps > self.steps:
            raise ValueError(
                f"expected at most the {self.steps} steps of this chain to sample in, got {steps}; try fewer, or train "
                "in continuous time (DiffusionBound)"
            )
        return self.process.sample(num, self.steps if steps is None else steps, seed=seed)


class DiffusionBound(nn.Module):
    r"""The same model in T steps or in continuous time, by its bound: one evaluation of the denoiser a datum.

    :math:`\ln p(x) \ge E[\ln p(x|z_0)] - KL(q(z_1|x)\|p) - L`, with times and noise as latents that model and guide
    share, :math:`L_\infty = \frac12 E[\gamma'_t\,\|\epsilon - \hat\epsilon\|^2]` and
    :math:`L_T = \frac T2 E[\mathrm{expm1}(\gamma_t - \gamma_s)\,\|\epsilon - \hat\epsilon\|^2]` by `pyro.factor`.
    Declared `bound_only`: its expectation bounds ln p(x), and exp(log w) means nothing, so IS, AIS and Rényi
    refuse it. The observed site `x` is the reconstruction, the factors `prior_matching` and `diffusion` the others.

    The gradient that the schedule gets is that of the VARIANCE of the estimate (of E[L^2], over E[L]): in
    continuous time the bound does not depend on it. Where `schedule` has nothing to learn this is void.

    Args:
        process: schedule, denoiser and emission.
        steps: T; None for continuous time.

    Raises:
        ValueError: steps < 1.

    Source:
        Variational Diffusion Models (Kingma et al., 2021), https://arxiv.org/abs/2107.00630
    """

    def __init__(self, process: Process, steps: int | None = None) -> None:
        super().__init__()
        if steps is not None:
            _check_steps(steps)
        self.process, self.steps = process, steps

    @program(density="bound_only", plate="data", observed="x")
    def model(self, x: Tensor) -> None:
        """The three terms at the times and noise of the guide."""
        process = self.process
        pyro.module("diffusion", process)
        y = process.encode(x)
        with pyro.plate("data", len(x)):
            u, first, noise = self._noise(y)
            sigma = math.exp(process.ends[0] / 2)  # sigma_0 / alpha_0
            pyro.sample("x", process.likelihood(y + sigma * first), obs=x)
            pyro.factor("prior_matching", -process.prior_matching(y))
            pyro.factor("diffusion", -self.diffusion_loss(y, u, noise))

    def guide(self, x: Tensor) -> None:
        """Times and noise, as in the model."""
        pyro.module("diffusion", self.process)
        with pyro.plate("data", len(x)):
            self._noise(self.process.encode(x))

    def _noise(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        standard = dist.Normal(torch.zeros_like(y), 1.0).to_event(1)
        u = pyro.sample("time", AntitheticUniform(y.shape[:-1], y))
        return u, pyro.sample("noise0", standard), pyro.sample("noise", standard)

    def diffusion_loss(self, y: Tensor, u: Tensor, noise: Tensor) -> Tensor:
        """L at times u `[...]` and noise `[..., D]` for y `[..., D]`, nats, `[...]`."""
        process, steps = self.process, self.steps
        if steps is None:
            gamma, weight = process.schedule(u)
        else:
            s = (u * steps).floor() / steps
            gamma = process.schedule(s + 1 / steps)[0]
            weight = steps * torch.expm1(gamma - process.schedule(s)[0])
        # The schedule gets the gradient of the loss squared; hooks wait for the loss that they multiply by.
        factor: list[Tensor] = []
        if gamma.requires_grad:
            for part in (gamma, weight):
                part.register_hook(lambda grad: grad * factor[0])
        alpha, sigma = torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma).sqrt()
        z = alpha.unsqueeze(-1) * y + sigma.unsqueeze(-1) * noise
        loss = 0.5 * weight * (noise - process.denoiser(z, gamma)).square().sum(-1)
        factor.append(2 * loss.detach() / loss.detach().mean().clamp(min=1e-12))
        return loss

    def sample(self, num: int, steps: int | None = None, *, seed: int = 0) -> Tensor:
        """Draws of x, `[num, *event]`, in any number of steps (with discrete T: at most T, the default).

        Raises:
            ValueError: more steps than a discrete T; no number of steps in continuous time.
        """
        if self.steps is not None:
            return DiffusionChain(self.process, self.steps).sample(num, steps, seed=seed)
        if steps is None:
            raise ValueError(
                "expected a number of steps for a diffusion in continuous time, got None; try steps=250"
            )
        return self.process.sample(num, steps, seed=seed)

    def chain(self, steps: int) -> DiffusionChain:
        """The same weights as a program of T steps, for evidence by IS."""
        return DiffusionChain(self.process, steps)


def _alpha(process: Process) -> float:
    return (1 + math.exp(process.ends[0])) ** -0.5


def _check_steps(steps: int) -> None:
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"expected a whole number of steps T >= 1, got {steps!r}")
