"""Whether discrete latents can be summed out one by one: what depends on one is in its plates, element by element."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from pyro import plate, poutine
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import InferDict
from torch import Tensor

from ..checks.support import in_support
from ..handlers.substitute import Substitute
from ..inspection import PARTICLES, Program
from ..latents.unequal_totals import UnequalTotals, up_to_the_largest
from ..sites import sample_sites, unscaled_log_prob
from .rounding import InFloat64

DRAWS, ROWS = 4, 16  # few, over all data; of values that any element of a plate may have
# Relative and absolute tolerance, in float64 and in the program's own dtype.
WIDE, NARROW = (1e-10, 1e-6), (1e-3, 1e-3)


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
    try:
        with InFloat64():
            found = _compared(program, names, WIDE)
    except Exception:
        # Kernels and checks of dtypes may not take float64, or the model does not run with listed values at all.
        found = _compared(program, names, NARROW)
    for got in found:
        raise ValueError(_refused(names, got))


def _compared(program: Program, names: Collection[str], tolerance: tuple[float, float]) -> list[str]:
    """Differences of the enumerated run, in words."""
    args = program.arguments
    rows = args.chunks(ROWS)[0]
    if args.calling == "sliced":
        few = min(ROWS, args.num_data)
        places = torch.linspace(0, args.num_data - 1, few, dtype=torch.float64, device="cpu")
        rows = places.long().unique().to(args.x.device)
    depth = program.max_plate_nesting + 1
    with program.quiet(0, "apart"), program.on(rows) as given:
        model = plate(PARTICLES, DRAWS, dim=-depth)(program.model)
        with _Picked(names):  # outermost, so that the trace sees what it picks
            picked = poutine.trace(model).get_trace(*given)
        values = {n: s["value"] for n, s in sample_sites(picked) if not s["is_observed"]}
        alone = poutine.trace(Substitute(values)(model)).get_trace(*given)
        listed = poutine.infer_config(model, lambda site: _listed(site, names))
        try:
            with Substitute({n: v for n, v in values.items() if n not in names}):
                enumerated = EnumMessenger(-depth - 1)(UnequalTotals()(listed))
                trace = poutine.trace(enumerated).get_trace(*given)
        except Exception as error:
            if tolerance == WIDE:
                raise
            words = (str(error).strip().splitlines() or [""])[0]
            return [f"{type(error).__name__}: {words}"]
        other = _other_densities(trace, alone, values, names, depth, tolerance)
    return [f"another density at {site!r} where they are" for site in other]


def _refused(names: Collection[str], got: str) -> str:
    return (
        f"expected a model that runs with the values of {sorted(names)} listed, of size 1 in its plates, as summing "
        f"out one element after the other needs, got {got} (a sum, a product or an index along an inner plate?); try "
        "pv.IS and a guide that draws them (command line: is), or the law of what is made of them all"
    )


def _listed(site: Any, names: Collection[str]) -> InferDict:
    return {"enumerate": "parallel"} if site["name"] in names else {}


class _Picked(Messenger):
    """Puts any value of a discrete latent, element by element, in the place of half of its draws."""

    def __init__(self, names: Collection[str]) -> None:
        super().__init__()
        self.names = names

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] not in self.names or msg["is_observed"]:
            return
        law = msg["fn"]
        support = up_to_the_largest(law).enumerate_support(expand=False).reshape(-1, *law.event_shape)
        other = support[torch.randint(len(support), law.batch_shape, device=support.device)]
        # Of totals that differ, the largest counts are none of a smaller total.
        inside = in_support(law, other).reshape(*law.batch_shape, *(1,) * law.event_dim)
        half = torch.rand(inside.shape, device=inside.device) < 0.5
        msg["value"] = torch.where(inside & half, other.to(msg["value"].dtype), msg["value"])


def _other_densities(
    trace: Any,
    alone: Any,
    values: dict[str, Tensor],
    names: Collection[str],
    depth: int,
    tolerance: tuple[float, float],
) -> list[str]:
    """Sites whose density in the enumerated run, read where the values are, is not that of the run at them."""
    trace.symbolize_dims()
    places: dict[str, Tensor] = {}  # of each symbol: number of the value, in the plates' dims

    def read(terms: Tensor, to_symbol: dict[int, str]) -> Tensor:
        for dim in range(-terms.dim(), -depth):
            if terms.shape[dim] > 1:
                terms = _at(terms, dim, places[to_symbol[dim]], depth)
        return terms.reshape(terms.shape[-depth:])

    wrong = []
    for name, site in sample_sites(trace):
        to_symbol = site["infer"]["_dim_to_symbol"]
        if name in names:
            own = site["infer"]["_enumerate_dim"]
            same = site["value"] == values[name]
            for _ in range(site["fn"].event_dim):
                same = same.all(-1)
            # Listed values may be others for each value of a parent, as the counts up to a total.
            places[to_symbol[own]] = read(same.int().argmax(own, keepdim=True), to_symbol)
        masked = site["is_observed"]
        found = read(unscaled_log_prob(site, masked), to_symbol).double()
        right = unscaled_log_prob(alone.nodes[name], masked).double()
        found, right = torch.broadcast_tensors(found, right)
        if not torch.allclose(found, right, rtol=tolerance[0], atol=tolerance[1], equal_nan=True):
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
