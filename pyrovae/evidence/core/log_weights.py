"""Importance log-weights of any Pyro program, per sample and per datum."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor

from ...checking import checked
from ...programs import (
    Program,
    check_kind,
    check_latents,
    check_support,
    drawn_outside,
    inspect_program,
    seeded,
)
from ...programs.compile.compiled_weights import CompiledWeights
from ...programs.compile.tracing import UntraceableError
from ...programs.memory import bytes_per_pair
from ...programs.sites import Sites
from ..weights.narrower_guides import warn_narrower
from .apart import Apart, check_apart
from .compile_when import PAIRS, Compile, compiles
from .execution import Execution

# Chunks whose live tensors fit the caches beat large ones on CPU by 15-65 %; a GPU wants
# enough rows to fill it.
BUDGET = {"cpu": 24 * 2**20, "cuda": 2 * 2**30}
SAMPLES_PER_CHUNK = 128


@dataclass(frozen=True)
class Chunk:
    """How many data and how many samples are run at once.

    Noise is seeded per chunk: results are equal for equal chunks, wherever and in whatever
    order they run.
    """

    data: int
    samples: int

    def __post_init__(self) -> None:
        if self.data < 1 or self.samples < 1:
            raise ValueError(f"expected a chunk of at least one datum and one sample, got {self}")


@checked
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
    progress: Callable[[int, int], None] | None = None,
    given: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """ln w_k(x_n) = ln p(x_n, z_nk) - ln q(z_nk | x_n), with z_nk ~ q(z | x_n).

    For any pair that keeps the contract: one plate over data (by name) with all latents inside.
    Unscaled: plate subsampling (`x[ind]` in a subsampled plate, or `subsample_size=len(x)` as a
    scale) and `poutine.scale` are divided out, masks are honoured, enumerated discrete sites
    are summed out, auxiliary guide sites count with the guide. E_q[w] = p(x), unless the guide's support is smaller
    than the prior's: then it is less, with a warning.

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
            million (datum, sample) pairs on. A program that is no graph runs eagerly, with a warning. A second call
            for the same graph finds its code.
        progress: called as `progress(done, total)` in (datum, sample) pairs.
        given: values of latents outside of the plate, which all data share, by name: the weights are then those of
            p(x | given), without the density of `given` itself. `pyro.condition(model, given)` does the same.

    Returns:
        `[K, N]` in nats, float64, on the data's device.

    Raises:
        ValueError: K < 1, a pair that breaks the contract, data outside the likelihood's
            support, a density that is not exact (a `pyro.factor` undeclared, `bound_only`), a latent
            whose mask or plates differ between model and guide, a plate within a datum that subsamples,
            context of which the program does not tell whether it is per datum, or log-weights that are NaN or +inf.
    """
    check_num_samples(num_samples)
    program = inspect_program(model, guide, x, *context, plate=plate, given=given)
    warn_narrower(program)
    blocks = iterate(
        program,
        num_samples,
        Execution(seed, budget, compile, progress),
        chunk=chunk,
    )
    out: Tensor | None = None
    for indices, block in blocks:
        if out is None:
            out = block.new_empty(num_samples, program.arguments.num_data)
        out[:, indices] = block
    assert out is not None
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
    pays = compiles(execution.compile, num_samples * args.num_data, PAIRS) and num_samples > chunk.samples
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
                block, done, chunk = None, before, _halved(chunk, error)
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


def _halved(chunk: Chunk, error: BaseException) -> Chunk:
    """Half the samples at once; the numbers are then those of its seeds.

    Raises:
        torch.OutOfMemoryError: where it is one sample already.
    """
    if chunk.samples == 1:
        raise torch.OutOfMemoryError(
            f"expected memory for {chunk.data} data with one sample each, got out of memory; try a smaller chunk "
            f"(pv.Chunk({max(1, chunk.data // 2)}, 128)), or a smaller budget ({' '.join(str(error).split())[:200]})"
        ) from error
    smaller = Chunk(chunk.data, chunk.samples // 2)
    warnings.warn(
        f"out of memory: from here on {smaller.samples} samples of {chunk.data} data are run at once, and their "
        f"numbers are those of chunk={smaller}",
        RuntimeWarning,
        stacklevel=3,
    )
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return smaller


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


def check_observations(program: Program, budget: int | None = None) -> None:
    """Refuses data that no latent could allow (grey values for bits), by one sample of each datum.

    For estimators that draw no weights: a declared ln p(x), say, has a value there too, which means nothing. Programs
    that do not broadcast are not asked: that would run all data at once.

    Raises:
        ValueError: naming the site and remedies.
    """
    if not program.vectorised:
        return
    for indices in program.arguments.chunks(choose_chunk(program, 1, budget).data):
        with program.quiet(0, "observations"):
            sites = program.run(indices, 1)
        if sites.traces is not None:
            check_kind(sites.traces[1])


def pairs_in(program: Program, budget: int | None = None) -> int:
    """How many (datum, sample) pairs run at once within the bytes of `budget`."""
    budget = budget or BUDGET.get(program.arguments.x.device.type, BUDGET["cpu"])
    if budget < 1:
        raise ValueError(f"expected a budget of at least one byte, got {budget}")
    return max(1, budget // bytes_per_pair(program)) if program.vectorised else 1


def _compiled(program: Program, chunk: Chunk) -> CompiledWeights | None:
    rows = program.arguments.chunks(chunk.data)[0]
    try:
        with pyro.validation_enabled(False):
            return CompiledWeights(program, rows, chunk.samples)
    except UntraceableError as error:
        warnings.warn(f"this program is not compiled and runs eagerly: {error}", stacklevel=3)
        return None


def choose_chunk(program: Program, num_samples: int, budget: int | None = None) -> Chunk:
    """A chunk whose live tensors fit the budget, from the bytes a (datum, sample) pair takes.

    Bytes are counted from tensor sizes, not from the process, so the choice (and with it the
    noise) is the same on every machine.
    """
    args = program.arguments
    budget = budget or BUDGET.get(args.x.device.type, BUDGET["cpu"])
    if budget < 1:
        raise ValueError(f"expected a budget of at least one byte, got {budget}")
    if not program.vectorised:
        return Chunk(args.num_data, 1 if num_samples == 1 else min(num_samples, SAMPLES_PER_CHUNK))
    pairs = max(1, budget // bytes_per_pair(program))
    if args.calling != "sliced":
        rows = args.subsample_size or args.num_data
        return Chunk(rows, max(1, min(num_samples, pairs // rows)))
    # Samples before data: the guide encodes each datum once per chunk, whatever its samples.
    samples = min(num_samples, SAMPLES_PER_CHUNK, pairs)
    return Chunk(max(1, min(args.num_data, pairs // samples)), samples)


def check_num_samples(num_samples: Any) -> None:
    """Raises ValueError unless `num_samples` is a whole number >= 1."""
    if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples < 1:
        raise ValueError(f"expected num_samples (K) to be a whole number >= 1, got {num_samples!r}")


def check_density(program: Program) -> None:
    """Refuses programs for which exp(log w) does not estimate p(x).

    Raises:
        ValueError: for a surrogate density, a factor that is not declared, or a model with random numbers that are no
            sites, or whose numbers for one sample depend on the others.
    """
    density = program.declaration.density
    if density == "bound_only":
        raise ValueError(
            "expected a program with a density, got one declared density='bound_only': its factors are "
            "surrogates whose expectation bounds ln p(x), and exp(log w) means nothing; use its bound (pv.ELBO)"
        )
    if program.guide_factors and density is None:
        names = list(program.guide_factors)
        raise ValueError(
            f"expected a guide whose density is that of its draws, got pyro.factor at {names} in the guide, which "
            f"would count in ln q; try poutine.block(guide, hide={names}) for a term of a loss, or "
            "@pyrovae.program(density='exact') on the model where it is a part of ln q"
        )
    if program.factors and density is None:
        raise ValueError(
            f"expected a model whose density is known, got pyro.factor at {list(program.factors)} undeclared; "
            "decorate it with @pyrovae.program(density='exact' | 'unnormalised' | 'bound_only')"
        )
    if "model" in program.random:
        raise ValueError(
            "expected a model whose density is a function of its sites' values, got one that changes from run to run: "
            "it draws random numbers outside of pyro.sample (as torch.randn does), and there is no one p(x); try "
            "pyro.sample for them, in model and guide"
        )
    check_apart(program)


def check_weights(block: Tensor, indices: Tensor, program: Program) -> None:
    """-inf is a weight of zero and allowed; NaN and +inf are no weights."""
    if bool((block < torch.inf).all()):  # false for NaN too
        return
    bad = torch.isnan(block) | (block == torch.inf)
    k, n = (int(i) for i in bad.nonzero()[0])
    outside = drawn_outside(program, indices)
    if outside:
        raise ValueError(
            f"expected a guide that draws within the support of the model's latents, got {'; '.join(outside)}: ln p is "
            f"no number there ({int(bad.sum())} of {bad.numel()} weights in this chunk); try a guide with the prior's "
            "support"
        )
    raise ValueError(
        f"expected finite log-weights (or -inf), got {block[k, n].item()} for datum {int(indices[n])} "
        f"({int(bad.sum())} of {bad.numel()} in this chunk); the model or guide returned no density there"
    )
