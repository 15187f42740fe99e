"""Importance log-weights of any Pyro program, per sample and per datum."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import pyro
import torch
from torch import Tensor

from ...checking import checked
from ...programs import (
    Program,
    check_latents,
    check_support,
    inspect_program,
    seeded,
)
from ...programs.compile.compiled_weights import CompiledWeights
from ...programs.compile.tracing import UntraceableError
from ...programs.sites import Sites
from ...progress import Progress, listener, shows_progress
from ..weights.narrower_guides import warn_narrower
from ..weights.unreached import warn_unreached
from .apart import Apart
from .checks import check_density, check_num_samples, check_weights
from .chunks import Chunk, choose_chunk, halved
from .compile_when import Compile, compiles, pairs_that_pay
from .execution import Execution


@checked
@shows_progress("weights")
def log_weights(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    num_samples: int,
    seed: int = 0,
    plate: str | None = None,
    chunk: Chunk | None = None,
    budget: int | None = None,
    compile: Compile = "auto",
    progress: Progress = True,
    given: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """ln w_k(x_n) = ln p(x_n, z_nk) - ln q(z_nk | x_n), with z_nk ~ q(z | x_n).

    For any pair that keeps the contract: one plate over data (by name) with all latents inside.
    Unscaled: plate subsampling (`x[ind]` in a subsampled plate, or `subsample_size=len(x)` as a
    scale) and `poutine.scale` are divided out, masks are honoured, enumerated discrete sites
    are summed out, auxiliary guide sites count with the guide. E_q[w] = p(x), unless the guide's support is smaller
    than the prior's, or draws hardly ever meet values of discrete latents: then it is less, with a warning.

    Args:
        model: `model(x, *context)`.
        guide: `guide(x, *context)`.
        x: data, `[N, *event]`.
        *context: `pv.per_datum(tensor)` is taken row by row, `pv.shared(tensor)` whole. Of tensors of N rows without
            a mark (in tuples, lists and dicts too) the program's densities tell which they are; all else is whole.
        num_samples: K, exactly.
        seed: of the noise, which is drawn per chunk (independent between data).
        plate: name of the data plate; default: what the model declares, else `"data"`.
        chunk: data and samples run at once; default: measured, to fit `budget`.
        budget: bytes of live tensors per chunk; default 24 MiB on CPU, 2 GiB on CUDA.
        compile: run full chunks as one compiled graph, with the same noise (equal to rounding); "auto": from 10
            million (datum, sample) pairs on, on CUDA from 500 million. A program that is no graph runs eagerly, with
            a warning. A second call for the same graph finds its code.
        progress: a bar, or a function that is called with (done, total) in (datum, sample) pairs; as in `evidence`.
        given: values of latents outside of the plate, which all data share, by name: the weights are then those of
            p(x | given), without the density of `given` itself. `pyro.condition(model, given)` does the same.

    Returns:
        `[K, N]` in nats, float64, on the data's device.

    Raises:
        ValueError: K < 1, a pair that breaks the contract, data outside the likelihood's
            support, a density that is not exact (a `pyro.factor` undeclared, `bound_only`), a latent
            whose mask or plates differ between model and guide, a plate within a datum that subsamples,
            context of which the program does not tell whether it is per datum, or log-weights that are NaN or +inf.

    Example:
        >>> from pyrovae.models.ground_truths import linear_gaussian
        >>> pair = linear_gaussian(8, latent_dim=2)
        >>> log_weights(pair.model, pair.guide, pair.x, num_samples=100).shape
        torch.Size([100, 8])
    """
    program = inspect_program(model, guide, x, *context, plate=plate, given=given)
    warn_narrower(program)
    blocks = iterate(
        program,
        num_samples,
        Execution(seed, budget, compile, listener(progress)),
        chunk=chunk,
    )
    out: Tensor | None = None
    for indices, block in blocks:
        if out is None:
            out = block.new_empty(num_samples, program.arguments.num_data)
        out[:, indices] = block
    assert out is not None
    warn_unreached(program, out.logsumexp(0) - math.log(num_samples), num_samples, seed, budget)
    return out


def iterate(
    program: Program,
    num_samples: int,
    execution: Execution = Execution(),  # noqa: B008 - frozen
    *,
    chunk: Chunk | None = None,
    chunks: Iterable[int] | None = None,
    surrogate: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields `(indices [n], log-weights [K, n])`, one chunk of data at a time.

    Memory beyond the block yielded is that of one chunk, whatever K is. `chunks` are the numbers of
    the chunks wanted (default: all; an iterator is asked for the next one when it is its turn); each has
    the noise that it has among all. Where the device is out of memory, half as many samples are run at once from that
    chunk of data on, which is said; its numbers are those of the smaller chunk's seeds. With `surrogate` a
    program that only bounds ln p(x) is served too: of its log-weights the mean alone means something.
    """
    check_num_samples(num_samples)
    if not (surrogate and program.declaration.density == "bound_only"):
        check_density(program)
    args = program.arguments
    if not program.vectorised and num_samples > 1:
        warnings.warn(
            f"this program does not take {num_samples:,} samples at once ({program.looped or 'as asked'}): it is run "
            f"{num_samples:,} times, once a sample; try `...` indexing and negative dims in place of fixed shapes",
            stacklevel=3,
        )
    done = 0
    chunk = chunk or choose_chunk(program, num_samples, execution.budget)
    pays = num_samples > chunk.samples and compiles(
        execution.compile, num_samples * args.num_data, pairs_that_pay(args.x.device)
    )
    compiled = _compiled(program, chunk) if pays else None
    parts, apart = args.chunks(chunk.data), Apart(program)
    wanted: Iterable[int] = range(len(parts)) if chunks is None else chunks
    total = num_samples * args.num_data
    if isinstance(wanted, Collection):
        wanted = sorted(wanted)
        total = num_samples * sum(len(parts[i]) for i in wanted)
    for i in wanted:
        indices, before = parts[i], done
        block: Tensor | None = None
        while block is None:
            try:
                for start, weights in _parts(
                    program, indices, i, num_samples, execution.seed, chunk, compiled, apart
                ):
                    if block is None:
                        block = weights.new_empty(num_samples, len(indices))
                    block[start : start + len(weights)] = weights
                    done += len(weights) * len(indices)
                    execution.tell(done, total)
            except torch.OutOfMemoryError as error:
                block, done, chunk = None, before, halved(chunk, error)
                compiled = None if compiled is None else _compiled(program, chunk)
        check_weights(block, indices, program)
        yield indices, block


def _parts(
    program: Program,
    indices: Tensor,
    number: int,
    num_samples: int,
    seed: int,
    chunk: Chunk,
    compiled: CompiledWeights | None,
    apart: Apart,
) -> Iterator[tuple[int, Tensor]]:
    """First sample and log-weights `[k, n]` of each chunk of samples, for one chunk of data."""
    for j, start in enumerate(range(0, num_samples, chunk.samples)):
        k = min(chunk.samples, num_samples - start)
        # Nothing is held open across a yield: an abandoned generator would leave it on.
        # Shapes and supports are checked by us, once; Pyro would check at every site, every run.
        with program.quiet(seed, "weights", number, j):
            weights = None
            if compiled is not None and k == chunk.samples:
                if j == 0:  # no graph shows observed values
                    with seeded(seed, "look", number, device=program.arguments.x.device):
                        _check_sites(program.run(indices, 1), program)
                weights = compiled(indices)
            if weights is None:
                sites = apart.run(indices, k)
                weights = sites.log_weights()
                if j == 0:
                    _check_sites(sites, program)
                # Kept through the next run, the traces would push its tensors out of the
                # caches: a sixth of the time.
                del sites
        check_weights(weights, indices, program)
        yield start, weights


def _check_sites(sites: Sites, program: Program) -> None:
    """Observed values and latents, where there are traces of them."""
    if sites.traces is not None:
        check_support(sites.traces[1])
        check_latents(*sites.traces, program.plate)


def draw(
    program: Program, indices: Tensor, num_samples: int, seed: int, stream: str, *counters: int
) -> Tensor:
    """One chunk's log-weights `[K, n]` under its own seed, eagerly; `indices` may repeat data."""
    with program.quiet(seed, stream, *counters):
        sites = program.run(indices, num_samples)
        weights = sites.log_weights()
    if sites.traces is not None:
        check_support(sites.traces[1])
    check_weights(weights, indices, program)
    return weights


def _compiled(program: Program, chunk: Chunk) -> CompiledWeights | None:
    rows = program.arguments.chunks(chunk.data)[0]
    try:
        with pyro.validation_enabled(False):
            return CompiledWeights(program, rows, chunk.samples)
    except UntraceableError as error:
        warnings.warn(f"this program is not compiled and runs eagerly: {error}", stacklevel=3)
        return None
