"""Whether discrete latents can be summed out one by one: what depends on one is in its plates, element by element."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from pyro import plate, poutine
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.runtime import InferDict
from torch import Tensor

from ..checks.support import in_support
from ..handlers.substitute import Substitute
from ..inspection import PARTICLES, Program
from ..latents.unequal_totals import UnequalTotals, up_to_the_largest
from ..sites import sample_sites, unscaled_log_prob

DRAWS, ROWS = 8, 2  # few, of values that any element of a plate may have
TOLERANCE = {torch.float64: 1e-6}  # relative; of sums in float32 a thousandth


def refuse_mixed_elements(program: Program, names: Collection[str]) -> None:
    """Refuses a model whose enumerated run has another density than its run at the same values.

    Where values of a site in a plate are listed, they have size 1 in that plate: `z.sum(-1)` over it is one element,
    and what is computed of it is the density of no value of z. Pyro's contract (what depends on an enumerated site
    is in its plates) is broken then, without an error. The sites' densities are compared at values that are drawn for
    each element on its own.

    Args:
        program: whose model draws these sites.
        names: of the discrete latents that are summed out.

    Raises:
        ValueError: naming the site that mixes elements; a model that does not run so.
    """
    if not names:
        return
    rows = program.arguments.chunks(ROWS)[0]
    with program.quiet(0, "apart"), program.on(rows) as given:
        model = plate(PARTICLES, DRAWS, dim=-1 - program.max_plate_nesting)(program.model)
        values = _values(poutine.trace(model).get_trace(*given), names)
        alone = poutine.trace(Substitute(values)(model)).get_trace(*given)
        listed = poutine.infer_config(model, lambda site: _listed(site, names))
        others = Substitute({n: v for n, v in values.items() if n not in names})
        try:
            with others:
                enumerated = EnumMessenger(-2 - program.max_plate_nesting)(UnequalTotals()(listed))
                trace = poutine.trace(enumerated).get_trace(*given)
        except Exception as error:
            words = str(error).strip().splitlines()[0]
            raise ValueError(_refused(names, f"{type(error).__name__}: {words}")) from error
        for site in _other_densities(trace, alone, values, names, program.max_plate_nesting + 1):
            raise ValueError(_refused(names, f"another density at {site!r} where they are"))


def _refused(names: Collection[str], got: str) -> str:
    return (
        f"expected a model that runs with the values of {sorted(names)} listed, of size 1 in its plates, as summing "
        f"out one element after the other needs, got {got} (a sum, a product or an index along an inner plate?); try "
        "pv.IS and a guide that draws them (command line: is), or the law of what is made of them all"
    )


def _listed(site: Any, names: Collection[str]) -> InferDict:
    return {"enumerate": "parallel"} if site["name"] in names else {}


def _values(trace: Any, names: Collection[str]) -> dict[str, Tensor]:
    """Of each latent: the draw, and of discrete ones any value for each element."""
    values = {}
    for name, site in sample_sites(trace):
        if site["is_observed"]:
            continue
        values[name] = site["value"]
        if name in names:
            law = site["fn"]
            support = up_to_the_largest(law).enumerate_support(expand=False).reshape(-1, *law.event_shape)
            other = support[torch.randint(len(support), law.batch_shape, device=support.device)]
            # Of totals that differ, the largest counts are none of a smaller total.
            inside = in_support(law, other).reshape(*law.batch_shape, *(1,) * law.event_dim)
            values[name] = torch.where(inside, other.to(site["value"].dtype), site["value"])
    return values


def _other_densities(
    trace: Any, alone: Any, values: dict[str, Tensor], names: Collection[str], depth: int
) -> list[str]:
    """Sites whose density in the enumerated run, read where the values are, is not that of the run at them."""
    trace.symbolize_dims()
    places = {}  # of each symbol: number of the value, in the plates' dims
    for name in names:
        site = trace.nodes[name]
        own = site["infer"]["_enumerate_dim"]
        same = site["value"] == values[name]
        for _ in range(site["fn"].event_dim):
            same = same.all(-1)
        found = same.int().argmax(own, keepdim=True)
        places[site["infer"]["_dim_to_symbol"][own]] = found.reshape(found.shape[-depth:])
    wrong = []
    for name, site in sample_sites(trace):
        read = unscaled_log_prob(site, masked=site["is_observed"])
        for dim in range(-read.dim(), -depth):
            if read.shape[dim] > 1:
                read = _at(read, dim, places[site["infer"]["_dim_to_symbol"][dim]], depth)
        right = unscaled_log_prob(alone.nodes[name], masked=site["is_observed"])
        read, right = torch.broadcast_tensors(read.reshape(read.shape[-depth:]).double(), right.double())
        tolerance = TOLERANCE.get(site["value"].dtype, 1e-3)
        if not torch.allclose(read, right, rtol=tolerance, atol=tolerance, equal_nan=True):
            wrong.append(name)
    return wrong


def _at(terms: Tensor, dim: int, place: Tensor, depth: int) -> Tensor:
    """Terms at one place of an enumerated dim, which is another for each element of the plates."""
    lead = terms.dim() - min(depth, terms.dim())
    plates = torch.broadcast_shapes(terms.shape[lead:], place.shape)
    terms = terms.expand(*terms.shape[:lead], *plates)
    sizes = list(terms.shape)
    sizes[dim] = 1
    return terms.gather(dim, place.expand(plates).reshape((1,) * lead + tuple(plates)).expand(sizes))
