"""Draws of all latents of a program, with what each weighs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..checks.support import check_support
from ..inspection import Program
from ..sites import sample_sites


@dataclass(frozen=True)
class LatentDraws:
    """Draws of the guide for n data.

    Attributes:
        values: latent site to `[K, n, *rest]`: inner plates, then the event. Without sites that are
            summed out, and without the guide's auxiliary ones.
        log_weights: `[K, n]`, nats.
        log_likelihood: observed site to ln p(x|z), `[K, n]`, nats; empty where sites are summed out.
    """

    values: dict[str, Tensor]
    log_weights: Tensor
    log_likelihood: dict[str, Tensor]


def latent_draws(program: Program, indices: Tensor, num_samples: int) -> LatentDraws:
    """Draws `num_samples` for each of the data at `indices`.

    Raises:
        ValueError: for a program that does not broadcast over samples; data outside of their likelihood's support.
    """
    if not program.vectorised:
        why = f" ({program.looped})" if program.looped else ""
        raise ValueError(
            f"expected a program that broadcasts over a particle plate, got one that does not{why}; try `...` indexing "
            "and negative dims in place of fixed shapes"
        )
    sites = program.run(indices, num_samples)
    assert sites.traces is not None
    guide_trace, model_trace = sites.traces
    check_support(model_trace)
    particle = -1 - program.max_plate_nesting
    values, left_out = {}, []
    for name, site in sample_sites(model_trace):
        own = guide_trace.nodes.get(name)
        if site["is_observed"]:
            continue
        if own is None or own["infer"].get("_enumerate_dim") is not None:
            left_out.append(name)
            continue
        event = own["fn"].event_dim
        datum = next(f.dim for f in site["cond_indep_stack"] if f.name == program.plate)
        value = own["value"]
        lead = event - particle
        if value.dim() > lead:
            left_out.append(name)  # one value a class: no draw of its own
            continue
        value = value.reshape((1,) * (lead - value.dim()) + tuple(value.shape))
        value = value.expand(num_samples, *value.shape[1:]).movedim((particle - event, datum - event), (0, 1))
        # Plates that the site is not in are dims of size 1.
        inner = [s for s in value.shape[2 : value.dim() - event] if s > 1]
        shape = (*value.shape[:2], *inner, *value.shape[value.dim() - event :])
        values[name] = value.reshape(shape)[:, : len(indices)]
    if left_out and not values:
        raise ValueError(
            f"expected a latent with draws of its own, got {left_out}, which are summed out or have one value for each "
            "value of what is; try a guide that draws them (without enumeration)"
        )
    return LatentDraws(values, sites.log_weights(), sites.likelihood)
