"""AutoGuides with one joint law for the latents of all data: read as a law for each datum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.util import sum_rightmost
from pyro.infer.autoguide import AutoDiagonalNormal, AutoLowRankMultivariateNormal, AutoMultivariateNormal
from torch import Tensor
from torch.distributions import biject_to

from ..layers import around

JOINT = (AutoDiagonalNormal, AutoMultivariateNormal, AutoLowRankMultivariateNormal)


def per_datum_guide(guide: Callable[..., Any], auto: Any, plate: str) -> Callable[..., Any]:
    """q(z_n), the marginal law of each datum's latents under a joint Gaussian q(z_1, ..., z_N).

    Weights p(x_n, z_n) / q(z_n) need the law of one datum's latents. Those of a joint Gaussian are Gaussian, with the
    blocks of its mean and covariance; correlations between data have no part in the evidence of a model whose data are
    independent. Left as it is where a latent is outside of the data plate.

    Args:
        guide: the guide with its parameter store, if it has one.
        auto: the guide itself, set up.
        plate: the data plate.
    """
    stacks = list(auto._cond_indep_stacks.values())
    frames: list[Any] = [f for stack in stacks for f in stack if f.name == plate and f.vectorized]
    if len(frames) < len(stacks) or len({f.dim for f in frames}) > 1:
        return guide
    frame = frames[0]
    parts = list(_parts(auto, frame))
    index = torch.cat([places for *_, places in parts], -1)
    index = index.reshape(frame.size, *(1,) * (-1 - frame.dim), -1)  # at the plate's dim

    def run(*args: Any, **kwargs: Any) -> Any:
        plates = auto._create_plates(*args, **kwargs)
        with auto._pyro_context:  # as in a call of it: its parameters are pyro.params
            law = _marginal(auto.get_posterior(*args, **kwargs), index)
        name = f"_{auto._pyro_name}_latent"
        with plates[plate]:
            latent = pyro.sample(name, law, infer={"is_auxiliary": True})
        at = 0
        for site, rest, left, places in parts:
            u = latent[..., at : at + places.shape[-1]]
            at += places.shape[-1]
            _sample(site, _put(u, rest, left, frame.dim), plates)

    store = getattr(guide, "pyrovae_store", None)
    return around(guide, run if store is None else store.bind(run))


def _parts(auto: Any, frame: Any) -> Iterator[tuple[Any, tuple[int, ...], int, Tensor]]:
    """Yields each site, its shape without the data dim, the number of dims left of it, its places `[N, d]`."""
    at = 0
    for name, site in auto.prototype_trace.iter_stochastic_nodes():
        shape = tuple(auto._unconstrained_shapes[name])
        event = site["fn"].event_dim + len(shape) - site["value"].dim()
        axis = len(shape) - event + frame.dim
        size = torch.Size(shape).numel()
        places = torch.arange(at, at + size, device="cpu").reshape(shape).movedim(axis, 0)
        yield site, tuple(places.shape[1:]), axis, places.reshape(frame.size, -1)
        at += size


def _marginal(joint: Any, index: Tensor) -> Any:
    """The law of the places `[N, 1.., d]` of a Gaussian."""
    while isinstance(joint, dist.Independent | torch.distributions.Independent):
        joint = joint.base_dist
    index = index.to(joint.loc.device)
    if isinstance(joint, torch.distributions.Normal):
        return dist.Normal(joint.loc[index], joint.scale[index]).to_event(1)
    if isinstance(joint, torch.distributions.LowRankMultivariateNormal):
        return dist.LowRankMultivariateNormal(
            joint.loc[index], joint.cov_factor[index], joint.cov_diag[index]
        )
    rows = joint.scale_tril[index]
    return dist.MultivariateNormal(joint.loc[index], covariance_matrix=rows @ rows.mT)


def _put(u: Tensor, rest: tuple[int, ...], left: int, dim: int) -> Tensor:
    """`[*particles, N, 1.., d]` as a site's unconstrained value `[*particles, *batch, *event]`."""
    outer = u.shape[: u.dim() - 1 + dim]
    u = u.reshape(*outer, u.shape[u.dim() - 1 + dim], *rest)
    at = len(outer)
    if left == 0:
        return u
    # The site's own dims left of the data dim; those of particles stay outermost.
    return u.movedim(at, at + left)


def _sample(site: Any, u: Tensor, plates: Any) -> None:
    fn = site["fn"]
    transform = biject_to(fn.support)
    value = transform(u)
    jacobian = transform.inv.log_abs_det_jacobian(value, u)
    jacobian = sum_rightmost(jacobian, jacobian.dim() - value.dim() + fn.event_dim)
    with ExitStack() as stack:
        for frame in site["cond_indep_stack"]:
            stack.enter_context(plates[frame.name])
        pyro.sample(site["name"], dist.Delta(value, log_density=jacobian, event_dim=fn.event_dim))
