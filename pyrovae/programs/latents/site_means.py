"""Posterior means of each latent site, with the noise that draws of the latents before it leave in them."""

from __future__ import annotations

from torch import Tensor

from ..sites import Sites, sample_sites


def site_means(sites: Sites, plate: str, particle_dim: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Latent site to (E_q[z | x], variance of that estimate), each `[N, F]`, in the guide's order.

    The mean over K draws of the distribution's own mean; its variance is theirs over K, and 0 where the
    distribution depends on no other draw.
    """
    assert sites.traces is not None
    guide_trace, model_trace = sites.traces
    out = {}
    for name, site in sample_sites(guide_trace):
        if site["is_observed"] or name not in model_trace.nodes:
            continue
        datum = next(f.dim for f in site["cond_indep_stack"] if f.name == plate)
        fn, event = site["fn"], site["fn"].event_dim
        try:
            value = fn.mean.expand(fn.batch_shape + fn.event_shape)
        except (NotImplementedError, AttributeError):
            value = site["value"]
        if event - particle_dim > value.dim():
            mean, noise = value, 0 * value
        else:
            draws = value.shape[particle_dim - event]
            mean = value.mean(particle_dim - event, keepdim=True)
            noise = value.var(particle_dim - event, keepdim=True) / draws if draws > 1 else 0 * mean
        rows = (v.movedim(datum - event, 0) for v in (mean, noise))
        out[name] = tuple(
            v.reshape(len(v), -1) for v in rows
        )  # a program run draw by draw has no dim of particles
    return out
