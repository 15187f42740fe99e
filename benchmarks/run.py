"""Speed and memory as ratios, measured interleaved in one process: `make bench`.

Absolute times on shared machines mean little; every row is a ratio to something timed in turn
with it, at the minimum and the median over repeats. `--json FILE` keeps the figures.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyro
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.importance import vectorized_importance_weights
from rich.console import Console
from rich.table import Table

import pyrovae as pv
from pyrovae.evidence.log_weights import iterate
from pyrovae.models.vae import VAE
from pyrovae.programs import inspect_program
from pyrovae.programs.compiled_weights import CompiledWeights
from pyrovae.programs.memory import LiveBytes

Runs = dict[str, Callable[[], None]]


def interleaved(runs: Runs, repeats: int, inner: int) -> dict[str, list[float]]:
    """Seconds per call of each, timed in turn `repeats` times, `inner` calls at a time."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        for _ in range(3):
            run()
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            for _ in range(inner):
                run()
            times[name].append((time.perf_counter() - start) / inner)
    return times


def make_vae(data_dim: int, encoder: tuple[int, ...], latent_dim: int) -> VAE:
    net = pv.networks.MLP(data_dim, encoder)
    decoder = pv.networks.MLP(latent_dim, encoder[::-1], data_dim)
    return VAE(
        pv.priors.StandardNormal(latent_dim),
        pv.likelihoods.Bernoulli(decoder),
        pv.guides.DiagonalGaussian(net, latent_dim),
    )


def pyro_step(vae: VAE, x: torch.Tensor, validation: bool) -> Callable[[], None]:
    store = pv.ParameterStore()
    svi = pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())

    def run() -> None:
        with store.active(), pyro.validation_enabled(validation):
            svi.step(x)

    return run


def our_step(vae: VAE, x: torch.Tensor, compile: bool) -> Callable[[], None]:
    store = pv.ParameterStore()
    adam = functools.partial(torch.optim.Adam, lr=1e-3)
    svi = pv.SVI(vae.model, vae.guide, adam, Trace_ELBO(), compile=compile)

    def run() -> None:
        with store.active(), pyro.validation_enabled(False):
            svi.step(x)

    run()
    run()
    assert svi.refused is None, svi.refused
    return run


def by_hand(vae: VAE, x: torch.Tensor, compile: bool) -> Callable[[], None]:
    """The same loss in plain PyTorch, eager or by torch.compile, and a fused Adam over all parameters."""
    encoder, head, decoder = vae.q.net, vae.q.head, vae.likelihood.net
    parameters = [*encoder.parameters(), *head.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)

    def loss(x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        loc, raw = head(encoder(x)).chunk(2, -1)
        scale = pv.networks.positive_scale(raw)
        logits = decoder(loc + scale * noise)
        kl = 0.5 * (loc**2 + scale**2 - 1 - 2 * scale.log()).sum()
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum") + kl

    function = torch.compile(loss, fullgraph=True) if compile else loss

    def run() -> None:
        value = function(x, torch.randn(len(x), vae.q.latent_dim))
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


def floor(sizes: tuple[int, tuple[int, ...], int], batch: int) -> Callable[[], None]:
    """The matrix products of the step and the fused Adam update, and nothing else."""
    data_dim, hidden, latent = sizes
    encoder = list(itertools.pairwise((data_dim, *hidden, 2 * latent)))
    decoder = list(itertools.pairwise((latent, *hidden[::-1], data_dim)))
    layers = [(torch.randn(batch, i), torch.randn(i, o), torch.randn(batch, o)) for i, o in encoder + decoder]
    weights = [w for _, w, _ in layers]
    for w in weights:
        w.grad = torch.randn_like(w)
    optimizer = torch.optim.Adam(weights, fused=True)

    def run() -> None:
        for i, (x, w, g) in enumerate(layers):
            x @ w
            x.T @ g
            if i > 0:  # nothing is differentiated by the data
                g @ w.T
        optimizer.step()

    return run


def bench_svi(repeats: int) -> list[dict[str, object]]:
    """The SVI step against Pyro's, against plain PyTorch and against the floor."""
    rows = []
    for name, sizes, batch in (
        ("784-400-50", (784, (400,), 50), 128),
        ("784-200-200-50", (784, (200, 200), 50), 128),
        ("64-64-8", (64, (64,), 8), 64),
    ):
        torch.manual_seed(0)
        x = (torch.rand(batch, sizes[0]) > 0.5).float()
        vaes = [make_vae(*sizes) for _ in range(6)]
        runs: Runs = {
            "pyro.infer.SVI, its defaults": pyro_step(vaes[0], x, True),
            "pyro.infer.SVI, validation off": pyro_step(vaes[1], x, False),
            "pv.SVI, eager": our_step(vaes[2], x, False),
            "PyTorch by hand, eager": by_hand(vaes[3], x, False),
            "PyTorch by hand, torch.compile": by_hand(vaes[4], x, True),
            "pv.SVI, compiled": our_step(vaes[5], x, True),
            "matrix products and Adam alone": floor(sizes, batch),
        }
        times = interleaved(runs, repeats, 20)
        rows += _rows(f"SVI step, {name}, batch {batch}", times, "pv.SVI, compiled", "ms", 1e3)
    return rows


def bench_importance(repeats: int) -> list[dict[str, object]]:
    """Log-weights against `vectorized_importance_weights` (one number for all data) in equal chunks."""
    torch.manual_seed(0)
    vae = make_vae(784, (200, 200), 50)
    data, samples = 20, 128
    x = (torch.rand(data * 4, 784) > 0.5).float()
    store = pv.ParameterStore()
    chunk = pv.Chunk(data, samples)
    program = inspect_program(store.bind(vae.model), store.bind(vae.guide), x)

    def ours() -> None:
        for _ in iterate(program, samples * 2, chunk=chunk):
            pass

    with torch.no_grad(), pyro.validation_enabled(False):
        graph = CompiledWeights(program, torch.arange(data), samples)

    def compiled() -> None:
        for rows in program.arguments.chunks(data):
            for _ in range(2):
                graph(rows)

    def pyros() -> None:
        with store.active(), torch.no_grad(), pyro.validation_enabled(False):
            for rows in x.split(data):
                for _ in range(2):
                    vectorized_importance_weights(
                        vae.model, vae.guide, rows, num_samples=samples, max_plate_nesting=1
                    )

    pairs = len(x) * samples * 2
    times = interleaved(
        {
            "vectorized_importance_weights": pyros,
            "pv.log_weights, eager": ours,
            "pv.log_weights, compiled": compiled,
        },
        repeats,
        1,
    )
    per_pair = {k: [t / pairs for t in v] for k, v in times.items()}
    return _rows(
        f"IS, decoder 50-200-200-784, chunk {data} x {samples}",
        per_pair,
        "pv.log_weights, eager",
        "µs/pair",
        1e6,
    )


def bench_memory() -> list[dict[str, object]]:
    """Peak of live tensor bytes of `iterate` beyond the block it yields, against K."""
    torch.manual_seed(0)
    vae = make_vae(784, (200, 200), 50)
    x = (torch.rand(20, 784) > 0.5).float()
    store = pv.ParameterStore()
    program = inspect_program(store.bind(vae.model), store.bind(vae.guide), x)
    chunk = pv.Chunk(20, 128)
    peaks = {}
    for k in (500, 5000, 50_000):
        with LiveBytes() as counter:
            for _ in iterate(program, k, chunk=chunk):
                pass
        peaks[k] = counter.peak - 20 * k * 4
    return [
        {
            "case": "memory of log_weights beyond its result",
            "what": f"K = {k:,}",
            "min": peak / 2**20,
            "median": peak / 2**20,
            "unit": "MiB",
            "ratio": peak / peaks[500],
        }
        for k, peak in peaks.items()
    ]


def _rows(
    case: str, times: dict[str, list[float]], base: str, unit: str, factor: float
) -> list[dict[str, object]]:
    return [
        {
            "case": case,
            "what": name,
            "min": min(t) * factor,
            "median": statistics.median(t) * factor,
            "unit": unit,
            "ratio": min(t) / min(times[base]),
        }
        for name, t in times.items()
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15, help="interleaved repeats of each (default: 15)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args(argv)
    if options.repeats < 1:
        parser.error(f"expected --repeats >= 1, got {options.repeats}")
    rows = bench_svi(options.repeats) + bench_importance(options.repeats) + bench_memory()
    table = Table(
        title=f"torch {torch.__version__}, pyro {pyro.__version__}, {torch.get_num_threads()} threads"
    )
    for column in ("case", "what", "min", "median", "unit", "ratio (min)"):
        table.add_column(column, justify="right" if column in ("min", "median", "ratio (min)") else "left")
    last = None
    for row in rows:
        case = row["case"] if row["case"] != last else ""
        last = row["case"]
        figures = (f"{row['min']:.3f}", f"{row['median']:.3f}", str(row["unit"]), f"{row['ratio']:.2f}")
        table.add_row(str(case), str(row["what"]), *figures)
    Console(width=120).print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
