"""One step of a ladder VAE and of a diffusion: ours beside the same networks and loss written by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from settings import Settings
from steps import ADAM
from timing import Here, Row, Run, Timed, interleaved, rows
from torch import Tensor, nn

import pyrovae as pv
from pyrovae.data import Dataset
from pyrovae.models.composing.architectures import Perceptrons
from pyrovae.models.composing.diffusion import compose_process
from pyrovae.models.composing.levels import compose_hierarchical, residual
from pyrovae.models.diffusing.noise_schedules import FIRST, LAST, LinearSchedule
from pyrovae.models.diffusion import DiffusionBound
from pyrovae.models.hierarchical import HierarchicalVAE
from pyrovae.networks import positive_scale

BATCH = 128


def ours(pair: Any, x: Tensor, objective: Any, compile: bool) -> Run:
    """`pv.SVI`.

    Raises:
        RuntimeError: it does not compile, so that its time would be another row's.
    """
    store = pv.ParameterStore()
    svi = pv.SVI(pair.model, pair.guide, ADAM, objective, compile=compile)

    def run() -> None:
        with store.active():
            svi.step(x)

    run()
    run()
    if svi.refused is not None:
        raise RuntimeError(f"expected a program that compiles, got: {svi.refused}")
    return run


def by_hand(
    loss: Callable[..., Tensor],
    draws: Callable[[], list[Tensor]],
    parameters: Iterable[Tensor],
    compile: bool,
) -> Run:
    """`loss(*draws)` in plain PyTorch, eager or by torch.compile, and a fused Adam."""
    optimizer = torch.optim.Adam(list(parameters), lr=1e-3, fused=True)
    function = torch.compile(loss, fullgraph=True) if compile else loss

    def run() -> None:
        function(*draws()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


def ladder_by_hand(vae: HierarchicalVAE, x: Tensor, widths: tuple[int, ...], compile: bool) -> Run:
    """-ELBO of a ladder, the KL of each level in closed form."""
    guide: Any = vae.q
    path: Any = vae.path
    decoder: Any = vae.likelihood.net

    def gaussian(head: Any, features: Tensor) -> tuple[Tensor, Tensor]:
        loc, raw = head.head(features).chunk(2, -1)
        return loc, positive_scale(raw)

    def loss(x: Tensor, *noise: Tensor) -> Tensor:
        features, ups = x, []
        for encoder, head in zip(guide.encoders, guide.heads, strict=True):
            features = encoder(features)
            ups.append(gaussian(head, features))
        loc, scale = ups[-1]
        kl = 0.5 * (loc**2 + scale**2 - 1 - 2 * scale.log()).sum()
        z = loc + scale * noise[-1]
        for t in range(len(widths) - 2, -1, -1):
            part = path.conditionals[t]
            shift, raw = part.head(part.net(z)).chunk(2, -1)
            p_loc, p_scale = shift + part.skip(z), part.scale * positive_scale(raw)
            up, up_scale = ups[t]
            above, below = p_scale**2, up_scale**2
            q_loc = p_loc + above / (above + below) * (up - p_loc)
            q_scale = (above * below / (above + below)).sqrt()
            ratio = (q_scale / p_scale) ** 2
            kl = kl + 0.5 * (ratio + ((q_loc - p_loc) / p_scale) ** 2 - 1 - ratio.log()).sum()
            z = q_loc + q_scale * noise[t]
        return nn.functional.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum") + kl

    def draws() -> list[Tensor]:
        return [x, *(torch.randn(len(x), w, device=x.device) for w in widths)]

    return by_hand(loss, draws, vae.parameters(), compile)


def diffusion_by_hand(bound: DiffusionBound, x: Tensor, compile: bool) -> Run:
    """-bound in continuous time, of binary data and a fixed schedule."""
    process = bound.process
    first, slope = FIRST[2], LAST - FIRST[2]
    alpha2, var = 1 / (1 + math.exp(LAST)), 1 / (1 + math.exp(-LAST))
    sigma_0 = math.exp(first / 2)

    def loss(x: Tensor, u: Tensor, noise_0: Tensor, noise: Tensor) -> Tensor:
        y = 2 * x - 1
        scaled = y + sigma_0 * noise_0
        logits = 2 * math.exp(-first) * scaled
        reconstruction = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        matching = 0.5 * (alpha2 * y**2 + (var - 1 - math.log(var))).sum()
        times = torch.remainder(u + torch.arange(len(x), device=x.device) / len(x), 1.0)
        gamma = first + slope * times
        z = torch.sigmoid(-gamma).sqrt()[:, None] * y + torch.sigmoid(gamma).sqrt()[:, None] * noise
        return reconstruction + matching + 0.5 * slope * (noise - process.denoiser(z, gamma)).square().sum()

    def draws() -> list[Tensor]:
        return [x, torch.rand((), device=x.device), torch.randn_like(x), torch.randn_like(x)]

    return by_hand(loss, draws, process.parameters(), compile)


def bits(device: torch.device) -> Dataset:
    """Random binary images, as MNIST has them: speed does not depend on their values."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4 * BATCH, 784, generator=generator).round()
    return pv.data.load({"train": x, "test": x[:1]}).to(device)


def bench_ladder(levels: int, settings: Settings) -> list[Row]:
    """784-300-300, levels of 32, 24, 16, ... latents, networks of 200 between them."""
    torch._dynamo.reset()
    data, widths = bits(settings.device), tuple(max(4, 32 - 8 * t) for t in range(levels))
    x = data.train[:BATCH]

    def made() -> HierarchicalVAE:
        torch.manual_seed(0)
        nets = Perceptrons((300, 300), nn.LeakyReLU)
        return compose_hierarchical(data, nets, widths, between=residual(200)).to(settings.device)

    name = f"ladder, {levels} levels, batch {BATCH}"
    runs: dict[str, Timed] = {
        "pv.SVI, eager": Here(ours(made(), x, TraceMeanField_ELBO(), False), settings.device),
        "PyTorch by hand, eager": Here(ladder_by_hand(made(), x, widths, False), settings.device),
        "PyTorch by hand, torch.compile": Here(ladder_by_hand(made(), x, widths, True), settings.device),
        settings.ours: Here(ours(made(), x, TraceMeanField_ELBO(), True), settings.device),
    }
    return rows(name, runs, interleaved(runs, settings.repeats, settings.calls), settings.ours)


def bench_diffusion(settings: Settings) -> list[Row]:
    """Continuous time, binary 784 dims, the default perceptron as denoiser: one evaluation of it a datum."""
    torch._dynamo.reset()
    data = bits(settings.device)
    x = data.train[:BATCH]

    def made() -> DiffusionBound:
        torch.manual_seed(0)
        return DiffusionBound(compose_process(data, schedule=LinearSchedule(FIRST[2], LAST))).to(
            settings.device
        )

    runs: dict[str, Timed] = {
        "pv.SVI, eager": Here(ours(made(), x, Trace_ELBO(), False), settings.device),
        "PyTorch by hand, eager": Here(diffusion_by_hand(made(), x, False), settings.device),
        "PyTorch by hand, torch.compile": Here(diffusion_by_hand(made(), x, True), settings.device),
        settings.ours: Here(ours(made(), x, Trace_ELBO(), True), settings.device),
    }
    times = interleaved(runs, settings.repeats, settings.calls)
    return rows(f"diffusion in continuous time, batch {BATCH}", runs, times, settings.ours)


def bench_families(settings: Settings) -> list[Row]:
    """Ladders of two depths, so that a level's share shows, and a diffusion."""
    return [*bench_ladder(3, settings), *bench_ladder(6, settings), *bench_diffusion(settings)]
