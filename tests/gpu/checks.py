"""Checks on one device, each a function of (device, quick) that yields findings as it makes them.

A finding is (what, value, met): `met` is None for a figure that nothing is asked of. With `quick` the sizes are small:
a rehearsal on a CPU, whose figures mean nothing.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO

import pyrovae as pv
from pyrovae.evidence.weights.khat import fit_tails
from pyrovae.inference.options.building import build
from pyrovae.inference.options.options import ModelOptions
from pyrovae.models.linear_gaussian import LinearGaussian
from pyrovae.programs import inspect_program
from pyrovae.programs.compile.compiled_weights import CompiledWeights

Finding = tuple[str, Any, bool | None]
Check = Callable[[torch.device, bool], Iterator[Finding]]

FAMILIES: dict[str, dict[str, Any]] = {
    "iwae": {"preset": "iwae"},
    "conv": {"preset": "keras"},
    "vampprior": {"preset": "vampprior", "components": 100},
    "ladder": {"model": "hierarchical"},
    "diffusion": {"model": "diffusion", "hidden": (256,)},
}
TINY: dict[str, dict[str, Any]] = {
    "iwae": {"latent_dim": 2, "hidden": (8,)},
    "conv": {"latent_dim": 2, "hidden": (8,), "network": "conv", "channels": (4,)},
    "vampprior": {"latent_dim": 2, "hidden": (8,), "prior": "vamp", "components": 3},
    "ladder": {"model": "hierarchical", "widths": (4, 2), "level_width": 8},
    "diffusion": {"model": "diffusion", "hidden": (8,)},
}


def images(device: torch.device, quick: bool) -> Any:
    """Random bits: 64 dims in a rehearsal, else the size of MNIST's images."""
    dims, number = (64, 96) if quick else (784, 6400)
    x = (torch.rand(number, dims, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    data = pv.data.load({"train": x[: number // 2], "valid": x[-16:], "test": x[-32:]})
    name = "digits" if quick else "binarized-mnist"  # whose images are of this size
    data = dataclasses.replace(data, spec=dataclasses.replace(data.spec, name=name))
    return data.to(device)


def trainer_of(name: str, device: torch.device, quick: bool, compile: bool) -> pv.Trainer:
    data = images(device, quick)
    options = (TINY if quick else FAMILIES)[name]
    pair = build(ModelOptions(**options), data, 0)
    size = 16 if quick else 128
    return pv.Trainer(pair.model, pair.guide, data.train, batch_size=size, lr=1e-3, compile=compile, seed=1)


def training(device: torch.device, quick: bool) -> Iterator[Finding]:
    """Captured steps are the eager ones to rounding, and go on for some hundred steps."""
    for name in ("iwae",) if quick else FAMILIES:
        captured, eager = (trainer_of(name, device, quick, compile) for compile in (True, False))
        for trainer in (captured, eager):
            trainer.run_epoch()
        yield (
            f"{name}: compiled",
            captured.svi.refused or True,
            captured.compiled and captured.svi.refused is None,
        )
        static = captured.static
        why = None if static is None else static.refused
        yield f"{name}: one CUDA graph", why or True, static is not None and why is None
        few = min(10, len(eager.losses))
        off = max(abs(a / b - 1) for a, b in zip(captured.losses[:few], eager.losses[:few], strict=True))
        yield f"{name}: losses of {few} steps, captured against eager", off, off < 1e-3
        epochs = 1 if quick else 10
        first = sum(captured.losses) / len(captured.losses)
        for _ in range(epochs):
            captured.run_steps()
        steps = epochs * captured.batches_per_epoch
        last = sum(captured.losses) / len(captured.losses)
        yield (
            f"{name}: loss after {steps} steps, from {first:.1f}",
            last,
            math.isfinite(last) and (quick or last < first),
        )


def resuming(device: torch.device, quick: bool) -> Iterator[Finding]:
    """A state goes from the device to a CPU and back, eager and compiled, and the run goes on."""
    cpu = torch.device("cpu")
    for source, target in ((device, cpu), (cpu, device)):
        for compile in (True,) if quick else (False, True):
            one, other = (trainer_of("iwae", d, quick, c) for d, c in ((source, True), (target, compile)))
            one.run_epoch()
            state = one.state_dict()
            other.load_state_dict(state)
            same = all(
                torch.equal(a.cpu(), b.cpu())
                for a, b in zip(one.parameters(), other.parameters(), strict=True)
            )
            row = other.run_epoch()
            on = f"{source.type} to {target.type}, {'compiled' if compile else 'eager'}"
            before = sum(one.losses) / len(one.losses)
            yield f"{on}: loss after, from {before:.1f}", row["loss"], same and row["loss"] < before + 1


def evidence(device: torch.device, quick: bool) -> Iterator[Finding]:
    """Estimates lie at the exact evidence on both devices, and are those of a CPU under the same noise."""
    torch.manual_seed(0)
    dims, number, samples = (4, 6, 200) if quick else (20, 200, 2000)
    made = LinearGaussian.random(dims, 2)
    x = torch.randn(number, dims) * 1.5
    exact = made.log_evidence(x).detach()

    def guide(x: torch.Tensor) -> None:
        q = made.posterior(x)
        wide = dist.MultivariateNormal(q.loc, 1.5**2 * q.covariance_matrix)
        with pyro.plate("data", len(x)):
            pyro.sample("z", wide)

    ais = pv.AIS(3, num_chains=2, leapfrog=1) if quick else pv.AIS(20, num_chains=8)
    estimators = [pv.IS(samples), ais, pv.Exact()]
    for where in dict.fromkeys((torch.device("cpu"), device)):
        made.to(where)
        found = pv.evidence(made.model, guide, x.to(where), estimators=estimators, seed=2)
        for name, estimate in found.items():
            off = float((estimate.per_datum.cpu() - exact).mean())
            yield (
                f"{name} on {where.type}: mean off the exact one, nats",
                off,
                abs(off) < (0.5 if quick else 0.02),
            )
    relative, absolute = same_noise(device, quick)
    yield "log-weights under the same noise: largest difference, nats", absolute, None
    yield "the same, over |ln w|", relative, relative < 1e-5


def same_noise(device: torch.device, quick: bool) -> tuple[float, float]:
    """Largest difference of a compiled graph's log-weights from a CPU's, of the same draws: over |ln w|, in nats."""
    values: list[torch.Tensor] = []
    noise: list[torch.Tensor] = []
    for where in (torch.device("cpu"), device):
        data = images(where, quick)
        pair = build(ModelOptions(**(TINY if quick else FAMILIES)["iwae"]), data, 0)
        store = pv.ParameterStore()
        program = inspect_program(store.bind(pair.model), store.bind(pair.guide), data.test)
        rows = torch.arange(8, device=where)
        weights = CompiledWeights(program, rows, 16)
        if not noise:
            torch.manual_seed(3)
            pairs = zip(weights.graph.noise, weights.noise, strict=True)
            noise = [spec.draw(buffer).clone() for spec, buffer in pairs]
        found = weights(rows, [n.to(where) for n in noise])
        assert found is not None
        values.append(found.double().cpu())
    off = float((values[0] - values[1]).abs().max())
    return off / float(values[0].abs().max()), off


def tf32(device: torch.device, quick: bool) -> Iterator[Finding]:
    """Products on tensor cores give losses within a thousandth of float32's."""
    losses = []
    for on in (False, True):
        trainer = trainer_of("iwae", device, quick, True)
        if on:
            with pv.tf32():
                trainer.run_epoch()
        else:
            trainer.run_epoch()
        losses.append(trainer.losses[-1])
    off = abs(losses[1] / losses[0] - 1)
    yield "loss after an epoch, TF32 against float32", off, off < 1e-2


def memory(device: torch.device, quick: bool) -> Iterator[Finding]:
    """The evaluation takes no more memory for more samples, its result aside."""
    data = images(device, quick)
    pair = build(ModelOptions(**(TINY if quick else FAMILIES)["iwae"]), data, 0)
    peaks = []
    few = 100 if quick else 1000
    for number in (few, 10 * few):
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        pv.evidence(pair.model, pair.guide, data.test, estimators=[pv.IS(number)], compile=not quick)
        if device.type == "cuda":
            peaks.append(torch.cuda.max_memory_allocated(device) - 3 * 8 * number * len(data.test))
    if peaks:
        yield "peak bytes, K times ten over K", peaks[1] / peaks[0], peaks[1] / peaks[0] < 1.1


def evaluate(device: torch.device, quick: bool) -> Iterator[Finding]:
    """A test set's evidence with k-hat, as `pyrovae evaluate` computes it."""
    number, samples = (64, 100) if quick else (10_000, 5000)
    heavy = (
        -0.9
        * torch.rand(samples, number, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log()
    )
    on_cpu = fit_tails(heavy[:, :64]).khat
    off = float((fit_tails(heavy[:, :64].to(device)).khat.cpu() - on_cpu).abs().max())
    yield "k-hat on the device against a CPU's", off, off < 1e-8
    del heavy
    data = images(device, quick)
    x = data.train[torch.arange(number, device=device) % len(data.train)]
    pair = build(ModelOptions(**(TINY if quick else FAMILIES)["iwae"]), data, 0)
    pv.evidence(pair.model, pair.guide, x[:256], estimators=[pv.IS(10)])  # imports
    for compile in ("auto",) if quick else ("auto", True, True):
        start = time.perf_counter()
        pv.evidence(pair.model, pair.guide, x, estimators=[pv.IS(samples)], compile=compile)
        seconds = time.perf_counter() - start
        asked = compile == "auto" and not quick
        limit = " (<= 5)" if asked else ""
        what = f"evidence of {number:,} x {samples:,} with k-hat, compile={compile}, s{limit}"
        yield what, seconds, seconds <= 5 if asked else None


def out_of_memory(device: torch.device, quick: bool) -> Iterator[Finding]:
    """Training says what to lower; an evaluation goes on with half as many samples at once."""
    if device.type != "cuda":
        yield "memory of a CPU is not limited here", True, None
        return
    data = images(device, quick)
    pair = build(ModelOptions(**FAMILIES["iwae"]), data, 0)
    x = data.train.repeat(8, 1)
    small, large = pv.Chunk(100, 2500), pv.Chunk(100, 20_000)
    expected = pv.log_weights(pair.model, pair.guide, x[:100], num_samples=20_000, chunk=small)
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(device) + 1.2 * 2**30) / total)
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = pv.log_weights(pair.model, pair.guide, x[:100], num_samples=20_000, chunk=large)
        halved = [str(w.message) for w in said if "out of memory" in str(w.message)]
        chunk = halved[-1].split("chunk=")[-1] if halved else "never halved"
        same = "2500" in chunk and torch.equal(found, expected)
        yield (
            f"an evaluation without memory goes on: {len(halved)} times halved, its numbers",
            chunk,
            (bool(halved) and bool(found.isfinite().all()) and (same or "2500" not in chunk)),
        )
        try:
            wide = build(ModelOptions(latent_dim=8, hidden=(8000,)), data, 0)
            pv.fit(wide.model, wide.guide, x, batch_size=len(x), epochs=1, progress=False)
            yield "training without memory", "no error", False
        except torch.OutOfMemoryError as error:
            text = str(error)
            yield "training without memory says", text[:120], "batch_size" in text and "try a smaller" in text
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def commands(device: torch.device, quick: bool) -> Iterator[Finding]:
    """`pyrovae train` on the device, resumed on a CPU, evaluated on both: one run."""
    from pyrovae.inference.cli import main

    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "run")
        size = ["--hidden", "16", "--latent-dim", "2", "--epochs", "2"] if quick else ["--epochs", "20"]
        train = ["train", "--data", "digits", *size, "--quiet"]
        yield "train", main([*train, "--device", device.type, "--out", out]), None
        means = []
        for where in dict.fromkeys((device.type, "cpu")):
            evaluate = ["evaluate", out, "--estimators", "elbo", "is", "--num-samples", "100", "--quiet"]
            code = main([*evaluate, "--device", where])
            means.append(pv.load(out).stored_evidence["IS"].log_evidence)
            yield f"evaluated on {where}: ln p(x), nats", means[-1], code == 0
        yield "difference of the two, of other noise", means[0] - means[-1], abs(means[0] - means[-1]) < 0.5


def svi_step(device: torch.device, quick: bool) -> Iterator[Finding]:
    """`pv.SVI` from its first, eager step over its capture: losses as eager ones."""
    data = images(device, quick)
    losses = []
    for compile in (True, False):
        pair = build(ModelOptions(**(TINY if quick else FAMILIES)["iwae"]), data, 0)
        store = pv.ParameterStore()
        svi = pv.SVI(
            store.bind(pair.model), store.bind(pair.guide), torch.optim.Adam, Trace_ELBO(), compile=compile
        )
        losses.append([])
        for i in range(12):
            torch.manual_seed(i)
            losses[-1].append(float(svi.step(data.train[:16])))
        if compile:
            why = svi.refused or (None if svi._captured.graph is None else svi._captured.graph.refused)
            captured = device.type != "cuda" or (
                svi._captured.graph is not None and svi._captured.graph._graph is not None
            )
            yield "pv.SVI: one CUDA graph", why or True, why is None and captured
    off = max(abs(a / b - 1) for a, b in zip(*losses, strict=True))
    yield "pv.SVI: losses of 12 steps, captured against eager", off, off < 1e-3


CHECKS: dict[str, tuple[Check, float]] = {  # with the seconds it may take, beside the others
    "svi": (svi_step, 150),
    "training": (training, 170),
    "resuming": (resuming, 170),
    "evidence": (evidence, 150),
    "tf32": (tf32, 120),
    "memory": (memory, 120),
    "out_of_memory": (out_of_memory, 90),
    "commands": (commands, 150),
    "evaluate": (evaluate, 60),
}
