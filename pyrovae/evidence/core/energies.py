"""ln p(x, z) and ln q(z|x) at draws of the guide, kept apart: what a temperature acts on is the first alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...programs import Program, Sites, check_support, drawn_outside, seeded
from .checks import check_density, check_num_samples
from .chunks import Chunk, choose_chunk
from .execution import Execution


@dataclass(frozen=True)
class EnergyDraws:
    """Energies of K draws z ~ q(z|x) for n data, `[K, n]`, float64, nats.

    Attributes:
        indices: the data, `[n]`.
        log_joint: ln p(x, z), minus the energy.
        log_guide: ln q(z | x).
    """

    indices: Tensor
    log_joint: Tensor
    log_guide: Tensor


def drawn_discretes(program: Program) -> Program:
    """The program with its enumerated sites drawn by the guide: an energy is of ALL latents.

    Raises:
        ValueError: where the guide has no such site, so that nothing draws it.
    """
    if not program.enumerated:
        return program
    plain = replace(program, enumerated=False)
    with program.quiet(0, "energies"):
        sites = plain.run(program.arguments.chunks(1)[0], 1)
    missing = [n for n in sites.prior if n not in sites.guide]
    if missing:
        raise ValueError(
            f"expected a guide that draws every latent, got {missing} summed out in the model: an energy "
            "E(z) = -ln p(x, z) is of all latents, and a power of a sum is no sum of powers; "
            "try to sample them in the guide"
        )
    return plain


def energies(
    program: Program,
    num_samples: int,
    execution: Execution = Execution(),  # noqa: B008 - frozen
    *,
    chunk: Chunk | None = None,
) -> Iterator[EnergyDraws]:
    """One chunk of data at a time; the noise is that of `log_weights` with the same seed and chunk.

    Raises:
        ValueError: as `log_weights`; see also `drawn_discretes`.
    """
    check_num_samples(num_samples)
    check_density(program)
    program = drawn_discretes(program)
    args = program.arguments
    chunk = chunk or choose_chunk(program, num_samples, execution.budget)
    done = 0
    for i, indices in enumerate(args.chunks(chunk.data)):
        blocks: list[tuple[Tensor, Tensor]] = []
        with program.quiet():
            for j, start in enumerate(range(0, num_samples, chunk.samples)):
                k = min(chunk.samples, num_samples - start)
                with seeded(execution.seed, "weights", i, j, device=args.x.device):
                    sites = program.run(indices, k)
                if j == 0 and sites.traces is not None:
                    check_support(sites.traces[1])
                blocks.append(_split(sites))
                del sites  # its tensors would crowd the caches of the next run
                done += k * len(indices)
                execution.tell(done, num_samples * args.num_data)
        log_joint, log_guide = (torch.cat(parts) for parts in zip(*blocks, strict=True))
        _check(log_joint, log_guide, indices, program)
        yield EnergyDraws(indices, log_joint, log_guide)


def _split(sites: Sites) -> tuple[Tensor, Tensor]:
    model = [*sites.prior.values(), *sites.likelihood.values()]
    return torch.stack(model).double().sum(0), torch.stack([*sites.guide.values()]).double().sum(0)


def _check(log_joint: Tensor, log_guide: Tensor, indices: Tensor, program: Program) -> None:
    bad = ~(log_joint < torch.inf) | ~torch.isfinite(log_guide)
    if not bool(bad.any()):
        return
    outside = drawn_outside(program, indices)
    why = (
        f": the guide draws outside of the support of the model's latents, {'; '.join(outside)}"
        if outside
        else ""
    )
    k, n = (int(i) for i in bad.nonzero()[0])
    raise ValueError(
        f"expected finite ln q and ln p(x, z) < inf, got {log_guide[k, n].item()} and {log_joint[k, n].item()} "
        f"for datum {int(indices[n])}{why}"
    )
