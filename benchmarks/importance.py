"""Log-weights for importance sampling, per (datum, sample) pair: Pyro's, ours, Pythae's and the floor."""

from __future__ import annotations

import math
from typing import Any

import pyro
import torch
from floor import decoding_floor
from nets import Net
from peers import peer
from pyro.infer.importance import vectorized_importance_weights
from settings import Settings
from timing import Here, Row, Run, Timed, interleaved, rows
from torch import Tensor

import pyrovae as pv
from pyrovae.evidence.core.chunks import choose_chunk
from pyrovae.evidence.core.log_weights import iterate
from pyrovae.models.vae import VAE
from pyrovae.programs import Program, inspect_program
from pyrovae.programs.compile.compiled_weights import CompiledWeights

EAGER, COMPILED = "pv.log_weights, eager", "pv.log_weights, compiled"
VAMP_EAGER, VAMP_COMPILED = "VampPrior, 500 components, eager", "VampPrior, 500 components, compiled"
FLOOR = "decoder's products alone"
PYTHAE = "Pythae, get_nll"


def program_of(vae: VAE, x: Tensor) -> Program:
    store = pv.ParameterStore()
    return inspect_program(store.bind(vae.model), store.bind(vae.guide), x)


def eager(program: Program, chunk: pv.Chunk, num_samples: int) -> Run:
    def run() -> None:
        for _ in iterate(program, num_samples, chunk=chunk):
            pass

    return run


def compiled(program: Program, chunk: pv.Chunk, num_samples: int) -> Run:
    """The graphs that `pv.log_weights(..., compile=True)` makes for its chunks, compiled beforehand.

    The last chunk of data may be a smaller one, and has its own.
    """
    chunks = program.arguments.chunks(chunk.data)
    with torch.no_grad(), pyro.validation_enabled(False):
        sizes = {len(c): c for c in reversed(chunks)}
        graphs = {n: CompiledWeights(program, c, chunk.samples) for n, c in sizes.items()}

    def run() -> None:
        for indices in chunks:
            total: Tensor | None = None
            for _ in range(num_samples // chunk.samples):
                weights = graphs[len(indices)](indices)
                assert weights is not None
                part = weights.logsumexp(0)
                total = part if total is None else torch.logaddexp(total, part)

    return run


def pyros(vae: VAE, x: Tensor, chunk: pv.Chunk, num_samples: int) -> Run:
    """Pyro's own weights (one number for all data of a chunk), in the same chunks."""
    store = pv.ParameterStore()

    def run() -> None:
        with store.active(), torch.no_grad(), pyro.validation_enabled(False):
            for part in x.split(chunk.data):
                for _ in range(num_samples // chunk.samples):
                    vectorized_importance_weights(
                        vae.model, vae.guide, part, num_samples=chunk.samples, max_plate_nesting=1
                    )

    return run


def floor(vae: VAE, chunk: pv.Chunk, chunks: int) -> Run:
    """The decoder's matrix products for as many pairs."""
    decoder: Any = vae.likelihood.net
    device = next(decoder.parameters()).device
    one = decoding_floor(decoder, torch.randn(chunk.samples * chunk.data, vae.q.latent_dim, device=device))

    def run() -> None:
        for _ in range(chunks):
            one()

    return run


def bench_importance(
    net: Net, settings: Settings, chunk: pv.Chunk | None = None, components: int = 500, nll: int = 1000
) -> list[Row]:
    """All rows for a network, in equal chunks; `nll` samples for each of Pythae's images."""
    device = settings.device
    chunk = chunk or (pv.Chunk(20, 128) if device.type == "cpu" else pv.Chunk(1000, 128))
    num_samples, data = chunk.samples * 2, chunk.data * 4
    x = net.data(device, data)
    vae, vamp = net.vae(device), net.vae(device, net.data(device, components))
    program, vamp_program = program_of(vae, x), program_of(vamp, x)
    runs: dict[str, Timed] = {
        "vectorized_importance_weights": Here(pyros(vae, x, chunk, num_samples), device),
        EAGER: Here(eager(program, chunk, num_samples), device),
        COMPILED: Here(compiled(program, chunk, num_samples), device),
        VAMP_EAGER: Here(eager(vamp_program, chunk, num_samples), device),
        VAMP_COMPILED: Here(compiled(vamp_program, chunk, num_samples), device),
        FLOOR: Here(floor(vae, chunk, 4 * 2), device),
    }
    pairs = data * num_samples
    images = 2
    with peer("pythae_nll", net, settings, images=images, samples=nll) as pythae:
        runs[PYTHAE] = pythae
        times = interleaved(runs, settings.repeats, 1, warm_up=1)
        per_pair = {
            name: [t / (images * nll if name == PYTHAE else pairs) for t in taken]
            for name, taken in times.items()
        }
        case = f"IS, decoder {net.name.split(',')[0]}, chunk {chunk.data} x {chunk.samples}"
        return rows(case, runs, per_pair, COMPILED, "µs/pair", 1e6)


def bench_test_set(net: Net, settings: Settings, size: int = 10_000, num_samples: int = 5000) -> list[Row]:
    """A whole test set's evidence with the chunk that the library chooses; seconds for all of it.

    The first row is what a user waits for. In the second the graph is there already; whole chunks
    of samples alone are counted, so it is scaled to `num_samples`.
    """
    device = settings.device
    x = net.data(device, size)
    vae = net.vae(device)
    program = program_of(vae, x)
    chunk = choose_chunk(program, num_samples)

    def call() -> None:
        pv.log_weights(
            program.model, program.guide, x, num_samples=num_samples, chunk=chunk, compile=True
        ).logsumexp(0).sub_(math.log(num_samples)).mean().item()

    whole, graph = "pv.log_weights(compile=True), compiling included", "the graph alone, compiled before"
    runs: dict[str, Timed] = {
        whole: Here(call, device),
        graph: Here(compiled(program, chunk, num_samples), device),
        FLOOR: Here(floor(vae, chunk, 1), device),
    }
    times = interleaved(runs, min(settings.repeats, 3), 1, warm_up=1)
    done = num_samples // chunk.samples * chunk.samples / num_samples
    share = {whole: 1.0, graph: done, FLOOR: chunk.data * chunk.samples / (size * num_samples)}
    scaled = {name: [t / share[name] for t in taken] for name, taken in times.items()}
    return rows(f"IS, {size:,} images x {num_samples:,} samples", runs, scaled, graph, "s", 1.0)
