"""One SVI step: Pyro's, ours, plain PyTorch's, the peers' and the floor; and an epoch of such steps."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import pyro
import torch
from floor import training_floor
from nets import Net
from peers import peer
from pyro.infer import JitTrace_ELBO, Trace_ELBO
from settings import Settings
from timing import Here, Row, Run, Timed, interleaved, rows
from torch import Tensor

import pyrovae as pv
from pyrovae.devices import noise_state
from pyrovae.models.vae import VAE

WATCH = "of it, the watch"
LAZY = "pv.SVI, one CUDA graph, losses read later"
ADAM = functools.partial(torch.optim.Adam, lr=1e-3)


def pyro_step(vae: VAE, x: Tensor, validation: bool = False, loss: Any = None) -> Run:
    """`pyro.infer.SVI` with one of Pyro's losses (default: Trace_ELBO)."""
    store = pv.ParameterStore()
    svi = pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), loss or Trace_ELBO())

    def run() -> None:
        with store.active(), pyro.validation_enabled(validation), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit.trace is deprecated, Pyro's only compiler
            svi.step(x)

    return run


def our_step(vae: VAE, x: Tensor, compile: bool) -> Run:
    """`pv.SVI`; see `our_steps`."""
    return our_steps(vae, x, compile)[0]


def our_steps(vae: VAE, x: Tensor, compile: bool, lazy: bool = False) -> tuple[Run, Run]:
    """A step of `pv.SVI`, and what of a compiled one is spent on seeing that the program is still the same.

    To the second belong the looks at each step; every 1,000th step is compared with an eager one besides, which
    is a thousandth of an eager and a compiled step.

    Raises:
        RuntimeError: it does not compile, so that its time would be another row's.
    """
    store = pv.ParameterStore()
    svi = pv.SVI(vae.model, vae.guide, ADAM, Trace_ELBO(), compile=compile, lazy=lazy)

    def run() -> None:
        with store.active(), pyro.validation_enabled(False):
            svi.step(x)

    run()
    run()
    if svi.refused is not None:
        raise RuntimeError(f"expected a program that compiles, got: {svi.refused}")
    # Comparisons with eager steps, at steps 1, 2, 4, ..., 512, take as long as a hundred replays each.
    if x.is_cuda:
        while compile and svi.compiled_steps <= 512:
            run()
    compiled = svi.compiled_objective

    def watch() -> None:
        assert compiled is not None
        with store.active():
            if not compiled.inputs.fits((x,), {}) or compiled.changed() is not None:
                raise RuntimeError("expected a program that stays as it is")
            noise_state(x.device)

    return run, watch


def by_hand(vae: VAE, x: Tensor, compile: bool) -> Run:
    """The same loss in plain PyTorch, eager or by torch.compile, and a fused Adam over all parameters."""
    decoder: Any = vae.likelihood.net
    parameters = [*vae.q.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)
    guide: Any = vae.q

    def loss(x: Tensor, noise: Tensor) -> Tensor:
        loc, raw = guide.head(guide.net(x)).chunk(2, -1)
        scale = pv.networks.positive_scale(raw)
        logits = decoder(loc + scale * noise)
        kl = 0.5 * (loc**2 + scale**2 - 1 - 2 * scale.log()).sum()
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum") + kl

    function = torch.compile(loss, fullgraph=True) if compile else loss

    def run() -> None:
        function(x, torch.randn(len(x), guide.latent_dim, device=x.device)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


def floor(net: Net, device: torch.device) -> Run:
    """The step's products and the fused Adam update, and nothing else."""
    vae = net.vae(device)
    guide: Any = vae.q
    encoder = torch.nn.Sequential(guide.net, guide.head)
    z = torch.randn(net.batch, net.latent_dim, device=device)
    decoder: Any = vae.likelihood.net
    return training_floor(encoder, decoder, net.data(device), z)


def bench_step(net: Net, settings: Settings) -> list[Row]:
    """All rows for one network."""
    # Closures made by one function share its code object, and with it Dynamo's limit of recompilations.
    torch._dynamo.reset()
    device = settings.device
    x = net.data(device)
    here: dict[str, Run] = {
        "pyro.infer.SVI, its defaults": pyro_step(net.vae(device), x, True),
        "pyro.infer.SVI, validation off": pyro_step(net.vae(device), x),
        "pyro.infer.SVI, JitTrace_ELBO": pyro_step(
            net.vae(device), x, loss=JitTrace_ELBO(ignore_jit_warnings=True)
        ),
        "pv.SVI, eager": our_step(net.vae(device), x, False),
        "PyTorch by hand, eager": by_hand(net.vae(device), x, False),
        "PyTorch by hand, torch.compile": by_hand(net.vae(device), x, True),
    }
    runs: dict[str, Timed] = {name: Here(run, device) for name, run in here.items()}
    with peer("numpyro_step", net, settings) as numpyro, peer("pythae_step", net, settings) as pythae:
        runs["NumPyro, jitted"] = numpyro
        runs["Pythae, its trainer's step"] = pythae
        step, watch = our_steps(net.vae(device), x, True)
        runs[settings.ours] = Here(step, device)
        runs[WATCH] = Here(watch)
        if device.type == "cuda":
            runs[LAZY] = Here(our_steps(net.vae(device), x, True, lazy=True)[0], device)
        runs["products and Adam alone"] = Here(floor(net, device), device)
        # A convolutional step takes some thirty times as long as the others.
        calls = settings.calls if net.hidden else max(1, settings.calls // 10)
        times = interleaved(runs, settings.repeats, calls)
        return rows(f"SVI step, {net.name}", runs, times, settings.ours)


def epoch_step(vae: VAE, x: Tensor, batch: int) -> Run:
    """One epoch of ours over x `[N, data_dim]` on its device: as `pv.fit` runs it, without the metrics.

    Raises:
        RuntimeError: it does not compile, or is not captured in a CUDA graph on CUDA.
    """
    trainer = pv.Trainer(vae.model, vae.guide, x, batch_size=batch, lr=1e-3, compile=True)

    def run() -> None:
        trainer.run_steps()

    run()
    static = trainer.static
    if static is None or static.refused is not None:
        why = trainer.svi.refused if static is None else static.refused
        raise RuntimeError(f"expected an epoch on fixed tensors, got: {why}")
    return run


def pyro_epoch(vae: VAE, x: Tensor, batch: int) -> Run:
    """One epoch of Pyro's eager steps over data on the device."""
    store = pv.ParameterStore()
    svi = pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    steps = len(x) // batch

    def run() -> None:
        order = torch.randperm(len(x), device=x.device)[: steps * batch].view(steps, batch)
        with store.active(), pyro.validation_enabled(False):
            for indices in order:
                svi.step(x[indices])

    return run


def bench_epoch(net: Net, settings: Settings, size: int = 60_000) -> list[Row]:
    """One epoch of MNIST-like data: Pyro's eager loop, NumPyro's scan, ours."""
    device = settings.device
    x = net.data(device, size)
    ours = "pv, one epoch"
    runs: dict[str, Timed] = {
        "pyro.infer.SVI, validation off": Here(pyro_epoch(net.vae(device), x, net.batch), device)
    }
    with peer("numpyro_step", net, settings, epoch=size) as numpyro:
        runs["NumPyro, lax.scan over the epoch"] = numpyro
        runs[ours] = Here(epoch_step(net.vae(device), x, net.batch), device)
        times = interleaved(runs, min(settings.repeats, 5), 1, warm_up=1)
        return rows(f"one epoch, {size:,} x {net.name}", runs, times, ours)
