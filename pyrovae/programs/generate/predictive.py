"""Data that a program generates: from its prior, and from its posterior given data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from torch import Tensor

from ..arguments.marks import unmarked
from ..checks.contract import check_arguments
from ..declaration import declaration_of
from ..handlers.substitute import Substitute
from ..idioms.conditioning import outside
from ..inspection import Program
from ..looking import inspect_program
from ..modes import module_mode
from ..parameters import scratch
from ..plates import ChooseSubsample
from ..seeds import seeded
from ..sites import is_factor, sample_sites

ROWS = 1024  # data run at once


@dataclass(frozen=True)
class Generated:
    """Draws of a program's observed site, and the latents behind them.

    Attributes:
        x: draws of the observed site, `[N, *event]`.
        mean: mean of its distribution given the latents; the draws where it has no mean.
        latents: name to `[N, *event]`.
    """

    x: Tensor
    mean: Tensor
    latents: dict[str, Tensor]

    def __repr__(self) -> str:
        latents = ", ".join(f"{n} {list(v.shape)}" for n, v in self.latents.items())
        return (
            f"Generated(x {list(self.x.shape)}, mean {list(self.mean.shape)}, latents: {latents or 'none'})"
        )

    def rows(self, indices: Tensor) -> Generated:
        """Results for those draws alone."""
        return Generated(
            self.x[indices], self.mean[indices], {n: v[indices] for n, v in self.latents.items()}
        )


def join(parts: Sequence[Generated]) -> Generated:
    """Several draws in one."""
    latents = {n: torch.cat([p.latents[n] for p in parts]) for n in parts[0].latents}
    return Generated(torch.cat([p.x for p in parts]), torch.cat([p.mean for p in parts]), latents)


def simulate(
    model: Callable[..., Any],
    like: Tensor,
    *context: Any,
    seed: int = 0,
    observed: str | None = None,
    plate: str | None = None,
) -> Generated:
    """Draws (x, z) from p(x, z), as many as `like` has rows (its values are not used).

    Raises:
        ValueError: for a model with several observed sites and none named.
    """
    check_arguments(like, missing=True)
    args = (like, *context)
    return _generate(_unobserved(model, args, plate), model, args, seed, observed, plate)


def reconstruct(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    seed: int = 0,
    observed: str | None = None,
    plate: str | None = None,
) -> Generated:
    """Draws x' ~ p(x' | z) with z ~ q(z | x).

    Raises:
        ValueError: for a model with several observed sites and none named.
    """
    check_arguments(x, missing=True)
    args = (x, *context)
    unobserved = _unobserved(model, args, plate)

    def program(*args: Any) -> Any:
        with poutine.block():  # the trace around this program is to see the model alone
            trace = poutine.trace(guide).get_trace(*args)
        return poutine.replay(unobserved, trace=trace)(*args)

    return _generate(program, model, args, seed, observed, plate)


def decode(
    model: Callable[..., Any],
    latents: Mapping[str, Tensor],
    like: Tensor,
    *context: Any,
    seed: int = 0,
    observed: str | None = None,
    means: bool = False,
) -> Generated:
    """Draws x ~ p(x | z) at the latents given; the other latents are drawn from p given those.

    Args:
        model: `model(like, *context)`.
        latents: site name to values in the site's own shape, for as many data as `like` has rows.
        like: data whose values are not used.
        *context: as the model takes it.
        seed: of the draws.
        observed: name of the observed site.
        means: put continuous latents that are not given at the mean of their distribution given
            those before them, instead of drawing them.

    Raises:
        ValueError: for names that are no latents of the model; several observed sites and none named.
    """
    check_arguments(like, missing=True)
    substitute = Substitute(latents)
    args = (like, *context)
    program = substitute(_unobserved(model, args))
    made = _generate(_AtMean(latents)(program) if means else program, model, args, seed, observed)
    unused = [n for n in latents if n not in substitute.used]
    if unused:
        raise ValueError(f"expected latents of the model ({list(made.latents)}), got {unused}")
    return made


def aggregate_posterior(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    num_draws: int,
    seed: int = 0,
    plate: str | None = None,
    observed: str | None = None,
) -> Generated:
    """Draws z from the aggregate posterior q(z) = (1/N) Σ_n q(z | x_n), and x ~ p(x | z).

    Data are taken in random order, each once before any is taken again. Where q(z) differs from
    p(z), these look better than draws from the prior (Makhzani et al. 2015, Hoffman & Johnson 2016).
    https://arxiv.org/abs/1511.05644

    Args:
        model, guide, x, *context, plate: as in `pv.log_weights`.
        num_draws: how many.
        seed: of the draws.
        observed: name of the observed site, for models with several.

    Raises:
        ValueError: for num_draws < 1; a pair that breaks the contract.
    """
    if num_draws < 1:
        raise ValueError(f"expected num_draws >= 1, got {num_draws}")
    program = inspect_program(model, guide, x, *context, plate=plate, vectorised=True)
    args = program.arguments
    with seeded(seed, "aggregate", device=x.device):
        rounds = -(-num_draws // len(x))
        orders = [torch.randperm(len(x), device=x.device) for _ in range(rounds)]
    if args.calling == "whole":  # a run is of all data: one for each time they are taken
        orders[-1] = orders[-1][: num_draws - (rounds - 1) * len(x)]
        chunks = orders
    else:
        chunks = list(torch.cat(orders)[:num_draws].split(args.subsample_size or ROWS))
    return redraw(program, model, guide, chunks, seed=seed, observed=observed)


def redraw(
    program: Program,
    model: Callable[..., Any],
    guide: Callable[..., Any],
    chunks: Sequence[Tensor],
    *,
    seed: int,
    observed: str | None,
) -> Generated:
    """Draws x' ~ p(x' | z), z ~ q(z | x) for the data at the indices in `chunks`, in that order."""
    args = program.arguments
    parts: list[Generated] = []
    for rows in chunks:
        chosen = guide
        if args.subsample_size is not None and args.calling == "indexed":
            # reconstruct() hides the guide from handlers around it.
            padded = torch.cat([rows, rows[-1:].expand(args.subsample_size - len(rows))])
            chosen = ChooseSubsample(args.plate, padded)(guide)
        with program.on(rows) as given:
            part = reconstruct(
                model, chosen, *given, seed=seed + len(parts), observed=observed, plate=program.plate
            )
        kept = rows if args.calling == "whole" else torch.arange(len(rows), device=args.x.device)
        parts.append(part.rows(kept))
    return join(parts)


class _Unobserved(UnconditionMessenger):
    """Draws what is observed, but for sites that are `known`."""

    def __init__(self, known: Collection[str]) -> None:
        super().__init__()
        self.known = known

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] not in self.known:
            super()._pyro_sample(msg)


def _unobserved(
    model: Callable[..., Any], args: tuple[Any, ...], plate: str | None = None
) -> Callable[..., Any]:
    """The model with its data to be drawn; latents outside of the data plate that are conditioned on stay so."""
    with (
        seeded(0, "known", device=args[0].device),
        torch.no_grad(),
        module_mode(model, training=False),
        pyro.validation_enabled(False),
        scratch(model),
        poutine.block(),
        ChooseSubsample(None, None),  # a random one may not fit data of another size
    ):
        trace = poutine.trace(model).get_trace(*unmarked(args))
    sites = outside(trace, plate or declaration_of(model).plate or "data")
    known = [n for n, s in sites.items() if s["is_observed"] and not is_factor(s)]
    changed: Callable[..., Any] = _Unobserved(known)(model)
    return changed


class _AtMean(Messenger):
    """Continuous latents other than those `given` take the mean of their distribution."""

    def __init__(self, given: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.given = given

    def _pyro_sample(self, msg: Any) -> None:
        fn = msg["fn"]
        # uncondition() leaves its note on what was observed: x is drawn all the same.
        if msg["done"] or msg["is_observed"] or msg["infer"].get("was_observed") or msg["name"] in self.given:
            return
        try:
            mean = fn.mean.expand(fn.batch_shape + fn.event_shape)
        except (NotImplementedError, AttributeError):
            return
        if mean.is_floating_point() and not _discrete(fn):
            msg["value"], msg["done"] = mean, True


def _discrete(fn: Any) -> bool:
    try:
        return bool(fn.support.is_discrete)
    except (NotImplementedError, AttributeError):
        return False


def _generate(
    program: Callable[..., Any],
    model: Callable[..., Any],
    args: tuple[Any, ...],
    seed: int,
    name: str | None,
    plate: str | None = None,
) -> Generated:
    if declaration_of(model).density == "bound_only":
        raise ValueError(
            "expected a model that can be drawn from, got one declared density='bound_only': what it observes depends "
            "on the data it is given; try its own sample(), if it has one"
        )
    with (
        seeded(seed, "generate", device=args[0].device),
        torch.no_grad(),
        module_mode(model, training=False),
        pyro.validation_enabled(False),
    ):
        trace = poutine.trace(program).get_trace(*unmarked(args))
    # uncondition() keeps a note of which sites were observed.
    was_observed = [n for n, s in sample_sites(trace) if s["infer"].get("was_observed")]
    name = name or declaration_of(model).observed or (was_observed[0] if len(was_observed) == 1 else None)
    if name not in was_observed:
        raise ValueError(f"expected the name of one observed site of {was_observed}, got {name!r}")
    site: Any = trace.nodes[name]
    try:
        mean = site["fn"].mean.expand(site["value"].shape)
    except (NotImplementedError, AttributeError):
        mean = site["value"]
    if torch.isnan(mean).any():  # torch's answer for a Categorical
        mean = site["value"]
    plate = plate or declaration_of(model).plate or "data"
    latents = {
        n: _rows_first(s, s["value"], plate)
        for n, s in sample_sites(trace)
        if n not in was_observed and not s["is_observed"]
    }
    return Generated(_rows_first(site, site["value"], plate), _rows_first(site, mean, plate), latents)


def _rows_first(site: Any, value: Tensor, plate: str) -> Tensor:
    """Data first, where an inner plate lies left of theirs."""
    dims = [f.dim for f in site["cond_indep_stack"] if f.name == plate and f.vectorized]
    return value.movedim(dims[0] - site["fn"].event_dim, 0) if dims else value
